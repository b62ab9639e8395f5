//! Programs that turn a context and a Dockerfile into an image. Both get their
//! base images from files and have no network unless it is allowed; what they
//! make leaves as an OCI layout. They block and are called on threads for that.

pub mod buildah;
pub mod docker;

use super::context::ContextError;
use super::run::BuilderIdentity;
use super::settings::{BuilderChoice, PipelineSettings};
use crate::image::build::Progress;
use crate::image::child::{ChildError, clean_environment};
use crate::model::Digest;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// One image to build.
#[derive(Debug)]
pub struct Job<'a> {
    /// Unique: for names in the engine.
    pub id: &'a str,
    /// Directory for this job alone.
    pub work: &'a Path,
    /// What `COPY` sees.
    pub context: &'a Path,
    /// The Dockerfile, with exact base images.
    pub dockerfile: &'a Path,
    /// Layouts of the base images, directly in `work`, and their digests.
    pub bases: &'a [(PathBuf, Digest)],
    /// Stage.
    pub target: Option<&'a str>,
    /// Build arguments.
    pub arguments: &'a BTreeMap<String, String>,
    /// With network.
    pub network: bool,
    /// Time of everything in the image, in seconds since 1970, where the
    /// program can do that: the same source then gives the same image.
    pub epoch: u64,
    /// OCI layout to write, not there yet.
    pub out: &'a Path,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailure {
    /// A step of the Dockerfile.
    #[error("step {step} failed: {why}; it said last:\n{}", .last.join("\n"))]
    Step {
        /// As in the Dockerfile.
        step: String,
        /// Exit status.
        why: String,
        /// Last lines.
        last: Vec<String>,
    },
    /// The program.
    #[error(transparent)]
    Child(ChildError),
    /// A file.
    #[error(transparent)]
    File(#[from] ContextError),
    /// Ended on somebody's wish.
    #[error("cancelled")]
    Cancelled,
}

impl From<ChildError> for BuildFailure {
    fn from(e: ChildError) -> Self {
        match e {
            ChildError::Cancelled => Self::Cancelled,
            other => Self::Child(other),
        }
    }
}

/// A program that builds.
pub trait Builder: Send + Sync {
    /// Which, for the record.
    fn identity(&self) -> BuilderIdentity;
    /// How the Dockerfile has to name a base image.
    fn exact(&self, layout: &Path, digest: &Digest) -> String;
    /// Builds.
    fn build(&self, job: &Job<'_>, progress: &mut dyn Progress) -> Result<(), BuildFailure>;
}

/// The one that `settings` ask for, if it is there; `dir` is for trying it out.
pub fn find(settings: &PipelineSettings, dir: &Path) -> Result<Arc<dyn Builder>, String> {
    let docker = || -> Result<Arc<dyn Builder>, String> {
        Ok(Arc::new(docker::Docker::find(settings.docker_host.as_deref())?))
    };
    let buildah =
        || -> Result<Arc<dyn Builder>, String> { Ok(Arc::new(buildah::Buildah::find(dir)?)) };
    match settings.builder {
        BuilderChoice::Buildah => buildah(),
        BuilderChoice::Docker => docker(),
        BuilderChoice::Auto => {
            buildah().or_else(|b| docker().map_err(|d| format!("nothing here can build: {b}; {d}")))
        }
    }
}

/// Name and version from what `--version` prints; `None` if it does not run.
///
/// `command` should end by itself: those that ask a daemon go through
/// `timeout`.
pub(super) fn identity_of(name: &str, command: &mut Command) -> Option<BuilderIdentity> {
    let out = command.stdin(std::process::Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let number = text.split_whitespace().find(|w| w.starts_with(|c: char| c.is_ascii_digit()));
    let version = number.unwrap_or("unknown").trim_end_matches(',').to_owned();
    out.status.success().then(|| BuilderIdentity { name: name.to_owned(), version })
}

/// What a program may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sandbox {
    /// The host's network.
    Network,
    /// A loopback interface of its own.
    NoNetwork,
}

/// `script` with `sh -eu` in namespaces of its own, which end with it: mounts,
/// processes, messages, host name, and network if that is not allowed; with
/// none of the host's disks and other devices.
pub(super) fn sandboxed(script: &str, arguments: &[&OsStr], sandbox: Sandbox) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
    command.args(["--mount-proc", "--ipc", "--uts"]);
    let prelude = include_str!("../scripts/sandbox.sh");
    let mut whole = format!("{prelude}{script}");
    if sandbox == Sandbox::NoNetwork {
        command.arg("--net");
        // Programs that talk to themselves still can.
        whole = format!("ip link set lo up 2>/dev/null || :\n{whole}");
    }
    command.args(["sh", "-euc", &whole, "provision"]).args(arguments);
    clean_environment(&mut command);
    command
}
