//! Another host in a rack's boot network: a network namespace of its own with
//! a cable to the switch. It goes when this goes.

use super::rack::Rack;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Host {
    /// Holds the namespace until its input ends.
    holder: Child,
}

impl Host {
    /// Called `name`, 1 to 8 letters; `address` is in the boot network.
    pub fn plug_in(rack: &Rack, name: &str, address: &str) -> Self {
        let ip = |args: &[&str]| {
            assert!(rack.lab.command("ip").args(args).status().unwrap().success(), "{args:?}");
        };
        let mut c = rack.lab.command("unshare");
        c.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let host = Self { holder: c.spawn().unwrap() };
        let pid = host.holder.id().to_string();
        // The namespace is there when the program behind `unshare` runs.
        let end = Instant::now() + Duration::from_secs(20);
        while std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default() != "cat\n" {
            assert!(Instant::now() < end, "no namespace for {name}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (here, there) = (format!("{name}0"), format!("{name}1"));
        ip(&["link", "add", &here, "type", "veth", "peer", "name", &there]);
        ip(&["link", "set", &here, "master", "br0", "up"]);
        ip(&["link", "set", &there, "netns", &pid]);
        for args in [
            &["link", "set", "lo", "up"][..],
            &["address", "add", &format!("{address}/24"), "dev", &there],
            &["link", "set", &there, "up"],
        ] {
            assert!(host.command(rack, "ip").args(args).status().unwrap().success(), "{args:?}");
        }
        host
    }

    /// A program on this host.
    pub fn command(&self, rack: &Rack, program: &str) -> Command {
        let mut c = rack.lab.command("nsenter");
        c.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg(program);
        c
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
