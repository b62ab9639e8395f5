//! `provision-agent finish`: in the root of a system that the distribution's
//! installer has made, the steps that the agent takes itself where it writes
//! the image. Called by `late`, before the profile's scripts.

use super::node::{CONFIG, NodeConfig};
use super::registry;
use super::server::Server;
use super::target::{Kind, Target};
use crate::model::Secret;
use crate::model::plan::InstallPlan;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// Where `apt` looks besides `sources.list`.
const MORE_SOURCES: &str = "/etc/apt/sources.list.d";

/// Exit code 1, with the reason on standard error.
pub fn run() -> ExitCode {
    match finish() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn finish() -> Result<(), String> {
    let text = fs::read(CONFIG).map_err(|e| format!("{CONFIG}: {e}"))?;
    let config: NodeConfig = serde_json::from_slice(&text).map_err(|e| format!("{CONFIG}: {e}"))?;
    let token = config.token.ok_or_else(|| format!("{CONFIG}: there is no token"))?;
    let server = Server::new(&config.server, Secret::new(token));
    let plan: InstallPlan = server.get("/node/plan").map_err(|e| e.to_string())?;
    let mut target = Target::here(Path::new("/"));
    if !plan.apt_sources.is_empty() {
        // The installer's own list names the mirror as the installer saw it.
        let path = "/etc/apt/sources.list";
        target
            .write(path, 0o644, Kind::Common, &plan.apt_sources)
            .map_err(|e| format!("{path}: {e}"))?;
        for entry in fs::read_dir(MORE_SOURCES).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
    if let Some(r) = &plan.registry {
        registry::enrol(&mut target, plan.node.as_str(), r, &server).map_err(|e| e.to_string())?;
    }
    Ok(())
}
