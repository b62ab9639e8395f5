//! Kernel and ramdisk of an installer from files on this host: a directory as
//! the distribution's netboot files come in, or an ISO image such as
//! `mini.iso`. And firmware that the installer does not bring along.
//! What is taken is held against lists of digests (`digests`).

use super::digests::{Signed, compare, name, unsigned};
use crate::image::build::{BuildError, Progress};
use crate::image::child::{self, ChildError, clean_environment};
use crate::image::cpio::Cpio;
use crate::image::publish::file_entry;
use crate::model::Digest;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where kernel and ramdisk are to be taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// A directory.
    Dir(PathBuf),
    /// An ISO 9660 image.
    Iso(PathBuf),
}

/// Where they are in it: directory, kernel, ramdisk.
pub(super) type Places = [(&'static str, &'static str, &'static str)];

/// As in `netboot/`, in `images/`, at the top of `mini.iso`, in the package
/// `debian-installer-13-netboot-amd64`. The installer on a CD (`install.amd/`)
/// looks for its CD and is not one.
pub(super) const DEBIAN: &Places = &[
    ("", "linux", "initrd.gz"),
    ("debian-installer/amd64/", "linux", "initrd.gz"),
    ("netboot/debian-installer/amd64/", "linux", "initrd.gz"),
    ("text/debian-installer/amd64/", "linux", "initrd.gz"),
    ("amd64/text/debian-installer/amd64/", "linux", "initrd.gz"),
];

/// Bytes of a kernel and of a ramdisk at most, and of all firmware.
const LONGEST: u64 = 1 << 30;
const FIRMWARE: u64 = 256 << 20;
/// Bytes that are copied between two reports.
const PIECE: u64 = 64 << 20;

/// What was taken, and what each is called in messages.
pub(super) struct Taken {
    /// Version of the installer, by the archive's lists.
    pub version: Option<String>,
    /// What could not be checked, a sentence each.
    pub unchecked: Vec<String>,
    /// Digest of the ISO image that was looked at.
    pub iso: Option<Digest>,
}

impl Files {
    fn path(&self) -> &Path {
        match self {
            Self::Dir(p) | Self::Iso(p) => p,
        }
    }

    fn wrong(&self, why: impl Into<String>) -> BuildError {
        BuildError::Files(self.path().to_owned(), why.into())
    }

    /// Whether it can be one at all, before a build begins: what is wrong.
    pub fn fault(&self) -> Option<String> {
        if !self.path().is_absolute() {
            return Some("must be an absolute path, on the build host".to_owned());
        }
        if self.path().as_os_str().len() > 4096 {
            return Some("is longer than any path".to_owned());
        }
        match (self, fs::metadata(self.path())) {
            (_, Err(e)) => Some(format!("cannot be read on the build host: {e}")),
            (Self::Dir(_), Ok(m)) if !m.is_dir() => Some("is no directory".to_owned()),
            (Self::Iso(_), Ok(m)) if !m.is_file() => Some("is no file".to_owned()),
            _ => None,
        }
    }

    pub(super) fn check(&self) -> Result<(), BuildError> {
        self.fault().map_or(Ok(()), |why| Err(self.wrong(why)))
    }

    /// Puts `kernel` and `ramdisk` into `out`.
    ///
    /// # Errors
    /// They are not there, are something else, or are not what a list says.
    pub(super) fn take(
        &self,
        (work, out): (&Path, &Path),
        places: &Places,
        lists: &Signed,
        progress: &mut dyn Progress,
    ) -> Result<Taken, BuildError> {
        let dir = match self {
            Self::Dir(dir) => dir.clone(),
            Self::Iso(iso) => unpack(iso, places, &work.join("iso"), progress)?,
        };
        // No link: an ISO image may lead anywhere with one.
        let is_file = |p: PathBuf| fs::symlink_metadata(p).is_ok_and(|m| m.is_file());
        let place =
            places.iter().find(|(at, k, r)| [k, r].iter().all(|f| is_file(dir.join(at).join(f))));
        let (at, kernel, ramdisk) = place.ok_or_else(|| self.wrong(self.nothing_here(places)))?;
        let from = [kernel, ramdisk].map(|f| dir.join(at).join(f));
        let to = [out.join("kernel"), out.join("ramdisk")];
        for (from, to) in from.iter().zip(&to) {
            copy(from, to, LONGEST, progress)?;
        }
        if !is_kernel(&to[0]).map_err(BuildError::io(&to[0]))? {
            return Err(self.wrong(format!("{at}{kernel} is no Linux kernel for x86")));
        }
        let mut taken = Taken { version: None, unchecked: Vec::new(), iso: None };
        if let Self::Iso(iso) = self {
            // All of it is as its list says, or each of its files is.
            let digest = file_entry(iso)?.sha256;
            taken.iso = Some(digest);
            if let Some(version) = lists.version(digest) {
                return Ok(Taken { version: Some(version), ..taken });
            }
            if let Some(list) = compare(iso, digest)? {
                taken.unchecked.extend(unsigned(iso, &list));
                return Ok(taken);
            }
        }
        for (from, to) in from.iter().zip(&to) {
            let digest = file_entry(to)?.sha256;
            if let Some(version) = lists.version(digest) {
                taken.version = Some(version);
                continue;
            }
            taken.unchecked.extend(match compare(from, digest)? {
                Some(list) => unsigned(from, &list),
                None => {
                    Some(format!("{} is in no list of digests that the archive signs", name(from)))
                }
            });
        }
        Ok(taken)
    }

    fn nothing_here(&self, places: &Places) -> String {
        let all: Vec<String> = places
            .iter()
            .map(|(at, kernel, ramdisk)| format!("{at}{kernel} and {ramdisk}"))
            .collect();
        let hint = match self {
            Self::Iso(_) if places == DEBIAN => {
                "; the installer on a CD looks for its CD and cannot be used: take mini.iso"
            }
            _ => "",
        };
        format!("has no network installer: looked for {}{hint}", all.join(", "))
    }
}

/// Takes what may be an installer out of an ISO image.
fn unpack(
    iso: &Path,
    places: &Places,
    to: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, BuildError> {
    fs::create_dir_all(to).map_err(BuildError::io(to))?;
    let bsdtar = |args: &[&str]| {
        let mut command = Command::new("bsdtar");
        clean_environment(&mut command);
        command.args(args).arg("-f").arg(iso);
        command
    };
    let mut listing = Listing { progress, places, found: Vec::new() };
    match child::run("listing the ISO image (bsdtar)", bsdtar(&["-t"]), &mut listing) {
        Err(ChildError::Start { .. }) => Err(BuildError::Files(
            iso.to_owned(),
            "cannot be read, bsdtar is not here: apt install libarchive-tools".to_owned(),
        )),
        done => Ok(done?),
    }?;
    let found = listing.found;
    if found.is_empty() {
        return Ok(to.to_owned());
    }
    let mut command = bsdtar(&["-x", "--no-same-owner", "--no-same-permissions"]);
    command.arg("-C").arg(to).args(found);
    child::run("reading the ISO image (bsdtar)", command, progress)?;
    Ok(to.to_owned())
}

/// Takes the names that may be an installer's from a listing.
struct Listing<'a> {
    progress: &'a mut dyn Progress,
    places: &'a Places,
    found: Vec<String>,
}

impl Progress for Listing<'_> {
    fn step(&mut self, what: &str) {
        self.progress.step(what);
    }
    fn bytes(&mut self, done: u64, total: u64) {
        self.progress.bytes(done, total);
    }
    fn log(&mut self, line: &str) {
        let wanted = |(at, kernel, ramdisk): &(&str, &str, &str)| {
            line.strip_prefix(at).is_some_and(|f| f == *kernel || f == *ramdisk)
        };
        if self.places.iter().any(wanted) {
            self.found.push(line.to_owned());
        } else if line.starts_with("bsdtar:") {
            self.progress.log(line);
        }
    }
    fn cancelled(&self) -> bool {
        self.progress.cancelled()
    }
}

/// Copies `from`, which has at most `most` bytes.
///
/// # Errors
/// It is longer, one of the two cannot be read or written, or the build was
/// cancelled.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    most: u64,
    progress: &mut dyn Progress,
) -> Result<(), BuildError> {
    let mut file = File::open(from).map_err(BuildError::io(from))?;
    let all = file.metadata().map_err(BuildError::io(from))?.len();
    let mut new = File::create(to).map_err(BuildError::io(to))?;
    let mut done = 0;
    loop {
        // Which of the two it was, the error says itself.
        let n = io::copy(&mut file.by_ref().take(PIECE), &mut new)
            .map_err(|e| BuildError::Files(from.to_owned(), format!("cannot be copied: {e}")))?;
        done += n;
        progress.bytes(done, all.max(done));
        if n == 0 {
            return Ok(());
        }
        if done > most {
            let why = format!("is longer than {most} bytes");
            return Err(BuildError::Files(from.to_owned(), why));
        }
        if progress.cancelled() {
            return Err(ChildError::Cancelled.into());
        }
    }
}

