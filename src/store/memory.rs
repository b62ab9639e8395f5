//! A store in memory: for tests of what stands above, and the plainest
//! statement of the contract.

use super::{Batch, Doc, EventLog, EventQuery, Expect, State, Store, StoreError, chain_all};
use crate::model::{Digest, Event};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Inner {
    docs: BTreeMap<(&'static str, String), (u64, serde_json::Value)>,
    events: Vec<Event>,
}

/// See the module.
#[derive(Default)]
pub struct MemoryStore(Mutex<Inner>);

impl MemoryStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl State for MemoryStore {
    async fn get(&self, kind: &'static str, key: &str) -> Result<Option<Doc>, StoreError> {
        Ok(self.inner().docs.get(&(kind, key.to_owned())).map(|(version, value)| Doc {
            key: key.to_owned(),
            version: *version,
            value: value.clone(),
        }))
    }

    async fn list(&self, kind: &'static str) -> Result<Vec<Doc>, StoreError> {
        self.list_below(kind, "").await
    }

    async fn list_below(&self, kind: &'static str, prefix: &str) -> Result<Vec<Doc>, StoreError> {
        Ok(self
            .inner()
            .docs
            .range((kind, prefix.to_owned())..)
            .take_while(|((k, key), _)| *k == kind && key.starts_with(prefix))
            .map(|((_, key), (version, value))| Doc {
                key: key.clone(),
                version: *version,
                value: value.clone(),
            })
            .collect())
    }
}

#[async_trait]
impl EventLog for MemoryStore {
    async fn query(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        let inner = self.inner();
        let wanted = inner.events.iter().filter(|e| query.wants(e));
        if query.after.is_some() {
            return Ok(wanted.take(query.limit).cloned().collect());
        }
        let mut newest: Vec<Event> = wanted.rev().take(query.limit).cloned().collect();
        newest.reverse();
        Ok(newest)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, batch: Batch) -> Result<Vec<Event>, StoreError> {
        let mut inner = self.inner();
        for w in &batch.writes {
            let have = inner.docs.get(&(w.kind, w.key.clone())).map(|(v, _)| *v);
            let fits = match w.expect {
                Expect::Any => true,
                Expect::Absent => have.is_none(),
                Expect::Version(v) => have == Some(v),
            };
            if !fits {
                return Err(StoreError::Conflict { kind: w.kind.to_owned(), key: w.key.clone() });
            }
        }
        for w in batch.writes {
            let key = (w.kind, w.key);
            match w.value {
                Some(value) => {
                    let version = inner.docs.get(&key).map_or(0, |(v, _)| *v) + 1;
                    inner.docs.insert(key, (version, value));
                }
                None => {
                    inner.docs.remove(&key);
                }
            }
        }
        let (seq, hash) =
            inner.events.last().map_or((0, Digest::from_raw(Event::GENESIS)), |e| (e.seq, e.hash));
        let events = chain_all(seq, hash, batch.events);
        inner.events.extend(events.iter().cloned());
        Ok(events)
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn name(&self) -> &str {
        "memory"
    }
}
