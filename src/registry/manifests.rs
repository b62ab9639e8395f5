//! Manifests, tags and referrers of a repository.
//!
//! A manifest is stored as it came, under its digest, in its repository. What
//! it names is checked before it is written, and made sure of after it was
//! written, so that it holds against deletions and garbage collection at the
//! same moment.

use super::digest::Digest;
use super::error::{Code, Fault};
use super::manifest::{Descriptor, LARGEST, Manifest};
use super::name::{Reference, RepositoryName, Tag};
use super::{Registry, keys};
use bytes::Bytes;

/// A manifest as found.
pub(super) struct Found {
    pub digest: Digest,
    pub bytes: Bytes,
    pub media_type: String,
}

/// What [`Registry::all_manifests`] found.
#[derive(Default)]
pub(super) struct All {
    pub whole: Vec<(Digest, Manifest)>,
    pub damaged: Vec<Digest>,
}

fn unknown(reference: &Reference) -> Fault {
    Fault::new(Code::ManifestUnknown, format!("this repository has no manifest {reference}"))
}

fn missing(what: &str, d: &Descriptor) -> Fault {
    Fault::new(
        Code::ManifestBlobUnknown,
        format!(
            "the manifest names the {what} {}, which this repository does not have: push it first",
            d.digest
        ),
    )
    .detail(serde_json::json!({ "digest": d.digest }))
}

impl Registry {
    /// Where a tag points.
    pub(super) async fn resolve(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Digest>, Fault> {
        let tag = match reference {
            Reference::Digest(d) => return Ok(Some(d.clone())),
            Reference::Tag(t) => t,
        };
        let Some(text) = self.store.read(&keys::tag(repository, tag), 256).await? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&text);
        match text.trim().parse() {
            Ok(d) => Ok(Some(d)),
            Err(_) => {
                tracing::error!(%repository, %tag, "a tag's document is rotten: push the tag again");
                Ok(None)
            }
        }
    }

    /// A manifest by tag or digest.
    pub(super) async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Found, Fault> {
        let digest =
            self.resolve(repository, reference).await?.ok_or_else(|| unknown(reference))?;
        let bytes = self
            .store
            .read(&keys::manifest(repository, &digest), LARGEST)
            .await?
            .ok_or_else(|| unknown(reference))?;
        let damaged = |why: String| {
            tracing::error!(%repository, %digest, why, "a stored manifest is damaged");
            Fault::new(
                Code::Unknown,
                format!("the stored manifest is damaged: {why}; push it again"),
            )
        };
        let real = Digest::with(digest.algorithm(), &bytes);
        if real != digest {
            return Err(damaged(format!("its content is {real}")));
        }
        let media_type = Manifest::parse(&bytes, None).map_err(|f| damaged(f.message))?.media_type;
        Ok(Found { digest, bytes, media_type })
    }

    /// All manifests of a repository, parsed; and those that are damaged.
    pub(super) async fn all_manifests(&self, repository: &RepositoryName) -> Result<All, Fault> {
        let mut all = All::default();
        for (name, _) in self.store.children(&keys::manifests(repository)).await?.documents {
            let Some(digest) = Digest::from_dashed(&name) else { continue };
            let key = keys::manifest(repository, &digest);
            let Some(bytes) = self.store.read(&key, LARGEST).await? else { continue };
            match Manifest::parse(&bytes, None) {
                Ok(m) if Digest::with(digest.algorithm(), &bytes) == digest => {
                    all.whole.push((digest, m));
                }
                _ => all.damaged.push(digest),
            }
        }
        Ok(all)
    }

