//! Where the record lives. Two traits, three houses for them.
//!
//! - [`State`]: small JSON documents by kind and key, each with a version.
//! - [`EventLog`]: the append-only log, chained by SHA-256.
//!
//! Both are changed only through [`Store::commit`], which takes writes and
//! events together and does all of them or none: a node never changes state
//! without the event that says why, also when the process is killed.
//!
//! One server at a time writes to a store ([`Store::claim`]): it keeps the
//! rack in memory and does not follow what others write.
//!
//! `sqlite` is the default, `redis` lets a second host take over, `memory` is
//! for tests. All three pass the one contract in `tests/store_contract.rs`.
//! Callers are `lifecycle`, `api` and `app`; nothing here knows what the
//! documents mean. Servers commit through a [`Teller`], which tells those who
//! follow the log.

pub mod counts;
pub mod memory;
pub mod owner;
pub mod redis;
mod redis_lock;
pub mod sqlite;
mod teller;

pub use counts::Counts;
pub use owner::{Claim, Owner};
pub use teller::Teller;

use crate::model::{Event, NewEvent, NodeName, Outcome, Time};
use async_trait::async_trait;
use std::sync::Arc;

/// Kinds of documents.
pub mod kind {
    /// Inventory, by node name.
    pub const NODE: &str = "node";
    /// Builds, by id.
    pub const BUILD: &str = "build";
    /// Operations, by id.
    pub const OPERATION: &str = "operation";
    /// Machines seen but not known, by MAC.
    pub const DISCOVERED: &str = "discovered";
    /// Sealed secrets, by name.
    pub const SECRET: &str = "secret";
    /// API tokens, by digest.
    pub const TOKEN: &str = "token";
    /// Rendered boot files, by build and time.
    pub const RENDERING: &str = "rendering";
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Cannot be reached now; nothing was written.
    #[error("the store ({what}) cannot be used now: {why}")]
    Unavailable {
        /// Which store, without credentials.
        what: String,
        /// What it said.
        why: String,
    },
    /// A document had another version than expected; nothing was written.
    #[error("{kind} {key:?} was changed by somebody else in the meantime")]
    Conflict {
        /// Its kind.
        kind: String,
        /// Its key.
        key: String,
    },
    /// What was read cannot be right.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
    /// The address of a store is not one we know.
    #[error(
        "store {0:?} is not known: use sqlite:/path/to/file.db, redis://host:6379, redis+unix:///path or memory:"
    )]
    Unknown(String),
}

/// A stored document.
#[derive(Debug, Clone, PartialEq)]
pub struct Doc {
    /// Key.
    pub key: String,
    /// Version, from 1, one more at each write.
    pub version: u64,
    /// Content.
    pub value: serde_json::Value,
}

/// What must be true of a document for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// That it does not exist.
    Absent,
    /// That it has this version.
    Version(u64),
}

/// One change of one document; `value` `None` deletes.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// Kind, see [`kind`].
    pub kind: &'static str,
    /// Key.
    pub key: String,
    /// New content.
    pub value: Option<serde_json::Value>,
    /// Condition.
    pub expect: Expect,
}

/// Writes and events that belong together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Document changes, in order.
    pub writes: Vec<Write>,
    /// Events, in order.
    pub events: Vec<NewEvent>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a document.
    pub fn put<T: serde::Serialize>(
        mut self,
        kind: &'static str,
        key: &str,
        value: &T,
        expect: Expect,
    ) -> Result<Self, StoreError> {
        let value =
            serde_json::to_value(value).map_err(|e| StoreError::Corrupt(format!("{kind}: {e}")))?;
        self.writes.push(Write { kind, key: key.to_owned(), value: Some(value), expect });
        Ok(self)
    }

    /// Removes a document.
    pub fn delete(mut self, kind: &'static str, key: &str) -> Self {
        self.writes.push(Write { kind, key: key.to_owned(), value: None, expect: Expect::Any });
        self
    }

    /// Adds an event.
    pub fn event(mut self, event: NewEvent) -> Self {
        self.events.push(event);
        self
    }
}

/// Which events to read. All conditions hold together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EventQuery {
    /// Only after this sequence number.
    pub after: Option<u64>,
    /// Only about this node.
    pub node: Option<NodeName>,
    /// Only at or after this time.
    pub since: Option<Time>,
    /// Only actions that start with this.
    pub action: Option<String>,
    /// Only those that ended so.
    pub outcome: Option<Outcome>,
    /// At most so many; the newest ones when `after` is not given.
    pub limit: usize,
}

