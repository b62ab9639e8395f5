//! The build server: DHCP, TFTP, HTTP boot, power, inventory, API.

use clap::{Parser, Subcommand};
use provision::{app, config};
use std::path::PathBuf;
use std::process::ExitCode;

/// Turns powered-off servers into installed, verified, named nodes.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  build-server\n  build-server --config /etc/provision/build-server.toml check"
)]
struct Args {
    /// Configuration file.
    #[arg(long, default_value = "/etc/provision/build-server.toml")]
    config: PathBuf,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Check the configuration and say what would be served.
    Check,
}

fn main() -> ExitCode {
    let args = Args::parse();
    app::log_to_stderr();
    let config = match config::load(&args.config) {
        Ok(c) => c,
        Err(e) => {
            eprintln!("build-server: {e}");
            return ExitCode::from(2);
        }
    };
    let result = match args.what {
        Some(What::Check) => app::check::check(&config),
        None => tokio::runtime::Runtime::new()
            .map_err(Into::into)
            .and_then(|rt| rt.block_on(app::build_server::run(config))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("build-server: {e:#}");
            ExitCode::FAILURE
        }
    }
}
