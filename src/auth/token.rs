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
    /// Power and install nodes, build images.
    Operate,
    /// Change the inventory and tokens.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Read => "read",
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
}

/// A new token and the key its record is stored under.
pub fn generate() -> Result<(Secret, Digest), AuthError> {
    let token = format!("pv_{}", hex::encode(random::<24>()?));
    let digest = Digest::of(token.as_bytes());
    Ok((Secret::new(token), digest))
}
