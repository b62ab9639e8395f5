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
}

fn main() -> ExitCode {
    let args = Args::parse();
    app::log_to_stderr();
    app::daemon::give_memory_back();
    let config = match deployment::load(&args.config) {
        Ok(c) => c,
        Err(e) => {
            eprintln!("deployment-server: {e}");
            return ExitCode::from(2);
        }
    };
    let result = match args.what {
        Some(What::Check) => app::deployment_server::check(&config),
        Some(What::Init) => app::deployment_server::init(&config),
        None => tokio::runtime::Runtime::new()
            .map_err(Into::into)
            .and_then(|rt| rt.block_on(app::deployment_server::run(config))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("deployment-server: {e:#}");
            ExitCode::FAILURE
        }
    }
}
