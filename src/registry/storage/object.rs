//! A bucket that several servers share: anything that `object_store` speaks to
//! with create-if-absent and read-after-write, which S3 has.
//!
//! ```text
//! repos/… uploads/…               documents, see `keys`
//! data/<upload>/c-<offset>        pieces of an upload, at most 8 MiB each
//! data/<upload>/open              it is an upload in flight
//! data/<upload>/closed            it was placed, or given up: who makes this
//!                                 object first decides
//! data/<upload>/replaced          its blob was pushed again, and is another's
//!                                 pieces now; kept for pulls in flight
//! blobs/sha256-<hex>              a record: size, upload and pieces
//! trash/sha256-<hex>              the same, set aside
//! ```
//!
//! An upload becomes a blob by writing one small record that names its pieces.
//! Nothing is copied, and any server can go on with any upload.

use super::object_append::Appender;
use super::object_fault::{failed, found};
use super::{Append, BlobStream, CHUNK, Children, Lease, Shelf, Stat, Storage, StorageError};
use crate::registry::digest::Digest;
use crate::registry::name::UploadId;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A collector that was not heard of for so long is dead. Were it not, two
/// would run, which costs time and nothing else.
const LEASE_LIFE: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Clone)]
pub struct Object {
    store: Arc<dyn ObjectStore>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    upload: String,
    pieces: Vec<u64>,
}

impl Record {
    fn size(&self) -> u64 {
        self.pieces.iter().sum()
    }
}

/// What there is of an upload.
#[derive(Default)]
struct Folder {
    open: bool,
    replaced: Option<Stat>,
    size: u64,
    newest: Option<SystemTime>,
}

fn stat_of(m: &ObjectMeta) -> Stat {
    Stat { size: m.size, modified: SystemTime::from(m.last_modified) }
}

pub(super) fn folder(id: impl std::fmt::Display) -> String {
    format!("data/{id}")
}

pub(super) fn piece(id: impl std::fmt::Display, offset: u64) -> Path {
    Path::from(format!("data/{id}/c-{offset:020}"))
}

fn shelf(at: Shelf, d: &Digest) -> String {
    let dir = if at == Shelf::Placed { "blobs" } else { "trash" };
    format!("{dir}/{}", d.dashed())
}

impl Object {
    /// On a bucket, or a prefix of one.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    pub(super) async fn put(
        &self,
        key: &Path,
        bytes: Bytes,
        mode: PutMode,
    ) -> Result<bool, StorageError> {
        match self.store.put_opts(key, PutPayload::from(bytes), mode.into()).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(e) => Err(failed(e)),
        }
    }

    /// Lengths of an upload's pieces, up to the first gap.
    async fn pieces(&self, id: UploadId) -> Result<Vec<u64>, StorageError> {
        let (mut lengths, mut end) = (Vec::new(), 0);
        for (name, s) in self.children(&folder(id)).await?.documents {
            let Some(offset) = name.strip_prefix("c-").and_then(|o| o.parse::<u64>().ok()) else {
                continue;
            };
            if offset != end {
                break;
            }
            end += s.size;
            lengths.push(s.size);
        }
        Ok(lengths)
    }

    /// All uploads, placed ones too, by id. One request for each thousand
    /// objects.
    async fn folders(&self) -> Result<BTreeMap<String, Folder>, StorageError> {
        let mut all: BTreeMap<String, Folder> = BTreeMap::new();
        let mut list = self.store.list(Some(&Path::from("data")));
        while let Some(m) = list.try_next().await.map_err(failed)? {
            let mut parts = m.location.parts().skip(1);
            let (Some(id), Some(name)) = (parts.next(), parts.next()) else { continue };
            let f = all.entry(id.as_ref().to_owned()).or_default();
            let s = stat_of(&m);
            f.size += s.size;
            f.newest = f.newest.max(Some(s.modified));
            match name.as_ref() {
                "open" => f.open = true,
                "replaced" => f.replaced = Some(s),
                _ => {}
            }
        }
        Ok(all)
    }

    async fn is_open(&self, id: UploadId) -> Result<bool, StorageError> {
        let (open, closed) = (format!("{}/open", folder(id)), format!("{}/closed", folder(id)));
        Ok(self.stat(&open).await?.is_some() && self.stat(&closed).await?.is_none())
    }

    async fn record(
        &self,
        at: Shelf,
        d: &Digest,
    ) -> Result<Option<(Record, SystemTime)>, StorageError> {
        let key = shelf(at, d);
        let Some(got) = found(self.store.get(&Path::from(key.clone())).await)? else {
            return Ok(None);
        };
        let modified = got.meta.last_modified.into();
        let bytes = got.bytes().await.map_err(failed)?;
        let record = serde_json::from_slice(&bytes)
            .map_err(|e| StorageError::Object(format!("{key} is rotten: {e}")))?;
        Ok(Some((record, modified)))
    }

    async fn find(&self, d: &Digest) -> Result<Option<(Record, Stat, Shelf)>, StorageError> {
        // A third look, since it may move between the first two.
        for at in [Shelf::Placed, Shelf::Trash, Shelf::Placed] {
            if let Some((r, modified)) = self.record(at, d).await? {
                let size = r.size();
                return Ok(Some((r, Stat { size, modified }, at)));
            }
        }
        Ok(None)
    }

    /// All objects of an upload; the mark that it is closed goes last.
    async fn drop_pieces(&self, id: &str) -> Result<(), StorageError> {
        let mut names = self.children(&folder(id)).await?.documents;
        names.sort_by_key(|(n, _)| n == "closed");
        for (name, _) in names {
            self.remove(&format!("{}/{name}", folder(id))).await?;
        }
        Ok(())
    }

    fn stream(&self, record: &Record, range: Range<u64>) -> BlobStream {
        let (mut at, mut parts) = (0u64, Vec::new());
        for &n in &record.pieces {
            let (from, to) = (range.start.max(at), range.end.min(at + n));
            if from < to {
                parts.push((piece(&record.upload, at), from - at..to - at));
            }
            at += n;
        }
        let store = self.store.clone();
        futures::stream::iter(parts)
            .then(move |(path, range)| {
                let store = store.clone();
                async move {
                    let o = GetOptions { range: Some(range.into()), ..GetOptions::default() };
                    let got = store.get_opts(&path, o).await.map_err(failed)?;
                    Ok::<_, StorageError>(got.into_stream().map_err(failed))
                }
            })
            .try_flatten()
            .boxed()
    }
}

