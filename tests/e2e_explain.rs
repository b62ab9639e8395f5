//! Every symptom that `provision explain` knows, made on a machine with real
//! firmware, and explained rightly: `make test-explain`, with
//! `--test-threads=1`. What Secure Boot does is in `e2e_chains`, what an
//! installer asks in `e2e_installers`. M47.

mod common;

use common::host::Host;
use common::rack::{Rack, SHORT, copy, image_cache, until};
use provision::lab::LabFirmware::{Bios, Uefi};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

fn symptoms(rack: &Rack) -> Vec<Value> {
    rack.json(&["explain", "node01"])["symptoms"].as_array().unwrap().clone()
}

/// Waits until this is what stops the build, or what is noticed of it, and
/// checks that the command says so to a person; ends the build.
fn shows(rack: &Rack, name: &str, stops: bool, limit: u64) {
    let is = |s: &Value| s["name"] == name && s["stops"] == stops;
    let end = Instant::now() + Duration::from_secs(limit);
    while !symptoms(rack).iter().any(is) {
        assert!(Instant::now() < end, "no {name}:\n{}", rack.ok(&["explain", "node01"]));
        std::thread::sleep(Duration::from_millis(200));
    }
    let said = rack.ok(&["explain", "node01"]);
    let line = said.lines().find(|l| l.contains(&format!(": {name} ("))).unwrap_or_default();
    let word = if stops { "Likely" } else { "Noticed" };
    assert!(line.starts_with(word), "{said}");
    if stops {
        let missing = said.lines().find(|l| l.starts_with("Missing: ")).unwrap_or_default();
        eprintln!("{missing}");
    }
    eprintln!("{line}");
}

fn cancel(rack: &Rack, build: &str) {
    let b = rack.build(build);
    rack.ok(&["cancel", b["operation"].as_str().unwrap()]);
    rack.wait_end(build, 30);
    rack.lab.tell(0, "power set 0").unwrap();
}

/// Packets that are lost, as long as this lives.
struct Lost<'a>(&'a Rack, &'static str);

impl<'a> Lost<'a> {
    /// What `rule` takes out, in the hook of nft's family.
    fn begin(rack: &'a Rack, family: &'static str, hook: &str, rule: &str) -> Self {
        let rules = format!(
            "table {family} lost {{ chain c {{ type filter hook {hook} priority 0; {rule}; }}; }}"
        );
        assert!(rack.lab.command("nft").arg(rules).status().unwrap().success());
        Self(rack, family)
    }
}

impl Drop for Lost<'_> {
    fn drop(&mut self) {
        let _ = self.0.lab.command("nft").args(["delete", "table", self.1, "lost"]).status();
    }
}

/// Another DHCP server in the boot network, on a host of its own.
struct OtherServer {
    dnsmasq: Child,
    _host: Host,
}

impl OtherServer {
    fn start(rack: &Rack) -> Self {
        let host = Host::plug_in(rack, "other", "10.77.0.9");
        let log = rack.dir.path().join("other");
        let mut c = host.command(rack, "dnsmasq");
        c.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--log-dhcp"]);
        c.args(["--log-facility=-", "--interface=other1", "--bind-interfaces", "--user=root"]);
        c.args(["--dhcp-authoritative", "--dhcp-range=10.77.0.11,10.77.0.11,1h", "--no-ping"]);
        c.args(["--dhcp-leasefile=/dev/null", "--dhcp-boot=nothing.0,us,10.77.0.1"]);
        c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let other = Self { dnsmasq: c.spawn().unwrap(), _host: host };
        until("the other server listens", 30, || {
            std::fs::read_to_string(&log).is_ok_and(|t| t.contains("DHCP, IP range"))
        });
        other
    }
}

impl Drop for OtherServer {
    fn drop(&mut self) {
        self.dnsmasq.kill().unwrap();
        self.dnsmasq.wait().unwrap();
    }
}

