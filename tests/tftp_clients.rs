//! The TFTP server with tftp-hpa, atftp and hand-made packets, on loopback.

mod netlab;

use netlab::run;
use provision::model::Digest;
use provision::tftp::{Root, Server, Settings, Sighting, SightingKind, Sink};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

struct Told(Mutex<Sender<Sighting>>);

impl Sink for Told {
    fn seen(&self, sighting: Sighting) {
        let _ = self.0.lock().unwrap().send(sighting);
    }
}

struct Served {
    address: SocketAddr,
    sightings: Receiver<Sighting>,
    directory: tempfile::TempDir,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        let mut settings = Settings::new(([127, 0, 0, 1], 0).into());
        change(&mut settings);
        let (told, sightings) = channel();
        let (ready, is_ready) = channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let sink = Arc::new(Told(Mutex::new(told)));
                let server = Server::bind(settings, Arc::new(root), sink).unwrap();
                ready.send(server.address().unwrap()).unwrap();
                server.run(stopped).await.unwrap();
            });
        });
        let address = is_ready.recv_timeout(PATIENCE).unwrap();
        Self { address, sightings, directory, stop, thread: Some(thread) }
    }

    fn put(&self, name: &str, content: &[u8]) {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// tftp-hpa, in the mode and with the block size given.
    fn tftp(&self, mode: &str, name: &str, to: &Path) -> Output {
        let port = self.address.port().to_string();
        let mut command = Command::new("tftp");
        command.args(["-m", mode, "127.0.0.1", &port, "-c", "get", name]).arg(to);
        command.output().unwrap()
    }

    fn atftp(&self, options: &[&str], name: &str, to: &Path) -> Output {
        atftp(self.address.port(), options, name, to)
    }

    fn client(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

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

fn atftp(port: u16, options: &[&str], name: &str, to: &Path) -> Output {
    let mut command = Command::new("atftp");
    for option in options {
        command.args(["--option", option]);
    }
    command.args(["--get", "-r", name, "-l"]).arg(to).args(["127.0.0.1", &port.to_string()]);
    command.output().unwrap()
}

/// Bytes without pattern, with line ends of all kinds.
fn noise(len: usize) -> Vec<u8> {
    let mut x: u32 = 0x9e37_79b9;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        (x >> 8) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (len, from) = socket.recv_from(&mut buffer).expect("an answer");
    (buffer[..len].to_vec(), from)
}

/// The head of the next packet that is not block `had` once more: who is slow
/// to confirm it gets it again.
fn head_after(socket: &UdpSocket, had: u8) -> Vec<u8> {
    loop {
        let packet = receive(socket).0;
        if packet[..4] != [0, 3, 0, had] {
            return packet[..4].to_vec();
        }
    }
}

#[test]
fn real_clients_get_every_byte() {
    let served = Served::new(|_| {});
    let out = tempfile::tempdir().unwrap();
    // Around every block boundary, nothing at all, and past 65,536 blocks of
    // 512 bytes, where block numbers roll over.
    for len in [0, 1, 511, 512, 513, 1468, 2936, 1_000_003, 40_000_000] {
        let content = noise(len);
        served.put("loader", &content);
        let want = Digest::of(&content);
        let check = |client: &str, output: Output| {
            let got = std::fs::read(out.path().join("got")).unwrap_or_default();
            assert_eq!(Digest::of(&got), want, "{client}, {len} bytes: {output:?}");
            let _ = std::fs::remove_file(out.path().join("got"));
            let done = served.wait_for("end", |s| s.kind != SightingKind::Started);
            assert_eq!((done.kind, done.bytes), (SightingKind::Done, len as u64), "{client}");
        };
        let to = out.path().join("got");
        check("tftp", served.tftp("binary", "loader", &to));
        for options in [
            &["blksize 1468", "tsize 0"][..],
            &["blksize 1468", "windowsize 4"],
            &["blksize 1468", "windowsize 16"],
            &["blksize 65464", "windowsize 64"],
        ] {
            let began = Instant::now();
            let output = served.atftp(options, "/loader", &to);
            println!("{len} bytes with {options:?} in {:?}", began.elapsed());
            check("atftp", output);
        }
    }
}

#[test]
fn netascii_survives_the_way_there_and_back() {
    let served = Served::new(|_| {});
    let out = tempfile::tempdir().unwrap();
    let content = [&b"line\nline\r\nlone\rend\n\n\r"[..], &noise(70_000)].concat();
    served.put("text", &content);
    let to = out.path().join("got");
    let output = served.tftp("netascii", "text", &to);
    assert!(std::fs::read(&to).unwrap() == content, "{output:?}");
}

#[test]
fn no_name_leads_out_of_the_root_and_nothing_is_written() {
    let served = Served::new(|_| {});
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    served.put("sub/inside", b"inside");
    let root = served.directory.path();
    std::os::unix::fs::symlink(outside.path().join("secret"), root.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), root.join("dirlink")).unwrap();
    std::os::unix::fs::symlink("sub/inside", root.join("good")).unwrap();
    run("mkfifo", &[root.join("fifo").to_str().unwrap()]);

    let answer = |packet: &[u8]| {
        let client = served.client();
        client.send_to(packet, served.address).unwrap();
        receive(&client).0
    };
    let rrq = |name: &str| [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
    let absolute = outside.path().join("secret");
    for name in [
        "../secret",
        "sub/../../secret",
        "..\\secret",
        "link",
        "dirlink/secret",
        absolute.to_str().unwrap(),
        "/etc/passwd",
        "sub",
        "fifo",
        ".",
        "good/../link",
        "nothing",
    ] {
        let got = answer(&rrq(name));
        assert_eq!(got[..2], [0, 5], "{name}: {}", String::from_utf8_lossy(&got));
    }
    assert_eq!(answer(&rrq("good")), b"\0\x03\0\x01inside", "a link that stays inside");
    assert_eq!(answer(&rrq("\\sub\\inside")), b"\0\x03\0\x01inside");
    assert_eq!(answer(b"\0\x02new\0octet\0")[..4], [0, 5, 0, 2], "a write");
    assert_eq!(answer(b"\0\x01good\0mail\0")[..4], [0, 5, 0, 4], "mail");
}

#[test]
fn a_thousand_requests_nobody_follows_up_do_not_stop_a_boot() {
    let served = Served::new(|_| {});
    let content = noise(1_000_000);
    served.put("loader", &content);
    let flood: Vec<UdpSocket> = (0..1000).map(|_| served.client()).collect();
    for socket in &flood {
        socket.send_to(b"\0\x01loader\0octet\0blksize\x001468\0", served.address).unwrap();
    }
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("got");
    let began = Instant::now();
    let output = served.atftp(&["blksize 1468"], "loader", &to);
    assert!(std::fs::read(&to).unwrap() == content, "{output:?}");
    assert!(began.elapsed() < PATIENCE, "took {:?}", began.elapsed());
}

#[test]
fn a_flood_from_many_addresses_does_not_end_a_transfer_that_moves() {
    let served = Served::new(|s| s.max_transfers = 8);
    served.put("loader", &noise(3000));
    let client = served.client();
    client.send_to(b"\0\x01loader\0octet\0", served.address).unwrap();
    let (first, transfer) = receive(&client);
    assert_eq!(first[..4], [0, 3, 0, 1]);
    client.send_to(&[0, 4, 0, 1], transfer).unwrap();
    assert_eq!(head_after(&client, 1), [0, 3, 0, 2]);
    let flood: Vec<UdpSocket> =
        (1..=100).map(|n| UdpSocket::bind((Ipv4Addr::new(127, 0, 1, n), 0)).unwrap()).collect();
    for socket in &flood {
        socket.send_to(b"\0\x01loader\0octet\0", served.address).unwrap();
    }
    served.wait_for("a drop", |s| s.kind == SightingKind::Dropped);
    for block in 2..=6 {
        client.send_to(&[0, 4, 0, block], transfer).unwrap();
        if block < 6 {
            assert_eq!(head_after(&client, block), [0, 3, 0, block + 1]);
        }
    }
    let done = served.wait_for("end", |s| s.kind == SightingKind::Done);
    assert_eq!((done.peer, done.bytes), (client.local_addr().unwrap(), 3000));
}

#[test]
fn fifty_nodes_load_at_once() {
    let served = Served::new(|s| s.max_per_client = 100);
    let content = noise(1_000_000);
    served.put("loader", &content);
    let out = tempfile::tempdir().unwrap();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..50 {
            let (port, content, to) =
                (served.address.port(), &content, out.path().join(n.to_string()));
            scope.spawn(move || {
                let output = atftp(port, &["blksize 1468"], "loader", &to);
                assert!(std::fs::read(&to).unwrap() == *content, "node {n}: {output:?}");
            });
        }
    });
    println!("50 MB in {:?}", began.elapsed());
}

