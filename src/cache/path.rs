//! What may be asked for. Pure.

use std::fmt;

/// Longest path, in bytes.
const LONGEST: usize = 1024;

/// A file of an origin, checked: it cannot leave its directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Name of the origin.
    pub origin: String,
    /// Path in it, without a slash at the beginning.
    pub path: String,
}

/// Whether a file can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Packages and sources: a name has one content for ever.
    Pool,
    /// Named by the digest of its content: algorithm and hexadecimal digits.
    ByHash(String, String),
    /// Anything else may be another file tomorrow.
    Index,
}

/// Why there is no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotHere(pub String);

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Key {
    /// Checks `path`, as it is after percent-decoding.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(origin: &str, path: &str) -> Result<Self, NotHere> {
        let bad = |why: &str| Err(NotHere(format!("{path:?} cannot be a file here: {why}")));
        if path.len() > LONGEST {
            return Err(NotHere(format!("a path has at most {LONGEST} bytes")));
        }
        let parts = path.split('/');
        for part in parts {
            if part.is_empty() || part == "." || part == ".." {
                return bad("it has an empty part, `.` or `..`");
            }
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+~:%@=,-()[]".contains(&b);
            if part.len() > 255 || !part.bytes().all(plain) {
                return bad("a part is too long or has a character that archives do not use");
            }
        }
        // Files of ours lie beside.
        if path.ends_with(".provision-meta") {
            return bad("that ending is kept for ourselves");
        }
        Ok(Self { origin: origin.to_owned(), path: path.to_owned() })
    }

    /// Last part.
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it can change.
    pub fn kind(&self) -> Kind {
        let mut back = self.path.rsplit('/');
        let (digits, algorithm, folder) = (back.next(), back.next(), back.next());
        if let (Some(d), Some(a), Some("by-hash")) = (digits, algorithm, folder) {
            let size = match a {
                "SHA256" => 64,
                "SHA512" => 128,
                _ => 0,
            };
            let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            if d.len() == size && d.bytes().all(lower) {
                return Kind::ByHash(a.to_owned(), d.to_owned());
            }
        }
        if self.path.starts_with("pool/") || self.path.contains("/pool/") {
            return Kind::Pool;
        }
        Kind::Index
    }

    /// What a file with this name begins with.
    pub fn magic(&self) -> &'static [u8] {
        let ends = |e: &str| self.name().ends_with(e);
        if self.name() == "InRelease" {
            b"-----BEGIN PGP SIGNED MESSAGE"
        } else if ends(".deb") || ends(".udeb") {
            b"!<arch>\n"
        } else if ends(".xz") {
            b"\xfd7zXZ\0"
        } else if ends(".gz") || ends(".tgz") {
            b"\x1f\x8b"
        } else if ends(".bz2") {
            b"BZh"
        } else if ends(".zst") {
            b"\x28\xb5\x2f\xfd"
        } else {
            b""
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(path: &str) -> Key {
        Key::new("debian", path).unwrap()
    }

    #[test]
    fn what_can_change_is_told_by_its_path() {
        assert_eq!(key("pool/main/b/bash/bash_5.2~rc+1-2_amd64.deb").kind(), Kind::Pool);
        assert_eq!(key("dists/bookworm/InRelease").kind(), Kind::Index);
        let hex = "0123456789abcdef".repeat(4);
        let by = key(&format!("dists/bookworm/main/binary-amd64/by-hash/SHA256/{hex}"));
        assert_eq!(by.kind(), Kind::ByHash("SHA256".into(), hex.clone()));
        let md5 = key("dists/bookworm/main/by-hash/MD5Sum/0123456789abcdef0123456789abcdef");
        assert_eq!(md5.kind(), Kind::Index, "not believed");
        assert_eq!(key(&format!("dists/x/by-hash/SHA512/{hex}")).kind(), Kind::Index);
    }

    #[test]
    fn packages_begin_as_packages_do() {
        assert_eq!(key("pool/a.udeb").magic(), b"!<arch>\n");
        assert_eq!(key("dists/x/Packages.xz").magic(), b"\xfd7zXZ\0");
        assert_eq!(key("dists/x/Release").magic(), b"");
    }

    #[test]
    fn no_path_leaves_its_directory() {
        for bad in ["", "/etc/passwd", "a//b", "../x", "a/../../x", "a/./b", "a\0b", "a b", "a\\b"]
        {
            assert!(Key::new("debian", bad).is_err(), "{bad:?}");
        }
        assert!(Key::new("debian", &"x/".repeat(600)).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_stays_inside(path in "\\PC{0,60}") {
            if let Ok(k) = Key::new("debian", &path) {
                let joined = std::path::Path::new("/cache").join(&k.path);
                prop_assert!(joined.starts_with("/cache"));
                prop_assert!(joined.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
            }
        }
    }
}
