//! Tables of packets and what becomes of them.

use super::decide::{Port, Reason};
use super::packet::{MessageType, Request};
use super::reply::Destination;
use super::{Answer, Directory, Host, Mode, Settings, SightingKind, Subnet, answer};
use crate::model::{BootFile, ClientArch, ClientHints, ClientKind, Mac};
use std::net::{Ipv4Addr, SocketAddrV4};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 20);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 99);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x20];

/// A packet under construction.
struct Build {
    packet: Vec<u8>,
}

impl Build {
    fn new(kind: u8) -> Self {
        let mut packet = vec![0; 236];
        packet[..3].copy_from_slice(&[1, 1, 6]);
        packet[4..8].copy_from_slice(&[1, 2, 3, 4]);
        packet[28..34].copy_from_slice(&MAC);
        packet.extend_from_slice(&[99, 130, 83, 99]);
        Self { packet }.opt(53, &[kind])
    }
    fn opt(mut self, code: u8, data: &[u8]) -> Self {
        self.packet.extend_from_slice(&[code, data.len() as u8]);
        self.packet.extend_from_slice(data);
        self
    }
    fn addr(self, code: u8, a: Ipv4Addr) -> Self {
        self.opt(code, &a.octets())
    }
    fn at(mut self, offset: usize, data: &[u8]) -> Self {
        self.packet[offset..offset + data.len()].copy_from_slice(data);
        self
    }
    fn ciaddr(self, a: Ipv4Addr) -> Self {
        self.at(12, &a.octets())
    }
    fn giaddr(self, a: Ipv4Addr) -> Self {
        self.at(24, &a.octets())
    }
    fn pxe(self, arch: u16) -> Self {
        self.opt(60, format!("PXEClient:Arch:{arch:05}:UNDI:003016").as_bytes())
            .opt(93, &arch.to_be_bytes())
            .opt(97, &[&[0][..], &[7; 16]].concat())
    }
}

/// One node, `MAC`; what it boots depends on who asks, as in `netboot`.
struct Rack {
    address: Ipv4Addr,
    boots: bool,
}

const RACK: Rack = Rack { address: NODE, boots: true };

impl Directory for Rack {
    fn lookup(&self, hints: &ClientHints) -> Option<Host> {
        let file = match hints.kind {
            ClientKind::Pxe => Some("snponly.efi"),
            ClientKind::Ipxe => Some("http://10.7.0.1/boot/script"),
            ClientKind::HttpBoot => Some("http://10.7.0.1/boot/snponly.efi"),
            ClientKind::Os => None,
        };
        let boot = file.filter(|_| self.boots).map(|file| BootFile {
            server: SERVER,
            file: file.to_owned(),
            vendor_class: None,
        });
        (hints.mac.bytes() == MAC).then(|| Host {
            name: "node20".parse().unwrap(),
            address: self.address,
            boot,
        })
    }
}

fn settings() -> Settings {
    let mut s = Settings::new("eth0", SERVER, 24);
    s.subnet.router = Some(SERVER);
    s.dns = vec![SERVER];
    s.ntp = vec![SERVER];
    s.domain = Some("rack.example".into());
    s.search = vec!["rack.example".into(), "example".into()];
    s.relayed = vec![Subnet { network: RELAY, prefix: 24, router: Some(RELAY) }];
    s
}

fn ask_with(b: Build, port: Port, s: &Settings, rack: &Rack) -> Answer {
    let from = SocketAddrV4::new(NODE, 4011);
    let mut packet = b.packet;
    packet.push(255);
    answer(&packet, port, from, s, rack).unwrap()
}

fn ask(b: Build) -> Answer {
    ask_with(b, Port::Server, &settings(), &RACK)
}

fn options(reply: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let message = dhcproto::v4::borrowed::Message::new(reply).unwrap();
    message.opts().map(|o| (o.code().into(), o.data().to_vec())).collect()
}

fn option(reply: &[u8], code: u8) -> Option<Vec<u8>> {
    options(reply).into_iter().find(|(c, _)| *c == code).map(|(_, d)| d)
}

fn bytes(a: &Answer) -> &[u8] {
    &a.datagram.as_ref().expect("an answer").0
}

