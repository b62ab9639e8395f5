//! On the installed system, once per build: reports that it runs, waits until
//! the boot is complete, runs `verify.sh`, reports that, and forgets the token.

use super::chroot::run_to_end;
use super::journal::{self, Journal, say};
use super::server::{PATIENCE, Server, ServerError};
use crate::model::plan::{BootedReport, InstalledReport, VerifiedReport};
use crate::model::{BuildId, Secret};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Where the agent's configuration lies, readable by root alone.
pub const CONFIG: &str = "/etc/provision/agent.json";

/// The last report of the distribution's installer, kept by `late`.
pub const INSTALLED: &str = "/etc/provision/installed.json";

/// The unit. Not `oneshot`: the boot is complete when everything has started,
/// and what waits for that must not be a part of it.
pub const UNIT: &str = "[Unit]
Description=Reports to the build server that this node is installed
After=network-online.target
Wants=network-online.target
ConditionPathExists=/etc/provision/agent.json

[Service]
Type=exec
ExecStart=/usr/lib/provision/provision-agent node
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
";

/// How long the boot may take after the network is up.
const BOOT: Duration = Duration::from_secs(600);
/// How much of `verify.sh`'s output is reported.
const OUTPUT: usize = 4096;

/// `agent.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Build server, as it was booted from.
    pub server: String,
    /// Token of the build; gone once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Build that made this node.
    pub build: BuildId,
    /// `verify.sh`; gone once it has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<String>,
    /// Seconds it may take.
    pub verify_seconds: u64,
    /// Where the build's log goes on.
    pub log_offset: u64,
    /// Everything reported.
    #[serde(default)]
    pub done: bool,
}

impl NodeConfig {
    /// What stays when all is done: which build this was, and no secrets.
    fn scrubbed(self) -> Self {
        Self { token: None, verify: None, done: true, ..self }
    }
}

/// Runs the reports; exit code 1 makes systemd try again.
pub fn run() -> ExitCode {
    let config: NodeConfig = match fs::read(CONFIG)
        .map_err(|e| e.to_string())
        .and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string()))
    {
        Ok(config) => config,
        Err(e) => {
            eprintln!("{CONFIG}: {e}");
            return ExitCode::SUCCESS;
        }
    };
    let (false, Some(token)) = (config.done, config.token.clone()) else {
        println!("build {} has been reported already", config.build);
        return ExitCode::SUCCESS;
    };
    journal::with(|j| *j = Journal::starting_at(config.log_offset));
    let server = Server::new(&config.server, Secret::new(token));
    match report(&server, &config) {
        Ok(()) => {}
        Err(ServerError::Over(why)) => say(format_args!("the build is over ({why})")),
        Err(e) => {
            say(e);
            return ExitCode::FAILURE;
        }
    }
    match save(Path::new(CONFIG), &config.scrubbed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{CONFIG}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn report(server: &Server, config: &NodeConfig) -> Result<(), ServerError> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let uptime = read("/proc/uptime");
    let uptime = uptime.split('.').next().and_then(|s| s.parse().ok()).unwrap_or(0);
    say(format_args!("installed system runs: kernel {kernel}, up {uptime} s"));
    say_again(server)?;
    server.post_for("/node/booted", &BootedReport { kernel, uptime }, PATIENCE)?;
    send_log(server)?;
    wait_for_boot();
    let verified = verify(config);
    say(format_args!("verify.sh: exit code {}", verified.code));
    send_log(server)?;
    server.post_for("/node/verified", &verified, PATIENCE)
}

/// The installer's last report, in case the server never had it. It says the
/// same the second time.
fn say_again(server: &Server) -> Result<(), ServerError> {
    let Ok(text) = fs::read(INSTALLED) else { return Ok(()) };
    match serde_json::from_slice::<InstalledReport>(&text) {
        Ok(report) => server.post_for("/node/installed", &report, PATIENCE)?,
        Err(e) => say(format_args!("{INSTALLED}: {e}")),
    }
    // What is there no more is not said a third time.
    let _ = fs::remove_file(INSTALLED);
    Ok(())
}

/// The log is worth having, but no reason to wait.
fn send_log(server: &Server) -> Result<(), ServerError> {
    while let Some((offset, text)) = journal::with(|j| j.next()) {
        if !server.post_log(offset, &text)? {
            break;
        }
        journal::with(|j| j.arrived(offset + text.len() as u64));
    }
    Ok(())
}

/// Until systemd has started everything, or something has failed: `verify.sh`
/// says which.
fn wait_for_boot() {
    let mut command = Command::new("systemctl");
    command.args(["is-system-running", "--wait"]);
    match run_to_end("systemctl", command, BOOT, |_| ()) {
        Ok(done) => say(format_args!("boot complete: {}", done.last(1).join(""))),
        Err(e) => say(e),
    }
}

fn verify(config: &NodeConfig) -> VerifiedReport {
    let text = config.verify.as_deref().unwrap_or("#!/bin/sh\n");
    // Not in /run, from which nothing can be executed.
    let path = Path::new("/usr/lib/provision/verify.sh");
    let outcome =
        write_private(path, 0o700, text.as_bytes()).map_err(|e| e.to_string()).and_then(|()| {
            let patience = Duration::from_secs(config.verify_seconds);
            run_to_end("verify.sh", Command::new(path), patience, |line| say(line))
                .map_err(|e| e.to_string())
        });
    let _ = fs::remove_file(path);
    match outcome {
        Ok(done) => VerifiedReport {
            ok: done.code == 0,
            code: done.code,
            output: tail(&done.lines.join("\n"), OUTPUT),
        },
        Err(e) => VerifiedReport { ok: false, code: 126, output: e },
    }
}

/// The end of `text`, at most `bytes` long, not cut inside a character.
fn tail(text: &str, bytes: usize) -> String {
    let mut at = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(at) {
        at += 1;
    }
    text[at..].to_owned()
}

fn save(path: &Path, config: &NodeConfig) -> io::Result<()> {
    let text = serde_json::to_string_pretty(config).map_err(io::Error::other)?;
    let beside = path.with_extension("new");
    write_private(&beside, 0o600, text.as_bytes())?;
    fs::rename(beside, path)
}

fn write_private(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(verify: &str) -> NodeConfig {
        NodeConfig {
            server: "http://10.0.0.1:8080".into(),
            token: Some("secret-token".into()),
            build: BuildId::generate(),
            verify: Some(verify.into()),
            verify_seconds: 1,
            log_offset: 7,
            done: false,
        }
    }

    #[test]
    fn what_stays_on_the_node_has_no_token_and_no_script() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.json");
        save(&path, &config("#!/bin/sh\necho inside\n").scrubbed()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("secret-token") && !text.contains("inside"), "{text}");
        assert!(text.contains("\"done\": true"), "{text}");
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_end_of_the_output_is_what_is_reported() {
        assert_eq!(tail("abcdef", 3), "def");
        assert_eq!(tail("aé", 1), "");
        assert_eq!(tail("ab", 9), "ab");
    }
}