/// The release that a kernel says of itself, such as `5.4.0-26-generic`
/// (`kernel_version` of its header); empty when it says none.
pub(super) fn kernel_release(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let file = File::open(path)?;
        let mut at = [0; 2];
        file.read_exact_at(&mut at, 0x20E)?;
        let mut text = [0; 128];
        let n = file.read_at(&mut text, u64::from(u16::from_le_bytes(at)) + 0x200)?;
        let text = text[..n].split(|b| *b == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).split(' ').next().unwrap_or_default().to_owned())
    };
    let release = read().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".+~-_".contains(c);
    if release.chars().all(plain) { release } else { String::new() }
}

/// By its header (Documentation/arch/x86/boot.rst): the boot flag, and `HdrS`.
fn is_kernel(path: &Path) -> io::Result<bool> {
    let mut head = [0; 8];
    match File::open(path)?.read_exact_at(&mut head, 0x1FE) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| head[..2] == [0x55, 0xAA] && &head[4..] == b"HdrS"),
    }
}

/// Adds every file below `dir` where the installer's kernel looks for
/// firmware.
///
/// # Errors
/// It is no directory, or too much for a ramdisk.
pub(super) fn firmware(dir: &Path, lib: &str, cpio: &mut Cpio) -> Result<(), BuildError> {
    let root = fs::canonicalize(dir).map_err(BuildError::io(dir))?;
    let mut files = BTreeMap::new();
    collect(&root, &root, &mut files)?;
    let wrong = |why: String| BuildError::Files(dir.to_owned(), why);
    if files.is_empty() {
        return Err(wrong("has no file: firmware is laid out in it as in /lib/firmware".into()));
    }
    let mut left = FIRMWARE;
    for (name, path) in files {
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|f| f.take(left + 1).read_to_end(&mut bytes));
        let n = read.map_err(BuildError::io(&path))? as u64;
        left = left.checked_sub(n).ok_or_else(|| {
            wrong(format!("has more than {FIRMWARE} bytes, which no ramdisk should carry"))
        })?;
        cpio.file(&format!("{lib}/firmware/{name}"), 0o644, &bytes);
    }
    Ok(())
}

/// Regular files, and links to some in the same directory: what is sent to
/// machines is what lies there.
fn collect(root: &Path, dir: &Path, to: &mut BTreeMap<String, PathBuf>) -> Result<(), BuildError> {
    for entry in fs::read_dir(dir).map_err(BuildError::io(dir))? {
        let entry = entry.map_err(BuildError::io(dir))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect(root, &path, to)?;
            continue;
        }
        let real = fs::canonicalize(&path).map_err(BuildError::io(&path))?;
        if !real.starts_with(root) || !real.is_file() {
            let why = "leads to no file of this directory".to_owned();
            return Err(BuildError::Files(path, why));
        }
        if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            to.insert(name.to_owned(), real);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
