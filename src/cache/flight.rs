//! One fetch from upstream that many read while it arrives.
//!
//! A broken transfer is taken up where it broke, if upstream says that the
//! file is the same. The last piece is shown to readers when the whole has been
//! found right, so what is bad ends as a broken transfer for all of them.

use super::disk::Meta;
use super::path::{Key, Kind};
use super::{Cache, Counts};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use reqwest::{Response, StatusCode, Version, header};
use sha2::Digest as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Bytes gathered before they are written.
const PIECE: usize = 256 << 10;
/// Written earlier when nothing more comes for so long.
const LULL: Duration = Duration::from_millis(100);
/// How often upstream is asked.
const TRIES: u32 = 3;
/// How long a fetch waits for its turn.
const TURN: Duration = Duration::from_secs(600);
/// Room for a file of which upstream does not say how long it is.
const UNSAID: u64 = 256 << 20;

/// How it stands.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Known once the file begins to come.
    pub head: Option<Head>,
    /// Bytes that can be read.
    pub len: u64,
    /// Set at the end.
    pub end: Option<End>,
}

/// What comes.
#[derive(Debug, Clone)]
pub struct Head {
    /// Where it is written.
    pub file: Arc<File>,
    /// Bytes, if upstream says so.
    pub total: Option<u64>,
    /// What else upstream says.
    pub meta: Meta,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Complete, right, and kept.
    Whole,
    /// What is on the disk is still what upstream has.
    Unchanged,
    /// There is no room, or no way to know that all came: not to be kept, but
    /// passed on.
    NoRoom,
    /// Not to be had: a status for the client, and why.
    Failed(u16, String),
}

/// See the module.
#[derive(Debug)]
pub struct Flight {
    state: watch::Sender<State>,
}

/// What has come so far.
struct Arrival {
    path: PathBuf,
    file: Arc<File>,
    got: u64,
    hash: Option<Hash>,
    total: Option<u64>,
    meta: Meta,
}

/// The digest of what comes, and what it must be; an index may have any.
enum Hash {
    Sha256(sha2::Sha256, Option<String>),
    Sha512(sha2::Sha512, String),
}

impl Hash {
    fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::ByHash(a, d) if a == "SHA256" => Some(Self::Sha256(Default::default(), Some(d))),
            Kind::ByHash(_, d) => Some(Self::Sha512(Default::default(), d)),
            Kind::Index => Some(Self::Sha256(Default::default(), None)),
            Kind::Pool => None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h, _) => h.update(bytes),
            Self::Sha512(h, _) => h.update(bytes),
        }
    }

    /// Its SHA-256, if it is one; `Err` when it is not what it must be.
    fn found(self) -> Result<Option<String>, ()> {
        match self {
            Self::Sha256(h, want) => {
                let is = hex::encode(h.finalize());
                if want.is_none_or(|w| w == is) { Ok(Some(is)) } else { Err(()) }
            }
            Self::Sha512(h, want) => {
                if hex::encode(h.finalize()) == want {
                    Ok(None)
                } else {
                    Err(())
                }
            }
        }
    }
}

/// Why one try did not get to the end.
enum Short {
    /// Worth another.
    Again(String),
    Over(End),
}

impl Flight {
    pub fn new() -> Self {
        Self { state: watch::channel(State::default()).0 }
    }

