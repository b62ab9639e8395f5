//! Inventory files: `[[node]]` tables in TOML, as `provision nodes import`
//! takes them. The file is checked as a whole, against itself and against
//! what is there already, before anything is written.

use super::{ConfigError, Network, from_toml, line_of};
use crate::model::{
    Arch, BmcSpec, DiskHint, Firmware, LOADER_LABEL, Loader, Mac, NodeName, NodeSpec, PowerDriver,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileWire {
    #[serde(default)]
    node: Vec<Spanned<NodeWire>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeWire {
    name: Spanned<String>,
    #[serde(alias = "mac")]
    macs: Spanned<OneOrMany>,
    address: Option<Spanned<Ipv4Addr>>,
    #[serde(default)]
    firmware: Firmware,
    #[serde(default)]
    arch: Arch,
    bmc: Option<BmcWire>,
    #[serde(default)]
    disk: DiskHint,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    spare: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BmcWire {
    address: IpAddr,
    port: Option<u16>,
    #[serde(default)]
    driver: PowerDriver,
    user: String,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
}

/// Where a BMC's password is to be had, by the one who reads the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// A file with mode 0600.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// A node as a file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    /// Line of its table.
    pub line: usize,
    /// The node; `None` address: to be given the first free one.
    pub spec: NodeSpec,
    /// Whether an address was given (else `spec.address` is unspecified).
    pub has_address: bool,
    /// Its BMC's password.
    pub password: Option<PasswordSource>,
}

/// Why a node cannot be as it is described.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Unfit {
    /// Which part of the description, as a JSON pointer: `/macs`.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub why: String,
}

impl Unfit {
    fn new(field: &'static str, why: String) -> Self {
        Self { field, why }
    }
}

/// What the inventory already holds: each value with the node that has it.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Names.
    pub names: BTreeSet<NodeName>,
    /// MACs.
    pub macs: BTreeMap<Mac, NodeName>,
    /// Addresses.
    pub addresses: BTreeMap<Ipv4Addr, NodeName>,
    /// BMCs: two nodes on one would cycle each other.
    pub bmcs: BTreeMap<(IpAddr, u16), NodeName>,
}

impl Taken {
    /// Adds a node.
    pub fn add(&mut self, n: &NodeSpec) {
        self.names.insert(n.name.clone());
        self.macs.extend(n.macs.iter().map(|m| (*m, n.name.clone())));
        self.addresses.insert(n.address, n.name.clone());
        if let Some(b) = n.bmc.as_ref().filter(|b| b.driver != PowerDriver::Fake) {
            self.bmcs.insert((b.address, b.port), n.name.clone());
        }
    }
}

/// Reads the file's syntax; values are typed, nothing is compared yet.
pub fn parse(text: &str, file: &str) -> Result<Vec<NodeEntry>, ConfigError> {
    let wire: FileWire = from_toml(text, file)?;
    wire.node
        .into_iter()
        .map(|node| {
            let line = line_of(text, node.span().start);
            entry(node.into_inner(), line).map_err(|(at, message)| ConfigError::At {
                file: file.to_owned(),
                line: at.map_or(line, |o| line_of(text, o)),
                message,
            })
        })
        .collect()
}

fn entry(n: NodeWire, line: usize) -> Result<NodeEntry, (Option<usize>, String)> {
    let name: NodeName =
        n.name.get_ref().parse().map_err(|e| (Some(n.name.span().start), format!("{e}")))?;
    let at = n.macs.span().start;
    let macs = match n.macs.into_inner() {
        OneOrMany::One(m) => vec![m],
        OneOrMany::Many(ms) => ms,
    };
    let macs: Vec<Mac> = macs
        .iter()
        .map(|m| m.parse().map_err(|e| (Some(at), format!("{e}"))))
        .collect::<Result<_, _>>()?;
    if macs.is_empty() {
        return Err((Some(at), format!("{name} needs at least one MAC address")));
    }
    let mut password = None;
    let bmc = n.bmc.map(|b| {
        password =
            b.password_file.map(PasswordSource::File).or(b.password_env.map(PasswordSource::Env));
        BmcSpec { address: b.address, port: b.port.unwrap_or(623), driver: b.driver, user: b.user }
    });
    let spec = NodeSpec {
        name,
        macs,
        address: n.address.as_ref().map_or(Ipv4Addr::UNSPECIFIED, |a| *a.get_ref()),
        firmware: n.firmware,
        arch: n.arch,
        bmc,
        disk: n.disk,
        labels: n.labels,
        spare: n.spare,
    };
    Ok(NodeEntry { line, has_address: n.address.is_some(), spec, password })
}

