//! The mirrors there are. Reads descriptions only; a directory without
//! `mirror.toml` is none.

use super::description::{Description, FORMAT};
use super::{MirrorError, plain};
use crate::archive::{openpgp, signing};
use crate::image::publish::file_entry;
use crate::model::{Digest, Name};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(super) const DESCRIPTION: &str = "mirror.toml";
pub(super) const SIGNATURE: &str = "mirror.toml.asc";
pub(super) const KEY: &str = "key.gpg";

/// One mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Its directory.
    pub dir: PathBuf,
    /// Digest of `mirror.toml`: what a build record names.
    pub digest: Digest,
    /// `mirror.toml`.
    pub description: Description,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// Files that were read.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What is wrong, a sentence each; empty when all is well.
    pub faults: Vec<String>,
}

/// A directory of mirrors.
#[derive(Debug, Clone)]
pub struct Mirrors {
    dir: PathBuf,
}

impl Mirrors {
    /// The mirrors in `dir`, which need not exist yet.
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All mirrors by name; of those that cannot be read, the reason.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<(Vec<Mirror>, Vec<String>), MirrorError> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for name in self.names()? {
            match self.load(&name) {
                Ok(m) => good.push(m),
                Err(e) => bad.push(e.to_string()),
            }
        }
        Ok((good, bad))
    }

    /// One mirror.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn get(&self, name: &Name) -> Result<Mirror, MirrorError> {
        let known = self.names()?;
        match known.contains(name) {
            true => self.load(name),
            false => Err(MirrorError::Unknown { name: name.clone(), known }),
        }
    }

    fn names(&self) -> Result<Vec<Name>, MirrorError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(e) => e,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(MirrorError::io(&self.dir)(e)),
        };
        let mut names: Vec<Name> = entries
            .filter_map(Result::ok)
            .filter(|e| e.path().join(DESCRIPTION).is_file())
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    fn load(&self, name: &Name) -> Result<Mirror, MirrorError> {
        let dir = self.dir.join(name.as_str());
        let path = dir.join(DESCRIPTION);
        let text = fs::read_to_string(&path).map_err(MirrorError::io(&path))?;
        let description = parse(&path, &text)?;
        if description.name != *name {
            let reason = format!("name is '{}' but the directory's is '{name}'", description.name);
            return Err(MirrorError::Invalid { path, reason });
        }
        Ok(Mirror { dir, digest: Digest::of(text.as_bytes()), description })
    }

    /// The file that a node asks for, if its path stays inside.
    pub fn file(&self, name: &str, path: &str) -> Option<PathBuf> {
        let name: Name = name.parse().ok()?;
        let whole = self.dir.join(name.as_str()).join(path);
        (plain(path) && fs::symlink_metadata(&whole).ok()?.is_file()).then_some(whole)
    }

    /// Removes a mirror: first its name, then its files.
    ///
    /// # Errors
    /// There is none, or it cannot be removed.
    pub fn remove(&self, name: &Name) -> Result<(), MirrorError> {
        let mirror = self.get(name)?;
        let gone = self.dir.join(format!(".gone-{name}"));
        let _ = fs::remove_dir_all(&gone);
        fs::rename(&mirror.dir, &gone).map_err(MirrorError::io(&mirror.dir))?;
        fs::remove_dir_all(&gone).map_err(MirrorError::io(&gone))
    }
}

/// `mirror.toml`, with paths that stay inside.
pub(super) fn parse(path: &Path, text: &str) -> Result<Description, MirrorError> {
    let invalid = |reason: String| MirrorError::Invalid { path: path.to_owned(), reason };
    let d: Description =
        toml::from_str(text).map_err(|e| invalid(e.to_string().trim_end().to_owned()))?;
    if d.format != FORMAT {
        return Err(invalid(format!("format {} is not known here, {FORMAT} is", d.format)));
    }
    match d.files.keys().find(|f| !plain(f)) {
        Some(bad) => Err(invalid(format!("{bad:?} is no path in a mirror"))),
        None => Ok(d),
    }
}

/// Fingerprint of the key in a keyring of ours.
pub(super) fn fingerprint(key: &[u8]) -> Option<String> {
    let body = openpgp::find(key, 6)?;
    openpgp::public_of(body)?;
    Some(hex::encode_upper(openpgp::fingerprint(body)))
}

impl Mirror {
    /// Reads every file. `each` is told bytes done and in all; it ends early
    /// when that says `false`.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn verify(&self, mut each: impl FnMut(u64, u64) -> bool) -> Result<Verdict, MirrorError> {
        let mut out = Verdict::default();
        let read = |name: &str| fs::read(self.dir.join(name));
        match (read(DESCRIPTION), read(SIGNATURE), read(KEY)) {
            (Ok(text), Ok(signature), Ok(key)) => {
                let signature = String::from_utf8_lossy(&signature);
                if fingerprint(&key).as_deref() != Some(&self.description.key) {
                    out.faults.push(format!("{KEY} is not the key that mirror.toml names"));
                }
                if let Err(e) = signing::verify(DESCRIPTION, &text, &signature, &key) {
                    out.faults.push(e.to_string());
                }
            }
            _ => out.faults.push("mirror.toml, its signature or the key is missing".to_owned()),
        }
        let total = self.description.bytes();
        for (path, entry) in &self.description.files {
            match file_entry(&self.dir.join(path)) {
                Ok(e) if e == *entry => {}
                Ok(e) if e.size != entry.size => {
                    out.faults.push(format!("{path}: {} bytes, {} described", e.size, entry.size))
                }
                Ok(_) => out.faults.push(format!("{path}: its content is not what was signed")),
                Err(e) => out.faults.push(e.to_string()),
            }
            out.files += 1;
            out.bytes += entry.size;
            if !each(out.bytes, total) {
                out.faults.push("broken off".to_owned());
                return Ok(out);
            }
        }
        let mut known: BTreeSet<PathBuf> =
            self.description.files.keys().map(|f| self.dir.join(f)).collect();
        known.extend([DESCRIPTION, SIGNATURE].map(|f| self.dir.join(f)));
        strangers(&self.dir, &known, &mut out.faults)?;
        Ok(out)
    }
}

/// Files that the description does not name: apt would not be served them by
/// accident, but they do not belong there.
fn strangers(
    dir: &Path,
    known: &BTreeSet<PathBuf>,
    faults: &mut Vec<String>,
) -> Result<(), MirrorError> {
    for entry in fs::read_dir(dir).map_err(MirrorError::io(dir))? {
        let path = entry.map_err(MirrorError::io(dir))?.path();
        if path.is_dir() && !path.is_symlink() {
            strangers(&path, known, faults)?;
        } else if !known.contains(&path) {
            faults.push(format!("{}: not in mirror.toml", path.display()));
        }
    }
    Ok(())
}
