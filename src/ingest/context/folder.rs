//! Copies a folder without ever following a link: each folder is opened below
//! the one before, so that nobody who may write into the source can swap a
//! part of it for a link to `/etc` while we copy as root.

use super::ignore::{self, Ignore};
use super::{Budget, ContextError, DEEPEST, Limits};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// What a copy found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Newest change of a file that was copied, in seconds since 1970.
    pub newest: u64,
}

struct Copy<'a> {
    ignore: &'a Ignore,
    budget: Budget,
    stop: &'a dyn Fn() -> bool,
    copied: Copied,
}

/// Copies `from` to `to`, which must not be there; `.git` and what `ignore`
/// says stay behind.
pub fn copy(
    from: &Path,
    to: &Path,
    ignore: &Ignore,
    limits: Limits,
    stop: &dyn Fn() -> bool,
) -> Result<Copied, ContextError> {
    let root = open_folder(from)?;
    fs::create_dir(to).map_err(ContextError::io(to))?;
    let mut copy = Copy { ignore, budget: Budget::new(limits), stop, copied: Copied::default() };
    copy.folder(&root, &mut PathBuf::new(), to, 0)?;
    Ok(copy.copied)
}

fn open_folder(path: &Path) -> Result<OwnedFd, ContextError> {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| ContextError::io(path)(e.into()))
}

impl Copy<'_> {
    fn folder(
        &mut self,
        fd: &OwnedFd,
        relative: &mut PathBuf,
        to: &Path,
        depth: usize,
    ) -> Result<(), ContextError> {
        if depth > DEEPEST {
            return Err(ContextError::refused(relative, "folders in folders, more than 64 deep"));
        }
        let fail = |p: &Path, e: Errno| ContextError::io(p)(e.into());
        for entry in Dir::read_from(fd).map_err(|e| fail(relative, e))? {
            let entry = entry.map_err(|e| fail(relative, e))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || (depth == 0 && name == ".git") {
                continue;
            }
            if (self.stop)() {
                return Err(ContextError::Cancelled);
            }
            relative.push(name);
            self.entry(fd, name, relative, to, depth)?;
            relative.pop();
        }
        Ok(())
    }

    fn entry(
        &mut self,
        fd: &OwnedFd,
        name: &OsStr,
        relative: &mut PathBuf,
        to: &Path,
        depth: usize,
    ) -> Result<(), ContextError> {
        let fail = |e: Errno| ContextError::io(relative)(e.into());
        let text = relative.to_str().ok_or_else(|| {
            ContextError::refused(relative, "the name is no UTF-8 text: rename it")
        })?;
        let ignored = self.ignore.ignores(text);
        let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if ignored && (kind != FileType::Directory || !self.ignore.takes_back()) {
            return Ok(());
        }
        self.budget.entry()?;
        let target = to.join(name);
        let io = |e| ContextError::Io { path: target.clone(), source: e };
        let permissions = fs::Permissions::from_mode(stat.st_mode & 0o7777);
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match kind {
            FileType::Directory => {
                let fail = |e: Errno| ContextError::io(relative)(e.into());
                let inner = rustix::fs::openat(fd, name, flags | OFlags::DIRECTORY, Mode::empty())
                    .map_err(fail)?;
                fs::create_dir(&target).map_err(io)?;
                self.folder(&inner, relative, &target, depth + 1)?;
                // Kept only for something in it that was taken back.
                if ignored && fs::remove_dir(&target).is_ok() {
                    return Ok(());
                }
                fs::set_permissions(&target, permissions).map_err(io)?;
            }
            FileType::RegularFile => {
                let file = rustix::fs::openat(fd, name, flags, Mode::empty()).map_err(fail)?;
                let mut out = fs::File::create_new(&target).map_err(io)?;
                self.budget.copy(fs::File::from(file), &mut out, relative)?;
                out.set_permissions(permissions).map_err(io)?;
                let changed = u64::try_from(stat.st_mtime).unwrap_or(0);
                self.copied.newest = self.copied.newest.max(changed);
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(fd, name, Vec::new()).map_err(fail)?;
                std::os::unix::fs::symlink(OsStr::from_bytes(link.to_bytes()), &target)
                    .map_err(io)?;
            }
            // Sockets and pipes of a running program: nothing a build could use.
            _ => {}
        }
        Ok(())
    }
}

