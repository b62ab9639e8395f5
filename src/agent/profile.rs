//! Applies a profile that is not baked into the image: its scripts, in order,
//! in the new system's root. Nothing may start there: `policy-rc.d` says so to
//! every package.

use super::AgentError;
use super::chroot::run_command;
use super::journal::say;
use super::report::Reporter;
use super::target::{Kind, Target};
use crate::model::Phase;
use crate::model::plan::ProfilePlan;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// How long one script may take: a slow mirror, not a question nobody hears.
const PATIENCE: Duration = Duration::from_secs(40 * 60);

/// Runs the scripts.
pub fn apply(
    target: &mut Target,
    profile: &ProfilePlan,
    reporter: &Reporter,
) -> Result<(), AgentError> {
    let failed = |reason: String| AgentError::failed(Phase::Profile, reason);
    let name = &profile.name;
    if profile.scripts.is_empty() {
        return Ok(());
    }
    let policy = "/usr/sbin/policy-rc.d";
    target
        .write(policy, 0o755, Kind::Identity, "#!/bin/sh\nexit 101\n")
        .map_err(|e| failed(format!("{policy}: {e}")))?;
    let total = profile.scripts.len();
    for (n, script) in profile.scripts.iter().enumerate() {
        reporter.check()?;
        say(format_args!("profile {name}: {} ({} of {total})", script.name, n + 1));
        // In the tmpfs over /run: gone by itself.
        let path = format!("/run/provision/{n:03}-{}", script.name);
        target
            .write(&path, 0o700, Kind::Identity, &script.text)
            .map_err(|e| failed(format!("{path}: {e}")))?;
        let mut command = Command::new("/bin/busybox");
        command.arg("chroot").arg(target.root()).arg(&path);
        run_command(&script.name, command, PATIENCE, |line| say(format_args!("  {line}")))
            .map_err(|e| failed(format!("profile '{name}': {e}")))?;
    }
    fs::remove_file(target.path(policy)).map_err(|e| failed(format!("{policy}: {e}")))?;
    // What apt fetched is of no use to the node.
    for dir in ["/var/cache/apt/archives", "/var/lib/apt/lists"] {
        remove_files(&target.path(dir));
    }
    Ok(())
}

/// Best effort: leftovers cost space, nothing else.
fn remove_files(dir: &std::path::Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.filter_map(Result::ok).map(|e| e.path()) {
        if path.is_file() {
            let _ = fs::remove_file(path);
        }
    }
}