#[test]
fn the_size_probe_of_edk2_holds_nothing_and_repeated_requests_are_one() {
    let served = Served::new(|_| {});
    served.put("loader", &noise(5000));
    let client = served.client();
    let request = b"\0\x01loader\0octet\0tsize\x000\0blksize\x001468\0";
    client.send_to(request, served.address).unwrap();
    client.send_to(request, served.address).unwrap();
    let (oack, transfer) = receive(&client);
    assert_eq!(oack, b"\0\x06tsize\x005000\0blksize\x001468\0");
    client.send_to(b"\0\x05\0\0User aborted the transfer\0", transfer).unwrap();
    let end = served.wait_for("end", |s| s.kind != SightingKind::Started);
    assert_eq!(end.kind, SightingKind::ClientError("0 User aborted the transfer".into()));
    assert_eq!(end.bytes, 0);

    // The same port again, as ROMs that always use 2070 do: served anew.
    client.send_to(request, served.address).unwrap();
    let (oack, transfer) = receive(&client);
    assert_eq!(oack[..2], [0, 6]);
    client.send_to(&[0, 4, 0, 0], transfer).unwrap();
    assert_eq!(receive(&client).0[..4], [0, 3, 0, 1]);
    client.send_to(request, served.address).unwrap();
    let (oack, second) = receive(&client);
    assert_eq!(oack[..2], [0, 6], "began again in mid-transfer");
    assert_ne!(transfer, second);
}

