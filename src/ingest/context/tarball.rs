//! Unpacks a tar that somebody sent: plain, gzip or zstd. Only files, folders
//! and links that stay inside; nothing is written through a link.

use super::{Budget, ContextError, DEEPEST, Limits, inside};
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// Unpacks `from` into `to`, which must not be there. The reader's own errors
/// (a sender that stalls or leaves) come back as they are.
pub fn unpack(from: impl Read, to: &Path, limits: Limits) -> Result<(), ContextError> {
    fs::create_dir(to).map_err(ContextError::io(to))?;
    let mut from = BufReader::with_capacity(64 << 10, from);
    let name = Path::new("the upload");
    let magic = from.fill_buf().map_err(ContextError::io(name))?;
    let plain: Box<dyn Read> = if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(from))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut d =
            zstd::stream::read::Decoder::with_buffer(from).map_err(ContextError::io(name))?;
        // At most 128 MiB of memory, whatever the sender asks for.
        d.window_log_max(27).map_err(ContextError::io(name))?;
        Box::new(d)
    } else {
        Box::new(from)
    };
    // Headers count too: 1 KiB for each entry is more than they take, and names
    // of endless length end here.
    let most =
        limits.bytes.saturating_add(limits.entries.saturating_mul(2048)).saturating_add(1 << 20);
    let mut archive = tar::Archive::new(plain.take(most));
    let mut budget = Budget::new(limits);
    let mut folders: Vec<(PathBuf, u32)> = Vec::new();
    for entry in archive.entries().map_err(ContextError::io(name))? {
        let mut entry = entry.map_err(ContextError::io(name))?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            continue;
        }
        budget.entry()?;
        let path = entry.path().map_err(ContextError::io(name))?.into_owned();
        let inner =
            inside(&path).filter(|p| p.components().count() <= DEEPEST).ok_or_else(|| {
                ContextError::refused(
                    &path,
                    "leads out of the upload: use relative paths without '..'",
                )
            })?;
        let target = to.join(&inner);
        if inner.as_os_str().is_empty() {
            continue;
        }
        parents(to, &inner)?;
        let mode = entry.header().mode().unwrap_or(0o644) & 0o7777;
        let io = |e| ContextError::Io { path: inner.clone(), source: e };
        if kind != EntryType::Directory {
            match fs::symlink_metadata(&target) {
                Ok(m) if m.is_dir() => {
                    return Err(ContextError::refused(&inner, "is a folder and a file at once"));
                }
                Ok(_) => fs::remove_file(&target).map_err(io)?,
                Err(_) => {}
            }
        }
        match kind {
            EntryType::Directory => {
                match fs::create_dir(&target) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_folder(&target) => {}
                    other => other.map_err(io)?,
                }
                folders.push((target, mode));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut out = fs::File::create_new(&target).map_err(io)?;
                let wanted = entry.size();
                if budget.copy(&mut entry, &mut out, &inner)? != wanted {
                    return Err(ContextError::refused(
                        &inner,
                        "is cut off: send the archive again",
                    ));
                }
                out.set_permissions(PermissionsExt::from_mode(mode)).map_err(io)?;
            }
            EntryType::Symlink => {
                let link = link_name(&entry, &inner)?;
                if !stays(&inner, &link) {
                    return Err(ContextError::refused(
                        &inner,
                        "is a link that leads out of the upload",
                    ));
                }
                symlink(link, &target).map_err(io)?;
            }
            EntryType::Link => {
                let link = inside(&link_name(&entry, &inner)?).ok_or_else(|| {
                    ContextError::refused(&inner, "is a link that leads out of the upload")
                })?;
                parents(to, &link)?;
                let other = to.join(&link);
                if !fs::symlink_metadata(&other).is_ok_and(|m| m.is_file()) {
                    return Err(ContextError::refused(&inner, "is a hard link to no earlier file"));
                }
                fs::hard_link(other, &target).map_err(io)?;
            }
            _ => {
                return Err(ContextError::refused(
                    &inner,
                    "is a device or a pipe: only files, folders and links can be sent",
                ));
            }
        }
    }
    // At last, so that a folder that may not be written can be filled.
    for (path, mode) in folders.into_iter().rev() {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode | 0o700))
            .map_err(ContextError::io(&path))?;
    }
    Ok(())
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
}

/// Makes the folders above `inner`; none of them may be a link.
fn parents(root: &Path, inner: &Path) -> Result<(), ContextError> {
    let mut at = root.to_owned();
    for part in inner.parent().into_iter().flat_map(Path::components) {
        at.push(part);
        match fs::create_dir(&at) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_folder(&at) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(ContextError::refused(inner, "lies behind a link or a file"));
            }
            other => other.map_err(ContextError::io(&at))?,
        }
    }
    Ok(())
}

fn link_name<R: Read>(entry: &tar::Entry<'_, R>, at: &Path) -> Result<PathBuf, ContextError> {
    let link = entry.link_name().map_err(ContextError::io(at))?;
    link.map(|l| l.into_owned()).ok_or_else(|| ContextError::refused(at, "is a link to nothing"))
}