#[test]
fn every_row_of_rfc_2131_section_4_3_has_its_answer() {
    use SightingKind as K;
    let n = Ipv4Addr::UNSPECIFIED;
    let rows: Vec<(&str, Build, K, Ipv4Addr)> = vec![
        ("discover", Build::new(1), K::Offer, NODE),
        ("discover asking for another address", Build::new(1).addr(50, OTHER), K::Offer, NODE),
        ("selecting us", Build::new(3).addr(54, SERVER).addr(50, NODE), K::Ack, NODE),
        ("selecting us, wrong address", Build::new(3).addr(54, SERVER).addr(50, OTHER), K::Nak, n),
        (
            "selecting another server",
            Build::new(3).addr(54, OTHER).addr(50, NODE),
            K::Ignored(Reason::OtherServer(OTHER)),
            n,
        ),
        ("init-reboot", Build::new(3).addr(50, NODE), K::Ack, NODE),
        ("init-reboot, moved", Build::new(3).addr(50, Ipv4Addr::new(192, 168, 1, 5)), K::Nak, n),
        ("renewing or rebinding", Build::new(3).ciaddr(NODE), K::Ack, NODE),
        ("renewing what is not its own", Build::new(3).ciaddr(OTHER), K::Nak, n),
        ("a request for nothing", Build::new(3), K::Ignored(Reason::NoAddress), n),
        ("decline", Build::new(4).addr(50, NODE).addr(54, SERVER), K::Decline, n),
        ("release", Build::new(7).ciaddr(NODE).addr(54, SERVER), K::Release, n),
        (
            "release to another server",
            Build::new(7).ciaddr(NODE).addr(54, OTHER),
            K::Ignored(Reason::OtherServer(OTHER)),
            n,
        ),
        ("inform", Build::new(8).ciaddr(OTHER), K::Inform, n),
        ("inform without an address", Build::new(8), K::Ignored(Reason::NoAddress), n),
        ("a server's message", Build::new(2), K::Ignored(Reason::NotServed(2)), n),
        ("lease query", Build::new(10), K::Ignored(Reason::NotServed(10)), n),
    ];
    for (what, packet, kind, yiaddr) in rows {
        let a = ask(packet);
        assert_eq!(a.sighting.kind, kind, "{what}");
        match a.datagram {
            Some((bytes, _)) => assert_eq!(bytes[16..20], yiaddr.octets(), "{what}"),
            None => assert!(yiaddr.is_unspecified(), "{what}"),
        }
    }
}

#[test]
fn a_stranger_gets_no_answer_to_anything_and_is_reported() {
    for kind in [1, 3, 4, 7, 8] {
        let packet = Build::new(kind).at(28, &[0x52, 0x54, 0, 9, 9, 9]).addr(50, OTHER);
        let a = ask(packet);
        assert_eq!(a.sighting.kind, SightingKind::Ignored(Reason::Stranger));
        assert_eq!(a.datagram, None);
        assert_eq!(a.sighting.hints.mac.to_string(), "52:54:00:09:09:09");
    }
}

#[test]
fn the_client_id_never_changes_the_address_and_always_comes_back() {
    for id in [&[1, 2, 3][..], &[255, 0, 0, 0, 1, 0, 4, 9, 9], &[0; 200]] {
        let a = ask(Build::new(1).opt(61, id));
        assert_eq!(a.sighting.address, Some(NODE));
        assert_eq!(option(bytes(&a), 61).as_deref(), Some(id));
    }
}

#[test]
fn each_kind_of_client_is_told_its_own_boot_file_in_its_own_way() {
    let uefi = ask(Build::new(1).pxe(7));
    let reply = bytes(&uefi);
    assert_eq!(uefi.sighting.hints.arch, Some(ClientArch::UefiX64));
    assert_eq!(&reply[20..24], &SERVER.octets(), "siaddr");
    assert!(reply[108..].starts_with(b"snponly.efi\0"), "file");
    assert_eq!(option(reply, 67).unwrap(), b"snponly.efi");
    assert_eq!(option(reply, 66).unwrap(), b"10.7.0.1");
    assert_eq!(option(reply, 60).unwrap(), b"PXEClient");
    assert_eq!(option(reply, 43).unwrap(), [6, 1, 8, 255]);
    assert_eq!(option(reply, 97).unwrap()[0..2], [0, 7]);

    let http = ask(Build::new(1).opt(60, b"HTTPClient:Arch:00016:UNDI:003001").opt(93, &[0, 16]));
    assert_eq!(http.sighting.hints.kind, ClientKind::HttpBoot);
    assert_eq!(option(bytes(&http), 60).unwrap(), b"HTTPClient");
    assert_eq!(option(bytes(&http), 67).unwrap(), b"http://10.7.0.1/boot/snponly.efi");
    assert_eq!(option(bytes(&http), 43), None);

    for user_class in [&b"iPXE"[..], b"\x04iPXE", b"\x03abc\x04iPXE"] {
        let ipxe = ask(Build::new(1).pxe(0).opt(77, user_class));
        assert_eq!(ipxe.sighting.hints.kind, ClientKind::Ipxe);
        assert_eq!(option(bytes(&ipxe), 67).unwrap(), b"http://10.7.0.1/boot/script");
        assert_eq!(option(bytes(&ipxe), 60), None, "it would wait for a proxy");
        assert_eq!(option(bytes(&ipxe), 175).unwrap(), [0xb0, 1, 1]);
    }

    let os = ask(Build::new(1));
    assert_eq!(option(bytes(&os), 67), None);
    assert_eq!(option(bytes(&os), 12).unwrap(), b"node20");
}

