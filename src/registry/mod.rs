//! An OCI registry: Distribution Specification 1.1 on axum, over a store that
//! is a directory or a bucket. It is handed who may do what ([`Gate`]) and
//! whom to tell ([`Witness`]); it knows no users, no TLS and no listener.
//!
//! From the bottom up: `name`, `digest`, `manifest` are the words, pure;
//! `storage` keeps documents and blobs; `keys` says where; `blobs`,
//! `manifests`, `upload` do what clients ask; `gc`, `verify`, `layout`, `copy`,
//! `survey`, `backup` what operators ask, `own` what the program around it
//! does; `follow` takes in what another registry has; `http` is the protocol.
//!
//! All state is in the store, so that several servers may share a bucket. The
//! rule that keeps it whole without transactions: *who refers, writes the
//! reference first and then makes sure that what it refers to is there; who
//! removes, removes first and then looks for references, and puts back.*
//! `docs/decisions/registry-storage.md` argues it.

mod backup;
mod blobs;
mod copy;
mod digest;
mod error;
pub mod follow;
mod gc;
mod health;
mod http;
mod keys;
mod layout;
mod manifest;
mod manifests;
mod name;
mod own;
mod seams;
pub mod storage;
mod survey;
mod upload;
mod verify;

pub use backup::{BackupReport, RestoreReport};
pub use copy::{ATTESTATION, Attestation, Copied};
pub use digest::{Algorithm, Digest, Hasher};
pub use error::{Code, Fault, RegistryError};
pub use gc::{GcReport, Judged, Verdict};
pub use http::routes;
pub use manifest::{Descriptor, Kind, Manifest};
pub use name::{Reference, RepositoryName, Tag, UploadId};
pub use seams::{
    Action, Blind, Caller, Counts, Deed, Gate, OpenGate, Refusal, Seen, Verb, Witness,
};

use seams::Counters;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use storage::Storage;
pub use survey::Tagged;
pub use verify::{Damage, VerifyReport};

/// What a registry is opened with.
pub struct Settings {
    /// Where things are kept.
    pub storage: Arc<dyn Storage>,
    /// Who may do what.
    pub gate: Arc<dyn Gate>,
    /// Whom to tell.
    pub witness: Arc<dyn Witness>,
    /// A client that sends nothing for so long is given up; its upload stays.
    pub idle: Duration,
    /// Garbage younger than this, or used within it, is kept: it must be
    /// longer than a client takes from its first blob to its manifest.
    pub grace: Duration,
    /// What garbage collection set aside is kept so long before it is gone
    /// for good. Longer than any request.
    pub wait: Duration,
    /// Uploads that nobody wrote to for so long are given up.
    pub upload_age: Duration,
    /// Manifests without a tag that nothing refers to are garbage after so
    /// long; `None` keeps them, since they can be pulled by digest.
    pub untagged: Option<Duration>,
    /// Repositories that follow another registry, and are read-only here.
    pub followed: Option<follow::Followed>,
}

impl Settings {
    /// A directory, everybody admitted, and times fit for production.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn local(root: impl Into<PathBuf>) -> Result<Self, RegistryError> {
        Ok(Self::on(Arc::new(storage::local::Local::open(&root.into())?)))
    }

    /// On a storage, everybody admitted, and times fit for production.
    pub fn on(storage: Arc<dyn Storage>) -> Self {
        Self {
            storage,
            gate: Arc::new(OpenGate),
            witness: Arc::new(Blind),
            idle: Duration::from_secs(60),
            grace: Duration::from_secs(24 * 3600),
            wait: Duration::from_secs(24 * 3600),
            upload_age: Duration::from_secs(24 * 3600),
            untagged: None,
            followed: None,
        }
    }
}

/// See the module.
pub struct Registry {
    store: Arc<dyn Storage>,
    settings: Settings,
    counters: Counters,
    /// Hashes of uploads begun here, with the length they stand for: saves
    /// reading an upload again at its end. Never trusted beyond its length.
    hashes: Mutex<HashMap<UploadId, (u64, Hasher)>>,
    closing: AtomicBool,
}

/// How [`Registry::drain`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Writers that were still at work when the time was over. Their uploads
    /// can be resumed.
    pub left: u64,
}

impl Registry {
    /// Opens what `settings` describe.
    ///
    /// # Errors
    /// When the storage does not answer.
    pub async fn open(settings: Settings) -> Result<Self, RegistryError> {
        if settings.idle.is_zero() {
            return Err(RegistryError::Settings("'idle' must be more than zero".into()));
        }
        let store = settings.storage.clone();
        store.children(keys::REPOS).await?;
        Ok(Self {
            store,
            settings,
            counters: Counters::default(),
            hashes: Mutex::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// For metrics.
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// Refuses new writes with 503 and waits until those in flight are done,
    /// at most until `deadline`. Pulls go on: the listener ends those.
    pub async fn drain(&self, deadline: Instant) -> Drained {
        self.closing.store(true, Ordering::SeqCst);
        loop {
            let left = self.counts().uploads_in_flight;
            if left == 0 || Instant::now() >= deadline {
                return Drained { left };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Counts a request that writes, until dropped.
    fn writing(self: &Arc<Self>) -> Result<Writing, Fault> {
        self.counters.uploads.fetch_add(1, Ordering::SeqCst);
        let w = Writing(self.clone());
        if self.closing.load(Ordering::SeqCst) {
            return Err(Fault::new(Code::Unknown, "the registry is stopping: try again soon")
                .status(503)
                .header("Retry-After", "5"));
        }
        Ok(w)
    }

    fn tell(&self, seen: Seen) {
        self.settings.witness.seen(seen);
    }
}

struct Writing(Arc<Registry>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.counters.uploads.fetch_sub(1, Ordering::SeqCst);
    }
}
