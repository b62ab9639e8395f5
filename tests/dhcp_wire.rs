//! The DHCP server on a cable with ISC dhclient and Kea's perfdhcp.

mod netlab;

use netlab::{Cable, Namespace, Running};
use provision::dhcp::{
    DhcpError, Directory, Host, Reason, Server, Settings, Sighting, SightingKind, Sink,
};
use provision::model::{BootFile, ClientHints};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NODE_MAC: &str = "52:54:00:00:00:14";
const PATIENCE: Duration = Duration::from_secs(30);

/// Knows `NODE_MAC` as 10.7.0.20, and every MAC of perfdhcp's (00:0c:01…)
/// under an address made from its last two bytes.
struct Rack;

impl Directory for Rack {
    fn lookup(&self, hints: &ClientHints) -> Option<Host> {
        let mac = hints.mac.bytes();
        let (name, address) = match mac {
            [0x52, 0x54, 0, 0, 0, n] => (format!("node{n}"), Ipv4Addr::new(10, 7, 0, n)),
            [0, 0x0c, 1, _, a, b] => (format!("p{a}-{b}"), Ipv4Addr::new(10, 7, 16 + a, b)),
            _ => return None,
        };
        let boot = hints.kind.is_netboot().then(|| BootFile {
            server: Ipv4Addr::new(10, 7, 0, 1),
            file: "loader".into(),
            vendor_class: None,
        });
        Some(Host { name: name.parse().ok()?, address, boot })
    }
}

struct Told(Mutex<Sender<Sighting>>);

impl Sink for Told {
    fn seen(&self, sighting: Sighting) {
        let _ = self.0.lock().unwrap().send(sighting);
    }
}

