//! How following goes: counted while it runs, shown to whoever asks.

use crate::model::Time;
use crate::registry::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tags that are named in one status, at most; all are counted.
const NAMED: usize = 50;

/// A tag that is not here as the leader has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Behind {
    /// Repository.
    pub repository: String,
    /// Tag; empty for all of the repository.
    pub tag: String,
    /// Why.
    pub problem: String,
}

/// A blob on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Fetching {
    /// Repository.
    pub repository: String,
    /// Digest.
    pub digest: String,
    /// Bytes that are here.
    pub have: u64,
    /// Bytes in all.
    pub size: u64,
}

/// See the module. Counts are since the server's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// When the leader was last asked.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_try: Option<Time>,
    /// When all was last here as the leader had it.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_success: Option<Time>,
    /// Why it is not so now.
    pub problem: Option<String>,
    /// Passes that found the leader and brought all.
    pub passes: u64,
    /// Passes that did not.
    pub failures: u64,
    /// Tags of the leader that are here, in the last pass.
    pub tags: u64,
    /// Tags that were set here.
    pub tags_set: u64,
    /// Tags that were taken away here.
    pub tags_removed: u64,
    /// Manifests that were taken in.
    pub manifests: u64,
    /// Blobs that were taken in.
    pub blobs: u64,
    /// Bytes that came.
    pub fetched_bytes: u64,
    /// Bytes that did not have to come again after a break.
    pub resumed_bytes: u64,
    /// Tags that are behind, at most 50.
    pub behind: Vec<Behind>,
    /// How many more are.
    pub more_behind: u64,
    /// Blobs on their way.
    pub fetching: Vec<Fetching>,
}

#[derive(Default)]
pub(super) struct Progress {
    status: Mutex<Status>,
    fetching: Mutex<BTreeMap<Digest, Fetching>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    pub fn read(&self) -> Status {
        let mut s = lock(&self.status).clone();
        s.fetching = lock(&self.fetching).values().cloned().collect();
        s
    }

    pub fn count(&self, add: impl FnOnce(&mut Status)) {
        add(&mut lock(&self.status));
    }

    /// A pass is over: `behind` are the tags that it could not bring.
    pub fn ended(&self, tags: u64, problem: Option<String>, mut behind: Vec<Behind>) {
        let mut s = lock(&self.status);
        let now = Time::now();
        s.last_try = Some(now);
        s.more_behind = behind.len().saturating_sub(NAMED) as u64;
        behind.truncate(NAMED);
        let first = behind.first().map(|b| match b.tag.as_str() {
            "" => format!("{}: {}", b.repository, b.problem),
            t => format!("{}:{t}: {}", b.repository, b.problem),
        });
        s.behind = behind;
        s.problem = problem.or(first);
        if s.problem.is_none() {
            (s.last_success, s.tags) = (Some(now), tags);
            s.passes += 1;
        } else {
            s.failures += 1;
        }
    }

    /// A blob is on its way until what is returned is dropped.
    pub fn fetching(&self, repository: &str, d: &Digest, have: u64, size: u64) -> OnItsWay<'_> {
        let f = Fetching { repository: repository.into(), digest: d.to_string(), have, size };
        lock(&self.fetching).insert(d.clone(), f);
        OnItsWay { of: self, digest: d.clone() }
    }
}

pub(super) struct OnItsWay<'a> {
    of: &'a Progress,
    digest: Digest,
}

impl OnItsWay<'_> {
    pub fn came(&self, bytes: u64) {
        if let Some(f) = lock(&self.of.fetching).get_mut(&self.digest) {
            f.have += bytes;
        }
        self.of.count(|s| s.fetched_bytes += bytes);
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        lock(&self.of.fetching).remove(&self.digest);
    }
}
