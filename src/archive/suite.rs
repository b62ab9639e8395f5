//! Writes `dists/SUITE/`: the indices, and a `Release` that is signed. Each
//! index is there plain and as gzip, and by its digest (`by-hash`), as apt
//! asks for it. And reads what such a `Release` names.

use super::{ArchiveError, SigningKey};
use crate::model::Digest;
use std::fs;
use std::io::Write;
use std::path::Path;

/// The files that a `Release` or `InRelease` names: SHA-256 as it stands there,
/// in hexadecimal, and path below the suite's directory. Signatures are apt's.
pub fn listed(release: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = release.lines().skip_while(|l| l.trim_end() != "SHA256:").skip(1);
    lines.take_while(|l| l.starts_with(' ')).filter_map(|l| {
        let mut words = l.split_whitespace();
        let (digest, _size, path) = (words.next()?, words.next()?, words.next()?);
        Some((digest, path))
    })
}

/// A suite of our own.
#[derive(Debug)]
pub struct Suite<'a> {
    /// Name, such as `trixie-provision`.
    pub name: &'a str,
    /// What it is, in a line.
    pub description: &'a str,
    /// Its date, seconds since 1970.
    pub date: u64,
    /// Components, such as `main`.
    pub components: &'a [&'a str],
    /// Indices: path below `dists/SUITE/`, such as
    /// `main/binary-amd64/Packages`, and text.
    pub indices: Vec<(String, String)>,
}

impl Suite<'_> {
    /// Writes it below `root`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, root: &Path, key: &SigningKey) -> Result<(), ArchiveError> {
        let dist = root.join("dists").join(self.name);
        let mut sums = String::new();
        let mut add = |path: &str, bytes: &[u8]| {
            let digest = Digest::of(bytes).to_hex();
            let file = dist.join(path);
            let by_hash = file.with_file_name("by-hash").join("SHA256").join(&digest);
            write(&file, bytes)?;
            write(&by_hash, bytes)?;
            sums.push_str(&format!(" {digest} {:>8} {path}\n", bytes.len()));
            Ok(())
        };
        for (path, text) in &self.indices {
            let packed = gzip(text.as_bytes()).map_err(ArchiveError::io(root))?;
            add(path, text.as_bytes())?;
            add(&format!("{path}.gz"), &packed)?;
            // The Debian installer asks it whether the mirror has its
            // architecture, and for another mirror where it is missing.
            if let Some((component, _)) = path.rsplit_once("/binary-amd64/") {
                let text = format!(
                    "Archive: {}\nOrigin: Provision\nLabel: Provision\nComponent: {component}\n\
                     Architecture: amd64\n",
                    self.name
                );
                add(&format!("{component}/binary-amd64/Release"), text.as_bytes())?;
            }
        }
        let release = format!(
            "Origin: Provision\nLabel: Provision\nSuite: {0}\nCodename: {0}\nDate: {1}\n\
             Acquire-By-Hash: yes\nArchitectures: amd64\nComponents: {2}\nDescription: {3}\n\
             SHA256:\n{sums}",
            self.name,
            date(self.date),
            self.components.join(" "),
            self.description,
        );
        write(&dist.join("Release"), release.as_bytes())?;
        let signature = key.detached(release.as_bytes(), self.date);
        write(&dist.join("Release.gpg"), signature.as_bytes())?;
        write(&dist.join("InRelease"), key.clear(&release, self.date).as_bytes())
    }
}

/// `Sat, 12 Sep 2026 07:55:41 UTC`
pub fn date(seconds: u64) -> String {
    let at = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(0)).unwrap_or_default();
    at.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string()
}

/// No name and no time in the header: the same text gives the same bytes.
fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut to = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::default());
    to.write_all(bytes)?;
    to.finish()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ArchiveError> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(ArchiveError::io(dir))?;
    }
    fs::write(path, bytes).map_err(ArchiveError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the Debian installer looks at before it takes a mirror.
    #[test]
    fn each_component_says_its_architecture_and_is_in_the_signed_list() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::open(&dir.path().join("key")).unwrap();
        let indices = vec![("main/binary-amd64/Packages".to_owned(), String::new())];
        let suite =
            Suite { name: "trixie", description: "x", date: 0, components: &["main"], indices };
        suite.write(dir.path(), &key).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join("dists/trixie").join(path));
        let own = read("main/binary-amd64/Release").unwrap();
        assert!(own.lines().any(|l| l == "Architecture: amd64"), "{own}");
        let digest = Digest::of(own.as_bytes()).to_hex();
        let list = read("InRelease").unwrap();
        assert!(
            list.lines().any(|l| l.contains(&digest) && l.ends_with(" main/binary-amd64/Release")),
            "{list}"
        );
    }

    #[test]
    fn a_date_is_written_as_archives_do() {
        assert_eq!(date(1_757_152_615), "Sat, 06 Sep 2025 09:56:55 UTC");
    }
}
