//! The words of the house, as types. No I/O, no clocks, no async: everything
//! above speaks in these, and a value that exists here has already been
//! checked (parse at the edge, never re-check inside).
//!
//! `mac`, `name`, `digest` and `secret` are the small ones; `node`, `phase`,
//! `build`, `event` and `operation` are the nouns of the architecture page;
//! `boot` is what a firmware says of itself and what it is answered;
//! `workload` is what runs on a node once it is installed; `range` is HTTP's;
//! `tally` is how often and how long.

pub mod boot;
pub mod build;
pub mod digest;
pub mod event;
pub mod mac;
pub mod name;
pub mod node;
pub mod operation;
pub mod phase;
pub mod plan;
pub mod range;
pub mod secret;
pub mod tally;
pub mod workload;

pub use boot::{BootFile, ClientArch, ClientHints, ClientKind, LOADER_LABEL, Loader};
pub use build::{Build, BuildId, BuildInputs, BuildOutcome, Method, MirrorUsed, Rendering};
pub use digest::Digest;
pub use event::{Event, NewEvent, Outcome};
pub use mac::Mac;
pub use name::{Name, NodeName};
pub use node::{
    Arch, BmcSpec, DiskHint, Facts, Firmware, LifeCycle, Node, NodeSpec, NodeStatus, PowerDriver,
};
pub use operation::{Asker, Operation, OperationId, OperationKind, OperationState, RequestKey};
pub use phase::{Phase, PhaseRecord};
pub use secret::Secret;
pub use tally::Times;
pub use workload::{Container, Happening, Seen, Workload, WorkloadReport};

/// A point in time, UTC, as stored and shown (RFC 3339).
pub type Time = jiff::Timestamp;

/// A value that did not have the form it must have; the text says what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {want}")]
pub struct Invalid {
    /// What kind of value it was meant to be.
    pub what: &'static str,
    /// What was given, cut to a readable length.
    pub value: String,
    /// What would be right.
    pub want: &'static str,
}

impl Invalid {
    /// Makes one; `value` is cut to 80 characters so that a hostile value
    /// cannot flood a log.
    pub fn new(what: &'static str, value: &str, want: &'static str) -> Self {
        Self { what, value: value.chars().take(80).collect(), want }
    }
}