    /// Checks and stores a manifest, and the tag if it came under one.
    pub(super) async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        declared: Option<&str>,
        bytes: Bytes,
    ) -> Result<(Digest, Manifest), Fault> {
        let manifest = Manifest::parse(&bytes, declared)?;
        let digest = match reference {
            Reference::Tag(_) => Digest::of(&bytes),
            Reference::Digest(d) => {
                let real = Digest::with(d.algorithm(), &bytes);
                if real != *d {
                    return Err(Fault::new(
                        Code::DigestInvalid,
                        format!("the manifest's digest is {real}, not {d}"),
                    ));
                }
                real
            }
        };
        self.check_named(repository, &manifest).await?;
        let key = keys::manifest(repository, &digest);
        self.store.write(&key, bytes.clone()).await?;
        self.list_referrer(repository, &digest, &manifest, bytes.len()).await?;
        for d in &manifest.blobs {
            // It was there a moment ago, so this repository may have it.
            if self.store.stat(&keys::link(repository, &d.digest)).await?.is_none()
                && self.store.blob(&d.digest).await?.is_some()
            {
                self.link(repository, &d.digest).await?;
            }
        }
        if let Some(d) = self.first_missing_manifest(repository, &manifest).await? {
            let fault = missing("manifest", d);
            self.store.remove(&key).await?;
            return Err(fault);
        }
        if let Reference::Tag(t) = reference {
            let text = Bytes::from(digest.to_string());
            self.store.write(&keys::tag(repository, t), text).await?;
            if self.store.stat(&key).await?.is_none() {
                self.store.write(&key, bytes).await?;
            }
        }
        Ok((digest, manifest))
    }

    async fn first_missing_manifest<'a>(
        &self,
        repository: &RepositoryName,
        m: &'a Manifest,
    ) -> Result<Option<&'a Descriptor>, Fault> {
        for d in &m.manifests {
            if self.store.stat(&keys::manifest(repository, &d.digest)).await?.is_none() {
                return Ok(Some(d));
            }
        }
        Ok(None)
    }

    async fn check_named(&self, repository: &RepositoryName, m: &Manifest) -> Result<(), Fault> {
        let wrong_size = |d: &Descriptor, size: u64| {
            Fault::new(
                Code::ManifestInvalid,
                format!("{} has {size} bytes, the manifest says {}", d.digest, d.size),
            )
        };
        for d in &m.blobs {
            match self.use_blob(repository, &d.digest).await? {
                Some(s) if s.size != d.size => return Err(wrong_size(d, s.size)),
                None if !d.may_be_elsewhere() => return Err(missing("blob", d)),
                _ => {}
            }
        }
        for d in &m.manifests {
            match self.store.stat(&keys::manifest(repository, &d.digest)).await? {
                Some(s) if s.size != d.size => return Err(wrong_size(d, s.size)),
                Some(_) => {}
                None => return Err(missing("manifest", d)),
            }
        }
        Ok(())
    }

    /// Enters the manifest in the list of what refers to its subject.
    pub(super) async fn list_referrer(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        m: &Manifest,
        size: usize,
    ) -> Result<(), Fault> {
        let Some(subject) = &m.subject else { return Ok(()) };
        let text = serde_json::to_vec(&m.described(digest, size as u64))
            .map_err(|e| Fault::new(Code::Unknown, e.to_string()))?;
        let key = keys::referrer(repository, &subject.digest, digest);
        Ok(self.store.write(&key, text.into()).await?)
    }

    /// What refers to `subject`, by digest, after `last`, at most `n`; and
    /// whether there is more.
    pub(super) async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&str>,
        n: usize,
    ) -> Result<(Vec<Descriptor>, bool), Fault> {
        let mut out = Vec::new();
        for (name, _) in self.store.children(&keys::referrers(repository, subject)).await?.documents
        {
            let Some(digest) = Digest::from_dashed(&name) else { continue };
            if last.is_some_and(|l| name.as_str() <= l) {
                continue;
            }
            // The entry of a manifest whose push or deletion broke off.
            if self.store.stat(&keys::manifest(repository, &digest)).await?.is_none() {
                continue;
            }
            let key = keys::referrer(repository, subject, &digest);
            let Some(text) = self.store.read(&key, LARGEST).await? else { continue };
            let Ok(d) = serde_json::from_slice::<Descriptor>(&text) else { continue };
            if artifact_type.is_some_and(|t| d.artifact_type.as_deref() != Some(t)) {
                continue;
            }
            if out.len() == n {
                return Ok((out, true));
            }
            out.push(d);
        }
        Ok((out, false))
    }

    /// Tags, in the order the specification asks for ("case-insensitive
    /// alphanumeric").
    pub(super) async fn tags(&self, repository: &RepositoryName) -> Result<Vec<String>, Fault> {
        let all = self.store.children(&keys::tags(repository)).await?;
        let mut tags: Vec<String> = all.documents.into_iter().map(|(n, _)| n).collect();
        if tags.is_empty()
            && self.store.children(&keys::manifests(repository)).await?.documents.is_empty()
            && self.store.children(&keys::links(repository)).await?.documents.is_empty()
        {
            return Err(Fault::new(
                Code::NameUnknown,
                format!("there is no repository {repository}"),
            ));
        }
        tags.sort_by_cached_key(|t| order(t));
        Ok(tags)
    }

    /// All repositories that hold a manifest, sorted.
    pub(super) async fn repositories(&self) -> Result<Vec<RepositoryName>, Fault> {
        let all = self.all_repositories().await?;
        let mut out = Vec::new();
        for name in all {
            if !self.store.children(&keys::manifests(&name)).await?.documents.is_empty() {
                out.push(name);
            }
        }
        Ok(out)
    }

    /// All repositories that hold anything, sorted.
    pub(super) async fn all_repositories(&self) -> Result<Vec<RepositoryName>, Fault> {
        let (mut out, mut todo) = (Vec::new(), vec![String::new()]);
        while let Some(at) = todo.pop() {
            let key =
                if at.is_empty() { keys::REPOS.into() } else { format!("{}/{at}", keys::REPOS) };
            let (ours, deeper): (Vec<_>, Vec<_>) = self
                .store
                .children(&key)
                .await?
                .folders
                .into_iter()
                .partition(|f| f.starts_with('_'));
            if !ours.is_empty()
                && let Ok(name) = at.parse()
            {
                out.push(name);
            }
            let join = |f: String| if at.is_empty() { f } else { format!("{at}/{f}") };
            todo.extend(deeper.into_iter().map(join));
        }
        out.sort();
        Ok(out)
    }

    /// Takes away a tag, or a manifest with the tags that point to it.
    pub(super) async fn delete_reference(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<(), Fault> {
        let digest = match reference {
            Reference::Tag(t) => {
                let there = self.store.remove(&keys::tag(repository, t)).await?;
                return if there { Ok(()) } else { Err(unknown(reference)) };
            }
            Reference::Digest(d) => d,
        };
        let found = self.manifest(repository, reference).await?;
        let manifest = Manifest::parse(&found.bytes, None)?;
        self.refuse_if_child(repository, digest).await?;
        self.untag(repository, digest).await?;
        self.remove_manifest(repository, digest, &manifest).await?;
        // An index may have come between the look and the removal.
        if let Err(f) = self.refuse_if_child(repository, digest).await {
            let key = keys::manifest(repository, digest);
            self.store.create(&key, found.bytes.clone()).await?;
            self.list_referrer(repository, digest, &manifest, found.bytes.len()).await?;
            return Err(f);
        }
        // And a tag likewise.
        self.untag(repository, digest).await
    }

    async fn untag(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), Fault> {
        for (name, _) in self.store.children(&keys::tags(repository)).await?.documents {
            let Ok(tag) = name.parse::<Tag>() else { continue };
            let points = self.resolve(repository, &Reference::Tag(tag.clone())).await?;
            if points.as_ref() == Some(digest) {
                self.store.remove(&keys::tag(repository, &tag)).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn remove_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        manifest: &Manifest,
    ) -> Result<(), Fault> {
        self.store.remove(&keys::manifest(repository, digest)).await?;
        if let Some(s) = &manifest.subject {
            self.store.remove(&keys::referrer(repository, &s.digest, digest)).await?;
        }
        Ok(())
    }

    async fn refuse_if_child(&self, repo: &RepositoryName, digest: &Digest) -> Result<(), Fault> {
        for (at, m) in self.all_manifests(repo).await?.whole {
            if m.manifests.iter().any(|d| d.digest == *digest) {
                return Err(Fault::new(
                    Code::Denied,
                    format!("the index {at} names {digest}: delete that first"),
                )
                .status(409));
            }
        }
        Ok(())
    }
}

/// Sorts `a` before `B` before `c`, and never leaves two tags equal.
pub(super) fn order(tag: &str) -> (String, String) {
    (tag.to_ascii_lowercase(), tag.to_owned())
}
