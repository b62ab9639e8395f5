//! A mirror as one file: a tar archive, compressed with zstd. First come
//! description, signature and key, so that whoever reads it knows what must
//! follow, and takes nothing else: not one byte more than was signed. Then, in
//! `image/`, the image that it was made for, if there still was one.

use super::description::Description;
use super::image::{Incoming, OtherImage, PREFIX, TOML, files};
use super::shelf::{DESCRIPTION, KEY, Mirror, Mirrors, SIGNATURE, fingerprint, parse};
use super::{MirrorError, plain};
use crate::archive::signing;
use crate::image::publish::Workplace;
use crate::image::{Catalogue, FileEntry, Image, Progress};
use crate::model::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Largest description that is read, in bytes.
pub(super) const LARGEST: u64 = 32 << 20;
/// Packages are compressed already.
const LEVEL: i32 = 1;

/// What an import takes.
#[derive(Debug, Clone, Default)]
pub struct Accept {
    /// Fingerprints of keys that may have signed it.
    pub believed: Vec<String>,
    /// What becomes of an image that is here, has the name of the one in the
    /// file, and is another one. The import is refused if this says nothing.
    pub other_image: Option<OtherImage>,
}

/// What was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The mirror.
    pub mirror: Mirror,
    /// Whether its image came into the catalogue with it.
    pub took_image: bool,
}

/// Writes the mirror to `to`, the same bytes each time, with the image that it
/// was made for ([`Description::image_in`]).
///
/// # Errors
/// A file cannot be read or is not as described, or `to` cannot be written.
pub fn export(mirror: &Mirror, image: Option<&Image>, to: impl Write) -> Result<(), MirrorError> {
    let failed = |e: io::Error| MirrorError::io(&mirror.dir)(e);
    let zstd = zstd::Encoder::new(to, LEVEL).map_err(failed)?;
    let mut tar = tar::Builder::new(zstd);
    let date = mirror.description.date;
    for name in [DESCRIPTION, SIGNATURE, KEY] {
        append(&mut tar, name, &mirror.dir.join(name), date, None)?;
    }
    // At once: whoever reads it can refuse before all the rest has come.
    if let Some(i) = image {
        let rest = files(&i.description).into_iter().map(|(f, e)| (f, e.sha256));
        for (file, digest) in std::iter::once((TOML.to_owned(), i.digest)).chain(rest) {
            append(&mut tar, &format!("{PREFIX}{file}"), &i.dir.join(&file), date, Some(digest))?;
        }
    }
    for (name, entry) in mirror.description.files.iter().filter(|(f, _)| *f != KEY) {
        append(&mut tar, name, &mirror.dir.join(name), date, Some(entry.sha256))?;
    }
    let zstd = tar.into_inner().map_err(failed)?;
    zstd.finish().and_then(|mut to| to.flush()).map_err(failed)
}

/// What is read through it is hashed.
struct Hashed<R> {
    from: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

/// One file. What is not as described would be refused where it is carried to,
/// a journey later: an image may be made anew while it is read.
fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    path: &Path,
    date: u64,
    digest: Option<Digest>,
) -> Result<(), MirrorError> {
    let from = File::open(path).map_err(MirrorError::io(path))?;
    let mut header = tar::Header::new_gnu();
    header.set_size(from.metadata().map_err(MirrorError::io(path))?.len());
    header.set_mode(0o644);
    header.set_mtime(date);
    header.set_entry_type(tar::EntryType::Regular);
    let mut file = Hashed { from, hasher: Sha256::new() };
    tar.append_data(&mut header, name, &mut file).map_err(MirrorError::io(path))?;
    let read = Digest::finish(file.hasher);
    match digest.is_none_or(|d| d == read) {
        true => Ok(()),
        false => {
            let reason = format!("is not as described ({read}): damaged, or made anew meanwhile");
            Err(MirrorError::Invalid { path: path.to_owned(), reason })
        }
    }
}

