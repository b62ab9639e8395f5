//! The deployment server: registry and ingest. Not part of this release.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!(
        "deployment-server {}: the container registry and the ingest pipeline are not part of \
         this release; build-server installs nodes without them",
        env!("CARGO_PKG_VERSION")
    );
    ExitCode::FAILURE
}
