//! One pass: what the leader has is compared with what is here, and brought.

use super::Follower;
use super::leader::FollowError;
use super::status::Behind;
use crate::registry::copy::{MOST, MOST_BYTES, sorted};
use crate::registry::digest::Digest;
use crate::registry::keys;
use crate::registry::manifest::Manifest;
use crate::registry::name::{Reference, RepositoryName, Tag};
use crate::registry::seams::{Deed, Seen};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// Blobs of one image on their way at once.
const AT_ONCE: usize = 3;

impl Follower {
    /// Brings what is missing and takes away what the leader no longer has;
    /// says whether all is here now as it is there. May be dropped at any
    /// moment: the next pass goes on.
    pub async fn pass(&self) -> bool {
        let mut behind = Vec::new();
        let (tags, problem) = match self.look(&mut behind).await {
            Ok(tags) => (tags, None),
            Err(e) => (0, Some(e.to_string())),
        };
        let good = problem.is_none() && behind.is_empty();
        if good {
            self.looked.store(true, Ordering::Relaxed);
        }
        self.progress.ended(tags, problem, behind);
        good
    }

    async fn look(&self, behind: &mut Vec<Behind>) -> Result<u64, FollowError> {
        let all = self.leader.repositories().await?;
        let followed = |r: &RepositoryName| self.followed.covers(r);
        let there: BTreeSet<RepositoryName> =
            all.iter().filter_map(|n| n.parse().ok()).filter(followed).collect();
        let mut count = 0;
        for repo in &there {
            let tags = match self.leader.tags(repo).await {
                Ok(t) => t,
                Err(e) if e.ends_the_pass() => return Err(e),
                Err(e) => {
                    behind.push(lag(repo, "", &e));
                    continue;
                }
            };
            let tags: BTreeSet<Tag> = tags.iter().filter_map(|t| t.parse().ok()).collect();
            for tag in &tags {
                match self.bring_tag(repo, tag).await {
                    Ok(()) => count += 1,
                    Err(e) if e.ends_the_pass() => return Err(e),
                    Err(e) => behind.push(lag(repo, tag.as_str(), &e)),
                }
            }
            self.take_away(repo, &tags).await?;
        }
        let here = self.registry.all_repositories().await?;
        let gone: Vec<_> = here.into_iter().filter(|r| followed(r) && !there.contains(r)).collect();
        for repo in gone {
            if all.is_empty() && !self.marks(&repo).await?.is_empty() {
                return Err(FollowError::Content(format!(
                    "{} shows no image at all, and {repo} here came from it: nothing is taken \
                     away. If it has lost its images, restore them there, or take [follow] out \
                     here and follow the other way round",
                    self.leader.name()
                )));
            }
            self.take_away(&repo, &BTreeSet::new()).await?;
        }
        Ok(count)
    }

    /// Tags that came from the leader, with what they pointed to.
    async fn marks(
        &self,
        repo: &RepositoryName,
    ) -> Result<BTreeMap<Tag, Option<Digest>>, FollowError> {
        let mut out = BTreeMap::new();
        for (name, _) in self.registry.store.children(&keys::followed(repo)).await?.documents {
            let Ok(tag) = name.parse::<Tag>() else { continue };
            let text = self.registry.store.read(&keys::mark(repo, &tag), 256).await?;
            let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
            out.insert(tag, text.parse().ok());
        }
        Ok(out)
    }

    /// The tag and everything it leads to, and what refers to any of it.
    async fn bring_tag(&self, repo: &RepositoryName, tag: &Tag) -> Result<(), FollowError> {
        let Some(digest) = self.leader.tag(repo, tag).await? else {
            // Taken away since the list was made: the next pass sees it.
            return Ok(());
        };
        let (family, new) = self.family(repo, &digest).await?;
        for (d, m, bytes) in family {
            if new.contains(&d) || !self.looked.load(Ordering::Relaxed) {
                self.bring_manifest(repo, d, m, bytes).await?;
            }
        }
        let reference = Reference::Tag(tag.clone());
        let old = self.registry.resolve(repo, &reference).await?;
        let mark = self.registry.store.read(&keys::mark(repo, tag), 256).await?;
        let moved = old.as_ref() != Some(&digest);
        if !moved && mark.is_some_and(|m| m == digest.to_string().as_bytes()) {
            return Ok(());
        }
        // To its end, also when the pass is dropped.
        let (r, name, t, d) = (self.registry.clone(), repo.clone(), tag.clone(), digest.clone());
        let set = tokio::spawn(async move {
            r.set_tag(&name, &t, &d, true).await?;
            let text = Bytes::from(d.to_string());
            Ok::<_, FollowError>(r.store.write(&keys::mark(&name, &t), text).await?)
        });
        set.await.unwrap_or_else(|e| Err(FollowError::Here(e.to_string())))?;
        if moved {
            self.progress.count(|s| s.tags_set += 1);
            self.tell(repo, tag, Deed::Tagged(tag.clone()), Some(digest));
            if let Some(old) = old {
                self.forget(repo, &old).await?;
            }
        }
        Ok(())
    }

