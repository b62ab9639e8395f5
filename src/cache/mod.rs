//! A cache for package archives, between nodes (and image builds) and what is
//! outside [M41 M47]. One fetch from upstream however many ask, sent to all of
//! them while it arrives.
//!
//! - `path` (pure): what may be asked for, and whether it can ever change.
//! - `disk`: what is kept, and what goes when there is no room.
//! - `flight`: one fetch that many read.
//! - `release`: which indices are known to be the right ones.
//! - `http`: the routes, `/apt/ORIGIN/PATH`.
//!
//! Files of a `pool/` and `by-hash/` never change and are kept; indices are
//! asked for again, unless the suite's list just given out says that they are
//! the same, and served as they were when upstream is away.
//! What is short, does not have the digest in its name, or is no package is
//! given to nobody a second time. Nothing is in the cache that was not
//! complete and on the disk: a kill at any moment leaves at most a temporary
//! file, which the next start removes.
//!
//! It is handed its origins and a directory; it knows neither the store nor
//! what a node is.

mod disk;
mod flight;
pub mod http;
mod path;
mod release;

pub use path::{Key, Kind, NotHere};

use crate::model::Secret;
use disk::{Disk, Meta};
use flight::Flight;
use release::Lists;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// An archive outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its name in our paths, such as `debian`.
    pub name: String,
    /// Where it is, without a slash at the end.
    pub url: String,
}

/// How the cache works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where files are kept.
    pub dir: PathBuf,
    /// What may be fetched from; anything else is refused.
    pub origins: Vec<Origin>,
    /// Bytes kept at most; the least recently used go first.
    pub limit: u64,
    /// Fetches at once.
    pub at_once: usize,
    /// How long upstream may be silent.
    pub patience: Duration,
    /// The way there, `http://HOST:PORT`; none goes straight.
    pub proxy: Option<Secret>,
}

impl Settings {
    /// Usual values.
    pub fn new(dir: PathBuf, origins: Vec<Origin>) -> Self {
        let patience = Duration::from_secs(30);
        Self { dir, origins, limit: 20 << 30, at_once: 8, patience, proxy: None }
    }
}

/// What was done, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests answered from the disk.
    pub hits: AtomicU64,
    /// Requests that began a fetch.
    pub misses: AtomicU64,
    /// Requests that joined one.
    pub joined: AtomicU64,
    /// Indices served as they were, since upstream did not answer.
    pub stale: AtomicU64,
    /// Requests for what may not be asked for.
    pub refused: AtomicU64,
    /// Fetches that failed.
    pub failed: AtomicU64,
    /// Bytes from upstream.
    pub bytes_in: AtomicU64,
    /// Bytes to clients.
    pub bytes_out: AtomicU64,
}

impl Counts {
    fn add(what: &AtomicU64, n: u64) {
        what.fetch_add(n, Ordering::Relaxed);
    }

    /// By name, for `/metrics`.
    pub fn all(&self) -> BTreeMap<String, u64> {
        let n = |a: &AtomicU64| a.load(Ordering::Relaxed);
        [
            ("cache_hits_total", n(&self.hits)),
            ("cache_misses_total", n(&self.misses)),
            ("cache_joined_total", n(&self.joined)),
            ("cache_stale_total", n(&self.stale)),
            ("cache_refused_total", n(&self.refused)),
            ("cache_failed_total", n(&self.failed)),
            ("cache_upstream_bytes_total", n(&self.bytes_in)),
            ("cache_sent_bytes_total", n(&self.bytes_out)),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into()
    }
}

/// See the module.
pub struct Cache {
    settings: Settings,
    client: reqwest::Client,
    disk: Arc<Disk>,
    flights: Mutex<HashMap<Key, Arc<Flight>>>,
    lists: Lists,
    turns: Arc<Semaphore>,
    /// What was done.
    pub counts: Counts,
}

impl Cache {
    /// Opens the directory, removes what a killed server left half, and finds
    /// out what is there.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open(settings: Settings) -> io::Result<Arc<Self>> {
        let disk = Arc::new(Disk::open(&settings.dir, settings.limit)?);
        crate::tls::install_provider();
        // Not what the environment says, which is for other programs.
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(p) = &settings.proxy {
            // The error names the address, which may have a password in it.
            let wrong = |_| io::Error::other("the proxy's address cannot be used");
            client = client.proxy(reqwest::Proxy::all(p.expose()).map_err(wrong)?);
        }
        let client = client
            .user_agent(concat!("provision/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(settings.patience)
            .redirect(reqwest::redirect::Policy::limited(3))
            .build()
            .map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            turns: Arc::new(Semaphore::new(settings.at_once.max(1))),
            settings,
            client,
            disk,
            flights: Mutex::default(),
            lists: Lists::default(),
            counts: Counts::default(),
        }))
    }

    /// Bytes on the disk.
    pub fn size(&self) -> u64 {
        self.disk.size()
    }

    /// The origin with this name.
    fn origin(&self, name: &str) -> Option<&Origin> {
        self.settings.origins.iter().find(|o| o.name == name)
    }

    /// `key` is given out from now on as it is on the disk (`kept`), or as it
    /// could not be kept. Reads it, if it is the list of a suite.
    fn given_out(&self, key: &Key, kept: bool) {
        if release::is_list(key) {
            let file = kept.then(|| self.disk.get(key)).flatten().map(|(f, _)| f);
            self.lists.said(key, file, Instant::now());
        }
    }

    /// An index that is here and as its suite's list says.
    fn as_listed(&self, key: &Key) -> Option<(File, u64, Meta)> {
        let digest = self.lists.digest(key, Instant::now())?;
        let meta = self.disk.meta(key);
        let (file, size) = self.disk.get(key)?;
        (meta.sha256.as_ref() == Some(&digest)).then_some((file, size, meta))
    }

    /// The fetch of `key` that is under way, or a new one.
    fn join(self: &Arc<Self>, key: &Key, url: String) -> Arc<Flight> {
        let mut all = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(f) = all.get(key) {
            Counts::add(&self.counts.joined, 1);
            return f.clone();
        }
        Counts::add(&self.counts.misses, 1);
        let flight = Arc::new(Flight::new());
        all.insert(key.clone(), flight.clone());
        let (this, key, own) = (self.clone(), key.clone(), flight.clone());
        tokio::spawn(async move {
            if !own.fly(&this, &key, &url).await {
                Counts::add(&this.counts.failed, 1);
            }
            this.landed(&key, &own);
        });
        flight
    }

    /// Nobody joins `flight` any more: who has its answer and asks again is
    /// asking anew.
    fn landed(&self, key: &Key, flight: &Flight) {
        let mut all = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(key).is_some_and(|f| std::ptr::eq(Arc::as_ptr(f), flight)) {
            all.remove(key);
        }
    }
}
