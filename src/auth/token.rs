//! API tokens: random, shown once, kept as a digest, with a name and a role.

use super::AuthError;
use super::seal::random;
use crate::model::{Digest, Secret, Time};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a token may do; each includes those before it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See everything but secrets.
    Read,
    /// For programs: power and install nodes, and give that up again.
    Controller,
    /// All of that; build images and mirrors.
    Operate,
    /// Change the inventory and tokens.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Read => "read",
            Role::Controller => "controller",
            Role::Operate => "operate",
            Role::Admin => "admin",
        })
    }
}

/// A token as the store holds it, keyed by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenRecord {
    /// Who it was made for; the actor in events.
    pub name: String,
    /// Role.
    pub role: Role,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub made: Time,
    /// When it stops being good; never, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Time>,
}

impl TokenRecord {
    /// Whether it is past its time.
    pub fn expired(&self, now: Time) -> bool {
        self.expires.is_some_and(|t| t <= now)
    }
}

/// A new token and the key its record is stored under.
pub fn generate() -> Result<(Secret, Digest), AuthError> {
    let token = format!("pv_{}", hex::encode(random::<24>()?));
    let digest = Digest::of(token.as_bytes());
    Ok((Secret::new(token), digest))
}
