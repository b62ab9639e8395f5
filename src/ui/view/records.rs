//! Builds and operations as lines of tables, and a build's inputs.

use super::alerts::kind;
use super::rack::far;
use super::text::{At, Bar, Mark, bytes, took};
use crate::model::{Build, BuildOutcome, Method, Operation, OperationKind, OperationState, Time};

/// A build's line.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildRow {
    /// Its id.
    pub id: String,
    /// Its node.
    pub node: String,
    /// How it stands.
    pub mark: Mark,
    /// Image and profile.
    pub what: String,
    /// Phase it is in or ended in.
    pub phase: String,
    /// How far, while it goes on.
    pub bar: Option<Bar>,
    /// When it began.
    pub started: At,
    /// How long it took, or has taken.
    pub took: String,
    /// Who asked.
    pub actor: String,
    /// Why it failed, or what it waits for.
    pub reason: String,
}

/// A build's line.
pub fn build(b: &Build, now: Time) -> BuildRow {
    let running = b.outcome == BuildOutcome::Running;
    let waits = b.current().and_then(|p| p.reason.clone()).filter(|_| running);
    BuildRow {
        id: b.id.to_string(),
        node: b.node.to_string(),
        mark: Mark::of_build(b.outcome),
        what: format!("{} / {}", b.inputs.image, b.inputs.profile),
        phase: b.phase.to_string(),
        bar: if running { far(b).1 } else { None },
        started: At::new(b.started, now),
        took: took(b.ended.unwrap_or(now).duration_since(b.started)),
        actor: b.actor.clone(),
        reason: b.reason.clone().or(waits).unwrap_or_default(),
    }
}

/// An operation's line.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationRow {
    /// Its id.
    pub id: String,
    /// What is done.
    pub kind: &'static str,
    /// To which node; empty for work of the server itself.
    pub node: String,
    /// The build it answers for; empty when there is none.
    pub build: String,
    /// How it stands.
    pub mark: Mark,
    /// Whether it goes on.
    pub running: bool,
    /// Whether it can be given up.
    pub cancels: bool,
    /// How far, and what it waits for or came to.
    pub what: String,
    /// How far, for the eye.
    pub bar: Option<Bar>,
    /// When it began.
    pub started: At,
    /// How long it took, or has taken.
    pub took: String,
    /// Who asked.
    pub actor: String,
}

/// An operation's line.
pub fn operation(o: &Operation, now: Time) -> OperationRow {
    let running = o.state == OperationState::Running;
    let mut parts: Vec<String> = Vec::new();
    parts.extend(o.phase.map(|p| format!("phase {p}")));
    if running && o.total > 0 {
        let percent = o.bytes.min(o.total) as f64 * 100.0 / o.total as f64;
        parts.push(match o.kind {
            OperationKind::InstallMany => format!("{} of {} nodes", o.bytes, o.total),
            _ => format!("{percent:.0} % of {}", bytes(o.total)),
        });
    }
    parts.extend(o.reason.clone());
    let power = o.result.as_ref().and_then(|r| r.get("power")).and_then(|p| p.as_str());
    parts.extend(power.map(|p| format!("power is {p}")));
    let left = o.deadline.filter(|_| running).map(|d| d.duration_since(now));
    parts.extend(left.map(|l| format!("given up in {}", took(l))));
    let bar = running && o.total > 0;
    OperationRow {
        id: o.id.to_string(),
        kind: kind(&o.kind),
        node: o.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        build: o.build.as_ref().map(ToString::to_string).unwrap_or_default(),
        mark: Mark::of_operation(o.state),
        running,
        cancels: running && o.kind != OperationKind::Power,
        what: parts.join("; "),
        bar: bar.then(|| Bar::of(o.bytes as f64, o.total as f64, "busy")),
        started: At::new(o.started, now),
        took: took(if running { now } else { o.updated }.duration_since(o.started)),
        actor: o.actor.clone(),
    }
}

/// What went into a build: word, value, digest.
pub fn inputs(b: &Build) -> Vec<(String, String, String)> {
    let i = &b.inputs;
    let row = |w: &str, v: &dyn std::fmt::Display, d: Option<crate::model::Digest>| {
        (w.to_owned(), v.to_string(), d.map(|d| d.to_string()).unwrap_or_default())
    };
    let method = match i.method {
        Method::Image => "written by the agent",
        Method::Preseed => "Debian's installer (preseed)",
        Method::Autoinstall => "Ubuntu's installer (autoinstall)",
    };
    let baked = if i.baked { "baked into the image" } else { "applied on the node" };
    let mut out = vec![
        row("Image", &i.image, Some(i.image_digest)),
        row("Method", &method, None),
        row("Profile", &format!("{}, {baked}", i.profile), Some(i.profile_digest)),
    ];
    out.extend(i.mirror.as_ref().map(|m| row("Mirror", &m.name, Some(m.digest))));
    out.extend(i.config_commit.as_ref().map(|c| row("Configuration", c, None)));
    out.extend(i.templates.iter().map(|(n, d)| row("Template", n, Some(*d))));
    out.push(row("Program", &i.version, None));
    out.extend(b.disk.as_ref().map(|d| row("Disk written", d, None)));
    out.extend(b.manifest.map(|m| row("Manifest", &"of everything written", Some(m))));
    out
}
