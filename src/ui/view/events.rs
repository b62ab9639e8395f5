//! Lines of the event log, and what is looked for in it.

use super::text::{At, Mark};
use crate::model::{Event, Time};

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Its number.
    pub seq: u64,
    /// When.
    pub at: At,
    /// How it ended.
    pub mark: Mark,
    /// What was done.
    pub action: String,
    /// To which node; empty when to none.
    pub node: String,
    /// Who did it.
    pub actor: String,
    /// The rest: `word=value`.
    pub detail: Vec<(String, String)>,
}

/// A line.
pub fn event(e: &Event, now: Time) -> EventRow {
    let n = &e.event;
    EventRow {
        seq: e.seq,
        at: At::new(n.at, now),
        mark: Mark::of_event(n.outcome),
        action: n.action.clone(),
        node: n.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        actor: n.actor.clone(),
        detail: n.detail.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
    }
}

/// Whether `text` stands anywhere in the line; case does not count.
pub fn says(e: &Event, text: &str) -> bool {
    let text = text.trim().to_lowercase();
    let has = |s: &str| s.to_lowercase().contains(&text);
    let n = &e.event;
    text.is_empty()
        || has(&n.action)
        || has(&n.actor)
        || n.node.as_ref().is_some_and(|n| has(n.as_str()))
        || n.detail.iter().any(|(k, v)| has(&format!("{k}={v}")))
}
