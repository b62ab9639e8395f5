//! Lines of the append-only log, chained by SHA-256.

use super::{Digest, NodeName, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How a thing ended.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Done.
    Ok,
    /// Begun or seen; no end to report.
    Info,
    /// Refused before anything was done.
    Refused,
    /// Tried and failed.
    Failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Ok => "ok",
            Outcome::Info => "info",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        })
    }
}

/// An event before it has its place in the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NewEvent {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// Who asked: a token's name, `node:<name>`, or `server`.
    #[schema(example = "ada")]
    pub actor: String,
    /// What, as `noun.verb`: `power.cycle`, `install.start`, `dhcp.ack`.
    #[schema(example = "power.cycle")]
    pub action: String,
    /// Which node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// How it ended.
    pub outcome: Outcome,
    /// Small facts; never a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
}

impl NewEvent {
    /// An event with no detail yet.
    pub fn new(at: Time, actor: &str, action: &str, outcome: Outcome) -> Self {
        Self {
            at,
            actor: actor.to_owned(),
            action: action.to_owned(),
            node: None,
            outcome,
            detail: BTreeMap::new(),
        }
    }

    /// Names the node.
    pub fn node(mut self, node: &NodeName) -> Self {
        self.node = Some(node.clone());
        self
    }

    /// Adds a fact; values are cut to 1,000 characters.
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        let value = value.to_string().chars().take(1000).collect();
        self.detail.insert(key.to_owned(), value);
        self
    }
}

/// An event in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Position, from 1, without gaps.
    pub seq: u64,
    /// The event.
    #[serde(flatten)]
    pub event: NewEvent,
    /// `hash` of the event before it; [`Event::GENESIS`] for the first.
    pub prev: Digest,
    /// SHA-256 over `prev`, `seq` and the event's JSON.
    pub hash: Digest,
}

impl Event {
    /// What stands before the first event.
    pub const GENESIS: [u8; 32] = [0; 32];

    /// Puts `event` behind the event whose hash is `prev`.
    pub fn chain(seq: u64, event: NewEvent, prev: Digest) -> Self {
        let hash = Self::hash_of(seq, &event, &prev);
        Self { seq, event, prev, hash }
    }

    /// Whether this event's own hash is right.
    pub fn is_sound(&self) -> bool {
        self.hash == Self::hash_of(self.seq, &self.event, &self.prev)
    }

    fn hash_of(seq: u64, event: &NewEvent, prev: &Digest) -> Digest {
        // serde_json writes struct fields in declaration order and the map is
        // sorted, so the same event always gives the same bytes.
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(prev.raw());
        bytes.extend_from_slice(&seq.to_be_bytes());
        let json = serde_json::to_vec(event).unwrap_or_default();
        bytes.extend_from_slice(&json);
        Digest::of(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_event_no_longer_fits_its_hash() {
        let e = NewEvent::new(Time::UNIX_EPOCH, "ada", "power.on", Outcome::Ok).with("a", 1);
        let mut e = Event::chain(1, e, Digest::from_raw(Event::GENESIS));
        assert!(e.is_sound());
        let back: Event = serde_json::from_str(&serde_json::to_string(&e).unwrap()).unwrap();
        assert!(back.is_sound(), "survives a round trip through JSON");
        e.event.actor = "eve".into();
        assert!(!e.is_sound());
    }
}
