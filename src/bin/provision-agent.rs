//! The agent on the node; see `provision::agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    provision::agent::main()
}
