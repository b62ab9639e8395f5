//! What was put on the disk, as one digest: equal for two installs of the same
//! inputs on any two nodes. Files that belong to one node (its name, address,
//! keys, UUIDs) are left out; everything else the agent writes is in it.

use crate::model::Digest;
use std::collections::BTreeMap;

/// Collects what is written.
#[derive(Debug, Default)]
pub struct Manifest {
    lines: BTreeMap<String, String>,
}

impl Manifest {
    /// An input with a digest: the image's index, the profile.
    pub fn input(&mut self, name: &str, digest: &Digest) {
        self.lines.insert(format!("input {name}"), digest.to_string());
    }

    /// A file that the agent wrote.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let value = format!("{mode:04o} {}", Digest::of(content));
        self.lines.insert(format!("file {path}"), value);
    }

    /// A fact about what was done, such as a user that was made.
    pub fn note(&mut self, name: &str, value: &str) {
        self.lines.insert(format!("note {name}"), value.to_owned());
    }

    /// As text, sorted.
    pub fn to_text(&self) -> String {
        self.lines.iter().map(|(k, v)| format!("{k} {v}\n")).collect()
    }

    /// The digest.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_text().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_writing() {
        let (mut a, mut b) = (Manifest::default(), Manifest::default());
        a.input("image", &Digest::of(b"i"));
        a.file("/etc/timezone", 0o644, b"Etc/UTC\n");
        b.file("/etc/timezone", 0o644, b"Etc/UTC\n");
        b.input("image", &Digest::of(b"i"));
        assert_eq!(a.digest(), b.digest());
        b.file("/etc/timezone", 0o600, b"Etc/UTC\n");
        assert_ne!(a.digest(), b.digest());
    }
}
