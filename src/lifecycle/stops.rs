//! Cancelling of operations that have no node: work of minutes that looks from
//! time to time whether it is still wanted.

use crate::model::OperationId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Those that run, and by whom they were cancelled.
#[derive(Default)]
pub struct Stops(Mutex<HashMap<OperationId, (CancellationToken, Option<String>)>>);

impl Stops {
    fn open(&self) -> MutexGuard<'_, HashMap<OperationId, (CancellationToken, Option<String>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on it can be cancelled; the token says when it was.
    pub fn add(&self, id: &OperationId) -> CancellationToken {
        let token = CancellationToken::new();
        self.open().insert(id.clone(), (token.clone(), None));
        token
    }

    /// Cancels it; whether it is one of these.
    pub fn stop(&self, id: &OperationId, actor: &str) -> bool {
        let mut all = self.open();
        let Some((token, by)) = all.get_mut(id) else { return false };
        by.get_or_insert_with(|| actor.to_owned());
        token.cancel();
        true
    }

    /// That it was cancelled, in words, if it was.
    pub fn reason(&self, id: &OperationId) -> Option<String> {
        self.open().get(id)?.1.as_ref().map(|by| format!("cancelled by {by}"))
    }

    /// It has ended.
    pub(super) fn remove(&self, id: &OperationId) {
        self.open().remove(id);
    }
}
