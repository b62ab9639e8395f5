//! Paths and queries.

use crate::registry::digest::Digest;
use crate::registry::error::{Code, Fault};
use crate::registry::name::{Reference, RepositoryName, UploadId};

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// end-1
    Base,
    Catalog,
    /// end-8
    Tags(RepositoryName),
    /// end-3, end-7, end-9
    Manifest(RepositoryName, Reference),
    /// end-2, end-10
    Blob(RepositoryName, Digest),
    /// end-4, end-11
    Uploads(RepositoryName),
    /// end-5, end-6, end-13
    Upload(RepositoryName, UploadId),
    /// end-12
    Referrers(RepositoryName, Digest),
}

impl Target {
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags(n)
            | Self::Manifest(n, _)
            | Self::Blob(n, _)
            | Self::Uploads(n)
            | Self::Upload(n, _)
            | Self::Referrers(n, _) => Some(n),
        }
    }

    /// Methods that do something here, for `Allow` (RFC 9110 §15.5.6).
    pub fn methods(&self) -> &'static str {
        match self {
            Self::Base => "GET, HEAD",
            Self::Catalog | Self::Tags(_) | Self::Referrers(..) => "GET",
            Self::Manifest(..) => "GET, HEAD, PUT, DELETE",
            Self::Blob(..) => "GET, HEAD, DELETE",
            Self::Uploads(_) => "POST",
            Self::Upload(..) => "GET, PATCH, PUT, DELETE",
        }
    }

    /// Reads a path, from its end, since a name may hold any of our words.
    pub fn parse(path: &str) -> Result<Self, Fault> {
        let path = decode(path);
        let nowhere = || Fault::new(Code::Unsupported, "no such endpoint").status(404);
        let rest = path.strip_prefix("/v2").ok_or_else(nowhere)?;
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Ok(Self::Base);
        }
        if rest == "_catalog" {
            return Ok(Self::Catalog);
        }
        let name = |parts: &[&str]| {
            parts
                .join("/")
                .parse::<RepositoryName>()
                .map_err(|e| Fault::invalid(Code::NameInvalid, &e))
        };
        let digest =
            |s: &str| s.parse::<Digest>().map_err(|e| Fault::invalid(Code::DigestInvalid, &e));
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [n @ .., "tags", "list"] => Ok(Self::Tags(name(n)?)),
            [n @ .., "blobs", "uploads"] | [n @ .., "blobs", "uploads", ""] => {
                Ok(Self::Uploads(name(n)?))
            }
            [n @ .., "blobs", "uploads", id] => {
                let name = name(n)?;
                let id = id.parse().map_err(|e| Fault::invalid(Code::BlobUploadUnknown, &e))?;
                Ok(Self::Upload(name, id))
            }
            [n @ .., "blobs", d] => Ok(Self::Blob(name(n)?, digest(d)?)),
            [n @ .., "manifests", r] => {
                let name = name(n)?;
                // "MANIFEST_UNKNOWN" would do for a tag that cannot exist, but
                // does not say why.
                let code =
                    if r.contains(':') { Code::DigestInvalid } else { Code::ManifestInvalid };
                Ok(Self::Manifest(name, r.parse().map_err(|e| Fault::invalid(code, &e))?))
            }
            [n @ .., "referrers", d] => Ok(Self::Referrers(name(n)?, digest(d)?)),
            _ => Err(nowhere()),
        }
    }
}

/// Undoes percent-encoding; some clients write a digest's colon as `%3A`. What
/// is not UTF-8 after it becomes a character that nothing accepts.
fn decode(s: &str) -> String {
    let (b, mut out, mut i) = (s.as_bytes(), Vec::with_capacity(s.len()), 0);
    while i < b.len() {
        let coded = b
            .get(i + 1..i + 3)
            .filter(|_| b[i] == b'%')
            .and_then(|h| hex::decode(h).ok())
            .and_then(|v| v.first().copied());
        out.push(coded.unwrap_or(b[i]));
        i += if coded.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A query's pairs, in order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(s: &str) -> Self {
        let pair = |p: &str| {
            let (k, v) = p.split_once('=').unwrap_or((p, ""));
            // In a query "+" is a space; but artifact types hold "+" and
            // clients forget to encode it, and nothing here holds a space.
            (decode(k), decode(v))
        };
        Self(s.split('&').filter(|p| !p.is_empty()).map(pair).collect())
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn digest(&self, key: &str) -> Result<Option<Digest>, Fault> {
        let parse = |s: &str| s.parse().map_err(|e| Fault::invalid(Code::DigestInvalid, &e));
        self.get(key).map(parse).transpose()
    }

    /// `n`: how many entries are wanted.
    pub fn n(&self) -> Result<Option<usize>, Fault> {
        let parse = |s: &str| {
            s.parse().map_err(|_| Fault::new(Code::Unsupported, "n must be a number").status(400))
        };
        self.get("n").map(parse).transpose()
    }
}

/// For a `Link` header: only unreserved characters stay as they are.
pub(super) fn encode(s: &str) -> String {
    s.bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) => (b as char).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_may_hold_the_words_of_the_protocol() {
        let d = Digest::of(b"x");
        let n = |s: &str| s.parse::<RepositoryName>().unwrap();
        for (path, want) in [
            ("/v2".to_owned(), Target::Base),
            ("/v2/".to_owned(), Target::Base),
            ("/v2/_catalog".to_owned(), Target::Catalog),
            ("/v2/a/b/tags/list".to_owned(), Target::Tags(n("a/b"))),
            (format!("/v2/a/blobs/{d}"), Target::Blob(n("a"), d.clone())),
            (format!("/v2/a/blobs/sha256%3A{}", d.hex()), Target::Blob(n("a"), d.clone())),
            (format!("/v2/blobs/uploads/blobs/{d}"), Target::Blob(n("blobs/uploads"), d.clone())),
            ("/v2/a/blobs/uploads/".to_owned(), Target::Uploads(n("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Target::Uploads(n("a"))),
            (
                "/v2/manifests/manifests/manifests".to_owned(),
                Target::Manifest(n("manifests"), "manifests".parse().unwrap()),
            ),
            (format!("/v2/a/referrers/{d}"), Target::Referrers(n("a"), d.clone())),
        ] {
            assert_eq!(Target::parse(&path).unwrap(), want, "{path}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (path, code) in [
            ("/v2/A/tags/list", Code::NameInvalid),
            ("/v2/../tags/list", Code::NameInvalid),
            ("/v2/%2e%2e/%2e%2e/manifests/x", Code::NameInvalid),
            ("/v2/a/blobs/sha256:xyz", Code::DigestInvalid),
            ("/v2/a/blobs/uploads/..%2f..%2fx", Code::Unsupported),
            ("/v2/a/blobs/uploads/nope", Code::BlobUploadUnknown),
            ("/v2/a/manifests/.x", Code::ManifestInvalid),
            ("/v2/manifests/x", Code::NameInvalid),
            ("/v2/nothing", Code::Unsupported),
        ] {
            assert_eq!(Target::parse(path).unwrap_err().code, code, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_or_query_panics(s in "[ -~é%/]*") {
            let _ = Target::parse(&format!("/v2/{s}"));
            let _ = Query::parse(&s);
        }

        #[test]
        fn encoding_is_undone_by_decoding(s in "\\PC*") {
            prop_assert_eq!(decode(&encode(&s)), s);
        }
    }
}
