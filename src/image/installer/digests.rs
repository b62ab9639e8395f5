//! Whether files of an installer are the distribution's: by the lists that its
//! archive signs, where `InRelease` names
//! `main/installer-amd64/VERSION/images/SHA256SUMS`, and that names every file;
//! else by a `SHA256SUMS` beside them and its signature.

use crate::archive::suite;
use crate::image::apt::Apt;
use crate::image::build::{BuildError, Progress};
use crate::image::child::clean_environment;
use crate::model::Digest;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a host keeps the distributions' keys.
const KEYRINGS: &str = "/usr/share/keyrings";
/// Directories above the files in which a `SHA256SUMS` is looked for.
const ABOVE: usize = 4;

/// Digests that the archive signed, of files of its installers: the version.
#[derive(Debug, Default)]
pub(super) struct Signed(BTreeMap<Digest, String>);

impl Signed {
    /// Fetches the lists that `release` names; one that the archive does not
    /// have is passed over.
    pub fn fetch(
        apt: &Apt,
        (uri, suite): (&str, &str),
        release: &str,
        work: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Self, BuildError> {
        let mut all = BTreeMap::new();
        for (digest, path, version) in lists(release) {
            let to = work.join(format!("SHA256SUMS.{version}"));
            let url = format!("{uri}/dists/{suite}/{path}");
            if !apt.fetch_file(&url, &to, digest, progress)? {
                continue;
            }
            let text = fs::read_to_string(&to).map_err(BuildError::io(&to))?;
            all.extend(netboot(&text).map(|d| (d, version.clone())));
        }
        Ok(Self(all))
    }

    /// The version of the installer that has a file with this digest.
    pub fn version(&self, digest: Digest) -> Option<String> {
        self.0.get(&digest).cloned()
    }
}

/// The installers' lists in a `Release`: digest, path, version. `current` is
/// another name of one of them.
fn lists(release: &str) -> Vec<(Digest, String, String)> {
    let of = |(digest, path): (&str, &str)| {
        let version = path.strip_prefix("main/installer-amd64/")?;
        let version = version.strip_suffix("/images/SHA256SUMS")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || ".+~-".contains(c);
        let good = version != "current" && version.chars().all(plain);
        let digest = of_hex(digest)?;
        good.then(|| (digest, path.to_owned(), version.to_owned()))
    };
    suite::listed(release).filter_map(of).collect()
}

/// The lines of a `SHA256SUMS`: digest and path.
fn sums(text: &str) -> impl Iterator<Item = (Digest, &str)> {
    text.lines().filter_map(|l| {
        let (digest, path) = l.split_once(char::is_whitespace)?;
        let path = path.trim_start().trim_start_matches('*').trim_start_matches("./");
        Some((of_hex(digest)?, path))
    })
}

/// Digests of those that come by network. The list also has installers on a
/// CD, which look for that CD.
fn netboot(text: &str) -> impl Iterator<Item = Digest> {
    sums(text).filter(|(_, path)| path.starts_with("netboot/")).map(|(digest, _)| digest)
}

fn of_hex(text: &str) -> Option<Digest> {
    let mut raw = [0; 32];
    hex::decode_to_slice(text, &mut raw).ok()?;
    Some(Digest::from_raw(raw))
}

/// The `SHA256SUMS` beside or above `file` that has its digest; one that has
/// another for it is an error.
pub(super) fn compare(file: &Path, digest: Digest) -> Result<Option<PathBuf>, BuildError> {
    for dir in file.ancestors().skip(1).take(ABOVE) {
        let list = dir.join("SHA256SUMS");
        let Ok(text) = fs::read_to_string(&list) else { continue };
        let Some(name) = file.strip_prefix(dir).ok().and_then(Path::to_str) else { continue };
        let Some((said, _)) = sums(&text).find(|(_, path)| *path == name) else { continue };
        if said == digest {
            return Ok(Some(list));
        }
        let why =
            format!("is not as {} says: it is damaged, or of another version", list.display());
        return Err(BuildError::Files(file.to_owned(), why));
    }
    Ok(None)
}

pub(super) fn name(file: &Path) -> std::borrow::Cow<'_, str> {
    file.file_name().unwrap_or_default().to_string_lossy()
}

/// What is to be said of a file that is as `list` has it.
pub(super) fn unsigned(file: &Path, list: &Path) -> Option<String> {
    let list = (!is_signed(list, Path::new(KEYRINGS))).then(|| list.display())?;
    Some(format!("{} is as {list} says, which no key of this host signed", name(file)))
}

/// Whether a list has a signature beside it, as distributions lay it there, by
/// a key of a distribution that this host has.
fn is_signed(list: &Path, keyrings: &Path) -> bool {
    let beside = ["gpg", "sign"].map(|end| list.with_extension(end));
    let Some(signature) = beside.iter().find(|p| p.is_file()) else { return false };
    let Ok(all) = fs::read_dir(keyrings) else { return false };
    let known = |p: &PathBuf| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        // Not `debian-keyring` or `debian-maintainers`: those are people's.
        let whose = ["debian-archive-", "debian-role-keys", "ubuntu-archive-"];
        whose.iter().any(|w| name.starts_with(w)) && !name.contains("removed")
    };
    let mut keyrings = all.filter_map(|e| Some(e.ok()?.path())).filter(known);
    keyrings.any(|keyring| {
        let mut command = Command::new("gpgv");
        clean_environment(&mut command);
        command.arg("--quiet").arg("--keyring").arg(keyring).arg(signature).arg(list);
        command.output().is_ok_and(|o| o.status.success())
    })
}

#[cfg(test)]
#[path = "digests_tests.rs"]
mod tests;
