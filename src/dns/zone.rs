//! What is ours: the domain's one level of hosts, the bare labels of the same
//! hosts, and the reverse of our networks. Pure; the records come from
//! [`Names`] at each question.

use super::{DnsError, Names};
use hickory_proto::rr::rdata::{A, NS, PTR, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::Ipv4Addr;

/// Seconds an answer may be kept. Short, since the inventory may change, and
/// long enough that a boot does not ask for the same name a hundred times.
pub const TTL: u32 = 10;
/// Seconds a "no" may be kept (RFC 2308 §5).
pub const NEGATIVE_TTL: u32 = 5;

/// What we speak for.
#[derive(Debug, Clone)]
pub struct Zone {
    domain: Option<Name>,
    networks: Vec<(u32, u32)>,
    server: String,
    serial: u32,
}

/// Where a name lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a zone of ours, whose apex says who speaks; `None` for bare labels,
    /// which have no zone.
    Ours(Option<Name>, What),
    /// In somebody else's.
    Elsewhere,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The zone itself.
    Apex,
    /// A host.
    Host(Ipv4Addr),
    /// An address with a name.
    Named(Name),
    /// Nothing.
    Nothing,
}

impl Zone {
    /// A zone for `domain` (empty for none) and the reverse of `networks`
    /// (address and prefix length), spoken for by the host `server` in it.
    /// `serial` is the SOA's: nobody copies the zone, so that any will do.
    pub fn new(
        domain: &str,
        networks: &[(Ipv4Addr, u8)],
        server: &str,
        serial: u32,
    ) -> Result<Self, DnsError> {
        let wrong = |why: String| DnsError::Domain { domain: domain.to_owned(), why };
        let name = match domain.trim_end_matches('.') {
            "" => None,
            d => {
                let mut name = Name::from_ascii(d).map_err(|e| wrong(e.to_string()))?;
                name.set_fqdn(true);
                // Room for the longest label in front, or a host has no name.
                if name.len() > 190 {
                    return Err(wrong("too long; at most 190 bytes".into()));
                }
                Some(name.to_lowercase())
            }
        };
        let networks = networks.iter().map(|(a, prefix)| {
            let mask = u32::MAX.checked_shl(32 - u32::from((*prefix).min(32))).unwrap_or(0);
            (u32::from(*a) & mask, mask)
        });
        Ok(Self { domain: name, networks: networks.collect(), server: server.to_owned(), serial })
    }

    /// Whether `address` is in one of our networks.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.networks.iter().any(|(net, mask)| u32::from(address) & mask == *net)
    }

    /// Where `name` lies and what is there, for a question of type `kind`.
    pub fn find(&self, name: &Name, kind: RecordType, names: &dyn Names) -> Place {
        let name = name.to_lowercase();
        let text = name.to_ascii();
        let text = text.trim_end_matches('.');
        if let Some(a) = names.elsewhere(text) {
            return Place::Ours(None, What::Host(a));
        }
        if let Some(domain) = self.domain.as_ref().filter(|d| d.zone_of(&name)) {
            let what = match name.num_labels() - domain.num_labels() {
                0 => What::Apex,
                1 => host(text.split('.').next().unwrap_or_default(), names),
                _ => What::Nothing,
            };
            return Place::Ours(Some(domain.clone()), what);
        }
        if let Some(under) = text.strip_suffix(".in-addr.arpa") {
            return self.reverse(under, names);
        }
        let bare = !text.is_empty() && !text.contains('.');
        match bare.then(|| host(text, names)) {
            Some(What::Nothing) if !matches!(kind, RecordType::A | RecordType::AAAA) => {
                // `com`, asked for its name servers.
                Place::Elsewhere
            }
            // A bare label is nobody's host but ours: it is never passed on.
            Some(what) => Place::Ours(None, what),
            None => Place::Elsewhere,
        }
    }

    /// `under` is `4.3.2.1`, or `3.2.1` for the zone. Reverse zones are cut at
    /// whole octets (RFC 1035 §3.5): one for each 256 addresses.
    fn reverse(&self, under: &str, names: &dyn Names) -> Place {
        let octets: Option<Vec<u8>> = under.rsplit('.').map(|o| o.parse().ok()).collect();
        let Some(octets) = octets else { return Place::Elsewhere };
        let (Some(&a), Some(&b), Some(&c)) = (octets.first(), octets.get(1), octets.get(2)) else {
            return Place::Elsewhere;
        };
        let apex = Name::from_ascii(format!("{c}.{b}.{a}.in-addr.arpa.")).ok();
        match octets.get(3..) {
            Some([d]) => {
                let address = Ipv4Addr::new(a, b, c, *d);
                match names.name(address) {
                    Some(n) => Place::Ours(apex, self.full(&n).map_or(What::Nothing, What::Named)),
                    None if self.contains(address) => Place::Ours(apex, What::Nothing),
                    None => Place::Elsewhere,
                }
            }
            Some([]) => {
                let (first, ours) = (u32::from(Ipv4Addr::new(a, b, c, 0)), u32::MAX << 8);
                let meets = |(net, mask): &(u32, u32)| first & mask & ours == net & mask & ours;
                match self.networks.iter().any(meets) {
                    true => Place::Ours(apex, What::Apex),
                    false => Place::Elsewhere,
                }
            }
            _ => Place::Elsewhere,
        }
    }

    /// The full name of a host: `label` in our domain, or as it is.
    fn full(&self, label: &str) -> Option<Name> {
        let text = match &self.domain {
            Some(d) if !label.contains('.') => format!("{label}.{d}"),
            _ => label.to_owned(),
        };
        let mut name = Name::from_ascii(text).ok()?;
        name.set_fqdn(true);
        Some(name)
    }

    /// The SOA of `apex`: its last field is how long a "no" may be kept.
    pub fn soa(&self, apex: &Name) -> Option<Record> {
        let contact = self.full("hostmaster")?;
        let (server, negative) = (self.full(&self.server)?, NEGATIVE_TTL);
        let soa = SOA::new(server, contact, self.serial, 3600, 600, 86_400, negative);
        Some(Record::from_rdata(apex.clone(), NEGATIVE_TTL, RData::SOA(soa)))
    }

    /// The records that answer a question of type `kind` for `name`.
    pub fn records(&self, name: &Name, kind: RecordType, what: &What) -> Vec<Record> {
        let any = kind == RecordType::ANY;
        let record = |data| Record::from_rdata(name.clone(), TTL, data);
        match what {
            What::Host(a) if any || kind == RecordType::A => vec![record(RData::A(A(*a)))],
            What::Named(n) if any || kind == RecordType::PTR => {
                vec![record(RData::PTR(PTR(n.clone())))]
            }
            What::Apex => {
                let ns = self.full(&self.server).map(|n| record(RData::NS(NS(n))));
                let ns = ns.filter(|_| any || kind == RecordType::NS);
                let soa = self.soa(name).filter(|_| any || kind == RecordType::SOA);
                soa.into_iter().chain(ns).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn host(label: &str, names: &dyn Names) -> What {
    names.address(label).map_or(What::Nothing, What::Host)
}
