//! From the configuration to what DHCP serves.

use crate::config::{Config, DhcpMode};
use crate::dhcp::{Mode, Settings, Subnet};
use std::time::Duration;

/// The settings for the configured link.
pub fn dhcp_settings(c: &Config, mode: DhcpMode) -> Settings {
    let n = &c.network;
    let relayed = n.relayed.iter().map(|r| Subnet {
        network: r.net,
        prefix: r.prefix,
        router: Some(r.router),
    });
    Settings {
        subnet: Subnet { network: n.net, prefix: n.prefix, router: n.router },
        relayed: relayed.collect(),
        relays: n.relays.clone(),
        dns: n.dns.clone(),
        ntp: n.ntp.clone(),
        domain: (!n.domain.is_empty()).then(|| n.domain.clone()),
        search: n.search.clone(),
        lease: Duration::from_secs(u64::from(c.lease_seconds)),
        mode: match mode {
            DhcpMode::Proxy => Mode::Proxy,
            _ => Mode::Authoritative,
        },
        allow_other_servers: c.allow_other_servers,
        ..Settings::new(&n.interface, n.address, n.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::decide::Port;
    use crate::dhcp::reply::Destination;
    use crate::dhcp::{Directory, Host, answer};
    use crate::model::ClientHints;
    use std::net::{Ipv4Addr, SocketAddrV4};

    /// One node, 10.8.0.20.
    struct Far;

    impl Directory for Far {
        fn lookup(&self, _: &ClientHints) -> Option<Host> {
            let name = "far20".parse().unwrap();
            Some(Host { name, address: [10, 8, 0, 20].into(), boot: None })
        }
    }

    /// A DISCOVER that the relay 10.8.0.1 hands on (RFC 2131 §2, figure 1).
    fn discover() -> Vec<u8> {
        let mut p = vec![0u8; 236];
        p[..4].copy_from_slice(&[1, 1, 6, 1]);
        p[24..28].copy_from_slice(&[10, 8, 0, 1]);
        p[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 0x20]);
        p.extend_from_slice(&[99, 130, 83, 99, 53, 1, 1, 255]);
        p
    }

    #[test]
    fn a_node_in_a_configured_subnet_is_answered_through_its_relay() {
        let base = "[network]\ninterface='e'\naddress='10.1.0.1'\nsubnet='10.1.0.0/24'\n\
                    range=['10.1.0.10','10.1.0.12']\n";
        let subnets = "[[subnets]]\nsubnet='10.8.0.0/24'\nrouter='10.8.0.254'\n";
        let ask = |text: &str| {
            let c = crate::config::parse(text, "f", std::path::Path::new("/")).unwrap();
            let settings = dhcp_settings(&c, DhcpMode::Authoritative);
            let relay = SocketAddrV4::new([10, 8, 0, 1].into(), 67);
            answer(&discover(), Port::Server, relay, &settings, &Far).unwrap().datagram
        };
        assert_eq!(ask(base), None, "a subnet that is not configured is not served");
        let (reply, to) = ask(&format!("{base}{subnets}")).unwrap();
        let relay = SocketAddrV4::new(Ipv4Addr::new(10, 8, 0, 1), 67);
        assert_eq!(to, Destination::Routed(relay));
        assert_eq!(reply[16..20], [10, 8, 0, 20], "yiaddr");
        let has = |option: &[u8]| reply[240..].windows(option.len()).any(|w| w == option);
        assert!(has(&[1, 4, 255, 255, 255, 0]), "mask");
        assert!(has(&[3, 4, 10, 8, 0, 254]), "router");
        assert!(has(&[54, 4, 10, 1, 0, 1]), "server");
    }
}