impl EventQuery {
    /// Whether `e` is wanted (without regard to `limit`).
    pub fn wants(&self, e: &Event) -> bool {
        self.after.is_none_or(|a| e.seq > a)
            && self.node.as_ref().is_none_or(|n| e.event.node.as_ref() == Some(n))
            && self.since.is_none_or(|t| e.event.at >= t)
            && self.action.as_ref().is_none_or(|a| e.event.action.starts_with(a.as_str()))
            && self.outcome.is_none_or(|o| e.event.outcome == o)
    }
}

/// Documents, to read.
#[async_trait]
pub trait State: Send + Sync {
    /// One document.
    async fn get(&self, kind: &'static str, key: &str) -> Result<Option<Doc>, StoreError>;
    /// All of a kind, ordered by key.
    async fn list(&self, kind: &'static str) -> Result<Vec<Doc>, StoreError>;
    /// Those whose key begins with `prefix`, ordered by key. The others are not
    /// read where the store can tell.
    async fn list_below(&self, kind: &'static str, prefix: &str) -> Result<Vec<Doc>, StoreError> {
        let mut all = self.list(kind).await?;
        all.retain(|d| d.key.starts_with(prefix));
        Ok(all)
    }
}

/// The log, to read.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Events in order of their sequence numbers.
    async fn query(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError>;
}

/// Both, and the only way to change either.
#[async_trait]
pub trait Store: State + EventLog {
    /// Does all of `batch` or nothing; returns the events in their places.
    /// When it has returned `Ok`, a kill -9 loses nothing of it (SQLite:
    /// fsync; Redis: as durable as its `appendfsync` setting).
    async fn commit(&self, batch: Batch) -> Result<Vec<Event>, StoreError>;
    /// Makes `owner` the only server that writes here, or says who is; asked
    /// again every ten seconds, since a claim may expire. A store that nobody
    /// else can reach grants it.
    async fn claim(&self, owner: &Owner) -> Result<Claim, StoreError> {
        let _ = owner;
        Ok(Claim::Ours)
    }
    /// Gives the claim back, on an orderly stop.
    async fn release(&self, owner: &Owner) -> Result<(), StoreError> {
        let _ = owner;
        Ok(())
    }
    /// Whether it can be used now.
    async fn health(&self) -> Result<(), StoreError>;
    /// How it is called in messages, without credentials.
    fn name(&self) -> &str;
}

/// Opens the store named by `url`: `sqlite:PATH`, `redis://…`,
/// `redis+unix://…` or `memory:`.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        Ok(Arc::new(sqlite::SqliteStore::open(path.as_ref())?))
    } else if url.starts_with("redis://") || url.starts_with("redis+unix://") {
        Ok(Arc::new(redis::RedisStore::open(url).await?))
    } else if url == "memory:" {
        Ok(Arc::new(memory::MemoryStore::default()))
    } else {
        // A mistyped URL may hold a password: only its scheme is repeated.
        let scheme = url.split(':').next().unwrap_or_default();
        Err(StoreError::Unknown(scheme.to_owned()))
    }
}

/// The result of reading the whole chain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct ChainReport {
    /// Events read.
    pub events: u64,
    /// The first place where the chain does not hold, and how.
    pub broken: Option<String>,
}

/// Reads all events and checks that none was changed, removed or inserted.
pub async fn verify_chain(log: &dyn Store) -> Result<ChainReport, StoreError> {
    let mut prev = crate::model::Digest::from_raw(Event::GENESIS);
    let mut seq = 0u64;
    loop {
        let page = log
            .query(&EventQuery { after: Some(seq), limit: 1000, ..EventQuery::default() })
            .await?;
        if page.is_empty() {
            return Ok(ChainReport { events: seq, broken: None });
        }
        for e in page {
            let broken = if e.seq != seq + 1 {
                Some(format!("event {} is missing", seq + 1))
            } else if e.prev != prev {
                Some(format!("event {} does not follow event {seq}", e.seq))
            } else if !e.is_sound() {
                Some(format!("event {} was changed", e.seq))
            } else {
                None
            };
            if broken.is_some() {
                return Ok(ChainReport { events: seq, broken });
            }
            seq = e.seq;
            prev = e.hash;
        }
    }
}

/// Puts new events behind `(seq, hash)`.
fn chain_all(seq: u64, hash: crate::model::Digest, events: Vec<NewEvent>) -> Vec<Event> {
    let (mut seq, mut prev) = (seq, hash);
    events
        .into_iter()
        .map(|e| {
            seq += 1;
            let e = Event::chain(seq, e, prev);
            prev = e.hash;
            e
        })
        .collect()
}
