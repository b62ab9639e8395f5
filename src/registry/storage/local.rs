//! A directory. Documents are files under their keys; a blob is a file under
//! its digest; each is written to `tmp` or `data`, synced, renamed, and its
//! directory synced, before a call returns.
//!
//! ```text
//! repos/… uploads/…         documents, see `keys`
//! blobs/sha256/<hh>/<hex>   blobs
//! trash/sha256-<hex>        blobs set aside
//! data/<upload id>          uploads in flight
//! tmp/                      documents being written
//! ```

use super::{Append, BlobStream, Children, Lease, Shelf, Stat, Storage, StorageError};
use crate::registry::digest::{Algorithm, Digest};
use crate::registry::name::UploadId;
use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[path = "local_append.rs"]
mod append;
#[path = "local_read.rs"]
mod read;

/// See the module.
#[derive(Clone)]
pub struct Local {
    root: Arc<Path>,
}

pub(super) fn failed(what: &str, path: &Path, source: io::Error) -> StorageError {
    let what = format!("{what} {}", path.display());
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StorageError::Full { what },
        _ => StorageError::Io { what, source },
    }
}

/// File work, away from the tasks that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        Err(StorageError::Io { what: "a storage thread".into(), source: io::Error::other(e) })
    })
}

/// `None` for what is not there.
fn found<T>(what: &str, path: &Path, r: io::Result<T>) -> Result<Option<T>, StorageError> {
    match r {
        Ok(t) => Ok(Some(t)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(failed(what, path, e)),
    }
}

fn stat_of(m: &fs::Metadata) -> Stat {
    Stat { size: m.len(), modified: m.modified().unwrap_or(SystemTime::UNIX_EPOCH) }
}

fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| failed("sync", dir, e))
}

/// Makes `dir` so that it is there after a power cut.
fn make_dir(dir: &Path) -> Result<(), StorageError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dir(parent)?;
        match fs::create_dir(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(failed("make", dir, e)),
            _ => sync_dir(parent)?,
        }
    }
    Ok(())
}

impl Local {
    /// In `root`, which is made if it is not there.
    pub fn open(root: &Path) -> Result<Self, StorageError> {
        for d in ["blobs", "trash", "data", "tmp", "repos", "uploads"] {
            make_dir(&root.join(d))?;
        }
        Ok(Self { root: root.into() })
    }

    fn key(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn placed(&self, d: &Digest) -> PathBuf {
        self.root.join("blobs").join(d.algorithm().name()).join(&d.hex()[..2]).join(d.hex())
    }

    fn trash(&self, d: &Digest) -> PathBuf {
        self.root.join("trash").join(d.dashed())
    }

    fn data(&self, id: UploadId) -> PathBuf {
        self.root.join("data").join(id.to_string())
    }

    /// Where a blob is. A third look, since it may move between the first two.
    fn find<T>(
        &self,
        d: &Digest,
        look: impl Fn(&Path) -> io::Result<T>,
    ) -> Result<Option<(T, Shelf)>, StorageError> {
        let (placed, trash) = (self.placed(d), self.trash(d));
        for (path, shelf) in
            [(&placed, Shelf::Placed), (&trash, Shelf::Trash), (&placed, Shelf::Placed)]
        {
            if let Some(t) = found("look at", path, look(path))? {
                return Ok(Some((t, shelf)));
            }
        }
        Ok(None)
    }

    fn write_tmp(&self, bytes: &[u8]) -> Result<PathBuf, StorageError> {
        let tmp = self.root.join("tmp").join(UploadId::new().to_string());
        let written =
            OpenOptions::new().write(true).create_new(true).open(&tmp).and_then(|mut f| {
                f.write_all(bytes)?;
                f.sync_all()
            });
        match written {
            Ok(()) => Ok(tmp),
            Err(e) => {
                let _ = fs::remove_file(&tmp);
                Err(failed("write", &tmp, e))
            }
        }
    }

    fn put(&self, key: &str, bytes: &[u8], replace: bool) -> Result<bool, StorageError> {
        let to = self.key(key);
        let dir = to.parent().unwrap_or(&self.root).to_owned();
        make_dir(&dir)?;
        let tmp = self.write_tmp(bytes)?;
        let done = if replace {
            fs::rename(&tmp, &to).map(|()| true)
        } else {
            let linked = match fs::hard_link(&tmp, &to) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
                Err(e) => Err(e),
            };
            let _ = fs::remove_file(&tmp);
            linked
        };
        match done {
            Ok(done) => sync_dir(&dir).map(|()| done),
            Err(e) => {
                let _ = fs::remove_file(&tmp);
                Err(failed("write", &to, e))
            }
        }
    }

