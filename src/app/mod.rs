//! The daemons, put together: configuration → parts → run → orderly stop.
//!
//! `build_server` opens everything it needs before it serves anything, so a
//! fault is a message and not half a server. `boots` is the rack as DHCP and
//! booting see it, `observer` takes what they saw into the record, `bmcs`
//! switches power, `dhcp_settings` says what DHCP serves, `services` opens
//! names, time and logs, `names` says who is called what, `packages` is the
//! cache, `images` builds images and `mirrors` mirrors, `installer_files` has what the
//! distributions' installers fetch and `installer_log` what they say,
//! `console` what machines write on theirs, `certifier` asks for nodes' certificates, `software` what the deployment
//! server has, `check` is `build-server check`.
//!
//! `deployment_server` is the other daemon, `peer` its TLS that knows the
//! client, `shelf` the registry as ingest sees it, `upkeep` what it does by
//! the clock, `backup` its copies, `images_at` where its images are, `follow`
//! takes in those of another one, `ingest` is its pipeline and webhooks. Both
//! have `daemon`, `tokens`, `listen` (the sockets), `certificate`, which lets a
//! new one take the place of theirs, and `claim`, which sees to it that one
//! server writes to a store. Only `bin` calls this.

pub mod backup;
pub mod bmcs;
pub mod boots;
pub mod build_server;
pub mod certificate;
pub mod certifier;
pub mod check;
pub mod claim;
pub mod console;
pub mod courier;
pub mod daemon;
pub mod deployment_server;
pub mod dhcp_settings;
pub mod follow;
pub mod images;
pub mod images_at;
pub mod ingest;
pub mod installer_files;
pub mod installer_log;
pub mod listen;
pub mod mirrors;
pub mod names;
pub mod observer;
pub mod oui;
pub mod packages;
pub mod peer;
pub mod services;
pub mod shelf;
pub mod software;
pub mod tokens;
pub mod upkeep;

/// Logging for a daemon: one line an event, with fields, to standard error;
/// `RUST_LOG` chooses what.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = tracing_subscriber::fmt()
        .with_ansi(colour)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