/// Reads one file of a folder, at most `largest` bytes, following no link.
/// `None` when there is none.
pub fn read(root: &Path, path: &Path, largest: u64) -> Result<Option<Vec<u8>>, ContextError> {
    let inner = super::inside(path)
        .filter(|p| !p.as_os_str().is_empty())
        .ok_or_else(|| ContextError::refused(path, "must be a path inside of the source"))?;
    let mut at = open_folder(root)?;
    let parts: Vec<Component> = inner.components().collect();
    for (n, part) in parts.iter().enumerate() {
        let last = n + 1 == parts.len();
        let mut flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        flags.set(OFlags::DIRECTORY, !last);
        at = match rustix::fs::openat(at.as_fd(), part.as_os_str(), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(ContextError::refused(path, "is a link; name the file itself"));
            }
            Err(e) => return Err(ContextError::io(path)(e.into())),
        };
    }
    let file = fs::File::from(at);
    if !file.metadata().map_err(ContextError::io(path))?.is_file() {
        return Err(ContextError::refused(path, "is no file"));
    }
    let mut bytes = Vec::new();
    file.take(largest + 1).read_to_end(&mut bytes).map_err(ContextError::io(path))?;
    if bytes.len() as u64 > largest {
        return Err(ContextError::refused(path, "is too large"));
    }
    Ok(Some(bytes))
}

/// The patterns for a Dockerfile: `NAME.dockerignore` beside it, otherwise
/// `.dockerignore`.
pub fn patterns(root: &Path, dockerfile: &Path) -> Result<Ignore, ContextError> {
    let mut own = dockerfile.as_os_str().to_owned();
    own.push(".dockerignore");
    for path in [Path::new(&own), Path::new(".dockerignore")] {
        if let Some(bytes) = read(root, path, ignore::LARGEST)? {
            return Ok(Ignore::parse(&String::from_utf8_lossy(&bytes)));
        }
    }
    Ok(Ignore::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree(root: &Path) -> Vec<String> {
        let mut out = Vec::new();
        let mut todo = vec![root.to_owned()];
        while let Some(d) = todo.pop() {
            for e in fs::read_dir(&d).unwrap().map(Result::unwrap) {
                out.push(e.path().strip_prefix(root).unwrap().display().to_string());
                if e.file_type().unwrap().is_dir() {
                    todo.push(e.path());
                }
            }
        }
        out.sort();
        out
    }

    #[test]
    fn links_are_copied_as_links_and_ignored_files_stay_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for d in ["", ".git", "logs", "sub", "empty"] {
            fs::create_dir(from.join(d)).unwrap();
        }
        for f in [".git/x", "logs/keep", "logs/drop", "sub/a", "b.tmp"] {
            fs::write(from.join(f), f).unwrap();
        }
        symlink("/etc/passwd", from.join("link")).unwrap();
        symlink("/etc", from.join("etc")).unwrap();
        fs::write(from.join(".dockerignore"), "*.tmp\nlogs\n!logs/keep\n.dockerignore\n").unwrap();
        let ignore = patterns(&from, Path::new("Dockerfile")).unwrap();
        copy(&from, &to, &ignore, Limits::default(), &|| false).unwrap();
        assert_eq!(tree(&to), ["empty", "etc", "link", "logs", "logs/keep", "sub", "sub/a"]);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
    }

    #[test]
    fn limits_hold() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        for n in 0..10 {
            fs::write(from.join(n.to_string()), [0; 100]).unwrap();
        }
        let go = |to: &str, bytes, entries| {
            let limits = Limits { bytes, entries };
            copy(&from, &dir.path().join(to), &Ignore::default(), limits, &|| false)
        };
        assert!(go("a", 1000, 10).is_ok());
        assert!(go("b", 999, 10).unwrap_err().to_string().contains("999 bytes"));
        assert!(go("c", 1000, 9).unwrap_err().to_string().contains("9 files"));
    }

    #[test]
    fn one_file_is_read_and_no_link_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "x").unwrap();
        symlink("/etc/passwd", dir.path().join("l")).unwrap();
        symlink("/etc", dir.path().join("e")).unwrap();
        let get = |p: &str| read(dir.path(), Path::new(p), 10);
        assert_eq!(get("d/f").unwrap().unwrap(), b"x");
        assert!(get("d/none").unwrap().is_none());
        for bad in ["l", "e/passwd", "../x", "/etc/passwd", "d", ""] {
            assert!(get(bad).is_err(), "{bad}");
        }
    }
}