#[test]
fn an_offer_describes_the_network() {
    let reply = ask(Build::new(1));
    let reply = bytes(&reply);
    let want: [(u8, &[u8]); 12] = [
        (53, &[2]),
        (54, &[10, 7, 0, 1]),
        (51, &[0, 0, 2, 88]),
        (58, &[0, 0, 1, 44]),
        (59, &[0, 0, 2, 13]),
        (1, &[255, 255, 255, 0]),
        (3, &[10, 7, 0, 1]),
        (6, &[10, 7, 0, 1]),
        (15, b"rack.example"),
        (28, &[10, 7, 0, 255]),
        (42, &[10, 7, 0, 1]),
        (119, b"\x04rack\x07example\0\x07example\0"),
    ];
    for (code, data) in want {
        assert_eq!(option(reply, code).as_deref(), Some(data), "option {code}");
    }
    assert!(reply.len() >= 300, "BOOTP's minimum");
}

#[test]
fn a_reply_finds_a_client_that_has_no_address_yet() {
    let mac = Mac::from_bytes(MAC).unwrap();
    let to = |b: Build| ask(b).datagram.unwrap().1;
    assert_eq!(to(Build::new(1)), Destination::Frame(mac, NODE));
    assert_eq!(to(Build::new(1).at(10, &[0x80, 0])), Destination::Broadcast);
    assert_eq!(to(Build::new(3).ciaddr(NODE)), Destination::Frame(mac, NODE));
    assert_eq!(to(Build::new(3).ciaddr(OTHER)), Destination::Broadcast, "a NAK");
    let relayed = Build::new(1).giaddr(SERVER);
    assert_eq!(to(relayed), Destination::Routed(SocketAddrV4::new(SERVER, 67)));
}

#[test]
fn a_relay_decides_the_network_and_gets_its_option_back_last() {
    let there = Rack { address: Ipv4Addr::new(10, 8, 0, 20), boots: true };
    let mut s = settings();
    let packet = || Build::new(1).giaddr(RELAY).opt(82, &[1, 2, 0xaa, 0xbb]).opt(61, &[9, 9]);
    let a = ask_with(packet(), Port::Server, &s, &there);
    let all = options(bytes(&a));
    assert_eq!(all.last(), Some(&(82, vec![1, 2, 0xaa, 0xbb])));
    assert_eq!(option(bytes(&a), 3).unwrap(), RELAY.octets());

    let here = ask_with(packet(), Port::Server, &s, &RACK);
    assert_eq!(here.sighting.kind, SightingKind::Ignored(Reason::WrongNetwork(NODE)));

    let far = Ipv4Addr::new(172, 16, 0, 1);
    let a = ask_with(Build::new(1).giaddr(far), Port::Server, &s, &there);
    assert_eq!(a.sighting.kind, SightingKind::Ignored(Reason::Relay(far)));
    s.relays = vec![far];
    let a = ask_with(Build::new(1).giaddr(far), Port::Server, &s, &there);
    assert_eq!(a.sighting.kind, SightingKind::Offer, "allowed by name");
    let a = ask_with(packet(), Port::Server, &s, &there);
    assert_eq!(a.sighting.kind, SightingKind::Ignored(Reason::Relay(RELAY)), "not on the list");

    let a = ask_with(
        Build::new(3).giaddr(far).addr(54, SERVER).addr(50, OTHER),
        Port::Server,
        &s,
        &there,
    );
    assert_eq!(bytes(&a)[10] & 0x80, 0x80, "a relay must broadcast a NAK");
}

