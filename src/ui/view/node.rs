//! A node: what it is, what it does, and what was done to it.

use super::records::{self, BuildRow, OperationRow};
use super::text::{Mark, ago, bytes, memory};
use crate::agent::disk::{choose_disk, describe};
use crate::lifecycle::rack::View;
use crate::model::{Build, DiskHint, Facts, Node, NodeName, Operation, Time};
use std::sync::Arc;

/// Builds and operations that are shown.
const LAST: usize = 5;

/// A disk as it was last reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `/dev/…`.
    pub name: String,
    /// Size.
    pub size: String,
    /// Model.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// What it is besides: spinning, removable, write-protected.
    pub kind: String,
    /// Whether an install wipes it.
    pub wiped: bool,
}

/// What the page shows beside timeline, log and events.
#[derive(Debug, Clone)]
pub struct NodePage {
    /// Name.
    pub name: String,
    /// State.
    pub mark: Mark,
    /// Why, where that needs saying.
    pub reason: Option<String>,
    /// Facts in the order in which one looks for them: word, value.
    pub facts: Vec<(&'static str, String)>,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Which disk an install wipes, in a sentence.
    pub wipes: String,
    /// Whether power can be switched.
    pub has_bmc: bool,
    /// What it is busy with.
    pub busy: Option<OperationRow>,
    /// Latest operations.
    pub operations: Vec<OperationRow>,
    /// Latest builds.
    pub builds: Vec<BuildRow>,
}

/// The operation that a node is busy with.
pub fn busy<'a>(v: &'a View, name: &NodeName) -> Option<&'a Arc<Operation>> {
    let of_it = |o: &&Arc<Operation>| o.node.as_ref() == Some(name) && !o.state.is_final();
    v.operations.values().rev().find(of_it)
}

/// Fills the page.
pub fn node(v: &View, n: &Node, now: Time) -> NodePage {
    let name = &n.spec.name;
    let of_it = v.operations.values().rev().filter(|o| o.node.as_ref() == Some(name));
    let builds = v.builds.values().rev().filter(|b| b.node == *name);
    let disks = n.status.facts.as_ref().map(|f| disks(f, &n.spec.disk)).unwrap_or_default();
    NodePage {
        name: name.to_string(),
        mark: Mark::of_life(n.status.life),
        reason: n.status.reason.clone(),
        facts: facts(n, now),
        disks,
        wipes: wipes(n),
        has_bmc: n.spec.bmc.is_some(),
        busy: busy(v, name).map(|o| records::operation(o, now)),
        operations: of_it.take(LAST).map(|o| records::operation(o, now)).collect(),
        builds: builds.take(LAST).map(|b| records::build(b, now)).collect(),
    }
}

fn facts(n: &Node, now: Time) -> Vec<(&'static str, String)> {
    let s = &n.status;
    let mut out: Vec<(&'static str, String)> = Vec::new();
    let mut say = |word, value: Option<String>| {
        out.extend(value.filter(|v| !v.is_empty()).map(|v| (word, v)));
    };
    let join = |all: Vec<String>| all.join(", ");
    say("Address", Some(n.spec.address.to_string()));
    say("MAC", Some(join(n.spec.macs.iter().map(ToString::to_string).collect())));
    say("Deployed", deployed(n, now));
    say("Heard of", s.last_seen.map(|t| ago(t, now)));
    if let Some(f) = &s.facts {
        say("Hardware", Some(f.hardware.clone()));
        say("Serial", Some(f.serial.clone()));
        say("Processor", Some(format!("{} × {}", f.cpus, f.cpu)).filter(|_| f.cpus > 0));
        say("Memory", Some(memory(f.memory)).filter(|_| f.memory > 0));
        let nic = |c: &crate::model::node::NicFacts| {
            let link = if c.link { "link" } else { "no link" };
            format!("{} {} ({}, {link})", c.name, c.mac, c.driver)
        };
        say("Network", Some(join(f.nics.iter().map(nic).collect())));
        say("Firmware version", Some(f.bios_version.clone()));
    }
    let seen = match (n.spec.firmware, s.firmware_seen) {
        (said, seen) if said == seen => said.to_string(),
        (said, seen) => format!("{said}, seen as {seen}"),
    };
    say("Firmware", Some(seen));
    say("Secure Boot", s.secure_boot.map(|on| if on { "on" } else { "off" }.to_owned()));
    say("BMC", n.spec.bmc.as_ref().map(|b| format!("{}:{} as {}", b.address, b.port, b.user)));
    say("Spare", n.spec.spare.then(|| "yes: never chosen by anything automatic".to_owned()));
    let labels = n.spec.labels.iter().map(|(k, v)| format!("{k}={v}"));
    say("Labels", Some(join(labels.collect())));
    say("SSH host keys", Some(join(s.host_keys.clone())));
    out
}

/// What is on it.
pub fn deployed(n: &Node, now: Time) -> Option<String> {
    let (i, p) = n.status.image.as_ref().zip(n.status.profile.as_ref())?;
    let at = n.status.deployed_at.map(|t| format!(", {}", ago(t, now))).unwrap_or_default();
    Some(format!("{i} / {p}{at}"))
}

fn disks(f: &Facts, hint: &DiskHint) -> Vec<Disk> {
    let chosen = choose_disk(&f.disks, hint, 0).ok();
    let one = |d: &crate::model::node::DiskFacts| {
        let kind =
            [(d.rotational, "spinning"), (d.removable, "removable"), (d.read_only, "read-only")];
        let kind: Vec<&str> = kind.into_iter().filter(|(is, _)| *is).map(|(_, w)| w).collect();
        Disk {
            name: format!("/dev/{}", d.name),
            size: bytes(d.bytes),
            model: d.model.clone(),
            serial: d.serial.clone(),
            kind: kind.join(", "),
            wiped: chosen == Some(d),
        }
    };
    f.disks.iter().map(one).collect()
}

/// The hint in words; empty when nothing is said.
pub fn hint(h: &DiskHint) -> String {
    let said = [("serial", &h.serial), ("wwn", &h.wwn), ("path", &h.path)];
    let mut parts: Vec<String> =
        said.iter().filter_map(|(w, v)| Some(format!("{w} {}", v.as_ref()?))).collect();
    parts.extend(h.min_bytes.map(|n| format!("at least {}", bytes(n))));
    parts.extend(h.max_bytes.map(|n| format!("at most {}", bytes(n))));
    parts.join(", ")
}

/// Which disk an install wipes, as far as can be said beforehand: the agent
/// chooses by the same rule from what it finds then.
pub fn wipes(n: &Node) -> String {
    let said = hint(&n.spec.disk);
    let rule = match said.is_empty() {
        true => "the inventory names no disk: the node must have exactly one".to_owned(),
        false => format!("the inventory says: {said}"),
    };
    match &n.status.facts {
        None => format!("{rule}; the node has never reported its disks"),
        Some(f) => match choose_disk(&f.disks, &n.spec.disk, 0) {
            Ok(d) => format!("{}; {rule}", describe(d)),
            Err(e) => format!("none, by what it last reported: {e}"),
        },
    }
}

/// The newest build of a node.
pub fn newest<'a>(v: &'a View, n: &Node) -> Option<&'a Arc<Build>> {
    v.builds.get(n.status.build.as_ref()?)
}
