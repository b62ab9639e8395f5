//! What the pipeline is set up with, and what it is asked.

use super::context::git::Commit;
use super::context::git::GitSettings;
use super::context::{ContextError, Limits};
use super::queue::QueueError;
use super::run::RunState;
use crate::model::Invalid;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Which program builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuilderChoice {
    /// Buildah if it is there, otherwise docker.
    #[default]
    Auto,
    /// Buildah.
    Buildah,
    /// The docker engine.
    Docker,
}

/// Settings. [`PipelineSettings::new`] has defaults for all but the directory.
#[derive(Debug, Clone)]
pub struct PipelineSettings {
    /// Own directory: work in progress, logs, cache. An absolute path without
    /// colons and blanks, which builders would read as something else.
    pub dir: PathBuf,
    /// Key that signs attestations; made if it is not there.
    pub signing_key: PathBuf,
    /// Names, with port, by which Dockerfiles may call our registry.
    pub registry_hosts: Vec<String>,
    /// Folders from which sources and image files may be taken.
    pub source_roots: Vec<PathBuf>,
    /// Git.
    pub git: GitSettings,
    /// Of one source.
    pub limits: Limits,
    /// Builds at once.
    pub at_once: usize,
    /// Builds that may wait.
    pub queue: usize,
    /// For one build, without its time in the queue; also for one upload.
    pub deadline: Duration,
    /// Whether a request may ask for a build with network.
    pub allow_network: bool,
    /// Program.
    pub builder: BuilderChoice,
    /// Docker engine, such as `unix:///run/docker.sock`; otherwise docker's own.
    pub docker_host: Option<String>,
    /// Who vouches, in attestations: a URI.
    pub builder_id: String,
    /// Configuration of apt, for base images.
    pub apt: PathBuf,
    /// Other registries that base images may come from.
    pub remotes: Vec<Remote>,
}

/// Another registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Of images whose name begins so.
    pub prefix: String,
    /// Directory with `ca.crt` and the like.
    pub certificates: Option<PathBuf>,
    /// Login, as `docker login` writes it.
    pub auth_file: Option<PathBuf>,
}

impl PipelineSettings {
    /// Defaults, everything of it in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            signing_key: dir.join("attestation.key"),
            dir,
            registry_hosts: Vec::new(),
            source_roots: Vec::new(),
            git: GitSettings::default(),
            limits: Limits::default(),
            at_once: 1,
            queue: 20,
            deadline: Duration::from_secs(3600),
            allow_network: false,
            builder: BuilderChoice::Auto,
            docker_host: None,
            builder_id: "urn:provision:deployment-server".to_owned(),
            apt: "/etc/apt".into(),
            remotes: Vec::new(),
        }
    }
}

/// What to build from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A folder on the server, below one of `source_roots`.
    Folder(PathBuf),
    /// A git repository.
    Git {
        /// `https://…`, `ssh://…`, `user@host:path`.
        url: String,
        /// Branch, tag or commit; otherwise the default branch.
        reference: Option<String>,
        /// Folder in it that is the context; otherwise its top.
        folder: Option<PathBuf>,
    },
    /// From [`super::Pipeline::receive`].
    Upload(Upload),
}

/// A tar that was received, unpacked or as it is. Gone when the last copy is dropped.
#[derive(Debug, Clone)]
pub struct Upload {
    pub(super) label: String,
    pub(super) dir: Arc<OwnDir>,
    /// What the sender says it is a copy of.
    pub(super) commit: Option<Commit>,
}

impl Upload {
    /// The same, of a working copy, as its sender says.
    ///
    /// # Errors
    /// What cannot be a commit.
    pub fn of_commit(self, commit: Commit) -> Result<Self, Invalid> {
        let id = &commit.id;
        let hex = id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !matches!(id.len(), 40 | 64) || !hex {
            return Err(Invalid::new("commit", id, "40 or 64 lower-case hexadecimal digits"));
        }
        Ok(Self { commit: Some(commit), ..self })
    }
}

/// A directory that goes when this goes.
#[derive(Debug)]
pub(super) struct OwnDir(pub PathBuf);

impl Drop for OwnDir {
    fn drop(&mut self) {
        // What cannot be removed now goes at the next start.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One wish.
#[derive(Debug, Clone)]
pub struct Request {
    /// From what.
    pub source: Source,
    /// Name below `staging/`; otherwise that of the folder or repository.
    pub name: Option<String>,
    /// Tag; otherwise the commit's first twelve digits, or the time.
    pub tag: Option<String>,
    /// Path of the Dockerfile in the context; otherwise `Dockerfile`.
    pub dockerfile: Option<String>,
    /// Stage to build; otherwise the last.
    pub target: Option<String>,
    /// Build arguments. No secrets: they are in records and lists of processes.
    pub arguments: BTreeMap<String, String>,
    /// With network, if that is allowed.
    pub network: bool,
    /// Who asks.
    pub asked_by: String,
}

impl Request {
    /// With nothing but a source.
    pub fn new(source: Source, asked_by: &str) -> Self {
        Self {
            source,
            name: None,
            tag: None,
            dockerfile: None,
            target: None,
            arguments: BTreeMap::new(),
            network: false,
            asked_by: asked_by.to_owned(),
        }
    }
}

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A value.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Another folder.
    #[error("{} is not below a folder that may be built from ({allowed})", path.display())]
    Folder {
        /// Asked for.
        path: PathBuf,
        /// Allowed.
        allowed: String,
    },
    /// Another registry.
    #[error(
        "{name} is not in a registry that base images may be taken from ({allowed}): the administrator adds it as [[ingest.import]], or import it from a file"
    )]
    Registry {
        /// Asked for.
        name: String,
        /// Allowed.
        allowed: String,
    },
    /// A source that cannot be used.
    #[error(transparent)]
    Source(#[from] ContextError),
    /// Network.
    #[error(
        "builds with network are not allowed here: put what the build needs into a base image, or let the administrator allow it"
    )]
    Network,
    /// Full.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// No program.
    #[error("{0}")]
    NoBuilder(String),
    /// Shutting down.
    #[error("the server is stopping: ask again when it is back")]
    Closing,
    /// The record could not be written.
    #[error("the record of the build could not be written: {0}")]
    Keep(String),
    /// No such run.
    #[error("there is no run {0}")]
    Unknown(String),
    /// Too late.
    #[error("run {id} is {state} already")]
    Over {
        /// Which.
        id: String,
        /// How it ended.
        state: RunState,
    },
    /// A file of our own.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The signing key.
    #[error(transparent)]
    Key(#[from] crate::tls::TlsError),
    /// Made impossible by how it was set up.
    #[error("{0}")]
    Settings(String),
}