    /// The manifest of `top`, all below it and all that refers to any of
    /// them, children first; and which of them came from the leader. What is
    /// here is not asked for again.
    async fn family(
        &self,
        repo: &RepositoryName,
        top: &Digest,
    ) -> Result<(Vec<(Digest, Manifest, Bytes)>, BTreeSet<Digest>), FollowError> {
        let (mut out, mut seen, mut new, mut size) =
            (Vec::new(), BTreeSet::new(), BTreeSet::new(), 0);
        let mut todo = vec![top.clone()];
        while let Some(d) = todo.pop() {
            if !seen.insert(d.clone()) {
                continue;
            }
            let here = self.registry.manifest(repo, &Reference::Digest(d.clone())).await;
            let bytes = match here {
                Ok(found) => found.bytes,
                // Not here, or damaged here.
                Err(_) => {
                    new.insert(d.clone());
                    self.leader.manifest(repo, &d).await?
                }
            };
            let m = Manifest::parse(&bytes, None)
                .map_err(|f| FollowError::Content(format!("the manifest {d}: {}", f.message)))?;
            size += bytes.len();
            if seen.len() > MOST || size > MOST_BYTES {
                let m = format!("{top} leads to more manifests than are taken at once");
                return Err(FollowError::Content(m));
            }
            todo.extend(m.manifests.iter().map(|d| d.digest.clone()));
            todo.extend(self.leader.referrers(repo, &d).await?.into_iter().map(|d| d.digest));
            out.push((d, m, bytes));
        }
        Ok((sorted(out), new))
    }

    async fn bring_manifest(
        &self,
        repo: &RepositoryName,
        d: Digest,
        m: Manifest,
        bytes: Bytes,
    ) -> Result<(), FollowError> {
        let blobs: BTreeMap<&Digest, _> = m.blobs.iter().map(|b| (&b.digest, b)).collect();
        let fetches: Vec<BoxFuture<'_, _>> =
            blobs.into_values().map(|b| self.fetch(repo, b).boxed()).collect();
        let mut coming = futures::stream::iter(fetches).buffer_unordered(AT_ONCE);
        while let Some(came) = coming.next().await {
            came?;
        }
        drop(coming);
        let (r, name, kind) = (self.registry.clone(), repo.clone(), m.media_type.clone());
        let stored = tokio::spawn(async move {
            r.put_manifest(&name, &Reference::Digest(d), Some(&kind), bytes).await
        });
        match stored.await {
            Ok(Ok(_)) => self.progress.count(|s| s.manifests += 1),
            Ok(Err(f)) => return Err(f.into()),
            Err(e) => return Err(FollowError::Here(e.to_string())),
        }
        Ok(())
    }

    /// Takes away the tags that came from the leader and are not in `there`.
    async fn take_away(
        &self,
        repo: &RepositoryName,
        there: &BTreeSet<Tag>,
    ) -> Result<(), FollowError> {
        for (tag, came) in self.marks(repo).await? {
            if there.contains(&tag) {
                continue;
            }
            let now = self.registry.resolve(repo, &Reference::Tag(tag.clone())).await?;
            // One that was set here meanwhile is not the leader's.
            if now.is_some() && now == came {
                self.registry.store.remove(&keys::tag(repo, &tag)).await?;
                self.progress.count(|s| s.tags_removed += 1);
                self.tell(repo, &tag, Deed::Deleted, now);
            }
            if let Some(d) = came {
                self.forget(repo, &d).await?;
            }
            self.registry.store.remove(&keys::mark(repo, &tag)).await?;
        }
        Ok(())
    }

    /// A manifest to which a tag of the leader pointed goes when the leader
    /// has it no more, unless something here still names it.
    async fn forget(&self, repo: &RepositoryName, d: &Digest) -> Result<(), FollowError> {
        if self.leader.digest_of(repo, &d.to_string()).await?.is_some() {
            return Ok(());
        }
        for (name, _) in self.registry.store.children(&keys::tags(repo)).await?.documents {
            let Ok(tag) = name.parse() else { continue };
            if self.registry.resolve(repo, &Reference::Tag(tag)).await?.as_ref() == Some(d) {
                return Ok(());
            }
        }
        let (r, name, d) = (self.registry.clone(), repo.clone(), d.clone());
        let gone =
            tokio::spawn(async move { r.delete_reference(&name, &Reference::Digest(d)).await });
        match gone.await {
            // An index names it, or it is gone: both are fine.
            Ok(Err(f)) if f.status < 500 => Ok(()),
            Ok(r) => Ok(r?),
            Err(e) => Err(FollowError::Here(e.to_string())),
        }
    }

    fn tell(&self, repo: &RepositoryName, tag: &Tag, deed: Deed, digest: Option<Digest>) {
        self.registry.tell(Seen {
            deed,
            repository: repo.clone(),
            manifest: true,
            reference: tag.to_string(),
            digest,
            bytes: 0,
            caller: "follow".into(),
        });
    }
}

fn lag(repo: &RepositoryName, tag: &str, e: &FollowError) -> Behind {
    Behind { repository: repo.to_string(), tag: tag.to_owned(), problem: e.to_string() }
}
