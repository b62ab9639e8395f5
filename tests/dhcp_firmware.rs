//! Real firmware boots from our DHCP and TFTP: SeaBIOS with iPXE's ROM, and
//! EDK2's own PXE and HTTP clients (OVMF), in an emulated machine.
//!
//! With `PROVISION_CAPTURE=DIR` set, each test leaves a capture of its DHCP
//! packets there; the fixtures in `tests/fixtures/dhcp` were made so.

mod netlab;

use netlab::{Namespace, Running, neighbour, tap};
use provision::dhcp::{self, Directory, Host, Mode, Settings};
use provision::model::{BootFile, ClientArch, ClientHints, ClientKind};
use provision::tftp;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 20);
/// Emulated firmware on a busy machine; HTTP boot comes after other tries.
const PATIENCE: Duration = Duration::from_secs(240);

/// One node, 52:54:00:00:00:14. What firmware boots is set; iPXE gets its
/// script by TFTP.
struct Rack {
    pxe: Option<&'static str>,
    http: Option<&'static str>,
}

impl Directory for Rack {
    fn lookup(&self, hints: &ClientHints) -> Option<Host> {
        let file = match hints.kind {
            ClientKind::Pxe => self.pxe,
            ClientKind::HttpBoot => self.http,
            ClientKind::Ipxe => Some("scripts/node20.ipxe"),
            ClientKind::Os => None,
        };
        (hints.mac.bytes() == [0x52, 0x54, 0, 0, 0, 0x14]).then(|| Host {
            name: "node20".parse().expect("a name"),
            address: NODE,
            boot: file.map(|file| BootFile {
                server: SERVER,
                file: file.to_owned(),
                vendor_class: None,
            }),
        })
    }
}

#[derive(Debug)]
enum Seen {
    Dhcp(dhcp::Sighting),
    Tftp(tftp::Sighting),
    Http(String),
}

#[derive(Clone)]
struct Told(Arc<Mutex<Sender<Seen>>>);

impl Told {
    fn tell(&self, seen: Seen) {
        let _ = self.0.lock().expect("sink").send(seen);
    }
}

impl dhcp::Sink for Told {
    fn seen(&self, sighting: dhcp::Sighting) {
        self.tell(Seen::Dhcp(sighting));
    }
}

impl tftp::Sink for Told {
    fn seen(&self, sighting: tftp::Sighting) {
        self.tell(Seen::Tftp(sighting));
    }
}

/// The servers, and a machine that boots from them.
struct Boot {
    seen: Receiver<Seen>,
    log: Vec<Seen>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    // Dropped in this order: the machine, the capture, then their network.
    _machine: Running,
    _others: Vec<Running>,
    _spaces: Vec<Namespace>,
    _directory: tempfile::TempDir,
}

impl Boot {
    fn start(name: &str, firmware: &[&str], rack: Rack, mode: Mode) -> Self {
        let space = tap("10.7.0.1/24");
        let directory = tempfile::tempdir().expect("directory");
        std::fs::create_dir(directory.path().join("scripts")).expect("scripts");
        let script = "#!ipxe\necho the script runs\npoweroff ||\nshell\n";
        std::fs::write(directory.path().join("scripts/node20.ipxe"), script).expect("script");
        std::fs::copy("/usr/lib/ipxe/snponly.efi", directory.path().join("snponly.efi"))
            .expect("snponly.efi (package ipxe)");
        let (tell, seen) = channel();
        let told = Told(Arc::new(Mutex::new(tell)));
        let stop = CancellationToken::new();
        let mut others = Vec::new();
        if let Ok(captures) = std::env::var("PROVISION_CAPTURE") {
            let file = Path::new(&captures).join(format!("{name}.pcap"));
            let file = file.to_str().expect("path");
            let args =
                ["-i", "boot0", "-U", "-w", file, "udp port 67 or udp port 68 or udp port 4011"];
            let mut capture = Running::start(space.command("tcpdump", &args));
            capture.wait_for("listening on", PATIENCE);
            others.push(capture);
        }
        let mut spaces = Vec::new();
        if mode == Mode::Proxy {
            // Somebody else gives out the addresses.
            let office = neighbour(&space, "10.7.0.66/24");
            let leases = format!("--dhcp-leasefile={}", directory.path().join("leases").display());
            let args = ["-k", "-p", "0", "-C", "/dev/null", "-i", "eth0", "--log-facility=-"];
            let range = ["-z", "--dhcp-range=10.7.0.50,10.7.0.60", "--no-ping", &leases];
            let args = [&args[..], &range].concat();
            let mut rival = Running::start(office.command("dnsmasq", &args));
            rival.wait_for("DHCP, sockets bound", PATIENCE);
            others.push(rival);
            spaces.push(office);
        }
        let thread = serve(&space, directory.path(), rack, mode, told, stop.clone());
        let machine = machine(&space, firmware);
        spaces.push(space);
        Self {
            seen,
            log: Vec::new(),
            stop,
            thread: Some(thread),
            _machine: machine,
            _others: others,
            _spaces: spaces,
            _directory: directory,
        }
    }

    fn wait_for(&mut self, what: &str, want: impl Fn(&Seen) -> bool) {
        loop {
            let seen = self.seen.recv_timeout(PATIENCE);
            let seen = seen.unwrap_or_else(|e| panic!("no {what}: {e}; seen: {:#?}", self.log));
            let found = want(&seen);
            self.log.push(seen);
            if found {
                return;
            }
        }
    }

    fn wait_for_ack(&mut self, kind: ClientKind, file: &str) {
        self.wait_for(&format!("ACK to {kind:?}"), |s| {
            matches!(s, Seen::Dhcp(s) if s.kind == dhcp::SightingKind::Ack
                && s.hints.kind == kind
                && s.boot_file.as_deref() == Some(file))
        });
    }

