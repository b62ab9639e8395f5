//! What a `Packages` index says: packages by name, and what fulfils a
//! dependency.

use super::ArchiveError;
use super::deb822::{Paragraph, Reader};
use super::version;
use crate::model::Digest;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// One package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Path in the archive, such as `pool/main/a/anna/anna_1.99_amd64.udeb`.
    pub filename: String,
    /// Bytes.
    pub size: u64,
    /// Digest of the file.
    pub sha256: Digest,
    /// Everything the index says of it.
    pub fields: Paragraph,
}

impl Package {
    /// `None` for a paragraph without name, version, file or digest.
    pub fn of(fields: Paragraph) -> Option<Self> {
        let text = |k| fields.get(k).map(str::to_owned);
        let filename = text("Filename")?;
        let inside = filename.split('/').all(|p| !p.is_empty() && p != "." && p != "..");
        Some(Self {
            name: text("Package")?,
            version: text("Version")?,
            filename: inside.then_some(filename)?,
            size: fields.get("Size")?.parse().ok()?,
            sha256: format!("sha256:{}", fields.get("SHA256")?).parse().ok()?,
            fields,
        })
    }

    /// The last part of its path.
    pub fn file(&self) -> &str {
        self.filename.rsplit('/').next().unwrap_or(&self.filename)
    }

    /// Kernel that an installer component is for (`Kernel-Version`).
    pub fn kernel(&self) -> Option<&str> {
        self.fields.get("Kernel-Version")
    }
}

/// Dependencies: all groups must be fulfilled, each by one of its names.
/// Versions and architectures are left out.
pub fn groups(depends: &str) -> Vec<(String, Vec<String>)> {
    depends
        .split(',')
        .map(|g| g.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|g| !g.is_empty())
        .map(|g| {
            let name = |alternative: &str| {
                let end = alternative.find([' ', '(', ':', '[']).unwrap_or(alternative.len());
                alternative[..end].to_owned()
            };
            let names = g.split('|').map(|a| name(a.trim())).collect();
            (g, names)
        })
        .collect()
}

/// Packages by name, all versions; those that provide a name.
#[derive(Debug, Default)]
pub struct Index {
    packages: BTreeMap<String, Vec<Package>>,
    provided: BTreeMap<String, Vec<String>>,
}

impl Index {
    /// Reads a `Packages` file, keeping what `wanted` says of a name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Self, ArchiveError> {
        let file = File::open(path).map_err(ArchiveError::io(path))?;
        let mut reader = Reader::new(BufReader::new(file));
        let mut index = Self::default();
        while let Some(p) = reader.next_paragraph().map_err(ArchiveError::io(path))? {
            if p.get("Package").is_some_and(&wanted)
                && let Some(p) = Package::of(p)
            {
                index.add(p);
            }
        }
        Ok(index)
    }

    /// Reads a `Packages` file with all its packages, of each only what
    /// resolving takes: the description of 60,000 packages is not kept.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_thin(&mut self, path: &Path) -> Result<(), ArchiveError> {
        const KEPT: [&str; 5] = ["Depends", "Pre-Depends", "Provides", "Priority", "Essential"];
        let file = File::open(path).map_err(ArchiveError::io(path))?;
        let mut reader = Reader::new(BufReader::new(file));
        while let Some(p) = reader.next_paragraph().map_err(ArchiveError::io(path))? {
            if let Some(mut p) = Package::of(p) {
                p.fields.0.retain(|(k, _)| KEPT.contains(&k.as_str()));
                p.fields.0.shrink_to_fit();
                self.add(p);
            }
        }
        Ok(())
    }

    /// Adds a package.
    pub fn add(&mut self, p: Package) {
        for (_, names) in groups(p.fields.get("Provides").unwrap_or_default()) {
            for n in names {
                self.provided.entry(n).or_default().push(p.name.clone());
            }
        }
        self.packages.entry(p.name.clone()).or_default().push(p);
    }

    /// The newest version of a package.
    pub fn newest(&self, name: &str) -> Option<&Package> {
        let all = self.packages.get(name)?;
        all.iter().max_by(|a, b| version::compare(&a.version, &b.version))
    }

    /// All versions of all packages.
    pub fn all(&self) -> impl Iterator<Item = &Package> {
        self.packages.values().flatten()
    }

    /// Names of packages that provide `name`, sorted.
    pub fn providers(&self, name: &str) -> Vec<&str> {
        let mut all: Vec<&str> =
            self.provided.get(name).into_iter().flatten().map(String::as_str).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_taken_apart() {
        let got = groups("libc6-udeb (>= 2.41), a:any | b [amd64] ,\n c");
        let names: Vec<Vec<String>> = got.iter().map(|(_, n)| n.clone()).collect();
        assert_eq!(names, [vec!["libc6-udeb"], vec!["a", "b"], vec!["c"]]);
        assert_eq!(got[1].0, "a:any | b [amd64]");
    }

    #[test]
    fn the_newest_is_taken_and_a_path_that_leaves_the_archive_is_no_package() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Packages");
        let sum = "ab".repeat(32);
        let p = |name: &str, v: &str, file: &str| {
            format!(
                "Package: {name}\nVersion: {v}\nProvides: x (= 1), y\nFilename: {file}\nSize: 3\nSHA256: {sum}\n\n"
            )
        };
        let text = p("a", "6.9", "pool/a1") + &p("a", "6.12", "pool/a2") + &p("b", "1", "../etc/x");
        std::fs::write(&path, text).unwrap();
        let i = Index::read(&path, |_| true).unwrap();
        assert_eq!(i.newest("a").unwrap().filename, "pool/a2");
        assert!(i.newest("b").is_none());
        assert_eq!(i.providers("y"), ["a"]);
    }
}
