//! Names, tags, references and upload ids, by the grammar of the Distribution
//! Specification 1.1 ("Pulling manifests"). A value that exists was checked,
//! and none of them can lead out of its place in the store.

use super::digest::Digest;
use crate::model::Invalid;
use std::fmt;
use std::str::FromStr;

/// Longest repository name, in bytes: many clients refuse more together with
/// the registry's host name.
pub const LONGEST_NAME: usize = 255;

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`,
/// at most 255 characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(String);

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

/// What stands behind `/manifests/`: a digest or a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// By content.
    Digest(Digest),
    /// By name.
    Tag(Tag),
}

/// An upload session: a ULID, so that its age can be read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UploadId(ulid::Ulid);

impl RepositoryName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl UploadId {
    /// A new one.
    pub fn new() -> Self {
        Self(ulid::Ulid::new())
    }

    /// When it was made.
    pub fn made(&self) -> std::time::SystemTime {
        self.0.datetime()
    }
}

impl Default for UploadId {
    fn default() -> Self {
        Self::new()
    }
}

/// One path component: runs of `[a-z0-9]` joined by `.`, `_`, `__` or dashes.
fn is_component(c: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let b = c.as_bytes();
    if !b.first().is_some_and(|x| plain(*x)) || !b.last().is_some_and(|x| plain(*x)) {
        return false;
    }
    b.split(|x| plain(*x)).all(|sep| {
        matches!(sep, b"" | b"." | b"_" | b"__")
            || (!sep.is_empty() && sep.iter().all(|x| *x == b'-'))
    })
}

impl FromStr for RepositoryName {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        if s.len() <= LONGEST_NAME && s.split('/').all(is_component) {
            return Ok(Self(s.to_owned()));
        }
        Err(Invalid::new(
            "repository name",
            s,
            "lower-case letters and digits, joined by '.', '_', '__' or '-', in parts separated by '/', at most 255 characters",
        ))
    }
}

impl FromStr for Tag {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let b = s.as_bytes();
        let good = b.len() <= 128
            && b.first().is_some_and(|x| word(*x))
            && b.iter().all(|x| word(*x) || matches!(x, b'.' | b'-'));
        if good {
            return Ok(Self(s.to_owned()));
        }
        Err(Invalid::new(
            "tag",
            s,
            "a letter, digit or '_', then at most 127 letters, digits, '_', '.' or '-'",
        ))
    }
}

impl FromStr for Reference {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        // No tag has a colon, every digest has one.
        if s.contains(':') { s.parse().map(Self::Digest) } else { s.parse().map(Self::Tag) }
    }
}

impl FromStr for UploadId {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match ulid::Ulid::from_string(s) {
            Ok(u) if u.to_string() == s => Ok(Self(u)),
            _ => Err(Invalid::new("upload id", s, "one that this registry gave")),
        }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(d) => d.fmt(f),
            Self::Tag(t) => t.fmt(f),
        }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_the_grammar() {
        for good in ["a", "library/ubuntu", "a.b_c__d-e---f/0", "a/manifests/b/blobs/uploads"] {
            assert_eq!(good.parse::<RepositoryName>().unwrap().as_str(), good);
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a.", ".a", "a..b", "a___b", "a._b", "_blobs",
            "a/..", "a b", "é", "a-", "a%2fb",
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
        assert!("a".repeat(256).parse::<RepositoryName>().is_err());
    }

    #[test]
    fn tags_follow_the_grammar() {
        for good in ["latest", "_", "1.0-rc_1", "V1"] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "a b", "ü", "a\n"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
        assert!("t".repeat(128).parse::<Tag>().is_ok());
        assert!("t".repeat(129).parse::<Tag>().is_err());
    }

    #[test]
    fn an_upload_id_is_read_back_as_it_was_written() {
        let id = UploadId::new();
        assert_eq!(id.to_string().parse::<UploadId>().unwrap(), id);
        assert!("../../etc/passwd".parse::<UploadId>().is_err());
    }

    proptest! {
        /// The specification's own expression is the judge.
        #[test]
        fn names_agree_with_the_expression(s in "[a-c0._/-]{0,12}") {
            fn component(c: &str) -> bool {
                // ([a-z0-9]+)((\.|_|__|-+)[a-z0-9]+)*, one step at a time.
                let mut rest = c;
                loop {
                    let word = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
                    if word.len() == rest.len() { return false }
                    if word.is_empty() { return true }
                    rest = if let Some(r) = word.strip_prefix('.') { r }
                        else if word.starts_with('-') { word.trim_start_matches('-') }
                        else if let Some(r) = word.strip_prefix("__") { r }
                        else if let Some(r) = word.strip_prefix('_') { r }
                        else { return false };
                }
            }
            prop_assert_eq!(s.parse::<RepositoryName>().is_ok(), s.split('/').all(component));
        }

        #[test]
        fn nothing_panics(s in "\\PC*") {
            let _ = s.parse::<RepositoryName>();
            let _ = s.parse::<Reference>();
            let _ = s.parse::<UploadId>();
        }
    }
}
