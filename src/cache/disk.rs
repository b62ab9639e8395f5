//! What is kept. Under `files/` the files as they are upstream, those that can
//! change with what upstream said of them beside; under `tmp/` what arrives.
//! The time of a file is that of its last use.

use super::path::{Key, Kind};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What must stay free on the disk, in bytes.
const RESERVE: u64 = 64 << 20;
/// A use is written down when the last one is longer ago.
const COARSE: Duration = Duration::from_secs(3600);
/// How much goes when there is no room: down to nine tenths of the limit.
const DOWN_TO: u64 = 9;
/// Ending of what upstream said.
const META: &str = ".provision-meta";

/// What is known of a file that can change: from upstream, and its digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// `ETag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// `Last-Modified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// What the file has, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    used: SystemTime,
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<Key, Entry>,
    size: u64,
}

/// The directory.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    limit: u64,
    known: Mutex<Known>,
    next: AtomicU64,
}

impl Disk {
    pub fn open(dir: &Path, limit: u64) -> io::Result<Self> {
        let tmp = dir.join("tmp");
        match fs::remove_dir_all(&tmp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        fs::create_dir_all(&tmp)?;
        fs::create_dir_all(dir.join("files"))?;
        let this =
            Self { dir: dir.to_owned(), limit, known: Mutex::default(), next: AtomicU64::new(0) };
        this.look()?;
        Ok(this)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes kept.
    pub fn size(&self) -> u64 {
        self.known().size
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join("files").join(&key.origin).join(&key.path)
    }

    fn meta_path(&self, key: &Key) -> PathBuf {
        let mut p = self.path(key).into_os_string();
        p.push(META);
        p.into()
    }

    /// Finds what is there.
    fn look(&self) -> io::Result<()> {
        let root = self.dir.join("files");
        let mut todo = vec![root.clone()];
        let mut known = self.known();
        while let Some(d) = todo.pop() {
            for e in fs::read_dir(&d)? {
                let e = e?;
                let (path, m) = (e.path(), e.metadata()?);
                if m.is_dir() {
                    todo.push(path);
                    continue;
                }
                let inside = path.strip_prefix(&root).ok().and_then(Path::to_str);
                let Some((origin, path)) = inside.and_then(|i| i.split_once('/')) else { continue };
                if let Ok(key) = Key::new(origin, path) {
                    let entry = Entry { size: m.len(), used: m.modified()? };
                    known.size += entry.size;
                    known.entries.insert(key, entry);
                }
            }
        }
        Ok(())
    }

    /// The file, if it is here; it counts as used.
    pub fn get(&self, key: &Key) -> Option<(File, u64)> {
        let file = File::open(self.path(key)).ok()?;
        let size = file.metadata().ok()?.len();
        let now = SystemTime::now();
        let mut known = self.known();
        // Unknown to us means: it is just being put there, or somebody did.
        if let Some(e) = known.entries.get_mut(key)
            && now.duration_since(e.used).unwrap_or_default() > COARSE
        {
            e.used = now;
            let _ = file.set_times(FileTimes::new().set_modified(now));
        }
        Some((file, size))
    }

    /// What upstream said of it the last time.
    pub fn meta(&self, key: &Key) -> Meta {
        let text = fs::read(self.meta_path(key)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Room for `bytes` more, if need be by removing what was not used for
    /// longest. `false`: there is none, and nothing is to be kept.
    pub fn make_room(&self, bytes: u64) -> bool {
        if bytes > self.limit {
            return false;
        }
        let mut known = self.known();
        if known.size + bytes > self.limit {
            self.shrink(&mut known, (self.limit / 10 * DOWN_TO).saturating_sub(bytes));
        }
        if self.free() < bytes + RESERVE {
            let short = bytes + RESERVE - self.free();
            let target = known.size.saturating_sub(short);
            self.shrink(&mut known, target);
        }
        self.free() >= bytes + RESERVE
    }

    fn free(&self) -> u64 {
        rustix::fs::statvfs(&self.dir).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize))
    }

    fn shrink(&self, known: &mut Known, target: u64) {
        let mut all: Vec<(SystemTime, Key)> =
            known.entries.iter().map(|(k, e)| (e.used, k.clone())).collect();
        all.sort();
        for (_, key) in all {
            if known.size <= target {
                return;
            }
            // A reader that has it open goes on reading.
            let _ = fs::remove_file(self.meta_path(&key));
            match fs::remove_file(self.path(&key)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = key.path, error = %e, "cannot be removed from the cache");
                }
                _ => {
                    let gone = known.entries.remove(&key).map_or(0, |e| e.size);
                    known.size = known.size.saturating_sub(gone);
                }
            }
        }
    }

