//! Where things are in the store. Two kinds: documents (small, replaced
//! whole) under the keys below, and blobs (large, placed by digest), whose
//! place is the storage's own affair.
//!
//! ```text
//! repos/<name>/_manifests/sha256-<hex>          the manifest's bytes
//! repos/<name>/_tags/<tag>                      the digest it points to
//! repos/<name>/_blobs/sha256-<hex>              this repository has this blob
//! repos/<name>/_released/sha256-<hex>           had it; back at its next use
//! repos/<name>/_referrers/sha256-<subject>/sha256-<hex>   a descriptor
//! repos/<name>/_followed/<tag>                  the digest that came from the leader
//! follow/sha256-<hex>                           `<name> <id>`: the upload it comes into
//! uploads/<id>                                  {"repository": …}
//! ```
//!
//! No component of a repository's name begins with `_`, so nothing collides.

use super::digest::Digest;
use super::name::{RepositoryName, Tag, UploadId};

/// Where repositories are.
pub const REPOS: &str = "repos";
/// Where upload sessions are.
pub const UPLOADS: &str = "uploads";

/// Its manifests.
pub fn manifests(name: &RepositoryName) -> String {
    format!("{REPOS}/{name}/_manifests")
}

/// One of them.
pub fn manifest(name: &RepositoryName, digest: &Digest) -> String {
    format!("{REPOS}/{name}/_manifests/{}", digest.dashed())
}

/// Its tags.
pub fn tags(name: &RepositoryName) -> String {
    format!("{REPOS}/{name}/_tags")
}

/// One of them.
pub fn tag(name: &RepositoryName, tag: &Tag) -> String {
    format!("{REPOS}/{name}/_tags/{tag}")
}

/// The blobs it has.
pub fn links(name: &RepositoryName) -> String {
    format!("{REPOS}/{name}/_blobs")
}

/// One of them.
pub fn link(name: &RepositoryName, digest: &Digest) -> String {
    format!("{REPOS}/{name}/_blobs/{}", digest.dashed())
}

/// The blobs it had until garbage was collected.
pub fn released_links(name: &RepositoryName) -> String {
    format!("{REPOS}/{name}/_released")
}

/// One of them.
pub fn released(name: &RepositoryName, digest: &Digest) -> String {
    format!("{REPOS}/{name}/_released/{}", digest.dashed())
}

/// What refers to something.
pub fn all_referrers(name: &RepositoryName) -> String {
    format!("{REPOS}/{name}/_referrers")
}

/// What refers to `subject`.
pub fn referrers(name: &RepositoryName, subject: &Digest) -> String {
    format!("{REPOS}/{name}/_referrers/{}", subject.dashed())
}

/// One of them.
pub fn referrer(name: &RepositoryName, subject: &Digest, of: &Digest) -> String {
    format!("{}/{}", referrers(name, subject), of.dashed())
}

/// Its tags that came from the leader, see `follow`.
pub fn followed(name: &RepositoryName) -> String {
    format!("{REPOS}/{name}/_followed")
}

/// One of them.
pub fn mark(name: &RepositoryName, tag: &Tag) -> String {
    format!("{REPOS}/{name}/_followed/{tag}")
}

/// A blob on its way from the leader.
pub fn fetch(digest: &Digest) -> String {
    format!("follow/{}", digest.dashed())
}

/// An upload session.
pub fn upload(id: UploadId) -> String {
    format!("{UPLOADS}/{id}")
}