/// What keeps a machine from its loader, and what does not.
#[test]
fn before_the_loader() {
    let rack = Rack::hasty("e2eexpl", &[Bios]);
    rack.fault(0, "bmc-silent on");
    rack.wait_end(&rack.install("node01", "base"), 60);
    shows(&rack, "bmc-silent", true, 1);
    rack.fault(0, "bmc-silent off");

    let right = rack.lab.dir.join("bmc.password");
    let wrong = rack.dir.path().join("wrong");
    provision::tls::write_private(&wrong, b"not-this\n").unwrap();
    let password = |f: &Path| {
        rack.ok(&["nodes", "set", "node01", "--bmc-password-file", f.to_str().unwrap()]);
    };
    password(&wrong);
    rack.wait_end(&rack.install("node01", "base"), 60);
    shows(&rack, "bmc-refuses", true, 1);
    password(&right);

    // The right machine by the wrong card.
    rack.ok(&["nodes", "set", "node01", "--mac", "52:54:00:77:00:99"]);
    let id = rack.install("node01", "base");
    shows(&rack, "wrong-mac", true, 30);
    let seen = symptoms(&rack)[0]["seen"].as_str().unwrap().to_owned();
    assert!(seen.contains("52:54:00:77:00:0b"), "{seen}");
    cancel(&rack, &id);
    rack.ok(&["nodes", "set", "node01", "--mac", "52:54:00:77:00:0b"]);

    // A port that forwards only after a while.
    rack.fault(0, "cable-cut on");
    let id = rack.install("node01", "base");
    rack.wait_phase(&id, "dhcp");
    shows(&rack, "no-dhcp", true, 5);
    // Long enough for two packets of iPXE's; it gives up after 20 s.
    let end = Instant::now() + Duration::from_secs(5);
    until("the port forwards", 20, || Instant::now() > end);
    rack.fault(0, "cable-cut off");
    shows(&rack, "slow-port", false, 30);
    cancel(&rack, &id);

    let lost = Lost::begin(&rack, "bridge", "output", "udp sport 67 drop");
    let id = rack.install("node01", "base");
    shows(&rack, "offers-not-taken", true, 40);
    // It gives up, and says so.
    shows(&rack, "console-says", false, 35);
    cancel(&rack, &id);

    // The same, and another server's offers arrive: a file that is not here.
    let other = OtherServer::start(&rack);
    let id = rack.install("node01", "base");
    shows(&rack, "other-dhcp-server", true, 40);
    cancel(&rack, &id);
    drop((other, lost));
    rack.ok(&["log", "--verify"]);
}

/// A loader that does not arrive, arrives and is not heard of again, or is not
/// here.
#[test]
fn around_the_loader() {
    let mut rack = Rack::hasty("e2eexpl", &[Uefi]);
    let lost =
        Lost::begin(&rack, "bridge", "output", "ip daddr 10.77.0.11 udp sport 1024-65535 drop");
    let id = rack.install("node01", "base");
    shows(&rack, "tftp-breaks", true, 60);
    drop(lost);
    cancel(&rack, &id);

    let id = rack.install("node01", "base");
    until("the loader went out", 60, || {
        rack.ok(&["log", "--action", "tftp.done", "--since", "10s"]).contains("snponly.efi")
    });
    rack.fault(0, "cable-cut on");
    shows(&rack, "loader-silent", true, 5);
    cancel(&rack, &id);
    rack.fault(0, "cable-cut off");

    // A build server without the package that has the loaders.
    rack.kill_server();
    rack.start_server_without("/usr/lib/ipxe/snponly.efi");
    let id = rack.install("node01", "base");
    shows(&rack, "loader-missing", true, 60);
    let seen = symptoms(&rack)[0]["seen"].as_str().unwrap().to_owned();
    assert_eq!(seen, "it asked for snponly.efi");
    let said = rack.ok(&["explain", "node01"]);
    assert!(said.contains("Missing: snponly.efi: this server does not have it"), "{said}");
    cancel(&rack, &id);
}

