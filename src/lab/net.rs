//! The lab's network: one namespace with a bridge as switch, a tap a node,
//! the BMCs' addresses, and an uplink that reaches the mirror and nothing on
//! this host.

use super::{Lab, LabError, io_at, space};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The name server that slirp4netns offers inside.
pub const UPLINK_DNS: &str = "10.0.2.3";

pub(super) fn run(c: &mut Command) -> Result<(), LabError> {
    let what = format!("{c:?}").replace('"', "");
    let out = c.stdin(Stdio::null()).output().map_err(|e| LabError::Tool {
        what: what.clone(),
        why: format!("{e} (is its package installed?)"),
    })?;
    if out.status.success() {
        return Ok(());
    }
    Err(LabError::Tool { what, why: String::from_utf8_lossy(&out.stderr).trim().to_owned() })
}

/// The tap of a node.
pub fn tap(index: usize) -> String {
    format!("tap{index}")
}

/// Makes namespace, switch, taps, and the uplink if asked for.
pub fn up(lab: &Lab) -> Result<(), LabError> {
    space::make(lab)?;
    let mut batch = String::from(
        "link set lo up\n\
         link add br0 type bridge stp_state 0 forward_delay 0\n\
         addr add 10.77.0.1/24 dev br0\n\
         link set br0 up\n",
    );
    for i in 0..lab.nodes.len() {
        let tap = tap(i);
        batch.push_str(&format!(
            "tuntap add dev {tap} mode tap\nlink set {tap} master br0 up\n\
             addr add {}/32 dev lo\n",
            Lab::bmc_address(i)
        ));
    }
    let file = lab.dir.join("net.batch");
    fs::write(&file, batch).map_err(io_at(&file))?;
    run(lab.command("ip").arg("-batch").arg(&file))?;
    if lab.uplink { uplink(lab) } else { Ok(()) }
}

fn uplink(lab: &Lab) -> Result<(), LabError> {
    let log = lab.dir.join("slirp.log");
    let out = fs::File::create(&log).map_err(io_at(&log))?;
    let child = Command::new("slirp4netns")
        .args(["--configure", "--mtu=1400", "--disable-host-loopback"])
        .args(space::slirp_target(lab))
        .arg("up0")
        // By which `down` knows that it is the lab's.
        .current_dir(&lab.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(out)
        // Ctrl-C in the terminal is not for it.
        .process_group(0)
        .spawn()
        .map_err(|e| LabError::Tool { what: "slirp4netns".into(), why: e.to_string() })?;
    let pid = lab.dir.join("slirp.pid");
    fs::write(&pid, child.id().to_string()).map_err(io_at(&pid))?;
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let out = lab.command("ip").args(["-4", "addr", "show", "up0"]).output();
        if out.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("inet ")) {
            break;
        }
        if Instant::now() > end {
            let why = fs::read_to_string(&log).unwrap_or_default();
            return Err(LabError::Tool { what: "slirp4netns".into(), why });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // Nodes go out through the build host, as in a rack.
    run(lab.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]))?;
    let rules = "table ip lab { chain post { type nat hook postrouting priority 100; \
                 oifname \"up0\" masquerade; }; }";
    run(lab.command("nft").arg(rules))
}

/// Drops all that a node sends and gets (`on`), or no longer: a broken cable.
pub fn cut(lab: &Lab, index: usize, on: bool) -> Result<(), LabError> {
    let tap = tap(index);
    let state = if on { "nomaster" } else { "master" };
    let mut c = lab.command("ip");
    c.args(["link", "set", &tap, state]);
    if !on {
        c.arg("br0");
    }
    run(&mut c)
}

/// Drops all that would leave the lab by its uplink (`on`), or no longer.
pub fn cut_uplink(lab: &Lab, on: bool) -> Result<(), LabError> {
    let _ = run(lab.command("nft").arg("delete table inet away"));
    if !on {
        return Ok(());
    }
    let rules = "table inet away { chain post { type filter hook postrouting priority 0; \
                 oifname \"up0\" drop; }; }";
    run(lab.command("nft").arg(rules))
}

/// Loses `percent` of the packets a node sends.
pub fn lose(lab: &Lab, index: usize, percent: u32) -> Result<(), LabError> {
    let (tap, table) = (tap(index), format!("loss{index}"));
    let _ = run(lab.command("nft").arg(format!("delete table netdev {table}")));
    if percent == 0 {
        return Ok(());
    }
    let rules = format!(
        "table netdev {table} {{ chain in {{ type filter hook ingress device {tap} priority 0; \
         numgen random mod 100 < {} drop; }}; }}",
        percent.min(100)
    );
    run(lab.command("nft").arg(rules))
}
