//! The second server host of a lab: a network namespace inside the lab's, on
//! a port of its own of the switch, with a deployment server in it. What the
//! registry sends crosses that port and no other, and is counted there.

use super::{Lab, LabError, io_at, net::run, provision_exe};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The deployment server's address in every lab.
pub const ADDRESS: &str = "10.77.0.2";
/// The switch's end of its link.
pub const PORT: &str = "dep0";
const HOLDER: &str = "holder.pid";

impl Lab {
    /// The second host's directory.
    pub fn second_dir(&self) -> PathBuf {
        self.dir.join("deployment")
    }

    /// `--server` for the command line.
    pub fn deployment_url(&self) -> String {
        format!("unix:{}", self.second_dir().join("api.sock").display())
    }

    /// The registry, as in image names.
    pub fn registry(&self) -> String {
        format!("{ADDRESS}:5000")
    }

    /// A command that runs on the second host.
    pub fn second_command(&self, program: impl AsRef<OsStr>) -> Command {
        let pid = fs::read_to_string(self.second_dir().join(HOLDER)).unwrap_or_default();
        let mut c = self.command("nsenter");
        c.arg(format!("--net=/proc/{}/ns/net", pid.trim())).arg("--").arg(program);
        c
    }

    /// Bytes that crossed the second host's link: from it, to it.
    pub fn second_bytes(&self) -> Result<(u64, u64), LabError> {
        self.link_bytes(PORT)
    }

    /// Bytes that crossed the build server's: to it, from it. The switch's own
    /// port counts what ends there, not what is only passed on.
    pub fn build_server_bytes(&self) -> Result<(u64, u64), LabError> {
        self.link_bytes("br0")
    }

    fn link_bytes(&self, port: &str) -> Result<(u64, u64), LabError> {
        let mut c = self.command("ip");
        let out = c
            .args(["-s", "-j", "link", "show", "dev", port])
            .output()
            .map_err(|e| LabError::Tool { what: "ip".into(), why: e.to_string() })?;
        let v: serde_json::Value = serde_json::from_slice(&out.stdout)
            .map_err(|e| LabError::Tool { what: "ip -s link".into(), why: e.to_string() })?;
        let n = |way: &str| v[0]["stats64"][way]["bytes"].as_u64().unwrap_or(0);
        Ok((n("rx"), n("tx")))
    }

    /// Makes the host and its link.
    pub(super) fn second_up(&self) -> Result<(), LabError> {
        let dir = self.second_dir();
        fs::create_dir_all(&dir).map_err(io_at(&dir))?;
        let exe = provision_exe()?;
        let mut c = self.command("unshare");
        c.args(["--mount", "--net", "--"])
            .arg(&exe)
            .args(["lab", "anchor", "--name", &self.name, "--dir"]);
        let child = c
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(io_at(&exe))?;
        let pid = child.id().to_string();
        let file = dir.join(HOLDER);
        fs::write(&file, &pid).map_err(io_at(&file))?;
        let end = Instant::now() + Duration::from_secs(10);
        while !dir.join(super::space::READY).exists() {
            if Instant::now() > end {
                let why = "the second host's namespace does not come".to_owned();
                return Err(LabError::Tool { what: "unshare --net".into(), why });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        run(self
            .command("ip")
            .args(["link", "add", PORT, "type", "veth", "peer", "name"])
            .args(["eth0", "netns", &pid]))?;
        run(self.command("ip").args(["link", "set", PORT, "master", "br0", "up"]))?;
        for args in [
            vec!["link", "set", "lo", "up"],
            vec!["addr", "add", "10.77.0.2/24", "dev", "eth0"],
            vec!["link", "set", "eth0", "up"],
            vec!["route", "add", "default", "via", "10.77.0.1"],
        ] {
            run(self.second_command("ip").args(args))?;
        }
        Ok(())
    }

    /// Writes the deployment server's configuration; the lines of the build
    /// server's that name it.
    pub(super) fn second_config(&self) -> Result<String, LabError> {
        if !self.deployment {
            return Ok(String::new());
        }
        let path = self.second_dir().join("deployment-server.toml");
        let text = format!(
            "# Written by `provision lab`.\nstate_dir = \"state\"\nlisten = \"{ADDRESS}:5000\"\n\
             socket = \"api.sock\"\nnames = [\"{ADDRESS}\"]\n\
             [nodes]\nlost_seconds = 45\n"
        );
        fs::write(&path, text).map_err(io_at(&path))?;
        Ok(format!(
            "[deployment]\nurl = \"https://{ADDRESS}:5000\"\n\
             ca_file = \"deployment/state/tls/ca.pem\"\n\
             token_file = \"deployment/state/admin.token\"\n"
        ))
    }

    /// Starts the deployment server and waits until it answers.
    pub fn start_deployment(&self, exe: &Path) -> Result<Child, LabError> {
        let dir = self.second_dir();
        let mut c = self.second_command(exe);
        c.arg("--config").arg(dir.join("deployment-server.toml"));
        let log = dir.join("deployment-server.log");
        let socket = dir.join("api.sock");
        super::server::start(c, &log, &dir.join("deployment-server.pid"), &socket)
    }
}
