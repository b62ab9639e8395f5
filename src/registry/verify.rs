//! Reads everything and names what is rotten or missing. Slow on purpose: it
//! believes no name, no size and no age. It changes nothing.

use super::digest::{Digest, Hasher};
use super::error::RegistryError;
use super::manifest::{LARGEST, Manifest};
use super::name::{Reference, RepositoryName, Tag};
use super::storage::Shelf;
use super::{Registry, keys};
use futures::StreamExt as _;
use serde::Serialize;
use std::collections::BTreeSet;

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// `blob`, `manifest`, `tag` or `referrer`.
    pub what: &'static str,
    /// Where; empty for a blob, which belongs to all.
    pub repository: String,
    /// Digest or tag.
    pub name: String,
    /// What is wrong, and what mends it.
    pub problem: String,
}

/// What was read, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Blobs read to their end.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests read.
    pub manifests: u64,
    /// Tags followed.
    pub tags: u64,
    /// Empty when all is well.
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    fn wrong(&mut self, what: &'static str, repo: &str, name: impl ToString, problem: String) {
        self.damage.push(Damage {
            what,
            repository: repo.to_owned(),
            name: name.to_string(),
            problem,
        });
    }
}

impl Registry {
    /// See the module. The registry may go on serving; what is deleted
    /// meanwhile may be reported as missing.
    ///
    /// # Errors
    /// When the storage cannot be listed.
    pub async fn verify_store(&self) -> Result<VerifyReport, RegistryError> {
        let mut report = VerifyReport::default();
        let mut rotten = BTreeSet::new();
        for shelf in [Shelf::Trash, Shelf::Placed] {
            for (digest, stat) in self.store.blobs(shelf).await? {
                report.blobs += 1;
                report.bytes += stat.size;
                if let Some(problem) = self.read_blob(&digest, stat.size).await {
                    report.wrong("blob", "", &digest, problem);
                    rotten.insert(digest);
                }
            }
        }
        for repo in self.all_repositories().await? {
            self.verify_repository(&repo, &rotten, &mut report).await?;
        }
        Ok(report)
    }

    /// What is wrong with a blob's bytes.
    async fn read_blob(&self, digest: &Digest, size: u64) -> Option<String> {
        let mut stream = match self.store.open(digest, 0..size).await {
            Ok(Some(s)) => s,
            // Garbage collection freed it meanwhile.
            Ok(None) => return None,
            Err(e) => return Some(e.to_string()),
        };
        let mut hasher = Hasher::new(digest.algorithm());
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(b) => hasher.update(&b),
                Err(e) => return Some(e.to_string()),
            }
        }
        let real = hasher.finish();
        (real != *digest)
            .then(|| format!("its content is {real}: push it again, which replaces it"))
    }

    async fn verify_repository(
        &self,
        repo: &RepositoryName,
        rotten: &BTreeSet<Digest>,
        report: &mut VerifyReport,
    ) -> Result<(), RegistryError> {
        let at = repo.as_str();
        for (name, _) in self.store.children(&keys::manifests(repo)).await?.documents {
            let Some(digest) = Digest::from_dashed(&name) else {
                report.wrong("manifest", at, &name, "its name is no digest".into());
                continue;
            };
            report.manifests += 1;
            let bytes = match self.store.read(&keys::manifest(repo, &digest), LARGEST).await {
                Ok(Some(b)) => b,
                Ok(None) => continue,
                Err(e) => {
                    report.wrong("manifest", at, digest, e.to_string());
                    continue;
                }
            };
            let real = Digest::with(digest.algorithm(), &bytes);
            if real != digest {
                report.wrong("manifest", at, digest, format!("its content is {real}"));
                continue;
            }
            match Manifest::parse(&bytes, None) {
                Ok(m) => self.verify_named(repo, &digest, &m, rotten, report).await?,
                Err(f) => report.wrong("manifest", at, digest, f.message),
            }
        }
        for (name, _) in self.store.children(&keys::tags(repo)).await?.documents {
            report.tags += 1;
            let Ok(tag) = name.parse::<Tag>() else {
                report.wrong("tag", at, name, "its name is no tag".into());
                continue;
            };
            let problem = match self.resolve(repo, &Reference::Tag(tag)).await? {
                None => "it points nowhere: push it again".to_owned(),
                Some(d) if self.store.stat(&keys::manifest(repo, &d)).await?.is_some() => continue,
                Some(d) => format!("it points to {d}, which is missing"),
            };
            report.wrong("tag", at, name, problem);
        }
        Ok(())
    }

    async fn verify_named(
        &self,
        repo: &RepositoryName,
        digest: &Digest,
        m: &Manifest,
        rotten: &BTreeSet<Digest>,
        report: &mut VerifyReport,
    ) -> Result<(), RegistryError> {
        let at = repo.as_str();
        for d in &m.blobs {
            let linked = self.store.stat(&keys::link(repo, &d.digest)).await?.is_some()
                || self.store.stat(&keys::released(repo, &d.digest)).await?.is_some();
            let problem = match self.store.blob(&d.digest).await? {
                _ if rotten.contains(&d.digest) => format!("its blob {} is rotten", d.digest),
                Some((s, _)) if linked && s.size == d.size => continue,
                _ if d.may_be_elsewhere() && !linked => continue,
                Some((s, _)) if linked => {
                    format!("its blob {} has {} bytes, not {}", d.digest, s.size, d.size)
                }
                _ => format!("its blob {} is missing: push it again", d.digest),
            };
            report.wrong("manifest", at, digest, problem);
        }
        for d in &m.manifests {
            if self.store.stat(&keys::manifest(repo, &d.digest)).await?.is_none() {
                report.wrong(
                    "manifest",
                    at,
                    digest,
                    format!("its manifest {} is missing", d.digest),
                );
            }
        }
        if let Some(s) = &m.subject
            && self.store.stat(&keys::referrer(repo, &s.digest, digest)).await?.is_none()
        {
            let problem = format!("it is not in the list of what refers to {}", s.digest);
            report.wrong("referrer", at, digest, problem);
        }
        Ok(())
    }
}
