//! The place where an image is made, and the step that makes it visible.
//!
//! Work happens in `.build` inside the catalogue's directory: same file
//! system, so that the last step is one rename; not a valid name, so that no
//! catalogue lists it. A build that was killed leaves it behind, the next one
//! removes it. A lock on `.build.lock` keeps builds apart.

use super::build::BuildError;
use super::description::FileEntry;
use crate::model::{Digest, Name};
use rustix::fs::{FlockOperation, RenameFlags, flock, renameat_with};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The directory a build works in; removed when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Workplace {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Workplace {
    /// Takes the lock and makes an empty place.
    pub fn open(images: &Path, name: &Name) -> Result<Self, BuildError> {
        fs::create_dir_all(images).map_err(BuildError::io(images))?;
        // Absolute, for programs that change their directory or root.
        let images = &fs::canonicalize(images).map_err(BuildError::io(images))?;
        let lock_path = images.join(".build.lock");
        let lock = File::create(&lock_path).map_err(BuildError::io(&lock_path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(BuildError::Busy(images.clone()));
        }
        let root = images.join(".build");
        if root.exists() {
            fs::remove_dir_all(&root).map_err(BuildError::io(&root))?;
        }
        let path = root.join(name.as_str());
        fs::create_dir_all(&path).map_err(BuildError::io(&path))?;
        Ok(Self { path, _lock: lock })
    }

    /// The empty directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `from` visible as `to`, in one step even when there is an older
    /// `to`: a reader sees the old or the new, never half of one. What is
    /// being sent from the old one goes on, since its files stay open.
    pub fn publish(&self, from: &Path, to: &Path) -> Result<(), BuildError> {
        sync_tree(from).map_err(BuildError::io(from))?;
        let cwd = rustix::fs::CWD;
        let swapped = renameat_with(cwd, from, cwd, to, RenameFlags::EXCHANGE);
        match swapped {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => fs::rename(from, to).map_err(BuildError::io(to))?,
            Err(e) => return Err(BuildError::io(to)(e.into())),
        }
        let parent = to.parent().unwrap_or(to);
        File::open(parent).and_then(|d| d.sync_all()).map_err(BuildError::io(parent))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Some(root) = self.path.parent() {
            // What cannot be removed now is removed by the next build.
            let _ = fs::remove_dir_all(root);
        }
    }
}

fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

/// Digest and size of a file, read in pieces.
pub(crate) fn file_entry(path: &Path) -> Result<FileEntry, BuildError> {
    let read = || -> io::Result<FileEntry> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0u8; 1 << 20];
        let mut size = 0;
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                return Ok(FileEntry { sha256: Digest::finish(hasher), size });
            }
            hasher.update(&buffer[..n]);
            size += n as u64;
        }
    };
    read().map_err(BuildError::io(path))
}

/// A description as text: the same value always as the same bytes.
pub(crate) fn toml_text(value: &impl Serialize, path: &Path) -> Result<String, BuildError> {
    toml::to_string(value)
        .map_err(|e| BuildError::Io { path: path.to_owned(), source: io::Error::other(e) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_builds_at_once_are_kept_apart_and_leftovers_go() {
        let dir = tempfile::tempdir().unwrap();
        let name: Name = "debian-12".parse().unwrap();
        fs::create_dir_all(dir.path().join(".build/half/made")).unwrap();
        let first = Workplace::open(dir.path(), &name).unwrap();
        assert!(!dir.path().join(".build/half").exists());
        assert!(matches!(Workplace::open(dir.path(), &name), Err(BuildError::Busy(_))));
        for text in ["old", "new"] {
            let from = first.path().join("image");
            fs::create_dir_all(&from).unwrap();
            fs::write(from.join("f"), text).unwrap();
            first.publish(&from, &dir.path().join("debian-12")).unwrap();
            if from.exists() {
                fs::remove_dir_all(&from).unwrap();
            }
        }
        drop(first);
        assert_eq!(fs::read_to_string(dir.path().join("debian-12/f")).unwrap(), "new");
        assert!(!dir.path().join(".build").exists());
    }
}
