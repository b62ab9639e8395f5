//! Packets of real firmware, broken packets, and packets made of both by
//! chance: none panics, and every answer can be read.
//!
//! Fixtures: `broken-*` come to nothing; `odd-*` have something wrong and are
//! answered all the same; the others were sent by real firmware (see
//! `dhcp_firmware.rs`).

use proptest::prelude::*;
use provision::dhcp::decide::Port;
use provision::dhcp::{Answer, Directory, Host, Mode, NoAnswer, Settings, Subnet, answer};
use provision::model::{BootFile, ClientArch, ClientHints, ClientKind};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);

/// Knows everybody.
struct Everybody;

impl Directory for Everybody {
    fn lookup(&self, hints: &ClientHints) -> Option<Host> {
        let file = match hints.kind {
            ClientKind::Os => None,
            ClientKind::Pxe => Some("snponly.efi".to_owned()),
            _ => Some(format!("http://10.7.0.1/{}", "long/".repeat(40))),
        };
        Some(Host {
            name: "node".parse().ok()?,
            address: Ipv4Addr::new(10, 7, 0, 20),
            boot: file.map(|file| BootFile { server: SERVER, file, vendor_class: None }),
        })
    }
}

fn settings(mode: Mode) -> Settings {
    let mut settings = Settings::new("boot0", SERVER, 24);
    settings.mode = mode;
    settings.dns = vec![SERVER];
    settings.search = vec!["rack.example".into()];
    settings.relayed =
        vec![Subnet { network: Ipv4Addr::new(10, 8, 0, 0), prefix: 16, router: None }];
    settings
}

fn ask(packet: &[u8], mode: Mode, port: Port) -> Result<Answer, NoAnswer> {
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 7, 0, 20), 68);
    answer(packet, port, from, &settings(mode), &Everybody)
}

fn fixtures() -> &'static [(String, Vec<u8>)] {
    static ALL: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    ALL.get_or_init(read_fixtures)
}

fn read_fixtures() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dhcp");
    let mut all: Vec<(String, Vec<u8>)> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    all.sort();
    assert!(all.len() > 50, "the fixtures are there");
    all
}

/// Whatever is sent must be a datagram that clients can read.
fn check(packet: &[u8], reply: &[u8]) {
    assert!((300..=1472).contains(&reply.len()), "{} bytes", reply.len());
    assert_eq!((reply[0], reply[1], reply[2]), (2, 1, 6));
    assert_eq!(reply[4..8], packet[4..8], "xid");
    assert_eq!(reply[28..34], packet[28..34], "chaddr");
    let message = dhcproto::v4::borrowed::Message::new(reply).unwrap();
    let codes: Vec<u8> = message.opts().map(|o| o.code().into()).collect();
    assert_eq!(codes.first(), Some(&53));
    assert_eq!(codes.get(1), Some(&54));
    let relay = codes.iter().position(|&c| c == 82);
    assert!(relay.is_none_or(|at| at == codes.len() - 1), "option 82 last: {codes:?}");
    let owned = <dhcproto::v4::Message as dhcproto::Decodable>::from_bytes(reply).unwrap();
    assert!(owned.opts().len() >= codes.len() - 1, "a strict decoder reads it too");
    let end = reply[240..].iter().rposition(|&b| b != 0).unwrap();
    assert_eq!(reply[240 + end], 255, "ends with the end mark, then zeros");
}

#[test]
fn every_fixture_is_answered_or_refused_as_its_name_says() {
    for (name, packet) in fixtures() {
        let answer = ask(packet, Mode::Authoritative, Port::Server);
        if name.starts_with("broken-") {
            assert!(matches!(answer, Err(NoAnswer::Malformed(_))), "{name}: {answer:?}");
            continue;
        }
        let answer = answer.unwrap_or_else(|e| panic!("{name}: {e}"));
        let hints = &answer.sighting.hints;
        if name.starts_with("odd-") {
            assert_eq!(hints.arch, Some(ClientArch::UefiX64), "{name}: {hints:?}");
            assert_eq!(hints.kind, ClientKind::Pxe, "{name}");
        } else {
            let kind = match () {
                () if name.contains("-ipxe-discover") || name.contains("-ipxe-request") => {
                    ClientKind::Ipxe
                }
                () if name.contains("-http-discover") || name.contains("-http-request") => {
                    ClientKind::HttpBoot
                }
                () => ClientKind::Pxe,
            };
            let arch = match () {
                () if name.starts_with("seabios") => ClientArch::Bios,
                () if kind == ClientKind::HttpBoot => ClientArch::UefiX64Http,
                () => ClientArch::UefiX64,
            };
            assert_eq!((hints.kind, hints.arch), (kind, Some(arch)), "{name}");
            assert!(hints.uuid.is_some(), "{name}");
            assert_eq!(hints.mac.to_string(), "52:54:00:00:00:14");
        }
        match answer.datagram {
            Some((reply, _)) => check(packet, &reply),
            None => assert!(name.contains("proxy"), "{name}: chose another server"),
        }
    }
}

#[test]
fn sixty_four_kilobytes_of_options_are_read_in_no_time() {
    let (_, mut packet) = fixtures().iter().find(|(n, _)| n == "odd-no-end").unwrap().clone();
    while packet.len() < 65_507 {
        packet.extend_from_slice(&[12, 1, b'x', 13, 0]);
    }
    packet.truncate(65_507);
    // The processor's time for this thread: others may have had it meanwhile.
    let clock = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let began = clock();
    let answer = ask(&packet, Mode::Authoritative, Port::Server).unwrap();
    check(&packet, &answer.datagram.unwrap().0);
    let took = Duration::try_from(clock() - began).unwrap();
    assert!(took.as_millis() < 100, "{took:?}");
}

fn any_mode() -> impl Strategy<Value = (Mode, Port)> {
    prop_oneof![
        3 => Just((Mode::Authoritative, Port::Server)),
        1 => Just((Mode::Proxy, Port::Server)),
        1 => Just((Mode::Proxy, Port::Proxy)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn bytes_by_chance_never_panic(
        packet in proptest::collection::vec(any::<u8>(), 0..700),
        (mode, port) in any_mode(),
    ) {
        let _ = ask(&packet, mode, port);
    }

    #[test]
    fn options_by_chance_never_panic_and_answers_can_be_read(
        options in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..30),
        kind in 0u8..12,
        header in proptest::array::uniform32(any::<u8>()),
        (mode, port) in any_mode(),
    ) {
        let mut packet = vec![0; 240];
        packet[..28].copy_from_slice(&header[..28]);
        packet[..3].copy_from_slice(&[1, 1, 6]);
        packet[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 0x14]);
        packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
        packet.extend_from_slice(&[53, 1, kind]);
        for (code, data) in options {
            packet.push(code);
            packet.push(data.len() as u8);
            packet.extend_from_slice(&data);
        }
        if let Ok(Answer { datagram: Some((reply, _)), .. }) = ask(&packet, mode, port) {
            check(&packet, &reply);
        }
    }

    #[test]
    fn changed_packets_of_real_firmware_never_panic_and_answers_can_be_read(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        (mode, port) in any_mode(),
    ) {
        let mut packet = which.get(fixtures()).1.clone();
        if !packet.is_empty() {
            for (at, value) in changes {
                let at = at.index(packet.len());
                packet[at] = value;
            }
            if let Some(cut) = cut {
                packet.truncate(cut.index(packet.len()));
            }
        }
        if let Ok(Answer { datagram: Some((reply, _)), .. }) = ask(&packet, mode, port) {
            check(&packet, &reply);
        }
    }
}