/// Checks one node against the network and what is taken; fills in an address
/// when it has none. The message says what would be right.
pub fn admit(spec: &mut NodeSpec, net: &Network, taken: &Taken) -> Result<(), Unfit> {
    let name = &spec.name;
    if taken.names.contains(name) {
        return Err(Unfit::new(
            "/name",
            format!(
                "a node named {name} is there already; use `provision nodes set {name}` to change it"
            ),
        ));
    }
    let mut own = BTreeSet::new();
    for m in &spec.macs {
        if let Some(other) = taken.macs.get(m) {
            return Err(Unfit::new(
                "/macs",
                format!("MAC {m} of {name} belongs to {other}; a MAC can have one node only"),
            ));
        }
        if !own.insert(m) {
            return Err(Unfit::new("/macs", format!("MAC {m} stands twice in {name}")));
        }
    }
    if spec.macs.is_empty() {
        return Err(Unfit::new("/macs", format!("{name} needs at least one MAC address")));
    }
    if let Some(b) = &spec.bmc
        && (b.user.is_empty() || b.user.len() > 16 || b.user.chars().any(|c| c.is_control()))
    {
        return Err(Unfit::new(
            "/bmc/user",
            format!("BMC user of {name} must be 1 to 16 printable characters (IPMI's limit)"),
        ));
    }
    if let Some(b) = &spec.bmc
        && let Some(other) = taken.bmcs.get(&(b.address, b.port))
    {
        let at = format!("{}:{}", b.address, b.port);
        return Err(Unfit::new(
            "/bmc",
            format!(
                "BMC {at} of {name} is {other}'s already, and powering one would cycle the other; \
             give {name} the address and port of its own"
            ),
        ));
    }
    if spec.labels.len() > 64
        || spec.labels.iter().any(|(k, v)| {
            k.is_empty()
                || k.len() > 64
                || v.len() > 256
                || k.chars().chain(v.chars()).any(|c| c.is_control())
        })
    {
        return Err(Unfit::new(
            "/labels",
            format!(
                "labels of {name}: at most 64, keys to 64 and values to 256 printable characters"
            ),
        ));
    }
    if let Some(l) = spec.labels.get(LOADER_LABEL) {
        let fault =
            |e| Unfit::new("/labels/loader", format!("label {LOADER_LABEL} of {name}: {e}"));
        l.parse::<Loader>().map_err(fault)?;
    }
    let (lo, hi) = net.range;
    if spec.address.is_unspecified() {
        spec.address = (u32::from(lo)..=u32::from(hi))
            .map(Ipv4Addr::from)
            .find(|a| !taken.addresses.contains_key(a))
            .ok_or_else(|| {
                let m = format!("no address is free between {lo} and {hi}; widen network.range");
                Unfit::new("/address", m)
            })?;
    }
    let a = spec.address;
    if !(lo..=hi).contains(&a) && !net.is_relayed_host(a) {
        let also: Vec<String> =
            net.relayed.iter().map(|r| format!(" and {}/{}", r.net, r.prefix)).collect();
        let also = also.concat();
        return Err(Unfit::new(
            "/address",
            format!("address {a} of {name} is outside the range {lo} to {hi}{also} served here"),
        ));
    }
    if let Some(other) = taken.addresses.get(&a) {
        return Err(Unfit::new(
            "/address",
            format!(
                "address {a} of {name} belongs to {other}; leave it out to get the first free one"
            ),
        ));
    }
    Ok(())
}

