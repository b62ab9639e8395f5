//! The record of one run of the pipeline: what was asked, what went in, how
//! it ended. Kept for ever; the signed attestation is made from it.

use crate::model::Time;
use crate::model::build::ulid_id;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

ulid_id!(
    /// Identity of a run: `run-` and a ULID.
    RunId, "run-", "^run-[0-9a-z]{26}$", "run-01k9n0w3c4y6x8z2q5v7t9r1s4"
);

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Waits; `reason` says for what.
    Queued,
    /// Under way; `reason` says with what.
    Running,
    /// The image is in the registry and attested.
    Done,
    /// Not done; `reason` says why.
    Failed,
    /// Ended on somebody's wish.
    Cancelled,
}

impl RunState {
    /// Nothing more will happen.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        })
    }
}

/// What a run is made from, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Origin {
    /// A folder on the server.
    Folder {
        /// Which.
        #[schema(value_type = String)]
        path: PathBuf,
    },
    /// A git repository.
    Git {
        /// Its address, without credentials.
        url: String,
        /// Branch, tag or commit that was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
        /// Folder in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        folder: Option<PathBuf>,
    },
    /// A tar that was sent to us.
    Upload {
        /// What the sender called it.
        label: String,
    },
    /// A root file system from the archive of Debian.
    Debian {
        /// `12` or `13`.
        release: String,
    },
    /// An image in a file or directory on the server.
    ImageFile {
        /// Which.
        #[schema(value_type = String)]
        path: PathBuf,
    },
    /// An image in another registry.
    Registry {
        /// `HOST/NAME:TAG`.
        reference: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { path } | Self::ImageFile { path } => path.display().fmt(f),
            Self::Git { url, reference: Some(r), .. } => write!(f, "{url}#{r}"),
            Self::Git { url, .. } => f.write_str(url),
            Self::Upload { label } => write!(f, "upload {label}"),
            Self::Debian { release } => write!(f, "debian:{release}"),
            Self::Registry { reference } => f.write_str(reference),
        }
    }
}

/// An image that a build started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UsedBase {
    /// As the Dockerfile names it.
    pub name: String,
    /// Of its manifest or index, in our registry.
    pub digest: String,
}

/// Which program built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BuilderIdentity {
    /// `buildah`, `docker`, `mmdebstrap`, `skopeo`.
    pub name: String,
    /// As it says itself.
    pub version: String,
}

/// One run. Field names are part of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Run {
    /// Identity.
    pub id: RunId,
    /// Repository in our registry, such as `staging/web`.
    pub repository: String,
    /// Name without the folder: `web`.
    pub name: String,
    /// Tag; empty until it is known, when it comes from the commit.
    pub tag: String,
    /// What it is made from.
    pub source: Origin,
    /// Who asked.
    pub asked_by: String,
    /// Path of the Dockerfile in the source.
    pub dockerfile: String,
    /// Stage asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Build arguments. No place for secrets: they are shown and recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
    /// The build could reach the network.
    #[serde(default)]
    pub network: bool,
    /// Git commit of the source.
    pub commit: Option<String>,
    /// When that commit was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub committed: Option<Time>,
    /// The folder differed from the commit.
    #[serde(default)]
    pub dirty: bool,
    /// Of the Dockerfile as written.
    pub dockerfile_digest: Option<String>,
    /// Of all files of the context.
    pub context_digest: Option<String>,
    /// Images it started from.
    pub bases: Vec<UsedBase>,
    /// What built it.
    pub builder: Option<BuilderIdentity>,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub asked: Time,
    /// When it left the queue.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started: Option<Time>,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Time>,
    /// How far it is.
    pub state: RunState,
    /// Why it waits, what it does, why it failed.
    pub reason: Option<String>,
    /// Of the manifest in our registry.
    pub image_digest: Option<String>,
    /// Of the attestation's manifest.
    pub attestation_digest: Option<String>,
    /// What was said meanwhile, line by line.
    #[schema(value_type = String)]
    pub log: PathBuf,
}

impl Run {
    /// `staging/web:1.2`.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

/// Something to show: to `watch` and to SSE.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Notice {
    /// A run changed.
    Run(Box<Run>),
    /// A line of its log.
    Line {
        /// Which run.
        id: RunId,
        /// The line.
        line: String,
    },
}
