//! What both servers' resources share: tokens, the record, and who may ask.

use super::caller::Refusals;
use super::{Caller, Problem};
use crate::auth::{Role, TokenRecord};
use crate::model::{Digest, Event, NewEvent, NodeName, Outcome, Time};
use crate::store::{Batch, Store};
use async_trait::async_trait;
use axum::http::StatusCode;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use tokio::sync::broadcast;

/// A server that keeps tokens and a record.
#[async_trait]
pub trait Clerk: Send + Sync + 'static {
    /// Tokens by digest.
    fn tokens(&self) -> &RwLock<HashMap<Digest, TokenRecord>>;
    /// What was refused lately, and how much each token asks.
    fn refusals(&self) -> &Refusals;
    /// Where the record is read.
    fn store(&self) -> &dyn Store;
    /// Writes, and tells those who follow the record.
    async fn commit(&self, batch: Batch) -> Result<(), Problem>;
    /// New events as they come.
    fn subscribe(&self) -> broadcast::Receiver<Event>;
    /// The node meant by a name or an address.
    fn node(&self, text: &str) -> Result<NodeName, Problem> {
        text.parse().map_err(|e| Problem::bad(format!("{e}")))
    }
    /// The role and name behind a token.
    fn token(&self, token: &str) -> Option<TokenRecord> {
        let tokens = self.tokens().read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&Digest::of(token.as_bytes())).cloned()
    }
    /// Whether the token with this digest is still good.
    fn holds(&self, token: &Digest) -> bool {
        let tokens = self.tokens().read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(token).is_some_and(|t| !t.expired(Time::now()))
    }
}

/// Refuses callers whose role is less than `least`, and says so in the log.
pub async fn demand<C: Clerk>(
    clerk: &C,
    caller: &Caller,
    least: Role,
    what: &str,
) -> Result<(), Problem> {
    if caller.role >= least {
        return Ok(());
    }
    let e = NewEvent::new(Time::now(), &caller.name, "api.refused", Outcome::Refused);
    // A refusal stands also when it cannot be written down.
    let _ = clerk.commit(Batch::new().event(e.with("what", what).with("role", caller.role))).await;
    let text =
        format!("{what} needs the role {least}; the token {:?} has {}", caller.name, caller.role);
    Err(Problem::new(StatusCode::FORBIDDEN, text))
}