/// Checks all entries in order, each also against those before it.
pub fn admit_all(
    entries: &mut [NodeEntry],
    file: &str,
    net: &Network,
    mut taken: Taken,
) -> Result<(), ConfigError> {
    // Given addresses are reserved first, so that a node without one is not
    // handed an address that a later line asks for.
    let mut reserved = taken.clone();
    for e in entries.iter().filter(|e| e.has_address) {
        reserved.addresses.insert(e.spec.address, e.spec.name.clone());
    }
    for e in entries.iter_mut() {
        let view = if e.has_address {
            taken.clone()
        } else {
            Taken { addresses: reserved.addresses.clone(), ..taken.clone() }
        };
        admit(&mut e.spec, net, &view).map_err(|unfit| ConfigError::At {
            file: file.to_owned(),
            line: e.line,
            message: unfit.why,
        })?;
        taken.add(&e.spec);
        reserved.addresses.insert(e.spec.address, e.spec.name.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn net() -> Network {
        let text = "[network]\ninterface='e'\naddress='10.1.0.1'\nsubnet='10.1.0.0/24'\nrange=['10.1.0.10','10.1.0.12']\n";
        super::super::parse(text, "f", Path::new("/")).unwrap().network
    }

    fn read(text: &str) -> Result<Vec<NodeEntry>, String> {
        let mut all = parse(text, "rack.toml").map_err(|e| e.to_string())?;
        admit_all(&mut all, "rack.toml", &net(), Taken::default()).map_err(|e| e.to_string())?;
        Ok(all)
    }

    const A: &str = "[[node]]\nname='a'\nmac='52:54:00:00:00:01'\n";

    #[test]
    fn a_node_without_address_gets_the_first_that_nobody_asks_for() {
        let all =
            read(&format!("{A}[[node]]\nname='b'\nmac='52:54:00:00:00:02'\naddress='10.1.0.10'\n"))
                .unwrap();
        assert_eq!(all[0].spec.address.to_string(), "10.1.0.11");
    }

    #[test]
    fn two_nodes_with_one_mac_address_or_name_are_refused_with_the_line() {
        for (second, word) in [
            ("name='b'\nmac='52:54:00:00:00:01'", "belongs to a"),
            ("name='a'\nmac='52:54:00:00:00:02'", "there already"),
        ] {
            let e = read(&format!("{A}[[node]]\n{second}\n")).unwrap_err();
            assert!(e.starts_with("rack.toml:4:") && e.contains(word), "{e}");
        }
        let e = read("[[node]]\nname='a'\nmac='52:54:00:00:00:01'\naddress='10.1.0.11'\n[[node]]\nname='b'\nmac='52:54:00:00:00:02'\naddress='10.1.0.11'\n").unwrap_err();
        assert!(e.starts_with("rack.toml:5:") && e.contains("belongs to a"), "{e}");
    }

    #[test]
    fn a_bad_mac_an_unknown_key_and_an_address_outside_are_refused_with_the_line() {
        let e = read("[[node]]\nname='a'\nmac='52:54'\n").unwrap_err();
        assert!(e.starts_with("rack.toml:3:") && e.contains("six pairs"), "{e}");
        let e = read(&format!("{A}lables={{}}\n")).unwrap_err();
        assert!(e.starts_with("rack.toml:4:") && e.contains("`labels`"), "{e}");
        let e = read(&format!("{A}address='10.9.0.1'\n")).unwrap_err();
        assert!(e.contains("outside the range 10.1.0.10 to 10.1.0.12"), "{e}");
    }

    #[test]
    fn two_nodes_on_one_bmc_are_refused_with_the_line_and_two_ports_are_two_bmcs() {
        let bmc = |port| format!("bmc={{address='10.2.0.5',port={port},user='u'}}\n");
        let b = "[[node]]\nname='b'\nmac='52:54:00:00:00:02'\n";
        let e = read(&format!("{A}{}{b}{}", bmc(623), bmc(623))).unwrap_err();
        assert!(e.starts_with("rack.toml:5:"), "{e}");
        for word in ["10.2.0.5:623 of b", "a's already", "give b the address and port of its own"] {
            assert!(e.contains(word), "{e}");
        }
        assert_eq!(read(&format!("{A}{}{b}{}", bmc(623), bmc(6230))).unwrap().len(), 2);
    }

    #[test]
    fn a_node_behind_a_relay_has_an_address_of_its_subnet_but_not_the_router_s() {
        let mut net = net();
        net.relay("10.8.0.0/24", [10, 8, 0, 1].into()).unwrap();
        let admit = |address: [u8; 4]| {
            let text = format!("{A}address='{}'\n", Ipv4Addr::from(address));
            let mut all = parse(&text, "rack.toml").unwrap();
            admit_all(&mut all, "rack.toml", &net, Taken::default()).map_err(|e| e.to_string())
        };
        admit([10, 8, 0, 20]).unwrap();
        admit([10, 1, 0, 10]).unwrap();
        for outside in [[10, 8, 0, 1], [10, 8, 0, 255], [10, 9, 0, 20]] {
            let e = admit(outside).unwrap_err();
            assert!(e.starts_with("rack.toml:1:"), "{e}");
            assert!(e.contains("range 10.1.0.10 to 10.1.0.12 and 10.8.0.0/24 served"), "{e}");
        }
        assert_eq!(net.around([10, 8, 0, 20].into()).router, Some([10, 8, 0, 1].into()));
        assert_eq!(net.around([10, 1, 0, 10].into()).router, None);
    }

    #[test]
    fn a_loader_that_does_not_exist_is_refused_with_those_that_do() {
        let e = read(&format!("{A}labels={{loader='pxelinx'}}\n")).unwrap_err();
        for word in ["rack.toml:1:", "label loader of a", "\"pxelinx\"", "pxelinux (BIOS)"] {
            assert!(e.contains(word), "{e}");
        }
        assert_eq!(read(&format!("{A}labels={{loader='grub'}}\n")).unwrap().len(), 1);
    }

    #[test]
    fn a_full_range_says_so() {
        let many: String = (0..4)
            .map(|i| format!("[[node]]\nname='n{i}'\nmac='52:54:00:00:00:0{}'\n", i + 1))
            .collect();
        assert!(read(&many).unwrap_err().contains("widen network.range"));
    }
}