    /// A new temporary file.
    pub fn temporary(&self) -> io::Result<(PathBuf, File)> {
        let path = self.dir.join("tmp").join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok((path, file))
    }

    /// Keeps a complete temporary file under its name, for good.
    pub fn keep(&self, key: &Key, tmp: &Path, file: &File, meta: &Meta) -> io::Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(folder)?;
        file.sync_all()?;
        if key.kind() == Kind::Index {
            // First away with what was said of the old one: without it the new
            // one is asked for whole, which is right in any case.
            let _ = fs::remove_file(self.meta_path(key));
        }
        fs::rename(tmp, &path)?;
        if key.kind() == Kind::Index {
            fs::write(self.meta_path(key), serde_json::to_vec(meta).unwrap_or_default())?;
        }
        File::open(folder)?.sync_all()?;
        let entry = Entry { size: file.metadata()?.len(), used: SystemTime::now() };
        let mut known = self.known();
        known.size += entry.size;
        if let Some(old) = known.entries.insert(key.clone(), entry) {
            known.size = known.size.saturating_sub(old.size);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn put(d: &Disk, path: &str, bytes: &[u8]) -> Key {
        let key = Key::new("debian", path).unwrap();
        let (tmp, mut f) = d.temporary().unwrap();
        f.write_all(bytes).unwrap();
        d.keep(&key, &tmp, &f, &Meta::default()).unwrap();
        key
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let d = Disk::open(dir.path(), 1000).unwrap();
        let (a, b) = (put(&d, "pool/a", &[1; 400]), put(&d, "pool/b", &[2; 400]));
        // `a` was used last.
        let old = SystemTime::now() - Duration::from_secs(7200);
        d.known().entries.get_mut(&b).unwrap().used = old;
        assert!(d.make_room(400));
        assert!(d.get(&a).is_some() && d.get(&b).is_none());
        assert_eq!(d.size(), 400);
        assert!(!d.make_room(1001), "larger than everything");
    }

    #[test]
    fn a_restart_finds_what_was_complete_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let d = Disk::open(dir.path(), 1000).unwrap();
        let a = put(&d, "pool/a", &[1; 10]);
        let (_tmp, mut f) = d.temporary().unwrap();
        f.write_all(&[0; 100]).unwrap();
        let d = Disk::open(dir.path(), 1000).unwrap();
        assert_eq!((d.size(), d.get(&a).unwrap().1), (10, 10));
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        // Replaced, not added.
        put(&d, "pool/a", &[1; 30]);
        assert_eq!(d.size(), 30);
    }

    #[test]
    fn what_upstream_said_is_kept_beside_what_can_change() {
        let dir = tempfile::tempdir().unwrap();
        let d = Disk::open(dir.path(), 1000).unwrap();
        let key = Key::new("debian", "dists/x/InRelease").unwrap();
        assert_eq!(d.meta(&key), Meta::default());
        let (tmp, f) = d.temporary().unwrap();
        let meta = Meta { etag: Some("\"1\"".into()), modified: None, sha256: Some("ab".into()) };
        d.keep(&key, &tmp, &f, &meta).unwrap();
        assert_eq!(d.meta(&key), meta);
        let d = Disk::open(dir.path(), 1000).unwrap();
        assert_eq!(d.meta(&key), meta);
    }
}
