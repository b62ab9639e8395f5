//! The name server on a cable: asked by `dig`, passing on to dnsmasq.

mod netlab;

use netlab::{Cable, Namespace, Running};
use provision::dns::{Counters, DnsError, Names, Server, Settings, Upstreams, Zone};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);
const OURS: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);

/// An inventory that changes while it is served.
#[derive(Default)]
struct Rack(Mutex<BTreeMap<String, Ipv4Addr>>);

impl Rack {
    fn put(&self, name: &str, address: [u8; 4]) {
        self.0.lock().unwrap().insert(name.into(), address.into());
    }
}

impl Names for Rack {
    fn address(&self, label: &str) -> Option<Ipv4Addr> {
        self.0.lock().unwrap().get(label).copied()
    }
    fn elsewhere(&self, _: &str) -> Option<Ipv4Addr> {
        None
    }
    fn name(&self, address: Ipv4Addr) -> Option<String> {
        let all = self.0.lock().unwrap();
        all.iter().find(|(_, a)| **a == address).map(|(n, _)| n.clone())
    }
}

struct Served {
    rack: Arc<Rack>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn count(&self, what: &str) -> u64 {
        self.counters.snapshot().get(what).copied().unwrap_or(0)
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

fn settings(upstreams: Upstreams) -> Settings {
    let networks = [(Ipv4Addr::new(10, 7, 0, 0), 16)];
    let zone = Zone::new("rack.example", &networks, "builder", 1).unwrap();
    Settings { listen: SocketAddrV4::new(OURS, 53), zone, upstreams }
}

fn serve(cable: &Cable, upstreams: Upstreams) -> Served {
    cable.client.ip(&["addr", "add", "10.7.0.20/16", "dev", "eth0"]);
    let rack = Arc::new(Rack::default());
    rack.put("node01", [10, 7, 0, 20]);
    let (ready, is_ready) = channel();
    let stop = CancellationToken::new();
    let (names, stopped) = (rack.clone(), stop.clone());
    let thread = cable.server.spawn(move |runtime| {
        runtime.block_on(async {
            let server = Server::bind(settings(upstreams), names).expect("bind");
            ready.send(server.counters()).expect("ready");
            server.run(stopped).await.expect("run");
        });
    });
    let counters = is_ready.recv_timeout(PATIENCE).expect("server is up");
    Served { rack, counters, stop, thread: Some(thread) }
}

fn dig(space: &Namespace, args: &[&str]) -> String {
    let mut c = space.command("dig", &["@10.7.0.1", "+tries=1", "+timeout=8"]);
    let out = c.args(args).output().expect("dig");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Only the records.
fn short(space: &Namespace, args: &[&str]) -> String {
    dig(space, &[&["+short"], args].concat()).trim().to_owned()
}

/// A real name server behind ours, on the loopback of its namespace.
fn upstream(cable: &Cable, extra: &[&str]) -> Running {
    let args = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--log-facility=-",
        "--log-queries",
        "--bind-interfaces",
        "--listen-address=127.0.0.1",
        "--host-record=deb.example.net,192.0.2.80",
        "--local=/example.net/",
    ];
    let mut it = Running::start(cable.server.command("dnsmasq", &[&args, extra].concat()));
    it.wait_for("started", PATIENCE);
    it
}

fn behind() -> Upstreams {
    Upstreams::Fixed(vec![SocketAddr::from(([127, 0, 0, 1], 53))])
}

#[test]
fn dig_finds_nodes_forward_and_reverse_and_what_is_not_there_is_not() {
    let cable = Cable::new("10.7.0.1/16", "52:54:00:00:00:14");
    let served = serve(&cable, Upstreams::Fixed(vec![]));
    let c = &cable.client;
    for over in ["+notcp", "+tcp"] {
        assert_eq!(short(c, &[over, "node01.rack.example"]), "10.7.0.20");
        assert_eq!(short(c, &[over, "-x", "10.7.0.20"]), "node01.rack.example.");
    }
    assert_eq!(short(c, &["NODE01"]), "10.7.0.20", "the bare name, in any case");
    assert!(short(c, &["SOA", "rack.example"]).starts_with("builder.rack.example. hostmaster."));

    let none = dig(c, &["node02.rack.example"]);
    assert!(none.contains("status: NXDOMAIN") && none.contains("flags: qr aa rd"), "{none}");
    assert!(none.contains("IN\tSOA\tbuilder.rack.example."), "{none}");
    let none = dig(c, &["-x", "10.7.3.3"]);
    assert!(none.contains("status: NXDOMAIN"), "{none}");
    let elsewhere = dig(c, &["deb.example.net"]);
    assert!(elsewhere.contains("status: REFUSED"), "{elsewhere}");
    assert!(dig(c, &["AXFR", "rack.example"]).contains("Transfer failed"));

    // A changed inventory counts at once.
    served.rack.put("node02", [10, 7, 3, 3]);
    assert_eq!(short(c, &["node02.rack.example"]), "10.7.3.3");
    assert_eq!(short(c, &["-x", "10.7.3.3"]), "node02.rack.example.");
    assert!(served.count("answered") >= 8 && served.count("no-such-name") == 2);
    assert_eq!((served.count("refused"), served.count("forwarded")), (2, 0));
}

#[test]
fn the_rest_comes_from_another_server_and_fails_with_a_word_when_that_is_gone() {
    let cable = Cable::new("10.7.0.1/16", "52:54:00:00:00:14");
    let texts: Vec<String> =
        (0..8).map(|n| format!("--txt-record=big.example.net,{n}{}", "x".repeat(240))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut behind_us = upstream(&cable, &texts);
    let served = serve(&cable, behind());
    let c = &cable.client;
    assert_eq!(short(c, &["deb.example.net"]), "192.0.2.80");
    assert_eq!(short(c, &["+tcp", "deb.example.net"]), "192.0.2.80");
    let none = dig(c, &["nothing.example.net"]);
    assert!(none.contains("status: NXDOMAIN") && none.contains(" ra;"), "{none}");

    // 2 kB: cut on the way by datagram, whole by TCP, as dig then asks.
    let cut = dig(c, &["+ignore", "TXT", "big.example.net"]);
    assert!(cut.contains("flags: qr") && cut.contains(" tc "), "{cut}");
    let whole = dig(c, &["TXT", "big.example.net"]);
    assert_eq!(whole.matches("IN\tTXT\t").count(), 8, "{whole}");
    assert!(whole.contains("(TCP)"), "{whole}");

    // Ours, and bare names, do not leave the house.
    assert!(dig(c, &["node09.rack.example"]).contains("status: NXDOMAIN"));
    assert!(dig(c, &["node09"]).contains("status: NXDOMAIN"));
    let _ = dig(c, &["last.example.net"]);
    behind_us.wait_for("last.example.net is NXDOMAIN", PATIENCE);
    assert!(!behind_us.seen.iter().any(|l| l.contains("node09")), "{:?}", behind_us.seen);

    drop(behind_us);
    let before = served.count("forward-failed");
    let gone = dig(c, &["deb.example.net"]);
    assert!(gone.contains("status: SERVFAIL"), "{gone}");
    assert_eq!(served.count("forward-failed"), before + 1);
    assert_eq!(short(c, &["node01.rack.example"]), "10.7.0.20", "ours goes on");
    let _again = upstream(&cable, &[]);
    assert_eq!(short(c, &["deb.example.net"]), "192.0.2.80", "and the rest comes back");
}

#[test]
fn a_silent_server_costs_seconds_and_the_next_one_is_asked() {
    let cable = Cable::new("10.7.0.1/16", "52:54:00:00:00:14");
    // A socket that nobody reads before the end.
    let (ready, is_ready) = channel();
    let (keep, kept) = channel::<()>();
    let (tell, told) = channel();
    let deaf = cable.server.spawn(move |_| {
        let socket = std::net::UdpSocket::bind("127.0.0.2:53").expect("bind");
        ready.send(()).expect("ready");
        let _ = kept.recv();
        socket.set_nonblocking(true).expect("nonblocking");
        let mut asked = 0;
        while socket.recv(&mut [0; 512]).is_ok() {
            asked += 1;
        }
        let _ = tell.send(asked);
    });
    is_ready.recv_timeout(PATIENCE).expect("bound");
    let _behind_us = upstream(&cable, &[]);
    let both = [[127, 0, 0, 2], [127, 0, 0, 1]].map(|a| SocketAddr::from((a, 53)));
    let served = serve(&cable, Upstreams::Fixed(both.to_vec()));
    let c = &cable.client;
    assert_eq!(short(c, &["deb.example.net"]), "192.0.2.80");
    for _ in 0..5 {
        assert_eq!(short(c, &["deb.example.net"]), "192.0.2.80");
    }
    drop(served);
    let served = serve_again(&cable, Upstreams::Fixed(vec![both[0]]));
    let gone = dig(c, &["deb.example.net"]);
    assert!(gone.contains("status: SERVFAIL"), "before the client gives up: {gone}");
    assert_eq!(served.count("forward-failed"), 1);
    drop(keep);
    let asked = told.recv_timeout(PATIENCE).expect("a count");
    assert_eq!(asked, 2, "once of six times, as who answered last is asked first, and at the end");
    let _ = deaf.join();
}

/// The client has its address already.
fn serve_again(cable: &Cable, upstreams: Upstreams) -> Served {
    cable.client.ip(&["addr", "flush", "dev", "eth0"]);
    serve(cable, upstreams)
}

#[test]
fn outsiders_hear_nothing_and_resolv_conf_is_read_again() {
    let cable = Cable::new("10.7.0.1/16", "52:54:00:00:00:14");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    std::fs::write(&file, "search x\nnameserver 127.0.0.1\n").unwrap();
    let _behind_us = upstream(&cable, &[]);
    let served = serve(&cable, Upstreams::Listed(file.clone()));
    let c = &cable.client;
    assert_eq!(short(c, &["deb.example.net"]), "192.0.2.80");

    // Another network on the same cable, with a way back.
    cable.server.ip(&["addr", "add", "172.16.0.1/24", "dev", "boot0"]);
    c.ip(&["addr", "add", "172.16.0.9/24", "dev", "eth0"]);
    let quick = ["-b", "172.16.0.9", "+timeout=1"];
    for over in ["+notcp", "+tcp"] {
        let said = dig(c, &[&quick, &[over, "node01.rack.example"][..]].concat());
        assert!(!said.contains("status:"), "{said}");
    }
    assert!(served.count("outsider") >= 2);

    // The file's servers go: what was passed on is refused from then on.
    std::fs::write(&file, "").unwrap();
    let end = Instant::now() + PATIENCE;
    while !dig(c, &["deb.example.net"]).contains("status: REFUSED") {
        assert!(Instant::now() < end, "the file was not read again");
    }
}

#[test]
fn connections_and_packets_of_a_bad_guest_harm_nobody() {
    let cable = Cable::new("10.7.0.1/16", "52:54:00:00:00:14");
    let served = serve(&cable, Upstreams::Fixed(vec![]));
    let (done, is_done) = channel();
    let guest = cable.client.spawn(move |_| {
        use std::io::Write as _;
        let udp = std::net::UdpSocket::bind("10.7.0.20:0").expect("bind");
        let mut x = 0x2545_f491_4f6c_dd1du64;
        for n in 0..20_000usize {
            let packet: Vec<u8> = std::iter::repeat_with(|| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x as u8
            })
            .take(n % 600)
            .collect();
            let _ = udp.send_to(&packet, "10.7.0.1:53");
        }
        // Half a message each, held open.
        let held: Vec<_> = (0..40)
            .filter_map(|_| std::net::TcpStream::connect("10.7.0.1:53").ok())
            .map(|mut s| {
                let _ = s.write_all(&[0xff, 0xff, 1, 2, 3]);
                s
            })
            .collect();
        done.send(held).expect("done");
    });
    let held = is_done.recv_timeout(PATIENCE).expect("guest");
    guest.join().unwrap();
    // The guest's own connections make room as they are closed for nonsense
    // or silence; datagrams go on all the while.
    assert_eq!(short(&cable.client, &["node01.rack.example"]), "10.7.0.20");
    assert!(served.count("malformed") > 0);
    drop(held);
    assert_eq!(short(&cable.client, &["+tcp", "node01.rack.example"]), "10.7.0.20");
}

#[test]
fn a_port_that_is_taken_is_said() {
    let cable = Cable::new("10.7.0.1/16", "52:54:00:00:00:14");
    let _served = serve(&cable, Upstreams::Fixed(vec![]));
    let (tell, told) = channel();
    let second = cable.server.spawn(move |runtime| {
        let _in = runtime.enter();
        let bound = Server::bind(settings(behind()), Arc::new(Rack::default()));
        tell.send(bound.err()).expect("tell");
    });
    let error = told.recv_timeout(PATIENCE).unwrap();
    second.join().unwrap();
    let Some(DnsError::Bind { source, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
}
