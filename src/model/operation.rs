//! What an API call that takes time returns: something to watch.

use super::build::ulid_id;
use super::{BuildId, NodeName, Phase, Time};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

ulid_id!(
    /// Identity of an operation: `op-` and a ULID.
    OperationId, "op-", "^op-[0-9a-z]{26}$", "op-01k9n0w3c4y6x8z2q5v7t9r1s2"
);

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// Install a node.
    Install,
    /// Change a node's power.
    Power,
    /// Build an image.
    ImageBuild,
    /// Build or read a mirror.
    Mirror,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// Under way.
    Running,
    /// Ended well.
    Done,
    /// Ended badly, see `reason`.
    Failed,
    /// Given up by request.
    Cancelled,
}

impl OperationState {
    /// Whether it will not change any more.
    pub fn is_final(self) -> bool {
        self != Self::Running
    }
}

/// An operation as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Operation {
    /// Identity.
    pub id: OperationId,
    /// What.
    pub kind: OperationKind,
    /// On which node, if on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The build, for an install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildId>,
    /// State.
    pub state: OperationState,
    /// Phase of the build, for an install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What it does now, waits for, or failed of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "waiting for the firmware's first DHCP packet")]
    pub reason: Option<String>,
    /// Bytes done in this phase.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes in all, 0 when not known.
    #[serde(default)]
    pub total: u64,
    /// When the present step will be given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline: Option<Time>,
    /// Who asked.
    #[schema(example = "ada")]
    pub actor: String,
    /// Result, such as the power state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, example = json!({ "power": "on" }))]
    pub result: Option<serde_json::Value>,
    /// Start.
    #[schema(value_type = String, format = DateTime)]
    pub started: Time,
    /// Last change.
    #[schema(value_type = String, format = DateTime)]
    pub updated: Time,
}
