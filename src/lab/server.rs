//! A build server inside the lab: its configuration, its inventory, its
//! process.

use super::node::{BMC_PASSWORD, BMC_USER};
use super::{Lab, LabError, io_at};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Settings of the lab's build server.
#[derive(Debug, Clone)]
pub struct ServerPlan {
    /// Images, shared by labs.
    pub images: PathBuf,
    /// Profiles.
    pub profiles: PathBuf,
    /// Store URL; the embedded one when left out.
    pub store: Option<String>,
    /// More lines of TOML, such as `[deadlines]`.
    pub extra: String,
    /// More lines in `[install]`.
    pub install: String,
}

impl Lab {
    /// The local API socket of the lab's server.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    /// `--server` for the command line.
    pub fn server_url(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// The key that logs in to installed nodes.
    pub fn ssh_key(&self) -> PathBuf {
        self.dir.join("id_ed25519")
    }

    /// Writes configuration and inventory; makes the ssh key.
    pub fn write_config(&self, plan: &ServerPlan) -> Result<(), LabError> {
        let key = self.ssh_key();
        if !key.exists() {
            let out = std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"])
                .arg(&key)
                .stdin(Stdio::null())
                .output()
                .map_err(|e| LabError::Tool { what: "ssh-keygen".into(), why: e.to_string() })?;
            if !out.status.success() {
                let why = String::from_utf8_lossy(&out.stderr).into_owned();
                return Err(LabError::Tool { what: "ssh-keygen".into(), why });
            }
        }
        // Never the host's own resolv.conf: what the lab asks stays in it.
        let (forward, router) = if self.uplink {
            (format!("\"{}\"", super::net::UPLINK_DNS), "router = \"10.77.0.1\"")
        } else {
            (String::new(), "")
        };
        let store = self_store(plan.store.as_deref());
        let text = format!(
            "# Written by `provision lab`.\n\
             state_dir = \"state\"\nimages_dir = \"{}\"\nprofiles_dir = \"{}\"\n{store}\n\
             [network]\ninterface = \"br0\"\naddress = \"{}\"\nsubnet = \"10.77.0.0/24\"\n\
             range = [\"10.77.0.11\", \"10.77.0.250\"]\n{router}\n\
             domain = \"lab.internal\"\n\n[dns]\nforward = [{forward}]\n\n\
             [api]\nlisten = \"10.77.0.1:8443\"\nsocket = \"api.sock\"\n\n\
             [install]\nssh_key_files = [\"id_ed25519.pub\"]\n\
             kernel_args = \"console=ttyS0,115200\"\n{}\n\n{}\n{}\n",
            plan.images.display(),
            plan.profiles.display(),
            super::SERVER,
            plan.install,
            plan.extra,
            self.second_config()?,
        );
        let path = self.dir.join("build-server.toml");
        fs::write(&path, text).map_err(io_at(&path))?;
        let path = self.dir.join("nodes.toml");
        fs::write(&path, self.inventory()).map_err(io_at(&path))?;
        let path = self.dir.join("bmc.password");
        crate::tls::write_private(&path, BMC_PASSWORD.as_bytes())
            .map_err(|e| LabError::Wrong(e.to_string()))
    }

    /// The lab's machines as an inventory file.
    pub fn inventory(&self) -> String {
        let mut text = String::from("# Written by `provision lab`.\n");
        for (i, fw) in self.nodes.iter().enumerate() {
            let fw = fw.inventory();
            text.push_str(&format!(
                "\n[[node]]\nname = \"{}\"\nmac = \"{}\"\naddress = \"{}\"\nfirmware = \"{fw}\"\n\
                 bmc = {{ address = \"{}\", user = \"{BMC_USER}\", password_file = \"bmc.password\" }}\n",
                Lab::node_name(i),
                Lab::mac(i),
                Lab::address(i),
                Lab::bmc_address(i),
            ));
        }
        text
    }

    /// Starts `build-server` inside and waits until it answers.
    pub fn start_server(&self, exe: &Path) -> Result<Child, LabError> {
        let mut c = self.command(exe);
        c.arg("--config").arg(self.dir.join("build-server.toml"));
        let log = self.dir.join("build-server.log");
        start(c, &log, &self.dir.join("build-server.pid"), &self.socket())
    }
}

/// Starts a server, its output to `log`, and waits until `socket` answers.
pub(super) fn start(
    mut command: Command,
    log: &Path,
    pid: &Path,
    socket: &Path,
) -> Result<Child, LabError> {
    let out = fs::OpenOptions::new().create(true).append(true).open(log).map_err(io_at(log))?;
    let err = out.try_clone().map_err(io_at(log))?;
    let mut child =
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .map_err(|e| LabError::Tool { what: format!("{command:?}"), why: e.to_string() })?;
    fs::write(pid, child.id().to_string()).map_err(io_at(pid))?;
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if std::os::unix::net::UnixStream::connect(socket).is_ok() {
            return Ok(child);
        }
        let ended = child.try_wait().map_err(io_at(log))?;
        if ended.is_some() || Instant::now() > end {
            let text = fs::read_to_string(log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(5).collect();
            let why = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            let what = format!("the server of {} does not start", log.display());
            return Err(LabError::Tool { what, why });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn self_store(store: Option<&str>) -> String {
    store.map(|s| format!("store = \"{s}\"\n")).unwrap_or_default()
}