    /// To read along.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    fn ends(&self, end: End) {
        self.state.send_modify(|s| s.end = Some(end));
    }

    /// Fetches; whether there is something to be served now.
    pub async fn fly(&self, cache: &Cache, key: &Key, url: &str) -> bool {
        let turn = tokio::time::timeout(TURN, cache.turns.clone().acquire_owned()).await;
        let Ok(Ok(_turn)) = turn else {
            let why = "other files are being fetched, and none came to its end for 10 minutes";
            self.ends(End::Failed(503, why.into()));
            return false;
        };
        let mut arrival = None;
        let mut why = String::new();
        for n in 0..TRIES {
            if n > 0 {
                tokio::time::sleep(Duration::from_millis(300) * (1 << n)).await;
            }
            match self.try_once(cache, key, url, &mut arrival).await {
                Ok(()) => {
                    self.ends(End::Whole);
                    return true;
                }
                Err(Short::Over(end)) => {
                    discard(arrival);
                    let good = end == End::Unchanged;
                    if good || end == End::NoRoom {
                        cache.given_out(key, good);
                    }
                    cache.landed(key, self);
                    self.ends(end);
                    return good;
                }
                Err(Short::Again(e)) => {
                    tracing::info!(file = key.path, error = e, "upstream of the package cache");
                    why = e;
                }
            }
        }
        discard(arrival);
        cache.landed(key, self);
        self.ends(End::Failed(502, format!("{why}; tried {TRIES} times")));
        false
    }

    async fn try_once(
        &self,
        cache: &Cache,
        key: &Key,
        url: &str,
        arrival: &mut Option<Arrival>,
    ) -> Result<(), Short> {
        let mut ask = cache.client.get(url);
        match arrival.as_ref() {
            Some(a) => {
                let same = a.meta.etag.as_ref().filter(|e| !e.starts_with("W/"));
                let Some(same) = same.or(a.meta.modified.as_ref()) else {
                    let m = "upstream broke off, and does not say how to go on".to_owned();
                    return Err(Short::Over(End::Failed(502, m)));
                };
                ask = ask.header(header::RANGE, format!("bytes={}-", a.got));
                ask = ask.header(header::IF_RANGE, same);
            }
            None if key.kind() == Kind::Index && cache.disk.get(key).is_some() => {
                let meta = cache.disk.meta(key);
                if let Some(e) = meta.etag {
                    ask = ask.header(header::IF_NONE_MATCH, e);
                }
                if let Some(m) = meta.modified {
                    ask = ask.header(header::IF_MODIFIED_SINCE, m);
                }
            }
            None => {}
        }
        let answer = ask.send().await.map_err(|e| Short::Again(reason(&e)))?;
        match (answer.status(), arrival.as_ref()) {
            (StatusCode::OK, None) => *arrival = Some(self.begin(cache, key, &answer).await?),
            (StatusCode::PARTIAL_CONTENT, Some(a)) if starts_at(&answer) == Some(a.got) => {}
            (StatusCode::NOT_MODIFIED, None) => return Err(Short::Over(End::Unchanged)),
            (s, None) if s.is_client_error() && s != StatusCode::TOO_MANY_REQUESTS => {
                let m = format!("upstream answers {s}");
                return Err(Short::Over(End::Failed(s.as_u16(), m)));
            }
            (s, None) => return Err(Short::Again(format!("upstream answers {s}"))),
            (s, Some(_)) => {
                let m = format!("upstream broke off, and to go on answers {s}");
                return Err(Short::Over(End::Failed(502, m)));
            }
        }
        let Some(a) = arrival.as_mut() else { return Err(Short::Again("no file".into())) };
        self.read(cache, key, answer, a).await?;
        self.finish(cache, key, a).await
    }

    async fn begin(&self, cache: &Cache, key: &Key, r: &Response) -> Result<Arrival, Short> {
        let text = |h| r.headers().get(h).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let modified = text(header::LAST_MODIFIED);
        let meta = Meta { etag: text(header::ETAG), modified, sha256: None };
        let total = r.content_length();
        // Its end would be that of the connection: half of it looks like all.
        let marked = total.is_some()
            || r.headers().contains_key(header::TRANSFER_ENCODING)
            || r.version() > Version::HTTP_11;
        if !marked {
            return Err(Short::Over(End::NoRoom));
        }
        let (disk, hash) = (cache.disk.clone(), Hash::of(key.kind()));
        let made = tokio::task::spawn_blocking(move || {
            if !disk.make_room(total.unwrap_or(UNSAID)) {
                return Ok(None);
            }
            disk.temporary().map(Some)
        });
        let made = made.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        let (path, file) = match made {
            Ok(Some(made)) => made,
            Ok(None) => return Err(Short::Over(End::NoRoom)),
            Err(e) => {
                tracing::warn!(error = %e, "the package cache cannot keep files");
                return Err(Short::Over(End::NoRoom));
            }
        };
        Ok(Arrival { path, file: Arc::new(file), got: 0, hash, total, meta })
    }

    /// Takes the body in; the last piece stays unseen.
    async fn read(
        &self,
        cache: &Cache,
        key: &Key,
        r: Response,
        a: &mut Arrival,
    ) -> Result<(), Short> {
        let mut body = r.bytes_stream();
        let mut have = BytesMut::new();
        loop {
            let next = tokio::time::timeout(LULL, body.next()).await;
            let (more, over) = match next {
                Ok(Some(Ok(bytes))) => {
                    Counts::add(&cache.counts.bytes_in, bytes.len() as u64);
                    have.extend_from_slice(&bytes);
                    (have.len() >= PIECE, None)
                }
                Ok(Some(Err(e))) => (true, Some(Err(Short::Again(reason(&e))))),
                Ok(None) => (true, Some(Ok(()))),
                // Silence has its own limit, in the client.
                Err(_) => (!have.is_empty(), None),
            };
            if more && !have.is_empty() {
                let piece = have.split().freeze();
                self.write(key, a, piece).await?;
                // What may be the last is shown when all is right.
                if !matches!(over, Some(Ok(()))) && a.total.is_none_or(|t| a.got < t) {
                    self.show(a);
                }
            }
            if let Some(end) = over {
                return end;
            }
        }
    }

    async fn write(&self, key: &Key, a: &mut Arrival, piece: Bytes) -> Result<(), Short> {
        let magic = key.magic();
        if a.got == 0 && !piece.starts_with(magic) && !magic.starts_with(&piece) {
            let m = "what upstream sent is not what the name says".to_owned();
            return Err(Short::Over(End::Failed(502, m)));
        }
        let (file, at, mut hash) = (a.file.clone(), a.got, a.hash.take());
        a.got += piece.len() as u64;
        let written = tokio::task::spawn_blocking(move || {
            if let Some(h) = &mut hash {
                h.update(&piece);
            }
            file.write_all_at(&piece, at).map(|()| hash)
        });
        match written.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(hash) => {
                a.hash = hash;
                Ok(())
            }
            Err(e) => Err(Short::Over(End::Failed(507, format!("the package cache: {e}")))),
        }
    }

    fn show(&self, a: &Arrival) {
        self.state.send_modify(|s| {
            s.len = a.got;
            if s.head.is_none() {
                s.head = Some(Head { file: a.file.clone(), total: a.total, meta: a.meta.clone() });
            }
        });
    }

    async fn finish(&self, cache: &Cache, key: &Key, a: &mut Arrival) -> Result<(), Short> {
        if let Some(total) = a.total.filter(|t| *t != a.got) {
            return Err(Short::Again(format!("{} of {total} bytes came", a.got)));
        }
        if a.got < key.magic().len() as u64 {
            let m = format!("what upstream sent has {} bytes, too few for its name", a.got);
            return Err(Short::Over(End::Failed(502, m)));
        }
        let Ok(sha256) = a.hash.take().map_or(Ok(None), Hash::found) else {
            let m = "what upstream sent does not have the digest in its name".to_owned();
            return Err(Short::Over(End::Failed(502, m)));
        };
        a.meta.sha256 = sha256;
        let (disk, name, path) = (cache.disk.clone(), key.clone(), a.path.clone());
        let (file, meta) = (a.file.clone(), a.meta.clone());
        let kept = tokio::task::spawn_blocking(move || disk.keep(&name, &path, &file, &meta));
        let kept = kept.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        cache.given_out(key, kept.is_ok());
        if let Err(e) = kept {
            // Right all the same: those who wait get it, the next asks anew.
            tracing::warn!(error = %e, "the package cache cannot keep a file");
            let _ = std::fs::remove_file(&a.path);
        }
        cache.landed(key, self);
        self.show(a);
        Ok(())
    }
}

fn discard(arrival: Option<Arrival>) {
    if let Some(a) = arrival {
        let _ = std::fs::remove_file(a.path);
    }
}

/// With its causes: the first line of reqwest's errors says little. The
/// address is left out, it may have a password.
fn reason(e: &reqwest::Error) -> String {
    use std::error::Error as _;
    let mut text = if e.is_timeout() { "no answer in time".to_owned() } else { String::new() };
    let mut cause = e.source();
    while let Some(c) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&c.to_string());
        cause = c.source();
    }
    if text.is_empty() { "the connection failed".into() } else { text }
}

/// First byte of a part, of `Content-Range: bytes 5-9/10`.
fn starts_at(r: &Response) -> Option<u64> {
    let v = r.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    v.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
