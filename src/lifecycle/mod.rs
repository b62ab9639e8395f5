//! The life of nodes. Only this module changes a node's state; everything
//! else asks it.
//!
//! - `machine`: one build, pure: (build, input, now) → effects; in files of
//!   their own `installer`, what a distribution's installer adds to it, and
//!   `refused`, what Secure Boot does.
//! - `inventory`: the nodes in memory, indexed by name, MAC and address, with
//!   the checks on what may be added.
//! - `rack`: the driver. It takes one input at a time, commits the change and
//!   its events together, and only then shows the change and carries out the
//!   effects. What it holds in memory is what the store holds.
//! - `recover`: deadlines, and coming back after a restart or an outage.
//! - `orders`: installs, cancelling, power, and the inventory's changes, as
//!   people ask for them.
//! - `stops`: cancelling of what has no node.
//! - `rollout`: installs of many nodes as one operation; what is next is pure.
//! - `explain`: a build's timeline, and what it waits for; `symptoms`: the table
//!   of what is known to go wrong; `usual`: how long phases usually take.
//!
//! It is handed a store and a way to switch power ([`Arm`]); it knows neither
//! HTTP nor any protocol.

pub mod explain;
pub mod inventory;
pub mod machine;
pub mod orders;
pub mod rack;
pub mod recover;
pub mod rollout;
pub mod stops;
pub mod symptoms;
pub mod usual;

pub use inventory::Inventory;
pub use machine::Input;
pub use machine::refused::{NextLoader, Started};
pub use orders::InstallOrder;
pub use rack::{Arm, Armed, Rack};

use crate::config::ConfigError;
use crate::config::nodes::Unfit;
use crate::model::{BuildId, NodeName, OperationId};
use crate::store::StoreError;

/// Why the life cycle did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// No such node.
    #[error("there is no node {name:?}{}", suggestion(near))]
    UnknownNode {
        /// What was asked for.
        name: String,
        /// The name nearest to it.
        near: Option<String>,
    },
    /// No such thing of another kind.
    #[error("there is no {0}")]
    NotFound(String),
    /// The node is being worked on.
    #[error("{node} is busy with operation {operation}; wait for it or cancel it")]
    Busy {
        /// Node.
        node: NodeName,
        /// What it is busy with.
        operation: OperationId,
    },
    /// The build has ended.
    #[error("build {0} has ended")]
    Over(BuildId),
    /// It makes no sense in this state.
    #[error("{0}")]
    NotNow(String),
    /// A node cannot be added or changed so.
    #[error("{0}")]
    Refused(String),
    /// The same, and it is known what of it does not fit.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// An inventory file.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn suggestion(near: &Option<String>) -> String {
    near.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default()
}
