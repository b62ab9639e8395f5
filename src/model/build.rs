//! A build: one run that puts an image and a profile on a node.

use super::{Digest, Name, NodeName, OperationId, Phase, PhaseRecord, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

macro_rules! ulid_id {
    ($(#[$doc:meta])* $ty:ident, $prefix:literal, $pattern:tt, $example:tt) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, pattern = $pattern, example = $example)]
        pub struct $ty(String);

        impl $ty {
            /// A new one, sorting after all earlier ones.
            pub fn generate() -> Self {
                Self(format!(concat!($prefix, "{}"), ulid::Ulid::new().to_string().to_lowercase()))
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $ty {
            type Err = $crate::model::Invalid;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                let rest = s.strip_prefix($prefix).unwrap_or("");
                if rest.len() == 26 && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
                    Ok(Self(s.to_owned()))
                } else {
                    Err($crate::model::Invalid::new(
                        "id", s, concat!("'", $prefix, "' and 26 lower-case letters and digits")))
                }
            }
        }

        impl TryFrom<String> for $ty {
            type Error = $crate::model::Invalid;
            fn try_from(s: String) -> Result<Self, Self::Error> { s.parse() }
        }

        impl From<$ty> for String {
            fn from(id: $ty) -> String { id.0 }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(&self.0) }
        }

        impl fmt::Debug for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    };
}
pub(crate) use ulid_id;

ulid_id!(
    /// Identity of a build: `b-` and a ULID, so that it sorts by time.
    BuildId, "b-", "^b-[0-9a-z]{26}$", "b-01k9n0w3c4y6x8z2q5v7t9r1s3"
);

/// How an image gets onto a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The agent writes a root file system.
    #[default]
    Image,
    /// The Debian installer.
    Preseed,
    /// The Ubuntu installer.
    Autoinstall,
}

impl Method {
    /// The distribution's own installer runs on the node, not the agent.
    pub fn is_installer(self) -> bool {
        self != Method::Image
    }

    fn is_image(&self) -> bool {
        *self == Method::Image
    }
}

/// The mirror that a build took its packages from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MirrorUsed {
    /// Name.
    pub name: Name,
    /// Digest of its description, which names every file's digest.
    pub digest: Digest,
}

/// What went into a build, enough to make the same one again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BuildInputs {
    /// Image name.
    pub image: Name,
    /// How it gets onto the disk.
    #[serde(default, skip_serializing_if = "Method::is_image")]
    pub method: Method,
    /// Digest of the image's description, which names every file's digest.
    pub image_digest: Digest,
    /// Profile name.
    pub profile: Name,
    /// Digest of the profile's directory.
    pub profile_digest: Digest,
    /// Whether the profile came baked into the image.
    pub baked: bool,
    /// Mirror, where the packages came from one and not from the archives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorUsed>,
    /// Commit of the configuration, `-dirty` appended where it had changes;
    /// absent where the configuration is not in version control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_commit: Option<String>,
    /// Digests of the templates that were rendered, by file name.
    #[serde(default)]
    pub templates: BTreeMap<String, Digest>,
    /// Version of the program.
    #[schema(example = "0.1.0")]
    pub version: String,
}

/// A text that was rendered for a build, such as a preseed file or a boot
/// script; the build's token is left out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rendering {
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// File name, such as `preseed.cfg`.
    #[schema(example = "preseed.cfg")]
    pub file: String,
    /// The text.
    pub text: String,
    /// Digests of the templates it was made from, by file name; empty for boot
    /// scripts, whose templates the build's inputs name.
    #[serde(default)]
    #[schema(required = true)]
    pub templates: BTreeMap<String, Digest>,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BuildOutcome {
    /// Not ended.
    Running,
    /// Verified.
    Deployed,
    /// Failed, see `reason`.
    Failed,
    /// Given up by request.
    Cancelled,
}

/// The record of one build, kept for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Build {
    /// Identity.
    pub id: BuildId,
    /// Node.
    pub node: NodeName,
    /// The operation that answers for it.
    pub operation: OperationId,
    /// Who asked.
    #[schema(example = "ada")]
    pub actor: String,
    /// Inputs.
    pub inputs: BuildInputs,
    /// Where it is; the last phase once ended.
    pub phase: Phase,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Every phase that was entered.
    pub phases: Vec<PhaseRecord>,
    /// Outcome.
    pub outcome: BuildOutcome,
    /// Why it failed, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the installer asks and waits for, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// Start.
    #[schema(value_type = String, format = DateTime)]
    pub started: Time,
    /// End.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Time>,
    /// Digest over everything put on the disk, identity left out: equal for
    /// two installs of the same inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The disk that was written, as the agent names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
}

#[cfg(test)]
impl Build {
    /// One that has just been ordered, for tests.
    pub fn example(node: &str, started: Time) -> Self {
        let name = |text: &str| text.parse().unwrap();
        let inputs = BuildInputs {
            image: name("debian-12"),
            method: Method::default(),
            image_digest: Digest::of(b"i"),
            profile: name("docker"),
            profile_digest: Digest::of(b"p"),
            baked: true,
            mirror: None,
            config_commit: None,
            templates: BTreeMap::new(),
            version: "0".into(),
        };
        Self::ordered(node.parse().unwrap(), OperationId::generate(), "ada".into(), inputs, started)
    }
}

impl Build {
    /// One that has just been ordered: nothing is done yet.
    pub fn ordered(
        node: NodeName,
        operation: OperationId,
        actor: String,
        inputs: BuildInputs,
        now: Time,
    ) -> Self {
        Self {
            id: BuildId::generate(),
            node,
            operation,
            actor,
            inputs,
            phase: Phase::Power,
            attempt: 1,
            phases: Vec::new(),
            outcome: BuildOutcome::Running,
            reason: None,
            question: None,
            started: now,
            ended: None,
            manifest: None,
            disk: None,
        }
    }

    /// The record of the running phase.
    pub fn current(&self) -> Option<&PhaseRecord> {
        self.phases.last()
    }
}
