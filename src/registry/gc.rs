//! Garbage collection, while the registry serves.
//!
//! Two steps at two levels, each run taking one step:
//!
//! 1. A repository's *link* to a blob that no manifest there names, unused for
//!    the grace age, is **released**: it moves aside, and its next use (HEAD,
//!    GET, mount, manifest) takes it back. Released for longer than the wait,
//!    it is gone.
//! 2. A *blob* to which no repository holds a link, released or not, older
//!    than the grace age, is **set aside**: still served, put back when a link
//!    appears. Set aside for longer than the wait, it is **freed**.
//!
//! A reference is written before what it refers to is made sure of, and here
//! things are set aside before references are looked for once more. So of two
//! that meet, one sees the other; and between that look and the end lies the
//! wait, which no request outlasts. `docs/decisions/registry-storage.md`.

use super::digest::Digest;
use super::error::RegistryError;
use super::manifest::{LARGEST, Manifest};
use super::name::{Reference, RepositoryName, Tag};
use super::storage::{Shelf, Stat};
use super::{Registry, keys};
use bytes::Bytes;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of a thing, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// Named by this manifest, index or, for a blob, repository.
    Named {
        /// By which.
        by: String,
    },
    /// Written or used too short ago.
    Young {
        /// Seconds since.
        age: u64,
    },
    /// Unused: moved aside in this run.
    SetAside,
    /// Moved aside by an earlier run; the wait is not over.
    Waiting {
        /// Seconds since.
        age: u64,
    },
    /// Was aside and is named again: back.
    PutBack,
    /// Gone for good.
    Freed,
}

/// One thing that was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// `link`, `blob`, `manifest`, `upload` or `tag`.
    pub what: &'static str,
    /// Where; empty for a blob.
    pub repository: String,
    /// Which: a digest, a tag or an upload's id.
    pub name: String,
    /// Its bytes; zero for a link or tag.
    pub bytes: u64,
    /// What became of it; in a dry run, what would.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What a run did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Everything that was looked at.
    pub judged: Vec<Judged>,
    /// Bytes that were freed, or would be.
    pub freed: u64,
    /// Bytes in blobs that were set aside by this run, or would be.
    pub set_aside: u64,
}

struct Run<'a> {
    registry: &'a Registry,
    report: GcReport,
    /// All links, released ones too, of all repositories; by whom.
    linked: BTreeMap<Digest, RepositoryName>,
    /// In a dry run, released links that would be gone.
    gone: BTreeSet<(RepositoryName, Digest)>,
}

/// What manifests of one repository name.
#[derive(Default)]
struct Named {
    blobs: BTreeMap<Digest, Digest>,
    manifests: BTreeMap<Digest, String>,
    /// One that cannot be read, and may have named anything.
    damaged: Option<Digest>,
}

impl Named {
    /// By which manifest a blob is named, or may have been.
    fn blob(&self, d: &Digest) -> Option<String> {
        let by = self.blobs.get(d).map(ToString::to_string);
        by.or_else(|| self.damaged.as_ref().map(|m| format!("perhaps {m}, which is damaged")))
    }
}

impl Registry {
    /// Collects garbage, or says what would be collected.
    ///
    /// # Errors
    /// When another process collects, or the storage fails; what was done up
    /// to then is whole.
    pub async fn collect_garbage(&self, dry_run: bool) -> Result<GcReport, RegistryError> {
        let lease = self.store.lease().await?.ok_or(RegistryError::Collecting)?;
        let collected = self.collect(dry_run).await;
        lease.end().await;
        collected
    }

    async fn collect(&self, dry_run: bool) -> Result<GcReport, RegistryError> {
        let report = GcReport { dry_run, ..GcReport::default() };
        let mut run =
            Run { registry: self, report, linked: BTreeMap::new(), gone: BTreeSet::new() };
        run.uploads().await?;
        let repositories = self.all_repositories().await?;
        for r in &repositories {
            run.manifests(r).await?;
            run.links(r).await?;
        }
        run.linked = run.all_links().await?;
        run.blobs().await?;
        if !dry_run {
            run.report.freed += self.store.tidy(self.settings.upload_age).await?;
        }
        Ok(run.report)
    }

    async fn named(&self, repository: &RepositoryName) -> Result<Named, RegistryError> {
        let mut named = Named::default();
        for (tag, _) in self.store.children(&keys::tags(repository)).await?.documents {
            let Ok(tag) = tag.parse::<Tag>() else { continue };
            if let Some(d) = self.resolve(repository, &Reference::Tag(tag.clone())).await? {
                named.manifests.insert(d, format!("tag {tag}"));
            }
        }
        let all = self.all_manifests(repository).await?;
        named.damaged = all.damaged.into_iter().next();
        for (at, m) in all.whole {
            // An index's other content may be stored either way.
            named.blobs.extend(m.blobs.iter().map(|d| (d.digest.clone(), at.clone())));
            for d in m.manifests {
                named.manifests.insert(d.digest, format!("index {at}"));
            }
        }
        Ok(named)
    }
}