#[test]
fn a_proxy_tells_boot_files_and_leaves_addresses_alone() {
    let s = Settings { mode: Mode::Proxy, ..settings() };
    let offer = ask_with(Build::new(1).pxe(7), Port::Server, &s, &RACK);
    let (reply, to) = offer.datagram.as_ref().unwrap();
    assert_eq!(*to, Destination::Broadcast);
    assert_eq!(reply[16..20], [0; 4]);
    assert_eq!(option(reply, 60).unwrap(), b"PXEClient");
    for code in [1, 3, 6, 12, 51] {
        assert_eq!(option(reply, code), None, "option {code}");
    }
    let on_4011 = Build::new(3).pxe(7).ciaddr(NODE).addr(54, OTHER);
    let ack = ask_with(on_4011, Port::Proxy, &s, &RACK);
    assert_eq!(ack.sighting.kind, SightingKind::Ack);
    let to = Destination::Routed(SocketAddrV4::new(NODE, 4011));
    assert_eq!(ack.datagram.unwrap().1, to);

    let idle = Rack { boots: false, ..RACK };
    let rows = [
        (Build::new(1), &RACK, Reason::NotNetboot),
        (Build::new(3).pxe(7).addr(54, OTHER), &RACK, Reason::OtherServer(OTHER)),
        (Build::new(3).pxe(7).addr(50, NODE), &RACK, Reason::NotOurLease),
        (Build::new(7).pxe(7), &RACK, Reason::NotOurLease),
        (Build::new(1).pxe(7), &idle, Reason::NothingToBoot),
    ];
    for (packet, rack, reason) in rows {
        let a = ask_with(packet, Port::Server, &s, rack);
        assert_eq!(a.sighting.kind, SightingKind::Ignored(reason));
    }
}

#[test]
fn a_small_client_gets_the_boot_file_and_loses_the_frills() {
    let mut s = settings();
    s.search = (0..40).map(|n| format!("a-rather-long-label-{n}.example")).collect();
    s.dns = vec![SERVER; 20];
    let a = ask_with(Build::new(1).pxe(7).opt(57, &[2, 64]), Port::Server, &s, &RACK);
    assert!(bytes(&a).len() <= 576 - 28);
    assert!(option(bytes(&a), 67).is_some());
    assert_eq!(option(bytes(&a), 119), None);
}

#[test]
fn options_that_are_broken_do_not_cost_the_others() {
    let packet = |b: Build| Request::decode(&[b.packet, vec![255]].concat()).unwrap();
    let r = packet(Build::new(1).opt(12, &[0xff, 0xfe]).opt(3, &[1, 2, 3]).pxe(9));
    assert_eq!(r.hints().arch, Some(ClientArch::UefiX64));
    assert_eq!(r.hostname.as_deref(), Some("??"));
    let r = packet(Build::new(1).opt(60, b"PXEClient:Arch:00007:UNDI").opt(93, &[0]));
    assert_eq!(r.hints().arch, Some(ClientArch::UefiX64), "from the vendor class");
    let r = packet(Build::new(1).opt(93, &[0, 99, 0, 7]));
    assert_eq!(r.hints().arch, Some(ClientArch::UefiX64), "the one we know");
    let r = packet(Build::new(1).opt(53, &[3]).opt(12, b"").opt(53, &[8]));
    assert_eq!(r.kind, MessageType::Discover, "the first counts");
    let overloaded = Build::new(1)
        .opt(52, &[3])
        .at(44, &[12, 1, b'x', 255])
        .at(108, &[77, 4, b'i', b'P', b'X', b'E', 255]);
    let r = packet(overloaded);
    assert_eq!((r.client_kind(), r.hostname.as_deref()), (ClientKind::Ipxe, Some("x")));
}

/// Seen with Debian 13: without a router it loses the name servers of the same
/// answer, and stops to ask for them.
#[test]
fn the_debian_installer_is_given_a_router_where_there_is_none() {
    let mut s = settings();
    s.subnet.router = None;
    let of = |b: Build, s: &Settings| {
        let a = ask_with(b.addr(50, NODE), Port::Server, s, &RACK);
        option(bytes(&a), 3)
    };
    assert_eq!(of(Build::new(3).opt(60, b"d-i"), &s), Some(SERVER.octets().to_vec()));
    assert_eq!(of(Build::new(3), &s), None, "an installed system");
    s.subnet.router = Some(OTHER);
    assert_eq!(of(Build::new(3).opt(60, b"d-i"), &s), Some(OTHER.octets().to_vec()));
}
