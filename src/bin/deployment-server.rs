//! The deployment server: container registry, certificates of nodes.

use clap::{Parser, Subcommand};
use provision::{app, config::deployment};
use std::path::PathBuf;
use std::process::ExitCode;

/// A container registry that nodes can trust, and what fills it.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  deployment-server init\n  deployment-server --config /etc/provision/deployment-server.toml"
)]
struct Args {
    /// Configuration file.
    #[arg(long, default_value = "/etc/provision/deployment-server.toml")]
    config: PathBuf,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Make authority, certificate and admin token, and say where they are.
    Init,
    /// Check the configuration.
    Check,
    /// Copy images, database and keys to a directory; only what is new.
    Backup(app::backup::BackupArgs),
    /// Restore a backup into an empty state directory.
    Restore(app::backup::RestoreArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    app::log_to_stderr();
    app::daemon::give_memory_back();
    let fail = |e: String, code: u8| {
        eprintln!("deployment-server: {e}");
        ExitCode::from(code)
    };
    let config = match deployment::load(&args.config) {
        Ok(c) => c,
        Err(e) => return fail(e.to_string(), 2),
    };
    let result = match &args.what {
        Some(What::Check) => app::deployment_server::check(&config),
        Some(What::Init) => app::deployment_server::init(&config),
        Some(What::Backup(a)) => app::backup::backup(&config, a),
        Some(What::Restore(a)) => app::backup::restore(&config, a),
        None => tokio::runtime::Runtime::new()
            .map_err(Into::into)
            .and_then(|rt| rt.block_on(app::deployment_server::run(config))),
    };
    result.map_or_else(|e| fail(format!("{e:#}"), 1), |()| ExitCode::SUCCESS)
}
