//! The operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(rt) => {
            let code = rt.block_on(provision::cli::run());
            // Standard input may be read on a thread that nobody can stop.
            rt.shutdown_background();
            code
        }
        Err(e) => {
            eprintln!("provision: {e}");
            ExitCode::FAILURE
        }
    }
}