struct Served {
    sightings: Receiver<Sighting>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn wait_for(&self, what: &str, want: impl Fn(&Sighting) -> bool) -> Sighting {
        loop {
            let sighting = self.sightings.recv_timeout(PATIENCE);
            let sighting = sighting.unwrap_or_else(|e| panic!("no {what}: {e}"));
            if want(&sighting) {
                return sighting;
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(cable: &Cable, lease: Duration) -> Served {
    let mut settings = Settings::new("boot0", Ipv4Addr::new(10, 7, 0, 1), 16);
    settings.subnet.router = Some(settings.server_address);
    settings.dns = vec![settings.server_address];
    settings.domain = Some("rack.example".into());
    settings.lease = lease;
    settings.allow_other_servers = true; // the probe has its own test
    let (told, sightings) = channel();
    let (ready, is_ready) = channel();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let thread = cable.server.spawn(move |runtime| {
        runtime.block_on(async {
            let sink = Arc::new(Told(Mutex::new(told)));
            let server = Server::bind(settings, Arc::new(Rack), sink).await.expect("bind");
            ready.send(()).expect("ready");
            server.run(stopped).await.expect("run");
        });
    });
    is_ready.recv_timeout(PATIENCE).expect("server is up");
    Served { sightings, stop, thread: Some(thread) }
}

/// dhclient with a script of its own that only sets the address.
fn dhclient(space: &Namespace, dir: &Path, extra: &[&str]) -> Command {
    let script = dir.join("script");
    std::fs::write(
        &script,
        "#!/bin/sh\nenv >> \"$(dirname \"$0\")/environment\"\ncase $reason in\n\
         BOUND|RENEW|REBIND|REBOOT) ip addr replace $new_ip_address/16 dev $interface;;\nesac\n",
    )
    .unwrap();
    std::process::Command::new("chmod").arg("+x").arg(&script).status().unwrap();
    let config = dir.join("config");
    std::fs::write(
        &config,
        "timeout 4; retry 60; initial-interval 1;\nsend dhcp-client-identifier \"odd\";\n\
         request subnet-mask, routers, domain-name-servers, domain-name, host-name;\n",
    )
    .unwrap();
    let (leases, pid) = (dir.join("leases"), dir.join("pid"));
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    let mut args = vec!["-d".to_owned(), "-v".to_owned()];
    for (flag, file) in [("-sf", &script), ("-cf", &config), ("-lf", &leases), ("-pf", &pid)] {
        args.extend([flag.to_owned(), path(file)]);
    }
    args.extend(extra.iter().map(|s| (*s).to_owned()));
    args.push("eth0".to_owned());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    space.command("dhclient", &args)
}

#[test]
fn dhclient_gets_its_address_renews_it_and_gives_it_back() {
    let cable = Cable::new("10.7.0.1/16", NODE_MAC);
    let served = serve(&cable, Duration::from_secs(8));
    let dir = tempfile::tempdir().unwrap();
    let mut client = Running::start(dhclient(&cable.client, dir.path(), &[]));

    client.wait_for("bound to 10.7.0.20", PATIENCE);
    let ack = served.wait_for("first ACK", |s| s.kind == SightingKind::Ack);
    assert_eq!(ack.address, Some(Ipv4Addr::new(10, 7, 0, 20)));
    assert_eq!(ack.node.unwrap().as_str(), "node20");

    client.wait_for("bound to 10.7.0.20", PATIENCE);
    let again = served.wait_for("renewal", |s| s.kind == SightingKind::Ack);
    assert_eq!(again.address, Some(Ipv4Addr::new(10, 7, 0, 20)));

    let environment = std::fs::read_to_string(dir.path().join("environment")).unwrap();
    for line in [
        "new_ip_address=10.7.0.20",
        "new_subnet_mask=255.255.0.0",
        "new_routers=10.7.0.1",
        "new_domain_name_servers=10.7.0.1",
        "new_domain_name=rack.example",
        "new_host_name=node20",
        "new_dhcp_lease_time=8",
    ] {
        assert!(environment.contains(line), "{line} not in\n{environment}");
    }

    let release = Running::start(dhclient(&cable.client, dir.path(), &["-r"]));
    release.finish(PATIENCE);
    let released = served.wait_for("RELEASE", |s| s.kind == SightingKind::Release);
    assert_eq!(released.address, Some(Ipv4Addr::new(10, 7, 0, 20)));
}

#[test]
fn a_stranger_gets_no_offer_and_is_reported() {
    let cable = Cable::new("10.7.0.1/16", "52:54:00:aa:00:01");
    let served = serve(&cable, Duration::from_secs(600));
    let dir = tempfile::tempdir().unwrap();
    let client = Running::start(dhclient(&cable.client, dir.path(), &["-1"]));
    let (code, said) = client.finish(PATIENCE);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("No DHCPOFFERS received"), "{said}");
    let seen = served.wait_for("sighting", |_| true);
    assert_eq!(seen.kind, SightingKind::Ignored(Reason::Stranger));
    assert_eq!(seen.hints.mac.to_string(), "52:54:00:aa:00:01");
}

#[test]
fn only_the_configured_interface_is_answered() {
    let cable = Cable::new("10.7.0.1/16", NODE_MAC);
    let other = Namespace::new("o");
    let server = &cable.server;
    server.ip(&[
        "link",
        "add",
        "lan1",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        &other.name,
    ]);
    server.ip(&["addr", "add", "10.9.0.1/16", "dev", "lan1"]);
    server.ip(&["link", "set", "lan1", "up"]);
    other.ip(&["link", "set", "eth0", "address", "52:54:00:00:00:15"]);
    other.ip(&["link", "set", "eth0", "up"]);
    let served = serve(&cable, Duration::from_secs(600));

    let dir = tempfile::tempdir().unwrap();
    let client = dhclient(&other, dir.path(), &["-1"]);
    let (code, said) = Running::start(client).finish(PATIENCE);
    assert_eq!(code, Some(2), "{said}");
    // What does reach us after that is the first that was seen at all.
    let dir = tempfile::tempdir().unwrap();
    let mut client = Running::start(dhclient(&cable.client, dir.path(), &[]));
    client.wait_for("bound to 10.7.0.20", PATIENCE);
    let first = served.wait_for("sighting", |_| true);
    assert_eq!(first.hints.mac.to_string(), NODE_MAC);
}

#[test]
fn thousands_of_exchanges_lose_nothing() {
    let cable = Cable::new("10.7.0.1/16", NODE_MAC);
    cable.client.ip(&["addr", "add", "10.7.255.1/16", "dev", "eth0"]);
    let _served = serve(&cable, Duration::from_secs(600));
    let args = ["-4", "-l", "eth0", "-r", "1000", "-n", "4000", "-R", "1000"];
    let args = [&args[..], &["-b", "mac=00:0c:01:02:00:00", "-W", "2000000", "10.7.0.1"]].concat();
    let perfdhcp = Running::start(cable.client.command("perfdhcp", &args));
    let (_, report) = perfdhcp.finish(Duration::from_secs(60));
    println!("{report}");
    // perfdhcp stops sending after so many exchanges, waits (-W, in
    // microseconds) and counts what has not come by then as dropped.
    let received: Vec<u64> = report
        .lines()
        .filter_map(|l| l.strip_prefix("received packets: "))
        .map(|n| n.trim().parse().unwrap())
        .collect();
    assert_eq!(received.len(), 2, "two exchanges reported:\n{report}");
    assert!(received.iter().all(|&n| n >= 3960), "over 1 % lost:\n{report}");
}

#[test]
fn another_server_on_the_network_is_found_and_named() {
    let cable = Cable::new("10.7.0.1/16", NODE_MAC);
    cable.client.ip(&["addr", "add", "10.7.0.66/16", "dev", "eth0"]);
    // It would ping an address before it offers it: 3 s of the probe's 5.
    let args = ["-k", "-p", "0", "-C", "/dev/null", "-i", "eth0", "--log-facility=-", "--no-ping"];
    let leases = tempfile::NamedTempFile::new().unwrap();
    let lease_file = format!("--dhcp-leasefile={}", leases.path().display());
    let args = [&args[..], &["-z", "--dhcp-range=10.7.9.1,10.7.9.9", "--pid-file", &lease_file]];
    let mut rival = Running::start(cable.client.command("dnsmasq", &args.concat()));
    rival.wait_for("DHCP, sockets bound", PATIENCE);

    let (found, result) = channel();
    let thread = cable.server.spawn(move |runtime| {
        let settings = Settings::new("boot0", Ipv4Addr::new(10, 7, 0, 1), 16);
        let sink = Arc::new(Told(Mutex::new(channel().0)));
        let outcome = runtime.block_on(Server::bind(settings, Arc::new(Rack), sink));
        found.send(outcome.err()).unwrap();
    });
    let error = result.recv_timeout(PATIENCE).unwrap().expect("must not serve");
    thread.join().unwrap();
    assert!(error.to_string().contains("10.7.0.66"), "{error}");
    assert!(matches!(error, DhcpError::OtherServer { .. }));
}
