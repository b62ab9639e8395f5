//! What an API call that takes time returns: something to watch.

use super::build::ulid_id;
use super::{BuildId, Digest, NodeName, Phase, Time};
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
    /// Install many nodes, some at a time.
    InstallMany,
}

/// The request an operation was born of, where its sender gave it a name
/// (`Idempotency-Key`): sent again, it finds the operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RequestKey {
    /// The name, 1 to 128 visible characters of ASCII.
    #[schema(example = "8e03978e-40d5-43dd-bc93-6894a57f9324")]
    pub key: String,
    /// Digest of method, path and body.
    pub digest: Digest,
}

/// Who asks for an operation, and by which request.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The actor in events.
    pub name: String,
    /// The request, if it has a name.
    pub request: Option<RequestKey>,
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
    /// The operation that this one is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<OperationId>,
    /// The request it was born of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestKey>,
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
