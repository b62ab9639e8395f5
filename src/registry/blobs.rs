//! Blobs as a repository sees them: it has those to which it holds a link.
//! The bytes are stored once for all repositories; a link is what keeps them,
//! and what makes them visible.

use super::digest::Digest;
use super::error::{Code, Fault};
use super::name::RepositoryName;
use super::storage::{Shelf, Stat, StorageError};
use super::{Registry, keys};
use bytes::Bytes;

/// What an answer about a missing blob says.
pub(super) fn unknown(digest: &Digest) -> Fault {
    Fault::new(Code::BlobUnknown, format!("this repository has no blob {digest}"))
}

impl Registry {
    /// The blob, if `repository` has it; counts as a use: its link looks new
    /// again, and one that garbage collection released comes back.
    pub(super) async fn use_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Stat>, StorageError> {
        let link = keys::link(repository, digest);
        match self.store.stat(&link).await? {
            // Touched seldom: the grace age need not be exact.
            Some(s) if s.age() > self.settings.grace / 8 => {
                if !self.store.touch(&link).await? && !self.take_back(repository, digest).await? {
                    return Ok(None);
                }
            }
            Some(_) => {}
            None if self.take_back(repository, digest).await? => {}
            // A third look: another client may have taken it back meanwhile.
            None if self.store.stat(&link).await?.is_some() => {}
            None => return Ok(None),
        }
        Ok(self.store.blob(digest).await?.map(|(s, _)| s))
    }

    /// Makes a link again that was released but is not gone.
    async fn take_back(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StorageError> {
        let released = keys::released(repository, digest);
        if self.store.stat(&released).await?.is_none() {
            return Ok(false);
        }
        self.link(repository, digest).await?;
        Ok(true)
    }

    /// Gives `repository` the blob. The link is written first; then, if
    /// garbage collection set the bytes aside meanwhile, they come back.
    ///
    /// Collection releases a link by writing `released`, removing the link and
    /// looking whether `released` still stands; here the link is written,
    /// `released` removed, and looked whether the link still stands. Of two
    /// that meet, one sees that both are gone, and writes the link again.
    pub(super) async fn link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StorageError> {
        let link = keys::link(repository, digest);
        loop {
            if !self.store.create(&link, Bytes::new()).await? {
                self.store.touch(&link).await?;
            }
            self.store.remove(&keys::released(repository, digest)).await?;
            if self.store.stat(&link).await?.is_some() {
                break;
            }
        }
        if let Some((_, Shelf::Trash)) = self.store.blob(digest).await? {
            self.store.restore(digest).await?;
        }
        Ok(())
    }

    /// Mounts; says whether the blob was there to mount.
    pub(super) async fn mount(
        &self,
        to: &RepositoryName,
        from: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Stat>, StorageError> {
        let Some(stat) = self.use_blob(from, digest).await? else { return Ok(None) };
        self.link(to, digest).await?;
        Ok(Some(stat))
    }

    /// Takes the blob from `repository`. Refused while a manifest there names
    /// it: nothing that can be pulled is made unpullable.
    pub(super) async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<u64, Fault> {
        let link = keys::link(repository, digest);
        if self.store.stat(&link).await?.is_none() {
            return Err(unknown(digest));
        }
        let size = self.store.blob(digest).await?.map_or(0, |(s, _)| s.size);
        self.refuse_if_named(repository, digest).await?;
        self.store.remove(&link).await?;
        // A manifest may have come between the look and the removal.
        if let Err(f) = self.refuse_if_named(repository, digest).await {
            self.link(repository, digest).await?;
            return Err(f);
        }
        Ok(size)
    }

    async fn refuse_if_named(&self, repo: &RepositoryName, digest: &Digest) -> Result<(), Fault> {
        for (at, m) in self.all_manifests(repo).await?.whole {
            if m.blobs.iter().chain(&m.manifests).any(|d| d.digest == *digest) {
                return Err(Fault::new(
                    Code::Denied,
                    format!("the manifest {at} names {digest}: delete that first"),
                )
                .status(409));
            }
        }
        Ok(())
    }
}