#[test]
fn lost_packets_are_sent_again_and_the_silent_are_given_up() {
    let served = Served::new(|s| {
        s.timeout = Duration::from_millis(50);
        // Six seconds in all, for a client that is slow and not gone.
        s.retries = 6;
    });
    served.put("loader", &noise(3000));
    let client = served.client();
    let request = b"\0\x01loader\0octet\0windowsize\x004\0";
    client.send_to(request, served.address).unwrap();
    let (oack, transfer) = receive(&client);
    assert_eq!(receive(&client).0, oack, "the OACK again");
    client.send_to(&[0, 4, 0, 0], transfer).unwrap();
    // Perhaps behind more OACKs.
    let mut blocks = Vec::new();
    while blocks.len() < 3 {
        let packet = receive(&client).0;
        if packet[1] == 3 {
            blocks.push(packet[3]);
        }
    }
    assert_eq!(blocks, [1, 2, 3]);
    // Block 3 was lost: all behind block 2 come again, and then new ones.
    client.send_to(&[0, 4, 0, 2], transfer).unwrap();
    let mut again = Vec::new();
    while again.last() != Some(&6) {
        again.push(receive(&client).0[3]);
    }
    assert!(again.windows(4).any(|w| w == [3, 4, 5, 6]), "{again:?}");
    let end = served.wait_for("end", |s| s.kind != SightingKind::Started);
    assert_eq!((end.kind, end.bytes), (SightingKind::TimedOut, 1024));
}

#[test]
fn broken_packets_are_passed_over() {
    let served = Served::new(|_| {});
    served.put("loader", b"fine");
    let client = served.client();
    let mut packets: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0, 1],
        b"\0\x01loader".to_vec(),
        b"\0\x01loader\0octet".to_vec(),
        b"\0\x01\0octet\0".to_vec(),
        b"\0\x03\0\x01data".to_vec(),
        b"\0\x04\0\x01".to_vec(),
        b"\0\x05\0\x01bye\0".to_vec(),
        b"\0\x06blksize\x00512\0".to_vec(),
        vec![0xff; 1024],
        vec![0; 60_000],
    ];
    packets.extend((0..200).map(|n| noise(n * 5)).filter(|p| !p.starts_with(&[0, 1])));
    for packet in &packets {
        client.send_to(packet, served.address).unwrap();
    }
    client.send_to(b"\0\x01loader\0OCTET\0", served.address).unwrap();
    assert_eq!(receive(&client).0, b"\0\x03\0\x01fine", "the first answer is to the good one");
}
