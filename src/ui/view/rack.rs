//! The rack at a glance.

use super::alerts::{Alert, Server, alerts};
use super::text::{At, Bar, Mark, ago, bytes, took};
use crate::api::Discovered;
use crate::lifecycle::rack::View;
use crate::lifecycle::usual::Usual;
use crate::model::{Build, BuildOutcome, LifeCycle, Node, Phase, Time};

/// How many nodes are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The state.
    pub mark: Mark,
    /// How many.
    pub n: usize,
    /// Whether the table shows these alone.
    pub chosen: bool,
}

/// A node's line.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Name.
    pub name: String,
    /// State.
    pub mark: Mark,
    /// Address.
    pub address: String,
    /// Kept in reserve.
    pub spare: bool,
    /// What is on it, or is being put on it.
    pub what: String,
    /// Phase, while it is worked on or where it failed.
    pub phase: String,
    /// How far: `5 of 11`, `43 %`.
    pub far: String,
    /// The same for the eye.
    pub bar: Option<Bar>,
    /// How long in this phase.
    pub long: String,
    /// Since when it is in this state.
    pub since: Option<At>,
    /// When it was last heard of.
    pub seen: String,
}

/// A machine nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// MAC.
    pub mac: String,
    /// Who made the card.
    pub vendor: String,
    /// What it said of itself.
    pub says: String,
    /// First packet.
    pub first: At,
    /// Last packet.
    pub last: String,
    /// Packets.
    pub packets: u64,
}

/// What the page shows.
#[derive(Debug, Clone)]
pub struct RackPage {
    /// What needs somebody.
    pub alerts: Vec<Alert>,
    /// States that occur.
    pub counts: Vec<Count>,
    /// The nodes that were asked for.
    pub rows: Vec<Row>,
    /// All nodes there are.
    pub total: usize,
    /// Machines nobody knows, the latest first.
    pub strangers: Vec<Stranger>,
    /// The state that was asked for, and the text.
    pub asked: Asked,
}

/// Which nodes are to be shown.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct Asked {
    /// A state's word.
    #[serde(default)]
    pub state: String,
    /// Part of a name, an address, a MAC, a label, an image or a profile.
    #[serde(default)]
    pub q: String,
}

impl Asked {
    fn wants(&self, n: &Node) -> bool {
        let state = self.state.trim();
        if !state.is_empty() && Mark::of_life(n.status.life).word != state {
            return false;
        }
        let q = self.q.trim().to_lowercase();
        let has = |s: &str| s.to_lowercase().contains(&q);
        q.is_empty()
            || has(n.spec.name.as_str())
            || has(&n.spec.address.to_string())
            || n.spec.macs.iter().any(|m| has(&m.to_string()))
            || n.spec.labels.iter().any(|(k, v)| has(&format!("{k}={v}")))
            || [&n.status.image, &n.status.profile].into_iter().flatten().any(|x| has(x.as_str()))
    }

    /// Whether anything was asked for.
    pub fn is_any(&self) -> bool {
        !self.state.trim().is_empty() || !self.q.trim().is_empty()
    }
}

/// The order in which states are counted: what needs somebody first.
const ORDER: [LifeCycle; 7] = [
    LifeCycle::Failed,
    LifeCycle::Installing,
    LifeCycle::Erasing,
    LifeCycle::Rescue,
    LifeCycle::Ready,
    LifeCycle::Deployed,
    LifeCycle::Retired,
];

/// Fills the page.
pub fn rack(
    v: &View,
    strangers: &[Discovered],
    server: Server,
    asked: Asked,
    now: Time,
) -> RackPage {
    let usual = Usual::of(v.builds.values());
    let count = |l: LifeCycle| v.inventory.all().filter(|n| n.status.life == l).count();
    let counts = ORDER
        .into_iter()
        .map(|l| (Mark::of_life(l), count(l)))
        .filter(|(_, n)| *n > 0)
        .map(|(mark, n)| Count { mark, n, chosen: mark.word == asked.state.trim() })
        .collect();
    let rows = v.inventory.all().filter(|n| asked.wants(n)).map(|n| row(v, n, now)).collect();
    let mut strangers: Vec<&Discovered> = strangers.iter().collect();
    strangers.sort_by_key(|d| std::cmp::Reverse(d.last_seen));
    RackPage {
        alerts: alerts(v, server, &usual, now),
        counts,
        rows,
        total: v.inventory.len(),
        strangers: strangers.into_iter().map(|d| stranger(d, now)).collect(),
        asked,
    }
}

fn row(v: &View, n: &Node, now: Time) -> Row {
    let build = n.status.build.as_ref().and_then(|b| v.builds.get(b));
    let working = build.filter(|b| b.outcome == BuildOutcome::Running);
    let lost = build.filter(|_| n.status.life == LifeCycle::Failed);
    let named = working.or(lost).map(|b| (&b.inputs.image, &b.inputs.profile));
    let on_it = n.status.image.as_ref().zip(n.status.profile.as_ref());
    let current = working.and_then(|b| b.current());
    let since = match (working, n.status.life) {
        (Some(b), _) => Some(b.started),
        (_, LifeCycle::Deployed) => n.status.deployed_at,
        _ => lost.and_then(|b| b.ended),
    };
    let (far, bar) = working.map(|b| far(b)).unwrap_or_default();
    Row {
        name: n.spec.name.to_string(),
        mark: Mark::of_life(n.status.life),
        address: n.spec.address.to_string(),
        spare: n.spec.spare,
        what: named.or(on_it).map(|(i, p)| format!("{i} / {p}")).unwrap_or_default(),
        phase: working.or(lost).map(|b| b.phase.to_string()).unwrap_or_default(),
        far,
        bar,
        long: current.map(|p| took(now.duration_since(p.started))).unwrap_or_default(),
        since: since.map(|t| At::new(t, now)),
        seen: n.status.last_seen.map(|t| ago(t, now)).unwrap_or_default(),
    }
}

/// How far a build is: by bytes where they are counted, else by phases.
pub fn far(b: &Build) -> (String, Option<Bar>) {
    let place = format!("{} of {}", b.phase as usize + 1, Phase::ALL.len());
    match b.current() {
        Some(p) if p.total > 0 => {
            let (done, total) = (p.bytes.min(p.total), p.total);
            let percent = done as f64 * 100.0 / total as f64;
            let text = format!("{place} · {percent:.0} % of {}", bytes(total));
            (text, Some(Bar::of(done as f64, total as f64, "busy")))
        }
        _ => (place, Some(Bar::of(b.phase as usize as f64, Phase::ALL.len() as f64, "busy"))),
    }
}

fn stranger(d: &Discovered, now: Time) -> Stranger {
    let arch = d.arch.map(|a| format!("{a:?}")).unwrap_or_default();
    let class = d.vendor_class.clone().unwrap_or_default();
    Stranger {
        mac: d.mac.to_string(),
        vendor: d.vendor.clone(),
        says: [arch, class].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(", "),
        first: At::new(d.first_seen, now),
        last: ago(d.last_seen, now),
        packets: d.packets,
    }
}
