//! A mirror as one file: a tar archive, compressed with zstd. First come
//! description, signature and key, so that whoever reads it knows what must
//! follow, and takes nothing else: not one byte more than was signed.

use super::description::Description;
use super::shelf::{DESCRIPTION, KEY, Mirror, Mirrors, SIGNATURE, fingerprint, parse};
use super::{MirrorError, plain};
use crate::archive::signing;
use crate::image::Progress;
use crate::image::publish::Workplace;
use crate::model::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Largest description that is read, in bytes.
const LARGEST: u64 = 32 << 20;
/// Packages are compressed already.
const LEVEL: i32 = 1;

/// Writes the mirror to `to`, the same bytes each time.
///
/// # Errors
/// A file cannot be read, or `to` not be written.
pub fn export(mirror: &Mirror, to: impl Write) -> Result<(), MirrorError> {
    let failed = |e: io::Error| MirrorError::io(&mirror.dir)(e);
    let zstd = zstd::Encoder::new(to, LEVEL).map_err(failed)?;
    let mut tar = tar::Builder::new(zstd);
    let first = [DESCRIPTION, SIGNATURE, KEY].map(str::to_owned);
    let rest = mirror.description.files.keys().filter(|f| *f != KEY).cloned();
    for name in first.into_iter().chain(rest) {
        let path = mirror.dir.join(&name);
        let file = File::open(&path).map_err(MirrorError::io(&path))?;
        let mut header = tar::Header::new_gnu();
        header.set_size(file.metadata().map_err(MirrorError::io(&path))?.len());
        header.set_mode(0o644);
        header.set_mtime(mirror.description.date);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_data(&mut header, &name, file).map_err(MirrorError::io(&path))?;
    }
    let zstd = tar.into_inner().map_err(failed)?;
    zstd.finish().and_then(|mut to| to.flush()).map_err(failed)
}

/// Reads a mirror from `from`; it keeps the name it has in there.
/// `believed` are fingerprints of keys that may have signed it.
///
/// # Errors
/// It is not what was signed, or not by one of these keys; nothing is left
/// then.
pub fn import(
    shelf: &Mirrors,
    from: impl Read,
    believed: &[String],
    progress: &mut dyn Progress,
) -> Result<Mirror, MirrorError> {
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
    let d = description(&head, believed)?;
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
    let mut seen = BTreeSet::from([KEY.to_owned()]);
    let (mut done, total) = (0, d.bytes());
    for entry in entries {
        let mut entry = entry.map_err(bad)?;
        if progress.cancelled() {
            return Err(MirrorError::Import("broken off".to_owned()));
        }
        done += take(&mut entry, &d, &out, &mut seen)?;
        progress.bytes(done, total);
    }
    if let Some(missing) = d.files.keys().find(|f| !seen.contains(*f)) {
        return Err(MirrorError::Import(format!("{missing} is missing: it is cut off")));
    }
    work.publish(&out, &to)?;
    shelf.get(&d.name)
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

/// One file, hashed on its way to the disk; its size.
fn take(
    entry: &mut tar::Entry<'_, impl Read>,
    d: &Description,
    out: &Path,
    seen: &mut BTreeSet<String>,
) -> Result<u64, MirrorError> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let bad = |why: &str| MirrorError::Import(format!("{name:?}: {why}"));
    let known =
        d.files.get(&name).filter(|_| plain(&name) && entry.header().entry_type().is_file());
    let known = known.ok_or_else(|| bad("not in its description"))?;
    if entry.size() != known.size {
        return Err(bad("not of the size that was signed"));
    }
    if !seen.insert(name.clone()) {
        return Err(bad("there twice"));
    }
    let path = out.join(&name);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(MirrorError::io(dir))?;
    }
    let mut file = File::create(&path).map_err(MirrorError::io(&path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let n = entry.read(&mut buffer).map_err(|e| bad(&format!("cut off or damaged: {e}")))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n]).map_err(MirrorError::io(&path))?;
    }
    match Digest::finish(hasher) == known.sha256 {
        true => Ok(known.size),
        false => Err(bad("its content is not what was signed")),
    }
}
