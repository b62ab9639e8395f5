//! The virtual rack: a network namespace with a switch, virtual Dells with
//! real firmware (QEMU) and a real BMC simulator each (OpenIPMI's
//! `ipmi_sim`), an uplink for packages, and a build server in it.
//!
//! `space` makes and enters the namespaces, as root or without; `net` builds
//! the network in them; `firmware` is what a machine begins with; `node` is a machine's directory and
//! QEMU's command line; `supervisor` is the process that stands for the
//! machine's hardware: it runs QEMU and `ipmi_sim`, holds power, boot device
//! and faults; `chassis` is what the simulator calls to reach it, `console` the
//! serial line between the two and people; `server`
//! writes a configuration and starts a build server inside; `second` is
//! another host with a deployment server.
//!
//! Everything of a lab is in one directory, and every process of it is found
//! by the pid it wrote there, so that [`down`] removes all, also after a
//! crash. Used by `cli` and the tests.

pub mod chassis;
pub mod console;
pub mod firmware;
pub mod net;
pub mod node;
pub mod second;
pub mod server;
pub mod space;
pub mod supervisor;

pub use firmware::LabFirmware;

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Why the lab cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program is missing or failed.
    #[error("{what}: {why}")]
    Tool {
        /// Command line.
        what: String,
        /// What it said.
        why: String,
    },
    /// A file.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It makes no sense.
    #[error("{0}")]
    Wrong(String),
}

pub(crate) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> LabError + '_ {
    move |source| LabError::Io { path: path.to_owned(), source }
}

/// What a lab is made of; kept as `lab.json` in its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lab {
    /// Name: 1 to 8 of a-z and 0-9, since it is part of interface names.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Firmware of each node, in order.
    pub nodes: Vec<LabFirmware>,
    /// Memory of a node, MiB.
    pub memory: u32,
    /// Disk of a node, GiB.
    pub disk: u32,
    /// A way out to the package mirror.
    pub uplink: bool,
    /// A second host with a deployment server; see [`second`].
    #[serde(default)]
    pub deployment: bool,
    /// In user namespaces of its own, by a user who is not root; see
    /// [`space`].
    #[serde(default)]
    pub rootless: bool,
}

/// The build server's address in every lab.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

impl Lab {
    /// The directory of the lab called `name`: in `PROVISION_LAB_DIR`, else
    /// root's in /var/lib, another user's where the XDG base directories say
    /// that state is kept.
    pub fn dir_of(name: &str) -> PathBuf {
        let var = |v: &str| std::env::var_os(v).filter(|p| !p.is_empty()).map(PathBuf::from);
        let state = || {
            let home = || var("HOME").unwrap_or_else(|| "/tmp".into()).join(".local/state");
            var("XDG_STATE_HOME").unwrap_or_else(home).join("provision-lab")
        };
        let root = rustix::process::geteuid().is_root();
        let usual = || if root { PathBuf::from("/var/lib/provision-lab") } else { state() };
        var("PROVISION_LAB_DIR").unwrap_or_else(usual).join(name)
    }

    /// Reads a lab that is up.
    pub fn open(name: &str) -> Result<Self, LabError> {
        let path = Self::dir_of(name).join("lab.json");
        let text = fs::read_to_string(&path).map_err(|_| {
            LabError::Wrong(format!("there is no lab {name:?}; `provision lab up` makes one"))
        })?;
        serde_json::from_str(&text).map_err(|e| LabError::Wrong(format!("{}: {e}", path.display())))
    }

    /// The name of its namespace.
    pub fn namespace(&self) -> String {
        format!("pvlab-{}", self.name)
    }

    /// `node01`, `node02` …
    pub fn node_name(index: usize) -> String {
        format!("node{:02}", index + 1)
    }

    /// A node's directory.
    pub fn node_dir(&self, index: usize) -> PathBuf {
        self.dir.join(Self::node_name(index))
    }

