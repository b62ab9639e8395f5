//! Where a lab's network lives. As root: a network namespace with a name,
//! which `ip netns exec` enters. Without root: user, mount and network
//! namespaces of their own, held open by one process (the *anchor*), which
//! `nsenter` enters; whoever enters is root there and nobody outside.
//!
//! Without root the nodes, BMCs and servers run all the same. Building an
//! image needs a range of user ids (`/etc/subuid` and `newuidmap`), since a
//! root file system has many owners; without a range, an image that was built
//! elsewhere is installed.

use super::{Lab, LabError, io_at, net::run, provision_exe};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The anchor's pid, in the lab's directory.
const ANCHOR: &str = "anchor.pid";
/// Written by the anchor when the namespaces are as they should be.
pub(super) const READY: &str = "anchor.ready";
/// The lab's `resolv.conf`, in the lab's directory when there is no root.
const RESOLV: &str = "resolv.conf";

/// Makes the namespaces of `lab`; its directory exists.
pub fn make(lab: &Lab) -> Result<(), LabError> {
    let resolv =
        if lab.uplink { format!("nameserver {}\n", super::net::UPLINK_DNS) } else { String::new() };
    if lab.rootless {
        let path = lab.dir.join(RESOLV);
        fs::write(&path, resolv).map_err(io_at(&path))?;
        return anchor(lab);
    }
    let ns = lab.namespace();
    run(Command::new("ip").args(["netns", "add", &ns]))?;
    if lab.uplink {
        // `ip netns exec` puts this in the place of /etc/resolv.conf.
        let etc = PathBuf::from("/etc/netns").join(&ns);
        fs::create_dir_all(&etc).map_err(io_at(&etc))?;
        let path = etc.join(RESOLV);
        fs::write(&path, resolv).map_err(io_at(&path))?;
    }
    Ok(())
}

fn anchor(lab: &Lab) -> Result<(), LabError> {
    let exe = provision_exe()?;
    let log = lab.dir.join("anchor.log");
    let mut c = Command::new("unshare");
    c.args(["--user", "--map-root-user"]);
    if has_range() {
        c.arg("--map-auto");
    }
    let out = fs::File::create(&log).map_err(io_at(&log))?;
    let mut child = c
        .args(["--mount", "--net", "--"])
        .arg(&exe)
        .args(["lab", "anchor", "--name", &lab.name, "--dir"])
        .arg(&lab.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(out)
        .process_group(0)
        .spawn()
        .map_err(|e| LabError::Tool { what: "unshare".into(), why: e.to_string() })?;
    let pid = lab.dir.join(ANCHOR);
    fs::write(&pid, child.id().to_string()).map_err(io_at(&pid))?;
    let end = Instant::now() + Duration::from_secs(10);
    while !lab.dir.join(READY).exists() {
        if child.try_wait().map_err(io_at(&exe))?.is_some() || Instant::now() > end {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(LabError::Wrong(format!(
                "no user namespace for a lab without root: {}. Allow it (sysctl \
                 kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0), \
                 or run the lab as root",
                said.trim()
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether the user has a range of user ids and the tools to use it.
fn has_range() -> bool {
    let uid = rustix::process::getuid().as_raw().to_string();
    let name = std::env::var("USER").unwrap_or_default();
    let listed = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|l| {
            l.split(':').next().is_some_and(|who| who == uid || (!name.is_empty() && who == name))
        })
    };
    let tool = |t: &str| ["/usr/bin", "/bin"].iter().any(|d| Path::new(d).join(t).exists());
    listed("/etc/subuid") && listed("/etc/subgid") && tool("newuidmap") && tool("newgidmap")
}

/// What the anchor does: the mounts that a process inside expects, then
/// nothing until it is ended.
pub fn hold(dir: &Path) -> Result<(), LabError> {
    // Interfaces in /sys are those of the namespace that mounted it. Where
    // that is forbidden the lab works, only `build-server check` sees less.
    let _ = run(Command::new("mount").args(["-t", "sysfs", "sysfs", "/sys"]));
    if fs::metadata(dir.join(RESOLV)).is_ok_and(|m| m.len() > 0) {
        let place =
            fs::canonicalize("/etc/resolv.conf").map_err(io_at("/etc/resolv.conf".as_ref()))?;
        run(Command::new("mount").arg("--bind").arg(dir.join(RESOLV)).arg(place))?;
    }
    let ready = dir.join(READY);
    fs::write(&ready, "").map_err(io_at(&ready))?;
    loop {
        std::thread::park();
    }
}

/// A command that runs inside.
pub fn command(lab: &Lab, program: impl AsRef<OsStr>) -> Command {
    if !lab.rootless {
        let mut c = Command::new("ip");
        c.args(["netns", "exec", &lab.namespace()]).arg(program);
        return c;
    }
    let mut c = Command::new("nsenter");
    c.args(["--preserve-credentials", "--user", "--mount", "--net"]);
    c.arg(format!("--target={}", anchor_pid(&lab.dir)));
    if let Ok(here) = std::env::current_dir() {
        let mut wd = std::ffi::OsString::from("--wd=");
        wd.push(here);
        c.arg(wd);
    }
    c.arg("--").arg(program);
    c
}

/// How slirp4netns is told where to put the uplink.
pub fn slirp_target(lab: &Lab) -> Vec<String> {
    if lab.rootless {
        return vec![anchor_pid(&lab.dir)];
    }
    vec!["--netns-type=path".into(), format!("/run/netns/{}", lab.namespace())]
}

/// 0, which no process has, when there is none: the tool then says so.
fn anchor_pid(dir: &Path) -> String {
    fs::read_to_string(dir.join(ANCHOR)).map_or_else(|_| "0".into(), |t| t.trim().to_owned())
}

/// Removes the namespaces; the lab's processes were ended before.
pub fn unmake(name: &str) {
    let ns = format!("pvlab-{name}");
    if PathBuf::from("/run/netns").join(&ns).exists() {
        let _ = run(Command::new("ip").args(["netns", "del", &ns]));
    }
    let etc = PathBuf::from("/etc/netns").join(ns);
    if etc.exists() {
        let _ = fs::remove_dir_all(etc);
    }
}
