//! What others plug in: who may do what (`Gate`), who is told (`Witness`), and
//! what is counted (`Counters`).

use super::digest::Digest;
use super::name::{RepositoryName, Tag};
use async_trait::async_trait;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a request wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Where; `None` for the base endpoint and the catalogue.
    pub repository: Option<RepositoryName>,
    /// What.
    pub verb: Verb,
}

/// See [`Action`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// `GET /v2/`: clients ask so whether they must log in.
    Base,
    /// Read manifests, blobs, tags, referrers.
    Pull,
    /// Write manifests, blobs, tags.
    Push,
    /// Take manifests, blobs or tags away.
    Delete,
    /// List all repositories.
    Catalog,
    /// Push here what is pulled from there. A refusal is not shown: the
    /// client is given an ordinary upload, as the specification asks.
    Mount {
        /// There.
        from: RepositoryName,
    },
}

/// Who asked, for events and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As events show it.
    pub name: String,
}

/// An answer of 401 or 403.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 401: say who you are; 403: you may not.
    pub status: u16,
    /// For a person.
    pub message: String,
    /// `WWW-Authenticate`, with 401.
    pub challenge: Option<String>,
}

/// Asked by every route before anything else is done.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Who it is, or why not.
    async fn admit(
        &self,
        request: &http::request::Parts,
        action: &Action,
    ) -> Result<Caller, Refusal>;
}

/// Lets everybody do everything. For tests.
#[derive(Debug, Default, Clone, Copy)]
pub struct OpenGate;

#[async_trait]
impl Gate for OpenGate {
    async fn admit(&self, _: &http::request::Parts, _: &Action) -> Result<Caller, Refusal> {
        Ok(Caller { name: "anonymous".into() })
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A manifest or blob was stored.
    Pushed,
    /// A manifest or blob was sent to its end.
    Pulled,
    /// A manifest, blob or tag was taken away.
    Deleted,
    /// A tag was set.
    Tagged(Tag),
    /// A blob came from another repository.
    Mounted(RepositoryName),
}

/// One thing that was done, after it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What.
    pub deed: Deed,
    /// Where.
    pub repository: RepositoryName,
    /// A manifest; else a blob.
    pub manifest: bool,
    /// As it was asked for: tag or digest.
    pub reference: String,
    /// Of the content, if it is known.
    pub digest: Option<Digest>,
    /// Of the content.
    pub bytes: u64,
    /// Who.
    pub caller: String,
}

/// Is told. Must return at once: it is called while a client waits.
pub trait Witness: Send + Sync {
    /// See [`Seen`].
    fn seen(&self, what: Seen);
}

/// Looks away.
#[derive(Debug, Default, Clone, Copy)]
pub struct Blind;

impl Witness for Blind {
    fn seen(&self, _: Seen) {}
}

/// Counts since start; see [`Counts`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    pub faults: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub uploads: AtomicU64,
}

/// For metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests since start.
    pub requests: u64,
    /// Answered 4xx.
    pub errors: u64,
    /// Answered 5xx.
    pub faults: u64,
    /// Bytes of blobs and manifests that came.
    pub bytes_in: u64,
    /// Bytes of blobs and manifests that went.
    pub bytes_out: u64,
    /// Requests that are writing now.
    pub uploads_in_flight: u64,
}

impl Counters {
    pub fn add(which: &AtomicU64, n: u64) {
        which.fetch_add(n, Ordering::Relaxed);
    }

    pub fn read(&self) -> Counts {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Counts {
            requests: get(&self.requests),
            errors: get(&self.errors),
            faults: get(&self.faults),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            uploads_in_flight: self.uploads.load(Ordering::SeqCst),
        }
    }
}
