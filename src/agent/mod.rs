//! What runs on the node.
//!
//! As `/init` of the installer's ramdisk ([`install`]): loads drivers, brings
//! up the network, tells the server what machine this is, asks for the plan,
//! chooses a disk, writes the image, gives the node its identity, applies the
//! profile, installs the boot loader, restarts. On the installed system
//! ([`node`]): tells the server that it runs, runs the profile's `verify.sh`,
//! and is done for good; where there is a registry, [`registry`] renews the
//! node's certificate and [`workload`] tells what runs in the [`engine`].
//! Where the distribution's own installer makes the node, [`finish`] does what
//! that cannot.
//!
//! Two rules hold everywhere. Nothing on a disk is touched before the plan has
//! come and exactly one disk fits it. And whatever happens is told: to the
//! server with a reason that can be acted on, and on the console; then the
//! agent waits, it never restarts in a loop.
//!
//! It may use `model`, of `image` the formats it shares with the builder, and
//! of `tls` what makes a key and its request.
//! It is called by `bin/provision-agent` alone, linked statically, and must
//! work with nothing but busybox beside it.

pub mod bootloader;
pub mod bootorder;
pub mod chroot;
pub mod cmdline;
pub mod disk;
pub mod engine;
pub mod facts;
pub mod filesystem;
pub mod finish;
pub mod identity;
pub mod install;
pub mod journal;
pub mod kmod;
pub mod manifest;
pub mod network;
pub mod node;
pub mod partition;
pub mod profile;
pub mod registry;
pub mod report;
pub mod restart;
pub mod server;
pub mod stream;
pub mod target;
pub mod workload;

use crate::model::Phase;

/// Why a build cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Something failed in a phase; the text is for the operator.
    #[error("{reason}")]
    Failed {
        /// Where.
        phase: Phase,
        /// Why.
        reason: String,
    },
    /// The server says that this build is over: the token is not good, or not
    /// good any more. Nothing is touched from here on.
    #[error("the server says that this build is over ({0})")]
    Over(String),
}

impl AgentError {
    /// A failure in `phase`.
    pub fn failed(phase: Phase, reason: impl std::fmt::Display) -> Self {
        Self::Failed { phase, reason: reason.to_string() }
    }
}

/// Gives errors the phase in which they ended the build.
pub trait InPhase<T> {
    /// The error as a failure in `phase`, `what` said before it.
    fn in_phase(self, phase: Phase, what: &str) -> Result<T, AgentError>;
}

impl<T, E: std::fmt::Display> InPhase<T> for Result<T, E> {
    fn in_phase(self, phase: Phase, what: &str) -> Result<T, AgentError> {
        self.map_err(|e| AgentError::failed(phase, format_args!("{what}: {e}")))
    }
}

/// The agent's `main`: `/init` when it is process 1, else `provision-agent
/// node`.
pub fn main() -> std::process::ExitCode {
    if std::process::id() == 1 {
        install::as_init();
    }
    match std::env::args().nth(1).as_deref() {
        Some("node") => node::run(),
        Some("renew") => registry::renew(std::env::args().any(|a| a == "--now")),
        Some("watch") => workload::run(),
        Some("finish") => finish::run(),
        Some("--version") => {
            println!("provision-agent {}", env!("CARGO_PKG_VERSION"));
            std::process::ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "usage: provision-agent node | renew [--now] | watch | finish, or as /init of the installer's ramdisk"
            );
            std::process::ExitCode::from(2)
        }
    }
}