/// Reads a mirror from `from`; it keeps the name it has in there, and so does
/// its image.
///
/// # Errors
/// It is not what was signed, or not by a key that is believed, or there is
/// another image of this name; nothing is left then.
pub fn import(
    shelf: &Mirrors,
    images: &Catalogue,
    from: impl Read,
    accept: &Accept,
    progress: &mut dyn Progress,
) -> Result<Imported, MirrorError> {
    let bad = |e: io::Error| MirrorError::Import(format!("it is cut off or damaged: {e}"));
    let zstd = zstd::Decoder::new(from).map_err(bad)?;
    let mut tar = tar::Archive::new(zstd);
    let mut entries = tar.entries().map_err(bad)?;
    progress.step("description and signature");
    let mut head = Vec::new();
    for want in [DESCRIPTION, SIGNATURE, KEY] {
        let missing = || MirrorError::Import(format!("no exported mirror: there is no {want}"));
        let mut entry = entries.next().ok_or_else(missing)?.map_err(bad)?;
        if entry.path_bytes() != want.as_bytes() || entry.size() > LARGEST {
            return Err(missing());
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(bad)?;
        head.push(bytes);
    }
    let d = description(&head, &accept.believed)?;
    let to = shelf.dir().join(d.name.as_str());
    if to.exists() {
        return Err(MirrorError::Taken(d.name));
    }
    let work = Workplace::open(shelf.dir(), &d.name)?;
    let out = work.path().join("mirror");
    fs::create_dir_all(&out).map_err(MirrorError::io(&out))?;
    for (name, bytes) in [DESCRIPTION, SIGNATURE, KEY].iter().zip(&head) {
        let path = out.join(name);
        fs::write(&path, bytes).map_err(MirrorError::io(&path))?;
    }
    progress.step("files");
    let seen = BTreeSet::from([KEY.to_owned()]);
    let mut own = Expected { files: d.files.clone(), out: Some(out.clone()), seen };
    let mut image: Option<Incoming> = None;
    let (mut done, mut total) = (0, d.bytes());
    for entry in entries {
        let mut entry = entry.map_err(bad)?;
        if progress.cancelled() {
            return Err(MirrorError::Import("broken off".to_owned()));
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        match (name.strip_prefix(PREFIX), &mut image) {
            (Some(TOML), None) => {
                let begun = Incoming::begin(&mut entry, &d, images, accept.other_image)?;
                total += begun.bytes();
                image = Some(begun);
            }
            (Some(file), Some(image)) => done += image.take(file, &mut entry)?,
            _ => done += own.take(&name, &mut entry)?,
        }
        progress.bytes(done, total);
    }
    own.complete("")?;
    if let Some(i) = &image {
        i.complete()?;
    }
    // Two steps, and a power cut may come between: an image alone is whole, and
    // the next import finds it here; a mirror without its image is of no use.
    let took_image = image.map(Incoming::publish).transpose()?.unwrap_or(false);
    work.publish(&out, &to)?;
    Ok(Imported { mirror: shelf.get(&d.name)?, took_image })
}

/// What must be in it, if it is signed by a key that is believed.
fn description(head: &[Vec<u8>], believed: &[String]) -> Result<Description, MirrorError> {
    let [text, signature, key] = head else {
        return Err(MirrorError::Import("no exported mirror".to_owned()));
    };
    let print = fingerprint(key)
        .ok_or_else(|| MirrorError::Import("its key is none that this program makes".to_owned()))?;
    signing::verify(DESCRIPTION, text, &String::from_utf8_lossy(signature), key)
        .map_err(|e| MirrorError::Import(e.to_string()))?;
    let same = |k: &String| k.replace(' ', "").eq_ignore_ascii_case(&print);
    if !believed.iter().any(same) {
        return Err(MirrorError::Stranger(print));
    }
    let d = parse(Path::new(DESCRIPTION), &String::from_utf8_lossy(text))?;
    let right = d.files.get(KEY).is_some_and(|e| e.sha256 == Digest::of(key));
    match right && d.key == print {
        true => Ok(d),
        false => Err(MirrorError::Import("its key is not the one that it names".to_owned())),
    }
}

/// Files that must come: each once, and just as described.
pub(super) struct Expected {
    /// By path.
    pub files: BTreeMap<String, FileEntry>,
    /// Where they are put; nowhere when they are only checked.
    pub out: Option<PathBuf>,
    /// Those that came.
    pub seen: BTreeSet<String>,
}

impl Expected {
    /// One file, hashed on its way to the disk; its size.
    pub fn take(
        &mut self,
        name: &str,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<u64, MirrorError> {
        let whole = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let bad = |why: &str| MirrorError::Import(format!("{whole:?}: {why}"));
        let is_plain = plain(name) && entry.header().entry_type().is_file();
        let known = self.files.get(name).filter(|_| is_plain);
        let known = known.ok_or_else(|| bad("not in its description"))?;
        if entry.size() != known.size {
            return Err(bad("not of the size that was signed"));
        }
        if !self.seen.insert(name.to_owned()) {
            return Err(bad("there twice"));
        }
        let path = self.out.as_ref().map(|out| out.join(name)).unwrap_or_default();
        let mut file = self.out.is_some().then(|| create(&path)).transpose()?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0u8; 1 << 20];
        loop {
            let n =
                entry.read(&mut buffer).map_err(|e| bad(&format!("cut off or damaged: {e}")))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            if let Some(file) = &mut file {
                file.write_all(&buffer[..n]).map_err(MirrorError::io(&path))?;
            }
        }
        match Digest::finish(hasher) == known.sha256 {
            true => Ok(known.size),
            false => Err(bad("its content is not what was signed")),
        }
    }

    /// # Errors
    /// One has not come.
    pub fn complete(&self, prefix: &str) -> Result<(), MirrorError> {
        match self.files.keys().find(|f| !self.seen.contains(*f)) {
            Some(f) => Err(MirrorError::Import(format!("{prefix}{f} is missing: it is cut off"))),
            None => Ok(()),
        }
    }
}

/// A new file, in its directory.
fn create(path: &Path) -> Result<File, MirrorError> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(MirrorError::io(dir))?;
    }
    File::create(path).map_err(MirrorError::io(path))
}