    /// A node's address.
    pub fn address(index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 11 + u8::try_from(index).unwrap_or(0))
    }

    /// Where a node's BMC finds its serial line.
    pub fn serial_line(index: usize) -> SocketAddr {
        (Self::bmc_address(index), 9600).into()
    }

    /// A node's BMC's address.
    pub fn bmc_address(index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 1, 11 + u8::try_from(index).unwrap_or(0))
    }

    /// A node's MAC.
    pub fn mac(index: usize) -> String {
        format!("52:54:00:77:00:{:02x}", index + 11)
    }

    /// The index of `node02`.
    pub fn index_of(&self, node: &str) -> Result<usize, LabError> {
        (0..self.nodes.len())
            .find(|i| Self::node_name(*i) == node)
            .ok_or_else(|| LabError::Wrong(format!("the lab has no node {node:?}")))
    }

    /// A command that runs inside the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        space::command(self, program)
    }

    /// Builds the rack: network, machines, BMCs. All machines are off.
    pub fn up(&self) -> Result<(), LabError> {
        let ok = (1..=8).contains(&self.name.len())
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !ok {
            return Err(LabError::Wrong("a lab's name is 1 to 8 of a-z and 0-9".into()));
        }
        if self.nodes.is_empty() || self.nodes.len() > 64 {
            return Err(LabError::Wrong("a lab has 1 to 64 nodes".into()));
        }
        down(&self.name)?;
        fs::create_dir_all(&self.dir).map_err(io_at(&self.dir))?;
        let json = serde_json::to_vec_pretty(self).unwrap_or_default();
        let path = self.dir.join("lab.json");
        fs::write(&path, json).map_err(io_at(&path))?;
        net::up(self)?;
        if self.deployment {
            self.second_up()?;
        }
        for i in 0..self.nodes.len() {
            node::prepare(self, i)?;
            self.spawn_supervisor(i)?;
        }
        for i in 0..self.nodes.len() {
            self.wait_for(i)?;
        }
        Ok(())
    }

    fn spawn_supervisor(&self, index: usize) -> Result<(), LabError> {
        let exe = provision_exe()?;
        let dir = self.node_dir(index);
        let log = dir.join("supervisor.log");
        let out = fs::File::create(&log).map_err(io_at(&log))?;
        let err = out.try_clone().map_err(io_at(&log))?;
        let mut c = self.command(&exe);
        c.args(["lab", "supervise", "--name", &self.name, "--index", &index.to_string()])
            .env("PROVISION_LAB_DIR", self.dir.parent().unwrap_or(&self.dir))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child = c.spawn().map_err(io_at(&exe))?;
        let pid = dir.join("supervisor.pid");
        fs::write(&pid, child.id().to_string()).map_err(io_at(&pid))
    }

    fn wait_for(&self, index: usize) -> Result<(), LabError> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match self.tell(index, "power get") {
                Ok(_) => return Ok(()),
                Err(e) if Instant::now() > end => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// One command to a node's supervisor, and its answer.
    pub fn tell(&self, index: usize, command: &str) -> Result<String, LabError> {
        chassis::ask(&self.node_dir(index).join("node.sock"), command)
    }
}

/// This program, also when it runs in a test: the `provision` beside it.
pub fn provision_exe() -> Result<PathBuf, LabError> {
    if let Some(p) = std::env::var_os("PROVISION_EXE") {
        return Ok(p.into());
    }
    std::env::current_exe().map_err(io_at(Path::new("/proc/self/exe")))
}

/// Takes a lab down: ends its processes by their pids, removes namespace and
/// machines; logs and the build server's state go too. No lab is no fault.
pub fn down(name: &str) -> Result<(), LabError> {
    let dir = Lab::dir_of(name);
    if let Ok(entries) = fs::read_dir(&dir) {
        for e in entries.filter_map(Result::ok) {
            for pid in ["supervisor.pid", "qemu.pid", "ipmi_sim.pid"] {
                end_process(&e.path().join(pid), &dir);
            }
        }
    }
    for pid in [
        "build-server.pid",
        "deployment/deployment-server.pid",
        "deployment/holder.pid",
        "slirp.pid",
        "anchor.pid",
    ] {
        end_process(&dir.join(pid), &dir);
    }
    space::unmake(name);
    if dir.join("lab.json").exists() {
        fs::remove_dir_all(&dir).map_err(io_at(&dir))?;
    }
    Ok(())
}

/// Ends the process named in a pid file, if it is still that process: its
/// command line must mention the lab, or it runs in the lab's directory (pids
/// are used again).
fn end_process(pid_file: &Path, lab: &Path) {
    let Some(pid) = fs::read_to_string(pid_file).ok().and_then(|t| t.trim().parse::<i32>().ok())
    else {
        return;
    };
    let _ = fs::remove_file(pid_file);
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
    let name = lab.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let ours = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|d| d.starts_with(lab))
        || cmdline.contains(&*lab.to_string_lossy())
        || cmdline.contains(&format!("pvlab-{name}"))
        || cmdline.contains(&format!("--name {name} "));
    let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|_| ours) else { return };
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let end = Instant::now() + Duration::from_secs(5);
    while rustix::process::test_kill_process(pid).is_ok() {
        if Instant::now() > end {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            return;
        }
        // A child of ours stays as a zombie until it is waited for.
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
        std::thread::sleep(Duration::from_millis(20));
    }
}