/// Kernel and ramdisk: not there, broken off, and never heard of again.
#[test]
fn between_loader_and_agent() {
    let mut rack = Rack::hasty("e2eexpl", &[Bios]);
    let images = rack.dir.path().join("images");
    std::fs::create_dir(&images).unwrap();
    copy(&image_cache().join("debian-12"), &images.join("debian-12"));
    rack.kill_server();
    rack.configure(&images, None, SHORT);
    rack.start_server();

    // A slow link, which then breaks.
    let tap = provision::lab::net::tap(0);
    let slow = |rate: &str| {
        let tc = ["qdisc", "replace", "dev", &tap, "root", "tbf", "rate", rate, "burst", "64kb"];
        let ok = rack.lab.command("tc").args(tc).args(["latency", "50ms"]).status().unwrap();
        assert!(ok.success());
    };
    slow("30mbit");
    let id = rack.install("node01", "base");
    until("the kernel went out", 60, || {
        rack.ok(&["log", "--action", "http.file", "--since", "30s"]).contains("file=kernel")
    });
    let active = r#"http_requests_active{listener="boot"}"#;
    until("the next file is on its way", 30, || rack.metric(active) > 0);
    let lost = Lost::begin(&rack, "inet", "output", "tcp sport 8080 reject with tcp reset");
    shows(&rack, "transfer-broken", true, 30);
    drop(lost);
    cancel(&rack, &id);
    let plain = rack.lab.command("tc").args(["qdisc", "del", "dev", &tap, "root"]).status();
    assert!(plain.unwrap().success());

    // Bytes that are no ramdisk: the kernel panics.
    let ramdisk = images.join("debian-12/ramdisk");
    let size = std::fs::metadata(&ramdisk).unwrap().len();
    std::fs::write(&ramdisk, vec![0_u8; usize::try_from(size).unwrap()]).unwrap();
    let id = rack.install("node01", "base");
    rack.wait_phase(&id, "installer");
    shows(&rack, "agent-silent", true, 20);
    cancel(&rack, &id);

    // An image that lacks something is refused; this one loses it on the way.
    let id = rack.install("node01", "base");
    std::fs::remove_file(images.join("debian-12/kernel")).unwrap();
    rack.wait_phase(&id, "kernel");
    shows(&rack, "kernel-silent", true, 10);
    cancel(&rack, &id);
}

/// From the agent on: a machine that comes up all the same, and what is
/// noticed of it; then one that does not.
#[test]
fn from_the_agent_on() {
    let rack = Rack::hasty("e2eexpl", &[Bios]);
    rack.fault(0, "clock 1970-01-02T00:00:00");
    rack.must_deploy(&rack.install("node01", "base"));
    shows(&rack, "clock-wrong", false, 1);
    rack.fault(0, "clock off");

    // The new system speaks to nobody; then it does.
    let id = rack.install("node01", "base");
    rack.wait_phase(&id, "bootloader");
    rack.wait_phase(&id, "first-boot");
    let lost = Lost::begin(&rack, "inet", "input", "tcp dport 8080 drop");
    shows(&rack, "first-boot-silent", true, 120);
    drop(lost);
    rack.must_deploy(&id);

    // A third one can be told from two: its link is slow. It is cut off from
    // its power in the midst, and comes back.
    let tap = provision::lab::net::tap(0);
    let tc = ["qdisc", "replace", "dev", &tap, "root", "tbf", "rate", "25mbit", "burst", "64kb"];
    let slow = |on: bool| {
        let mut c = rack.lab.command("tc");
        if on {
            c.args(tc).args(["latency", "50ms"])
        } else {
            c.args(["qdisc", "del", "dev", &tap, "root"])
        };
        assert!(c.status().unwrap().success());
    };
    let id = rack.install("node01", "base");
    rack.wait_phase(&id, "image");
    slow(true);
    shows(&rack, "image-slow", false, 90);
    slow(false);
    rack.fault(0, "power-cut on");
    rack.lab.tell(0, "boot set pxe").unwrap();
    rack.lab.tell(0, "power set 1").unwrap();
    shows(&rack, "restarted-by-itself", false, 60);
    rack.wait_phase(&id, "first-boot");
    rack.fault(0, "power-cut on");
    shows(&rack, "no-first-boot", true, 30);
    shows(&rack, "slow-phase", false, 200);
    cancel(&rack, &id);

    // A disk with a system, and a BMC that forgets what it was told.
    rack.must_deploy(&rack.install("node01", "base"));
    rack.fault(0, "bmc-forgets on");
    let id = rack.install("node01", "base");
    shows(&rack, "override-ignored", true, 120);
    rack.fault(0, "bmc-forgets off");
    cancel(&rack, &id);
}
