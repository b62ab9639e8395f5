//! Networks behind relay agents: `[[subnets]]`. Nodes in them have fixed
//! addresses, so that there is no range; the relay is told by the router that
//! hands a packet on (RFC 2131 §4.3.1, `giaddr`).

use super::Network;
use std::net::Ipv4Addr;

/// One such network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// Network address.
    pub net: Ipv4Addr,
    /// Prefix length, 8 to 30.
    pub prefix: u8,
    /// Default route told to nodes there: without one they do not reach us.
    pub router: Ipv4Addr,
}

/// What a node is told of the network that its address is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around {
    /// Prefix length.
    pub prefix: u8,
    /// Default route.
    pub router: Option<Ipv4Addr>,
}

/// `10.1.0.0/24`, with a prefix of 8 to 30; the text of an error says what
/// would be right.
pub fn cidr(text: &str) -> Result<(Ipv4Addr, u8), String> {
    const FORM: &str = "a subnet is written like 10.1.0.0/24, with a prefix of 8 to 30";
    let (a, p) = text.split_once('/').ok_or(FORM)?;
    let net: Ipv4Addr = a.parse().map_err(|_| FORM)?;
    let prefix: u8 = p.parse().map_err(|_| FORM)?;
    if !(8..=30).contains(&prefix) {
        return Err(FORM.into());
    }
    let base = Ipv4Addr::from(u32::from(net) & mask(prefix));
    if base != net {
        return Err(format!("{net}/{prefix} is not a network address; use {base}/{prefix}"));
    }
    Ok((net, prefix))
}

fn mask(prefix: u8) -> u32 {
    u32::MAX << (32 - u32::from(prefix.clamp(1, 32)))
}

/// First and last host address of a network.
pub fn hosts(net: Ipv4Addr, prefix: u8) -> (Ipv4Addr, Ipv4Addr) {
    let (net, last) = (u32::from(net), u32::from(net) | !mask(prefix));
    (Ipv4Addr::from(net + 1), Ipv4Addr::from(last - 1))
}

fn overlap(a: (Ipv4Addr, u8), b: (Ipv4Addr, u8)) -> bool {
    let m = mask(a.1.min(b.1));
    u32::from(a.0) & m == u32::from(b.0) & m
}

impl Network {
    /// Takes one more network behind a relay; what is wrong with it.
    pub(super) fn relay(&mut self, text: &str, router: Ipv4Addr) -> Result<(), String> {
        let new = cidr(text)?;
        let all = self.relayed.iter().map(|r| (r.net, r.prefix)).chain([(self.net, self.prefix)]);
        if let Some((net, prefix)) = all.into_iter().find(|old| overlap(*old, new)) {
            return Err(format!(
                "subnet {text} overlaps {net}/{prefix}; an address must lie in one network only"
            ));
        }
        let (first, last) = hosts(new.0, new.1);
        if !(first..=last).contains(&router) {
            return Err(format!(
                "router {router} is outside; the hosts of {text} are {first} to {last}"
            ));
        }
        self.relayed.push(Relayed { net: new.0, prefix: new.1, router });
        Ok(())
    }

    /// The network that `address` is in.
    pub fn around(&self, address: Ipv4Addr) -> Around {
        let there = self.relayed.iter().find(|r| overlap((r.net, r.prefix), (address, 32)));
        match there {
            Some(r) => Around { prefix: r.prefix, router: Some(r.router) },
            None => Around { prefix: self.prefix, router: self.router },
        }
    }

    /// Whether a node behind a relay may have `address`.
    pub fn is_relayed_host(&self, address: Ipv4Addr) -> bool {
        self.relayed.iter().any(|r| {
            let (first, last) = hosts(r.net, r.prefix);
            (first..=last).contains(&address) && address != r.router
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError, parse};
    use std::path::Path;

    fn read(subnets: &str) -> Result<Config, ConfigError> {
        let text = format!(
            "[network]\ninterface='e'\naddress='10.1.0.1'\nsubnet='10.1.0.0/24'\n\
             range=['10.1.0.10','10.1.0.12']\n{subnets}"
        );
        parse(&text, "p.toml", Path::new("/"))
    }

    #[test]
    fn a_subnet_that_overlaps_or_is_none_is_refused_with_the_line() {
        let far = "[[subnets]]\nsubnet='10.8.0.0/24'\nrouter='10.8.0.1'\n";
        for (more, line, word) in [
            ("[[subnets]]\nsubnet='10.0.0.0/8'\nrouter='10.0.0.1'\n", 7, "overlaps 10.1.0.0/24"),
            (&far.repeat(2), 10, "overlaps 10.8.0.0/24"),
            ("[[subnets]]\nsubnet='10.8.0.5/24'\nrouter='10.8.0.1'\n", 7, "use 10.8.0.0/24"),
            ("[[subnets]]\nsubnet='10.8.0.0/31'\nrouter='10.8.0.1'\n", 7, "prefix of 8 to 30"),
            ("[[subnets]]\nsubnet='10.8.0.0/24'\nrouter='10.9.0.1'\n", 7, "10.8.0.1 to 10.8.0.254"),
        ] {
            let e = read(more).unwrap_err().to_string();
            assert!(e.starts_with(&format!("p.toml:{line}:")) && e.contains(word), "{e}");
        }
        assert_eq!(read(far).unwrap().network.relayed.len(), 1);
    }
}