impl Run<'_> {
    fn judge(
        &mut self,
        what: &'static str,
        repo: &str,
        name: impl ToString,
        bytes: u64,
        v: Verdict,
    ) {
        match v {
            Verdict::Freed => self.report.freed += bytes,
            Verdict::SetAside => self.report.set_aside += bytes,
            _ => {}
        }
        let (repository, name) = (repo.to_owned(), name.to_string());
        self.report.judged.push(Judged { what, repository, name, bytes, verdict: v });
    }

    fn real(&self) -> bool {
        !self.report.dry_run
    }

    fn young(&self, s: &Stat) -> Option<Verdict> {
        let age = s.age();
        (age < self.registry.settings.grace).then_some(Verdict::Young { age: age.as_secs() })
    }

    fn waiting(&self, s: &Stat) -> Option<Verdict> {
        let age = s.age();
        (age < self.registry.settings.wait).then_some(Verdict::Waiting { age: age.as_secs() })
    }

    /// Uploads that nobody writes to, and sessions without bytes.
    async fn uploads(&mut self) -> Result<(), RegistryError> {
        let r = self.registry;
        for (id, s) in r.store.uploads().await? {
            if s.age() < r.settings.upload_age {
                self.judge("upload", "", id, s.size, Verdict::Young { age: s.age().as_secs() });
                continue;
            }
            if self.real() {
                r.give_up(id).await?;
            }
            self.judge("upload", "", id, s.size, Verdict::Freed);
        }
        for (name, s) in r.store.children(keys::UPLOADS).await?.documents {
            let Ok(id) = name.parse() else { continue };
            let old = s.age() >= r.settings.upload_age;
            if old && self.real() && r.store.uploaded(id).await?.is_none() {
                r.store.remove(&keys::upload(id)).await?;
            }
        }
        Ok(())
    }

    /// Manifests without a tag that nothing names, if the settings say so; and
    /// entries of referrers that are gone.
    async fn manifests(&mut self, repo: &RepositoryName) -> Result<(), RegistryError> {
        let r = self.registry;
        let subjects = r.store.children(&keys::all_referrers(repo)).await?.folders;
        for subject in subjects.iter().filter_map(|s| Digest::from_dashed(s)) {
            for (name, s) in r.store.children(&keys::referrers(repo, &subject)).await?.documents {
                let Some(d) = Digest::from_dashed(&name) else { continue };
                let gone = r.store.stat(&keys::manifest(repo, &d)).await?.is_none();
                if gone && self.young(&s).is_none() && self.real() {
                    r.store.remove(&keys::referrer(repo, &subject, &d)).await?;
                }
            }
        }
        let Some(limit) = r.settings.untagged else { return Ok(()) };
        let named = r.named(repo).await?;
        for (name, s) in r.store.children(&keys::manifests(repo)).await?.documents {
            let Some(digest) = Digest::from_dashed(&name) else { continue };
            let verdict = self.untagged(repo, &digest, &named, &s, limit).await?;
            self.judge("manifest", repo.as_str(), digest, s.size, verdict);
        }
        Ok(())
    }

    async fn untagged(
        &mut self,
        repo: &RepositoryName,
        digest: &Digest,
        named: &Named,
        s: &Stat,
        limit: std::time::Duration,
    ) -> Result<Verdict, RegistryError> {
        let r = self.registry;
        if let Some(by) = named.manifests.get(digest) {
            return Ok(Verdict::Named { by: by.clone() });
        }
        if let Some(m) = &named.damaged {
            return Ok(Verdict::Named { by: format!("perhaps {m}, which is damaged") });
        }
        if s.age() < limit {
            return Ok(Verdict::Young { age: s.age().as_secs() });
        }
        let key = keys::manifest(repo, digest);
        let Some(bytes) = r.store.read(&key, LARGEST).await? else { return Ok(Verdict::Freed) };
        let m = Manifest::parse(&bytes, None)?;
        // A signature lives as long as what it signs.
        if let Some(subject) = &m.subject
            && r.store.stat(&keys::manifest(repo, &subject.digest)).await?.is_some()
        {
            return Ok(Verdict::Named { by: format!("its subject {}", subject.digest) });
        }
        if !self.real() {
            return Ok(Verdict::Freed);
        }
        r.remove_manifest(repo, digest, &m).await?;
        if let Some(by) = r.named(repo).await?.manifests.get(digest) {
            let by = by.clone();
            r.store.create(&key, bytes.clone()).await?;
            r.list_referrer(repo, digest, &m, bytes.len()).await?;
            return Ok(Verdict::Named { by });
        }
        Ok(Verdict::Freed)
    }

    /// A repository's links: step 1.
    async fn links(&mut self, repo: &RepositoryName) -> Result<(), RegistryError> {
        let r = self.registry;
        let named = r.named(repo).await?;
        for (name, s) in r.store.children(&keys::released_links(repo)).await?.documents {
            let Some(d) = Digest::from_dashed(&name) else { continue };
            let verdict = if named.blob(&d).is_some() {
                if self.real() {
                    r.link(repo, &d).await?;
                }
                Verdict::PutBack
            } else if let Some(w) = self.waiting(&s) {
                w
            } else {
                if self.real() {
                    r.store.remove(&keys::released(repo, &d)).await?;
                } else {
                    self.gone.insert((repo.clone(), d.clone()));
                }
                Verdict::Freed
            };
            self.judge("link", repo.as_str(), d, 0, verdict);
        }
        let mut released = Vec::new();
        for (name, s) in r.store.children(&keys::links(repo)).await?.documents {
            let Some(d) = Digest::from_dashed(&name) else { continue };
            let verdict = match (named.blob(&d), self.young(&s)) {
                (Some(by), _) => Verdict::Named { by },
                (None, Some(young)) => young,
                (None, None) => {
                    if self.real() {
                        r.store.write(&keys::released(repo, &d), Bytes::new()).await?;
                        r.store.remove(&keys::link(repo, &d)).await?;
                        released.push(d.clone());
                        // Somebody used it just now: see `link`.
                        if r.store.stat(&keys::released(repo, &d)).await?.is_none() {
                            r.link(repo, &d).await?;
                        }
                    }
                    Verdict::SetAside
                }
            };
            self.judge("link", repo.as_str(), d, 0, verdict);
        }
        if released.is_empty() {
            return Ok(());
        }
        let named = r.named(repo).await?;
        for d in released.into_iter().filter(|d| named.blob(d).is_some()) {
            r.link(repo, &d).await?;
            self.judge("link", repo.as_str(), d, 0, Verdict::PutBack);
        }
        Ok(())
    }

    /// Released links are read before links: only this process moves them the
    /// other way, and it does not now.
    async fn all_links(&self) -> Result<BTreeMap<Digest, RepositoryName>, RegistryError> {
        let r = self.registry;
        let mut all = BTreeMap::new();
        for repo in r.all_repositories().await? {
            for (released, at) in [(true, keys::released_links(&repo)), (false, keys::links(&repo))]
            {
                for (name, _) in r.store.children(&at).await?.documents {
                    let Some(d) = Digest::from_dashed(&name) else { continue };
                    let key = (repo.clone(), d);
                    if !released || !self.gone.contains(&key) {
                        all.insert(key.1, key.0);
                    }
                }
            }
        }
        Ok(all)
    }

    /// Blobs: step 2.
    async fn blobs(&mut self) -> Result<(), RegistryError> {
        let r = self.registry;
        for (d, s) in r.store.blobs(Shelf::Trash).await? {
            let verdict = if self.linked.contains_key(&d) {
                if self.real() {
                    r.store.restore(&d).await?;
                }
                Verdict::PutBack
            } else if let Some(w) = self.waiting(&s) {
                w
            } else {
                if self.real() {
                    r.store.purge(&d).await?;
                }
                Verdict::Freed
            };
            self.judge("blob", "", d, s.size, verdict);
        }
        let mut aside = BTreeSet::new();
        for (d, s) in r.store.blobs(Shelf::Placed).await? {
            let verdict = match (self.linked.get(&d), self.young(&s)) {
                (Some(by), _) => Verdict::Named { by: by.to_string() },
                (None, Some(young)) => young,
                (None, None) => {
                    if self.real() {
                        r.store.set_aside(&d).await?;
                        aside.insert(d.clone());
                    }
                    Verdict::SetAside
                }
            };
            self.judge("blob", "", d, s.size, verdict);
        }
        if aside.is_empty() {
            return Ok(());
        }
        let linked = self.all_links().await?;
        for d in aside.into_iter().filter(|d| linked.contains_key(d)) {
            r.store.restore(&d).await?;
            self.judge("blob", "", d, 0, Verdict::PutBack);
        }
        Ok(())
    }
}
