//! `[dns]`, `[time]` and `[syslog]`: whether we are the boot network's name and time
//! server, and with it what the nodes are told unless `[network]` says
//! otherwise.

use super::resolved::{Fault, fault};
use super::wire;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use toml::Spanned;

/// The port at which a node's resolver asks; it cannot be told another.
const DNS_PORT: u16 = 53;
/// The same for time.
const NTP_PORT: u16 = 123;

/// Names for the boot network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Whether they are served.
    pub enabled: bool,
    /// UDP and TCP port on the server's address.
    pub port: u16,
    /// Who is asked what is not ours; `None`: those of the host's resolv.conf.
    pub forward: Option<Vec<SocketAddr>>,
}

impl Dns {
    /// The name servers told to nodes when `[network] dns` is left out: us,
    /// where a node can ask us.
    pub(super) fn told(&self, ours: Ipv4Addr) -> Vec<Ipv4Addr> {
        if self.enabled && self.port == DNS_PORT { vec![ours] } else { Vec::new() }
    }
}

/// Time for the boot network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeService {
    /// Whether it is served.
    pub enabled: bool,
    /// UDP port on the server's address.
    pub port: u16,
}

impl TimeService {
    /// The time servers told to nodes when `[network] ntp` is left out.
    pub(super) fn told(self, ours: Ipv4Addr) -> Vec<Ipv4Addr> {
        if self.enabled && self.port == NTP_PORT { vec![ours] } else { Vec::new() }
    }
}

fn port(given: Option<Spanned<u16>>, usual: u16) -> Result<u16, Fault> {
    match given {
        Some(p) if *p.get_ref() == 0 => fault(p.span(), format!("port is 1 to 65535; {usual}")),
        Some(p) => Ok(p.into_inner()),
        None => Ok(usual),
    }
}

pub(super) fn dns(d: wire::Dns, ours: Ipv4Addr) -> Result<Dns, Fault> {
    let port = port(d.port, DNS_PORT)?;
    let mut forward = Vec::new();
    for text in d.forward.iter().flatten() {
        let t = text.get_ref();
        let one = t.parse::<IpAddr>().map(|a| SocketAddr::new(a, DNS_PORT));
        let Ok(server) = one.or_else(|_| t.parse::<SocketAddr>()) else {
            return fault(
                text.span(),
                format!("{t:?} is no address; a name server is written like \"192.0.2.53\""),
            );
        };
        if server == SocketAddr::from((ours, port)) {
            return fault(
                text.span(),
                format!("{t} is this server itself; name another, or none: forward = []"),
            );
        }
        forward.push(server);
    }
    if let Some(fourth) = d.forward.as_ref().and_then(|f| f.get(3)) {
        return fault(fourth.span(), "forward has at most three name servers");
    }
    let forward = d.forward.is_some().then_some(forward);
    Ok(Dns { enabled: d.enabled.unwrap_or(true), port, forward })
}

pub(super) fn time(t: wire::Time) -> Result<TimeService, Fault> {
    Ok(TimeService { enabled: t.enabled.unwrap_or(true), port: port(t.port, NTP_PORT)? })
}

/// The port for the installers' logs. Not 514: that is the host's own, and the
/// installers can be told any.
const SYSLOG_PORT: u16 = 10514;

pub(super) fn syslog(s: wire::Syslog) -> Result<Option<u16>, Fault> {
    let port = port(s.port, SYSLOG_PORT)?;
    Ok(s.enabled.unwrap_or(true).then_some(port))
}

/// A domain as DNS can carry it (RFC 1123 §2.1), without the last dot. It goes
/// into `resolv.conf` and `/etc/hosts` as well.
pub(super) fn domain(given: Spanned<String>) -> Result<String, Fault> {
    let text = given.get_ref().strip_suffix('.').unwrap_or(given.get_ref());
    let is_label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    // 63 more and a dot for the host's own label make at most 253.
    if text.is_empty() || (text.len() <= 180 && text.split('.').all(is_label)) {
        return Ok(text.to_ascii_lowercase());
    }
    fault(
        given.span(),
        format!(
            "{text:?} is no domain; it is written like rack1.example.com: letters, digits and \
             '-' between dots, at most 180"
        ),
    )
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError, parse};
    use std::net::Ipv4Addr;
    use std::path::Path;

    fn read(network: &str, more: &str) -> Result<Config, ConfigError> {
        let text = format!(
            "[network]\ninterface='e'\naddress='10.1.0.1'\nsubnet='10.1.0.0/24'\n\
             range=['10.1.0.10','10.1.0.12']\n{network}\n{more}"
        );
        parse(&text, "p.toml", Path::new("/"))
    }

    #[test]
    fn nodes_are_told_of_us_unless_the_network_says_otherwise() {
        let us = vec![Ipv4Addr::new(10, 1, 0, 1)];
        for (network, more, dns, ntp) in [
            ("", "", us.clone(), us.clone()),
            ("dns=['10.1.0.9']\nntp=[]", "", vec![[10, 1, 0, 9].into()], vec![]),
            ("", "[dns]\nenabled=false\n[time]\nport=1123", vec![], vec![]),
        ] {
            let n = read(network, more).unwrap().network;
            assert_eq!((n.dns, n.ntp), (dns, ntp), "{network} {more}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_line_and_what_would_be_right() {
        for (network, more, line, word) in [
            ("", "[dns]\nforward=['9.9.9.9','x.example']", 8, "written like \"192.0.2.53\""),
            ("", "[dns]\nforward=['10.1.0.1']", 8, "forward = []"),
            ("", "[dns]\nforward=['9.9.9.1','9.9.9.2','9.9.9.3','9.9.9.4']", 8, "at most three"),
            ("", "[dns]\nforwards=[]", 8, "did you mean `forward`"),
            ("", "[time]\nport=0", 8, "1 to 65535"),
            ("domain='a..b'", "", 6, "rack1.example.com"),
            ("domain='a b\\nnameserver 1'", "", 6, "rack1.example.com"),
        ] {
            let e = read(network, more).unwrap_err().to_string();
            assert!(e.starts_with(&format!("p.toml:{line}:")) && e.contains(word), "{e}");
        }
        let c = read("domain='Rack.Example.'", "[dns]\nforward=['9.9.9.9', '[::1]:5353']").unwrap();
        assert_eq!(c.network.domain, "rack.example");
        assert_eq!(c.dns.forward.unwrap()[0].to_string(), "9.9.9.9:53");
        assert_eq!(read("", "[dns]\nforward=[]").unwrap().dns.forward, Some(vec![]));
        assert_eq!(read("", "").unwrap().dns.forward, None);
    }
}
