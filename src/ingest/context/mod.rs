//! What a build may see: a folder, an uploaded tar or a git repository is
//! brought into a directory of our own first, within limits. What is digested
//! is then what is built, whatever happens to the source meanwhile.
//!
//! `folder` copies, `tarball` unpacks, `git` fetches, `ignore` is
//! `.dockerignore`. All of it blocks, and runs on threads for that.

pub mod folder;
pub mod git;
pub mod ignore;
pub mod tarball;

use crate::model::Digest;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// How much a source may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 << 30, entries: 200_000 }
    }
}

/// Deepest folder in folders.
const DEEPEST: usize = 64;

/// Why there is no context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// A file.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Too much.
    #[error(
        "the source has more than {limit} {unit}: leave out what the build does not need with .dockerignore, or raise the limit"
    )]
    TooMuch {
        /// Limit.
        limit: u64,
        /// Bytes or files.
        unit: &'static str,
    },
    /// Something that may not be there.
    #[error("{path}: {why}")]
    Refused {
        /// As the source names it.
        path: String,
        /// What is wrong and what would be right.
        why: &'static str,
    },
    /// The program said so.
    #[error(transparent)]
    Child(#[from] crate::image::child::ChildError),
    /// In the source itself.
    #[error("{0}")]
    Source(String),
    /// Ended on somebody's wish.
    #[error("cancelled")]
    Cancelled,
}

impl ContextError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn refused(path: &Path, why: &'static str) -> Self {
        Self::Refused { path: path.display().to_string().chars().take(200).collect(), why }
    }
}

/// Counts down.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Limits,
    bytes: u64,
    entries: u64,
}

impl Budget {
    pub fn new(limits: Limits) -> Self {
        Self { limits, bytes: limits.bytes, entries: limits.entries }
    }

    pub fn entry(&mut self) -> Result<(), ContextError> {
        let over = ContextError::TooMuch { limit: self.limits.entries, unit: "files" };
        self.entries = self.entries.checked_sub(1).ok_or(over)?;
        Ok(())
    }

    /// Copies at most what is left; returns how much there was.
    pub fn copy(
        &mut self,
        from: impl Read,
        to: &mut fs::File,
        at: &Path,
    ) -> Result<u64, ContextError> {
        let mut some = from.take(self.bytes.saturating_add(1));
        let n = io::copy(&mut some, to).map_err(ContextError::io(at))?;
        let over = ContextError::TooMuch { limit: self.limits.bytes, unit: "bytes" };
        self.bytes = self.bytes.checked_sub(n).ok_or(over)?;
        Ok(n)
    }
}

/// A path inside of the source: relative, no `..`.
pub fn inside(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for c in path.components() {
        match c {
            Component::Normal(n) => out.push(n),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(out)
}

/// Digest of a directory: over sorted paths, kinds, permission bits and
/// contents. Owners and times do not count, since builders do not keep them.
pub fn digest(dir: &Path) -> Result<Digest, ContextError> {
    let mut hasher = Sha256::new();
    hasher.update(b"provision context 1\n");
    walk(dir, Path::new(""), &mut hasher)?;
    Ok(Digest::finish(hasher))
}

fn walk(dir: &Path, relative: &Path, hasher: &mut Sha256) -> Result<(), ContextError> {
    let io = ContextError::io(dir);
    let mut names: Vec<_> = match fs::read_dir(dir) {
        Ok(entries) => entries.filter_map(Result::ok).map(|e| e.file_name()).collect(),
        Err(e) => return Err(io(e)),
    };
    names.sort();
    // Lengths stand before what has no fixed length: nothing can be moved from
    // one field to the next without a change of the digest.
    let field = |hasher: &mut Sha256, bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    for name in names {
        let (path, inner) = (dir.join(&name), relative.join(&name));
        let io = |e| ContextError::Io { path: path.clone(), source: e };
        let meta = fs::symlink_metadata(&path).map_err(io)?;
        field(hasher, inner.as_os_str().as_bytes());
        let mode = (meta.permissions().mode() & 0o7777).to_be_bytes();
        if meta.is_symlink() {
            hasher.update(b"l");
            field(hasher, fs::read_link(&path).map_err(io)?.as_os_str().as_bytes());
        } else if meta.is_dir() {
            hasher.update(b"d");
            hasher.update(mode);
            walk(&path, &inner, hasher)?;
        } else {
            hasher.update(b"f");
            hasher.update(mode);
            hasher.update(meta.len().to_be_bytes());
            io::copy(&mut fs::File::open(&path).map_err(io)?, hasher).map_err(io)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_changes_with_names_modes_links_and_contents_and_not_with_times() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        fs::create_dir(d.join("a")).unwrap();
        fs::write(d.join("a/b"), "x").unwrap();
        let mut seen = vec![digest(d).unwrap()];
        let old = fs::File::open(d.join("a/b")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(digest(d).unwrap(), seen[0]);
        let steps: [&dyn Fn(); 5] = [
            &|| fs::write(d.join("a/b"), "y").unwrap(),
            &|| fs::set_permissions(d.join("a/b"), PermissionsExt::from_mode(0o755)).unwrap(),
            &|| fs::rename(d.join("a/b"), d.join("ab")).unwrap(),
            &|| std::os::unix::fs::symlink("x", d.join("l")).unwrap(),
            &|| {
                fs::remove_file(d.join("l")).unwrap();
                std::os::unix::fs::symlink("y", d.join("l")).unwrap();
            },
        ];
        for step in steps {
            step();
            let now = digest(d).unwrap();
            assert!(!seen.contains(&now));
            seen.push(now);
        }
    }

    #[test]
    fn only_paths_that_stay_inside_count() {
        assert_eq!(inside(Path::new("./a/./b")), Some("a/b".into()));
        for bad in ["/a", "a/../b", ".."] {
            assert_eq!(inside(Path::new(bad)), None, "{bad}");
        }
    }
}
