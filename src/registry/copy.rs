//! Copies from one repository to another: a manifest with everything below it
//! and everything that refers to it, without moving a byte of a blob.
//!
//! Children come before parents and the tag comes last, so that whoever sees
//! the tag can pull all of it, attestations included.

use super::digest::Digest;
use super::error::{Code, Fault};
use super::manifest::{Descriptor, Manifest};
use super::name::{Reference, RepositoryName, Tag};
use super::{Registry, keys};
use bytes::Bytes;
use futures::StreamExt as _;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Of an attestation (in-toto, as `cosign` and `buildkit` write it).
pub const ATTESTATION: &str = "application/vnd.in-toto+json";

/// Most manifests that are copied at once.
pub(super) const MOST: usize = 10_000;
/// And their bytes: they are in memory together.
pub(super) const MOST_BYTES: usize = 64 * 1024 * 1024;
/// Largest attestation that is read, in bytes.
const LARGEST_ATTESTATION: u64 = 16 * 1024 * 1024;
/// Most attestations of one image that are read.
const MOST_ATTESTATIONS: usize = 256;

/// What [`Registry::copy`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// Manifests that are there now, with those that refer to others.
    pub manifests: u64,
    /// Blobs that were mounted.
    pub blobs: u64,
    /// Where the tag pointed before.
    pub replaced: Option<Digest>,
}

/// Something that refers to an image and speaks of how it was made.
#[derive(Debug, Clone)]
pub struct Attestation {
    /// Of its manifest.
    pub manifest: Digest,
    /// Its content: the manifest's first layer.
    pub bytes: Bytes,
}

impl Registry {
    /// Puts `digest` of `from`, all below it and all that refers to it into
    /// `to`, and lets `tag` point to it. A tag that points elsewhere is
    /// refused with 409 unless `replace`; two at the same moment cannot both
    /// have it. Goes to its end when the caller goes away.
    ///
    /// # Errors
    /// What is missing in `from`; the tag; the storage. What was copied up to
    /// then has no tag.
    pub async fn copy(
        self: &Arc<Self>,
        from: &RepositoryName,
        digest: &Digest,
        to: &RepositoryName,
        tag: Option<&Tag>,
        replace: bool,
    ) -> Result<Copied, Fault> {
        self.refuse_if_followed(to)?;
        let writing = self.writing()?;
        let me = self.clone();
        let (from, digest, to, tag) = (from.clone(), digest.clone(), to.clone(), tag.cloned());
        tokio::spawn(async move {
            let _writing = writing;
            me.copy_all(&from, &digest, &to, tag.as_ref(), replace).await
        })
        .await
        .unwrap_or_else(|e| Err(Fault::new(Code::Unknown, e.to_string())))
    }

    async fn copy_all(
        &self,
        from: &RepositoryName,
        digest: &Digest,
        to: &RepositoryName,
        tag: Option<&Tag>,
        replace: bool,
    ) -> Result<Copied, Fault> {
        let mut done = Copied::default();
        if let Some(t) = tag {
            let now = self.resolve(to, &Reference::Tag(t.clone())).await?;
            done.replaced = now.filter(|d| d != digest);
            if let Some(d) = done.replaced.as_ref().filter(|_| !replace) {
                return Err(taken(to, t, d));
            }
        }
        for (d, m, bytes) in self.family(from, digest).await? {
            if from != to {
                for b in &m.blobs {
                    match self.mount(to, from, &b.digest).await? {
                        Some(_) => done.blobs += 1,
                        None if b.may_be_elsewhere() => {}
                        None => return Err(gone(from, &b.digest)),
                    }
                }
            }
            self.put_manifest(to, &Reference::Digest(d), Some(&m.media_type), bytes).await?;
            done.manifests += 1;
        }
        if let Some(t) = tag {
            self.set_tag(to, t, digest, replace).await?;
        }
        Ok(done)
    }

