//! What is there, for people: tags with their sizes. Read from the store each
//! time; there is no second list that could disagree with it.

use super::digest::Digest;
use super::error::Fault;
use super::manifest::Manifest;
use super::name::{Reference, RepositoryName, Tag};
use super::{Registry, keys};
use std::collections::BTreeSet;
use std::time::SystemTime;

/// Most manifests below one tag that are looked at for its size.
const DEEPEST: usize = 1000;

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// Where.
    pub repository: RepositoryName,
    /// Which.
    pub tag: Tag,
    /// Where it points.
    pub digest: Digest,
    /// Bytes of all that it names, each counted once; what is below an index too.
    pub bytes: u64,
    /// When the tag was last set.
    pub set: SystemTime,
    /// An attestation refers to it.
    pub attested: bool,
}

impl Registry {
    /// Tags of repositories whose name begins with `prefix` and that `show`
    /// lets through, by name, behind `(repository, tag)` of `after`; at most
    /// `n`, and whether there are more. What is damaged is left out: that is
    /// for [`Registry::verify_store`] to say.
    ///
    /// # Errors
    /// The storage.
    pub async fn survey(
        &self,
        prefix: &str,
        show: impl Fn(&RepositoryName) -> bool,
        after: Option<(&str, &str)>,
        n: usize,
    ) -> Result<(Vec<Tagged>, bool), Fault> {
        let mut out = Vec::new();
        for repository in self.all_repositories().await? {
            let name = repository.as_str();
            if !name.starts_with(prefix) || !show(&repository) {
                continue;
            }
            if after.is_some_and(|(r, _)| name < r) {
                continue;
            }
            for (tag, stat) in self.store.children(&keys::tags(&repository)).await?.documents {
                if after.is_some_and(|(r, t)| r == name && tag.as_str() <= t) {
                    continue;
                }
                let Ok(tag) = tag.parse::<Tag>() else { continue };
                let reference = Reference::Tag(tag.clone());
                let Some(digest) = self.digest_of(&repository, &reference).await? else { continue };
                if out.len() == n {
                    return Ok((out, true));
                }
                out.push(Tagged {
                    bytes: self.weight(&repository, &digest).await?,
                    attested: self.is_attested(&repository, &digest).await?,
                    repository: repository.clone(),
                    tag,
                    digest,
                    set: stat.modified,
                });
            }
        }
        Ok((out, false))
    }

    /// Bytes of a manifest and of all that it names, as descriptors say.
    async fn weight(&self, repo: &RepositoryName, digest: &Digest) -> Result<u64, Fault> {
        let (mut todo, mut seen, mut bytes) = (vec![digest.clone()], BTreeSet::new(), 0u64);
        while let Some(d) = todo.pop() {
            if !seen.insert(d.clone()) || seen.len() > DEEPEST {
                continue;
            }
            let Ok(found) = self.manifest(repo, &Reference::Digest(d)).await else { continue };
            let m = Manifest::parse(&found.bytes, None)?;
            bytes = bytes.saturating_add(found.bytes.len() as u64);
            for b in m.blobs {
                if seen.insert(b.digest) {
                    bytes = bytes.saturating_add(b.size);
                }
            }
            todo.extend(m.manifests.into_iter().map(|d| d.digest));
        }
        Ok(bytes)
    }
}