/// Whether a link at `at` leads to a place inside, going by the text: no part
/// of the way is a link, since nothing is written behind one.
fn stays(at: &Path, link: &Path) -> bool {
    let mut depth = at.components().count().saturating_sub(1);
    for part in link.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Made<'a> = (EntryType, &'a str, &'a str);

    fn tar_of(entries: &[Made<'_>]) -> Vec<u8> {
        let mut b = tar::Builder::new(Vec::new());
        for (kind, path, content) in entries {
            let mut h = tar::Header::new_gnu();
            h.set_entry_type(*kind);
            h.set_mode(0o644);
            // Past the checks of the library's own setter.
            h.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let links = matches!(kind, EntryType::Symlink | EntryType::Link);
            if links {
                h.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            let data = if links { "" } else { content };
            h.set_size(data.len() as u64);
            h.set_cksum();
            b.append(&h, data.as_bytes()).unwrap();
        }
        b.into_inner().unwrap()
    }

    fn go(bytes: &[u8], limits: Limits) -> (tempfile::TempDir, Result<(), ContextError>) {
        let dir = tempfile::tempdir().unwrap();
        let done = unpack(bytes, &dir.path().join("x"), limits);
        (dir, done)
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn files_folders_and_links_arrive_plain_and_compressed() {
        let tar = tar_of(&[
            (EntryType::Directory, "./", ""),
            (FILE, "a/b/c", "content"),
            (EntryType::Symlink, "a/l", "../a/b/c"),
            (EntryType::Link, "h", "a/b/c"),
            (FILE, "a/b/c", "again"),
        ]);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::copy(&mut &tar[..], &mut gz).unwrap();
        for bytes in [tar.clone(), gz.finish().unwrap(), zstd::encode_all(&tar[..], 1).unwrap()] {
            let (dir, done) = go(&bytes, Limits::default());
            done.unwrap();
            let read = |p: &str| fs::read_to_string(dir.path().join("x").join(p)).unwrap();
            assert_eq!(
                (read("a/b/c"), read("a/l"), read("h")),
                ("again".into(), "again".into(), "content".into())
            );
        }
    }

    #[test]
    fn nothing_leads_out() {
        use EntryType::*;
        for (entries, want) in [
            (&[(FILE, "/etc/x", "")][..], "leads out"),
            (&[(FILE, "../x", "")], "leads out"),
            (&[(FILE, "a/../../x", "")], "leads out"),
            (&[(Symlink, "l", "/etc")], "leads out"),
            (&[(Symlink, "a/l", "../../x")], "leads out"),
            (&[(Symlink, "l", "a"), (FILE, "l/x", "")], "behind a link"),
            (&[(Symlink, "l", "a"), (Directory, "l", ""), (FILE, "l/x", "")], "exists"),
            (&[(Link, "h", "/etc/passwd")], "leads out"),
            (&[(Link, "h", "../x")], "leads out"),
            (&[(Symlink, "l", "a"), (Link, "h", "l")], "no earlier file"),
            (&[(Char, "null", "")], "device"),
            (&[(Fifo, "p", "")], "device"),
            (&[(Directory, "d", ""), (FILE, "d", "")], "at once"),
        ] {
            let (dir, done) = go(&tar_of(entries), Limits::default());
            let said = done.unwrap_err().to_string();
            assert!(said.contains(want), "{entries:?}: {said}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{entries:?}");
        }
    }

    #[test]
    fn an_archive_that_is_cut_off_is_refused() {
        let tar = tar_of(&[(FILE, "a", &"x".repeat(5000))]);
        let (_dir, done) = go(&tar[..2000], Limits::default());
        let said = done.unwrap_err().to_string();
        assert!(said.contains("cut off") || said.contains("EOF"), "{said}");
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let zeros = "\0".repeat(1 << 20);
        let tar = tar_of(&[(FILE, "a", &zeros), (FILE, "b", &zeros)]);
        let small = zstd::encode_all(&tar[..], 3).unwrap();
        assert!(small.len() < 1000);
        let (dir, done) = go(&small, Limits { bytes: 1 << 20, entries: 10 });
        assert!(done.unwrap_err().to_string().contains("bytes"));
        assert!(fs::metadata(dir.path().join("x/b")).unwrap().len() <= 64 << 10);
        let many: Vec<Made<'_>> = (0..20).map(|_| (FILE, "a", "")).collect();
        let (_dir, done) = go(&tar_of(&many), Limits { bytes: 100, entries: 10 });
        assert!(done.unwrap_err().to_string().contains("10 files"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_panic_or_leave_the_folder(at in 0usize..2048, with in proptest::collection::vec(any::<u8>(), 1..100)) {
            let mut bytes = tar_of(&[(FILE, "a/b", "content"), (EntryType::Symlink, "l", "a")]);
            let end = (at + with.len()).min(bytes.len());
            let at = at.min(end);
            bytes[at..end].copy_from_slice(&with[..end - at]);
            let (dir, _done) = go(&bytes, Limits { bytes: 1 << 20, entries: 10 });
            prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
