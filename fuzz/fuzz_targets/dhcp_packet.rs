//! The DHCP server's one entry point, `dhcp::answer`, for anybody's bytes.
//! The first byte chooses mode and port.
#![no_main]

use libfuzzer_sys::fuzz_target;
use provision::dhcp::decide::Port;
use provision::dhcp::{Directory, Host, Mode, Settings, Subnet, answer};
use provision::model::{BootFile, ClientHints};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::OnceLock;

struct Everybody;

impl Directory for Everybody {
    fn lookup(&self, hints: &ClientHints) -> Option<Host> {
        Some(Host {
            name: "node".parse().ok()?,
            address: Ipv4Addr::new(10, 7, 0, 20),
            boot: hints.kind.is_netboot().then(|| BootFile {
                server: Ipv4Addr::new(10, 7, 0, 1),
                file: "snponly.efi".to_owned(),
                vendor_class: None,
            }),
        })
    }
}

fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let mut settings = Settings::new("boot0", Ipv4Addr::new(10, 7, 0, 1), 24);
        settings.dns = vec![settings.server_address; 3];
        settings.search = vec!["rack.example".into()];
        settings.domain = Some("rack.example".into());
        settings.relayed =
            vec![Subnet { network: Ipv4Addr::new(10, 8, 0, 0), prefix: 16, router: None }];
        settings
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, packet)) = data.split_first() else { return };
    let port = if choice & 1 == 0 { Port::Server } else { Port::Proxy };
    let mut settings = settings().clone();
    if choice & 2 != 0 {
        settings.mode = Mode::Proxy;
    }
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 7, 0, 20), 68);
    if let Ok(answer) = answer(packet, port, from, &settings, &Everybody)
        && let Some((reply, _)) = answer.datagram
    {
        assert!((300..=1472).contains(&reply.len()));
        assert_eq!(reply[4..8], packet[4..8]);
        assert_eq!(reply[240], 53, "the message type first");
    }
});