    /// Renames, with both directories synced; `false` when it is not there.
    fn shift(&self, from: &Path, to: &Path) -> Result<bool, StorageError> {
        let dir = to.parent().unwrap_or(&self.root);
        make_dir(dir)?;
        if found("move", from, fs::rename(from, to))?.is_none() {
            return Ok(false);
        }
        sync_dir(dir)?;
        if let Some(d) = from.parent() {
            sync_dir(d)?;
        }
        Ok(true)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Local) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let me = self.clone();
        blocking(move || work(&me)).await
    }
}

fn now_on(path: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.set_modified(SystemTime::now())
}

fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>, StorageError> {
    let Some(read) = found("list", dir, fs::read_dir(dir))? else { return Ok(Vec::new()) };
    read.collect::<io::Result<Vec<_>>>().map_err(|e| failed("list", dir, e))
}

/// Files of a directory that are still there, with their names.
fn files(dir: &Path) -> Result<Vec<(String, Stat)>, StorageError> {
    let mut out = Vec::new();
    for e in entries(dir)? {
        let Some(m) = found("look at", &e.path(), e.metadata())? else { continue };
        if let (true, Ok(name)) = (m.is_file(), e.file_name().into_string()) {
            out.push((name, stat_of(&m)));
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(out)
}

#[async_trait]
impl Storage for Local {
    async fn read(&self, key: &str, limit: u64) -> Result<Option<Bytes>, StorageError> {
        let (path, key) = (self.key(key), key.to_owned());
        blocking(move || {
            let Some(f) = found("open", &path, File::open(&path))? else { return Ok(None) };
            let size = f.metadata().map_err(|e| failed("look at", &path, e))?.len();
            if size > limit {
                return Err(StorageError::TooLarge { key, size, limit });
            }
            let mut v = Vec::with_capacity(size as usize + 1);
            f.take(limit).read_to_end(&mut v).map_err(|e| failed("read", &path, e))?;
            Ok(Some(v.into()))
        })
        .await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, StorageError> {
        let path = self.key(key);
        blocking(move || Ok(found("look at", &path, fs::metadata(&path))?.map(|m| stat_of(&m))))
            .await
    }

    async fn write(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        let key = key.to_owned();
        self.run(move |s| s.put(&key, &bytes, true).map(drop)).await
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool, StorageError> {
        let key = key.to_owned();
        self.run(move |s| s.put(&key, &bytes, false)).await
    }

    async fn touch(&self, key: &str) -> Result<bool, StorageError> {
        let path = self.key(key);
        blocking(move || Ok(found("touch", &path, now_on(&path))?.is_some())).await
    }

    async fn remove(&self, key: &str) -> Result<bool, StorageError> {
        let path = self.key(key);
        blocking(move || {
            if found("remove", &path, fs::remove_file(&path))?.is_none() {
                return Ok(false);
            }
            path.parent().map_or(Ok(()), sync_dir).map(|()| true)
        })
        .await
    }

    async fn children(&self, key: &str) -> Result<Children, StorageError> {
        let dir = self.key(key);
        blocking(move || {
            let mut c = Children { folders: Vec::new(), documents: files(&dir)? };
            for e in entries(&dir)? {
                if e.file_type().is_ok_and(|t| t.is_dir())
                    && let Ok(name) = e.file_name().into_string()
                {
                    c.folders.push(name);
                }
            }
            c.folders.sort();
            Ok(c)
        })
        .await
    }

    async fn begin(&self, id: UploadId) -> Result<(), StorageError> {
        self.run(move |s| {
            let path = s.data(id);
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .map(drop)
                .map_err(|e| failed("make", &path, e))
        })
        .await
    }

    async fn append(&self, id: UploadId) -> Result<Box<dyn Append>, StorageError> {
        append::open(self.data(id)).await
    }

    async fn uploaded(&self, id: UploadId) -> Result<Option<u64>, StorageError> {
        self.run(move |s| {
            let path = s.data(id);
            Ok(found("look at", &path, fs::metadata(&path))?.map(|m| m.len()))
        })
        .await
    }

    async fn read_upload(&self, id: UploadId) -> Result<BlobStream, StorageError> {
        self.run(move |s| {
            let path = s.data(id);
            let f = found("open", &path, File::open(&path))?.ok_or(StorageError::NoUpload)?;
            let size = f.metadata().map_err(|e| failed("look at", &path, e))?.len();
            Ok(read::stream(f, path, size))
        })
        .await
    }

    async fn place(&self, id: UploadId, digest: &Digest, _: u64) -> Result<(), StorageError> {
        let d = digest.clone();
        self.run(move |s| {
            let (from, to) = (s.data(id), s.placed(&d));
            let f = found("open", &from, OpenOptions::new().write(true).open(&from))?
                .ok_or(StorageError::NoUpload)?;
            f.sync_all().map_err(|e| failed("sync", &from, e))?;
            // Over an older one: it has the same content, or rotted.
            if !s.shift(&from, &to)? {
                return Err(StorageError::NoUpload);
            }
            Ok(())
        })
        .await
    }

    async fn discard(&self, id: UploadId) -> Result<(), StorageError> {
        self.run(move |s| {
            let path = s.data(id);
            found("remove", &path, fs::remove_file(&path)).map(drop)
        })
        .await
    }

    async fn uploads(&self) -> Result<Vec<(UploadId, Stat)>, StorageError> {
        self.run(|s| {
            let all = files(&s.root.join("data"))?;
            Ok(all.into_iter().filter_map(|(n, st)| Some((n.parse().ok()?, st))).collect())
        })
        .await
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<(Stat, Shelf)>, StorageError> {
        let d = digest.clone();
        self.run(move |s| Ok(s.find(&d, |p| fs::metadata(p))?.map(|(m, at)| (stat_of(&m), at))))
            .await
    }

    async fn open(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>, StorageError> {
        let d = digest.clone();
        self.run(move |s| {
            let Some((mut f, _)) = s.find(&d, |p| File::open(p))? else { return Ok(None) };
            let path = s.placed(&d);
            f.seek(SeekFrom::Start(range.start)).map_err(|e| failed("read", &path, e))?;
            Ok(Some(read::stream(f, path, range.end.saturating_sub(range.start))))
        })
        .await
    }

    async fn blobs(&self, shelf: Shelf) -> Result<Vec<(Digest, Stat)>, StorageError> {
        self.run(move |s| {
            let mut out = Vec::new();
            if shelf == Shelf::Trash {
                let all = files(&s.root.join("trash"))?;
                out.extend(
                    all.into_iter().filter_map(|(n, st)| Some((Digest::from_dashed(&n)?, st))),
                );
                return Ok(out);
            }
            for a in Algorithm::ALL {
                for sub in entries(&s.root.join("blobs").join(a.name()))? {
                    for (name, st) in files(&sub.path())? {
                        if let Ok(d) = format!("{}:{name}", a.name()).parse() {
                            out.push((d, st));
                        }
                    }
                }
            }
            Ok(out)
        })
        .await
    }

    async fn set_aside(&self, digest: &Digest) -> Result<(), StorageError> {
        let d = digest.clone();
        self.run(move |s| {
            let (from, to) = (s.placed(&d), s.trash(&d));
            found("touch", &from, now_on(&from))?;
            s.shift(&from, &to).map(drop)
        })
        .await
    }

    async fn restore(&self, digest: &Digest) -> Result<(), StorageError> {
        let d = digest.clone();
        self.run(move |s| s.shift(&s.trash(&d), &s.placed(&d)).map(drop)).await
    }

    async fn purge(&self, digest: &Digest) -> Result<(), StorageError> {
        let d = digest.clone();
        self.run(move |s| {
            let path = s.trash(&d);
            found("remove", &path, fs::remove_file(&path)).map(drop)
        })
        .await
    }

    async fn lease(&self) -> Result<Option<Lease>, StorageError> {
        self.run(|s| {
            let path = s.root.join("gc.lock");
            let f = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(|e| failed("open", &path, e))?;
            match flock(&f, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(Lease::held(f))),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
                Err(e) => Err(failed("lock", &path, e.into())),
            }
        })
        .await
    }

    async fn health(&self) -> Result<(), StorageError> {
        read::there(self.root.join("blobs")).await
    }

    async fn tidy(&self, age: Duration) -> Result<u64, StorageError> {
        self.run(move |s| {
            let (dir, mut freed) = (s.root.join("tmp"), 0);
            for (name, st) in files(&dir)? {
                if st.age() > age && fs::remove_file(dir.join(name)).is_ok() {
                    freed += st.size;
                }
            }
            Ok(freed)
        })
        .await
    }
}