    /// The manifest, all below it and all that refers to any of them, in an
    /// order in which each can be stored.
    async fn family(
        &self,
        repo: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<(Digest, Manifest, Bytes)>, Fault> {
        let (mut out, mut seen, mut bytes) = (Vec::new(), BTreeSet::new(), 0);
        let mut todo = vec![digest.clone()];
        while let Some(d) = todo.pop() {
            if !seen.insert(d.clone()) {
                continue;
            }
            let found = self.manifest(repo, &Reference::Digest(d.clone())).await?;
            let m = Manifest::parse(&found.bytes, None)?;
            bytes += found.bytes.len();
            if seen.len() > MOST || bytes > MOST_BYTES {
                let m = format!("{digest} leads to more manifests than are copied at once");
                return Err(Fault::new(Code::ManifestInvalid, m));
            }
            todo.extend(m.manifests.iter().map(|d| d.digest.clone()));
            let (refer, _) = self.referrers(repo, &d, None, None, MOST).await?;
            todo.extend(refer.into_iter().map(|d| d.digest));
            out.push((d, m, found.bytes));
        }
        Ok(sorted(out))
    }

    /// Lets `tag` point to `digest`, whose manifest is there.
    pub(super) async fn set_tag(
        &self,
        repo: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        replace: bool,
    ) -> Result<(), Fault> {
        let (key, text) = (keys::tag(repo, tag), Bytes::from(digest.to_string()));
        let at = keys::manifest(repo, digest);
        let Some(bytes) = self.store.read(&at, super::manifest::LARGEST).await? else {
            return Err(gone(repo, digest));
        };
        if replace {
            self.store.write(&key, text).await?;
        } else if !self.store.create(&key, text).await? {
            match self.resolve(repo, &Reference::Tag(tag.clone())).await? {
                Some(d) if d != *digest => return Err(taken(repo, tag, &d)),
                _ => {}
            }
        }
        // A deletion may have come in between: see `gc`.
        if self.store.stat(&at).await?.is_none() {
            self.store.write(&at, bytes).await?;
        }
        Ok(())
    }

    /// What `reference` points to, if it is there.
    ///
    /// # Errors
    /// The storage.
    pub async fn digest_of(
        &self,
        repo: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Digest>, Fault> {
        let Some(d) = self.resolve(repo, reference).await? else { return Ok(None) };
        Ok(self.store.stat(&keys::manifest(repo, &d)).await?.map(|_| d))
    }

    /// Whether an attestation refers to `digest`.
    ///
    /// # Errors
    /// The storage.
    pub async fn is_attested(&self, repo: &RepositoryName, d: &Digest) -> Result<bool, Fault> {
        Ok(!self.referrers(repo, d, Some(ATTESTATION), None, 1).await?.0.is_empty())
    }

    /// The attestations that refer to `digest`, the first 256 of them.
    ///
    /// # Errors
    /// The storage; one that cannot be read is left out.
    pub async fn attestations(
        &self,
        repo: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<Attestation>, Fault> {
        let kind = Some(ATTESTATION);
        let (all, _) = self.referrers(repo, digest, kind, None, MOST_ATTESTATIONS).await?;
        let mut out = Vec::new();
        for d in all {
            let found = self.manifest(repo, &Reference::Digest(d.digest.clone())).await?;
            let m = Manifest::parse(&found.bytes, None)?;
            // The config stands first.
            let Some(layer) = m.blobs.get(1) else { continue };
            if let Some(bytes) = self.small_blob(repo, layer).await? {
                out.push(Attestation { manifest: d.digest, bytes });
            }
        }
        Ok(out)
    }

    async fn small_blob(
        &self,
        repo: &RepositoryName,
        d: &Descriptor,
    ) -> Result<Option<Bytes>, Fault> {
        let Some(stat) = self.use_blob(repo, &d.digest).await? else { return Ok(None) };
        if stat.size > LARGEST_ATTESTATION {
            return Ok(None);
        }
        let Some(mut s) = self.store.open(&d.digest, 0..stat.size).await? else {
            return Ok(None);
        };
        let mut all = Vec::new();
        while let Some(piece) = s.next().await {
            all.extend_from_slice(&piece?);
        }
        let right = Digest::with(d.digest.algorithm(), &all) == d.digest;
        Ok(right.then(|| all.into()))
    }
}

/// Children before those that name them.
pub(super) fn sorted(all: Vec<(Digest, Manifest, Bytes)>) -> Vec<(Digest, Manifest, Bytes)> {
    let known: BTreeSet<Digest> = all.iter().map(|(d, ..)| d.clone()).collect();
    let (mut out, mut placed, mut rest) = (Vec::new(), BTreeSet::new(), all);
    while !rest.is_empty() {
        let (ready, later): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(_, m, _)| {
            m.manifests.iter().all(|c| placed.contains(&c.digest) || !known.contains(&c.digest))
        });
        // A digest cannot name itself, so something is always ready.
        if ready.is_empty() {
            out.extend(later);
            return out;
        }
        placed.extend(ready.iter().map(|(d, ..)| d.clone()));
        out.extend(ready);
        rest = later;
    }
    out
}

fn gone(repo: &RepositoryName, d: &Digest) -> Fault {
    Fault::new(Code::ManifestBlobUnknown, format!("{repo} does not have {d} any more"))
}

fn taken(repo: &RepositoryName, tag: &Tag, d: &Digest) -> Fault {
    let m =
        format!("{repo}:{tag} is {d} already; say that it is to be replaced, or use another tag");
    Fault::new(Code::Denied, m).status(409)
}