#[async_trait]
impl Storage for Object {
    async fn read(&self, key: &str, limit: u64) -> Result<Option<Bytes>, StorageError> {
        let Some(got) = found(self.store.get(&Path::from(key)).await)? else { return Ok(None) };
        let size = got.meta.size;
        if size > limit {
            return Err(StorageError::TooLarge { key: key.to_owned(), size, limit });
        }
        got.bytes().await.map(Some).map_err(failed)
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, StorageError> {
        Ok(found(self.store.head(&Path::from(key)).await)?.map(|m| stat_of(&m)))
    }

    async fn write(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        self.put(&Path::from(key), bytes, PutMode::Overwrite).await.map(drop)
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool, StorageError> {
        self.put(&Path::from(key), bytes, PutMode::Create).await
    }

    async fn touch(&self, key: &str) -> Result<bool, StorageError> {
        let Some(bytes) = self.read(key, CHUNK as u64).await? else { return Ok(false) };
        self.write(key, bytes).await.map(|()| true)
    }

    async fn remove(&self, key: &str) -> Result<bool, StorageError> {
        // S3 does not say whether there was one.
        if self.stat(key).await?.is_none() {
            return Ok(false);
        }
        Ok(found(self.store.delete(&Path::from(key)).await)?.is_some())
    }

    async fn children(&self, key: &str) -> Result<Children, StorageError> {
        let list = self.store.list_with_delimiter(Some(&Path::from(key))).await.map_err(failed)?;
        let last = |p: &Path| p.filename().map(str::to_owned);
        let mut c = Children {
            folders: list.common_prefixes.iter().filter_map(last).collect(),
            documents: list
                .objects
                .iter()
                .filter_map(|m| Some((last(&m.location)?, stat_of(m))))
                .collect(),
        };
        c.folders.sort();
        c.documents.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(c)
    }

    async fn begin(&self, id: UploadId) -> Result<(), StorageError> {
        self.write(&format!("{}/open", folder(id)), Bytes::new()).await
    }

    async fn append(&self, id: UploadId) -> Result<Box<dyn Append>, StorageError> {
        let stored = self.uploaded(id).await?.ok_or(StorageError::NoUpload)?;
        Ok(Box::new(Appender::new(self.clone(), id, stored)))
    }

    async fn uploaded(&self, id: UploadId) -> Result<Option<u64>, StorageError> {
        if !self.is_open(id).await? {
            return Ok(None);
        }
        Ok(Some(self.pieces(id).await?.iter().sum()))
    }

    async fn read_upload(&self, id: UploadId) -> Result<BlobStream, StorageError> {
        let r = Record { upload: id.to_string(), pieces: self.pieces(id).await? };
        Ok(self.stream(&r, 0..r.size()))
    }

    async fn place(&self, id: UploadId, digest: &Digest, length: u64) -> Result<(), StorageError> {
        let mut record = Record { upload: id.to_string(), pieces: self.pieces(id).await? };
        // Another server may have added to it since the digest was checked.
        while record.size() > length {
            record.pieces.pop();
        }
        if record.size() != length {
            return Err(StorageError::Busy);
        }
        let closed = format!("{}/closed", folder(id));
        if !self.create(&closed, digest.to_string().into()).await? {
            return Err(StorageError::NoUpload);
        }
        let text = serde_json::to_vec(&record).map_err(|e| StorageError::Object(e.to_string()))?;
        let (key, text) = (shelf(Shelf::Placed, digest), Bytes::from(text));
        if !self.create(&key, text.clone()).await? {
            // Ours take the place of those that are there, which may be
            // rotten: pushing again heals.
            if let Some((old, _)) = self.record(Shelf::Placed, digest).await? {
                self.write(&format!("{}/replaced", folder(&old.upload)), Bytes::new()).await?;
            }
            self.write(&key, text).await?;
        }
        self.remove(&format!("{}/open", folder(id))).await.map(drop)
    }

    async fn discard(&self, id: UploadId) -> Result<(), StorageError> {
        let closed = format!("{}/closed", folder(id));
        if !self.create(&closed, Bytes::from_static(b"-")).await? {
            // It was placed, or broke off just before that.
            let text = self.read(&closed, 256).await?.unwrap_or_default();
            if let Ok(d) = String::from_utf8_lossy(&text).parse::<Digest>() {
                for at in [Shelf::Placed, Shelf::Trash, Shelf::Placed] {
                    if self.record(at, &d).await?.is_some_and(|(r, _)| r.upload == id.to_string()) {
                        return self.remove(&format!("{}/open", folder(id))).await.map(drop);
                    }
                }
            }
        }
        self.drop_pieces(&id.to_string()).await
    }

    async fn uploads(&self) -> Result<Vec<(UploadId, Stat)>, StorageError> {
        let mut out = Vec::new();
        for (name, f) in self.folders().await? {
            let Ok(id) = name.parse::<UploadId>() else { continue };
            if f.open {
                let modified = f.newest.unwrap_or_else(|| id.made());
                out.push((id, Stat { size: f.size, modified }));
            }
        }
        Ok(out)
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<(Stat, Shelf)>, StorageError> {
        Ok(self.find(digest).await?.map(|(_, s, at)| (s, at)))
    }

    async fn open(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>, StorageError> {
        Ok(self.find(digest).await?.map(|(r, ..)| self.stream(&r, range)))
    }

    async fn blobs(&self, at: Shelf) -> Result<Vec<(Digest, Stat)>, StorageError> {
        let dir = if at == Shelf::Placed { "blobs" } else { "trash" };
        let mut out = Vec::new();
        for (name, _) in self.children(dir).await?.documents {
            let Some(d) = Digest::from_dashed(&name) else { continue };
            if let Some((r, modified)) = self.record(at, &d).await? {
                out.push((d, Stat { size: r.size(), modified }));
            }
        }
        Ok(out)
    }

    async fn set_aside(&self, digest: &Digest) -> Result<(), StorageError> {
        let from = shelf(Shelf::Placed, digest);
        let Some(text) = self.read(&from, u64::MAX).await? else { return Ok(()) };
        self.write(&shelf(Shelf::Trash, digest), text).await?;
        self.remove(&from).await.map(drop)
    }

    async fn restore(&self, digest: &Digest) -> Result<(), StorageError> {
        let from = shelf(Shelf::Trash, digest);
        let Some(text) = self.read(&from, u64::MAX).await? else { return Ok(()) };
        if self.create(&shelf(Shelf::Placed, digest), text).await? {
            return self.remove(&from).await.map(drop);
        }
        // It was pushed again meanwhile: the older pieces are not needed.
        self.purge(digest).await
    }

    async fn purge(&self, digest: &Digest) -> Result<(), StorageError> {
        let Some((old, _)) = self.record(Shelf::Trash, digest).await? else { return Ok(()) };
        let placed = self.record(Shelf::Placed, digest).await?;
        // The same pieces when setting aside or restoring broke off.
        if placed.is_none_or(|(r, _)| r.upload != old.upload) {
            self.drop_pieces(&old.upload).await?;
        }
        self.remove(&shelf(Shelf::Trash, digest)).await.map(drop)
    }

    async fn lease(&self) -> Result<Option<Lease>, StorageError> {
        if let Some(s) = self.stat("gc-lease").await?
            && s.age() > LEASE_LIFE
        {
            self.remove("gc-lease").await?;
        }
        let got = self.create("gc-lease", Bytes::new()).await?;
        let store = self.clone();
        Ok(got.then(|| {
            Lease::until(Box::pin(async move {
                if let Err(e) = store.remove("gc-lease").await {
                    tracing::warn!(error = %e, "the lease of garbage collection ends by itself, in an hour");
                }
            }))
        }))
    }

    async fn health(&self) -> Result<(), StorageError> {
        // Nothing is there; a bucket that is not there says so all the same.
        self.children("health").await.map(drop)
    }

    async fn tidy(&self, age: Duration) -> Result<u64, StorageError> {
        let mut freed = 0;
        for (id, f) in self.folders().await? {
            if f.replaced.is_none_or(|s| s.age() <= age) {
                continue;
            }
            let closed = self.read(&format!("{}/closed", folder(&id)), 256).await?;
            let text = String::from_utf8_lossy(&closed.unwrap_or_default()).into_owned();
            let still = match text.parse::<Digest>() {
                Ok(d) => self.find(&d).await?.is_some_and(|(r, ..)| r.upload == id),
                Err(_) => false,
            };
            if still {
                // Replacing it broke off.
                self.remove(&format!("{}/replaced", folder(&id))).await?;
            } else {
                self.drop_pieces(&id).await?;
                freed += f.size;
            }
        }
        Ok(freed)
    }
}