    fn wait_for_file(&mut self, name: &str) {
        self.wait_for(
            name,
            |s| matches!(s, Seen::Tftp(s) if s.path == name && s.kind == tftp::SightingKind::Done),
        );
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    space: &Namespace,
    directory: &Path,
    rack: Rack,
    mode: Mode,
    told: Told,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let root = tftp::Root::open(directory).expect("root");
    let (ready, is_ready) = channel();
    let thread = space.spawn(move |runtime| {
        runtime.block_on(async {
            let mut settings = Settings::new("boot0", SERVER, 24);
            settings.mode = mode;
            settings.allow_other_servers = true;
            settings.dns = vec![SERVER];
            settings.subnet.router = Some(SERVER);
            let listen = (SERVER, 69).into();
            let http = told.clone();
            let web = TcpListener::bind((SERVER, 80)).expect("HTTP");
            std::thread::spawn(move || serve_http(&web, &http));
            let sink = Arc::new(told);
            let files = tftp::Server::bind(
                tftp::Settings::new(listen),
                Arc::new(root),
                Arc::clone(&sink) as Arc<dyn tftp::Sink>,
            );
            let server = dhcp::Server::bind(settings, Arc::new(rack), sink).await.expect("DHCP");
            ready.send(()).expect("ready");
            let (a, b) = tokio::join!(files.expect("TFTP").run(stop.clone()), server.run(stop));
            a.expect("TFTP");
            b.expect("DHCP");
        });
    });
    is_ready.recv_timeout(PATIENCE).expect("servers are up");
    thread
}

/// Serves one file to whatever asks; ends with the process.
fn serve_http(listener: &TcpListener, told: &Told) {
    let file = std::fs::read("/usr/lib/ipxe/snponly.efi").expect("snponly.efi");
    for mut stream in listener.incoming().map_while(Result::ok) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let line = head.lines().next().unwrap_or_default().to_owned();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: application/efi\r\n\
             Connection: close\r\n\r\n",
            file.len()
        );
        let sent = stream.write_all(answer.as_bytes());
        if sent.is_ok() && line.starts_with("GET") {
            let _ = stream.write_all(&file);
        }
        told.tell(Seen::Http(line));
    }
}

fn machine(space: &Namespace, firmware: &[&str]) -> Running {
    let args = ["-accel", "tcg", "-m", "512", "-display", "none", "-nodefaults", "-no-reboot"];
    let net = ["-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no"];
    let args = [&args[..], &net, &["-serial", "stdio"], firmware].concat();
    Running::start(space.command("qemu-system-x86_64", &args))
}

const BIOS: [&str; 2] = ["-device", "virtio-net-pci,netdev=n,mac=52:54:00:00:00:14,bootindex=0"];
const UEFI: [&str; 6] = [
    "-machine",
    "q35",
    "-drive",
    "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
    "-device",
    "virtio-net-pci,netdev=n,mac=52:54:00:00:00:14,bootindex=0,romfile=",
];

#[test]
fn bios_firmware_with_ipxe_s_rom_runs_its_script() {
    let rack = Rack { pxe: None, http: None };
    let mut boot = Boot::start("seabios-ipxe", &BIOS, rack, Mode::Authoritative);
    boot.wait_for_ack(ClientKind::Ipxe, "scripts/node20.ipxe");
    boot.wait_for_file("scripts/node20.ipxe");
}

#[test]
fn uefi_firmware_loads_ipxe_by_tftp_which_runs_its_script() {
    let rack = Rack { pxe: Some("snponly.efi"), http: None };
    let mut boot = Boot::start("ovmf-pxe", &UEFI, rack, Mode::Authoritative);
    boot.wait_for(
        "offer",
        |s| matches!(s, Seen::Dhcp(s) if s.hints.arch == Some(ClientArch::UefiX64)),
    );
    boot.wait_for_ack(ClientKind::Pxe, "snponly.efi");
    boot.wait_for_file("snponly.efi");
    boot.wait_for_ack(ClientKind::Ipxe, "scripts/node20.ipxe");
    boot.wait_for_file("scripts/node20.ipxe");
}

#[test]
fn uefi_firmware_boots_over_http() {
    let rack = Rack { pxe: None, http: Some("http://10.7.0.1/boot/snponly.efi") };
    let mut boot = Boot::start("ovmf-http", &UEFI, rack, Mode::Authoritative);
    boot.wait_for_ack(ClientKind::HttpBoot, "http://10.7.0.1/boot/snponly.efi");
    boot.wait_for(
        "GET",
        |s| matches!(s, Seen::Http(line) if line.starts_with("GET /boot/snponly.efi")),
    );
    boot.wait_for_ack(ClientKind::Ipxe, "scripts/node20.ipxe");
    boot.wait_for_file("scripts/node20.ipxe");
}

#[test]
fn uefi_firmware_boots_beside_another_dhcp_server() {
    let rack = Rack { pxe: Some("snponly.efi"), http: None };
    let mut boot = Boot::start("ovmf-proxy", &UEFI, rack, Mode::Proxy);
    boot.wait_for("offer without an address", |s| {
        matches!(s, Seen::Dhcp(s) if s.kind == dhcp::SightingKind::Offer && s.address.is_none())
    });
    boot.wait_for_file("snponly.efi");
    boot.wait_for_file("scripts/node20.ipxe");
}

#[test]
fn bios_ipxe_boots_beside_another_dhcp_server() {
    let rack = Rack { pxe: None, http: None };
    let mut boot = Boot::start("seabios-ipxe-proxy", &BIOS, rack, Mode::Proxy);
    boot.wait_for_file("scripts/node20.ipxe");
}
