//! Uploads: sessions that outlive a request, a server and a crash.
//!
//! A session is a document, and bytes that only grow. Its hash is kept in
//! memory as a convenience; after a restart, or on another server, the bytes
//! are read and hashed again when the client finishes. That costs one read of
//! what is there, and needs no hash state on disk that could disagree with it.
//!
//! Nothing is acknowledged but lengths until the digest was checked, the bytes
//! were synced and the blob stands in its place.

use super::digest::{Algorithm, Digest, Hasher};
use super::error::{Code, Fault};
use super::name::{RepositoryName, UploadId};
use super::seams::Counters;
use super::storage::{Append, CHUNK};
use super::{Registry, keys};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use std::sync::Arc;

/// Hash states kept, at most, each about 200 bytes.
const HASHES: usize = 10_000;

impl Registry {
    /// Opens a session.
    pub(super) async fn begin_upload(&self, repo: &RepositoryName) -> Result<UploadId, Fault> {
        let id = UploadId::new();
        self.store.begin(id).await?;
        let text = serde_json::json!({ "repository": repo.as_str() }).to_string();
        if let Err(e) = self.store.write(&keys::upload(id), text.into()).await {
            let _ = self.store.discard(id).await;
            return Err(e.into());
        }
        Ok(id)
    }

    /// What the session has, if it is one of this repository's.
    pub(super) async fn upload_length(
        &self,
        repo: &RepositoryName,
        id: UploadId,
    ) -> Result<u64, Fault> {
        let unknown =
            || Fault::new(Code::BlobUploadUnknown, format!("no upload {id} here: begin a new one"));
        let text = self.store.read(&keys::upload(id), 4096).await?.ok_or_else(unknown)?;
        let doc: serde_json::Value = serde_json::from_slice(&text).map_err(|_| unknown())?;
        if doc["repository"] != repo.as_str() {
            return Err(unknown());
        }
        self.store.uploaded(id).await?.ok_or_else(unknown)
    }

    /// Adds what `body` brings. `from` is where the client says it begins,
    /// `length` how much it says it is.
    ///
    /// # Errors
    /// 416 when it begins elsewhere than the session ends.
    pub(super) async fn append<S, E>(
        &self,
        id: UploadId,
        from: Option<u64>,
        length: Option<u64>,
        algorithm: Algorithm,
        body: S,
    ) -> Result<u64, Fault>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin + Send,
        E: std::fmt::Display,
    {
        let mut to = self.store.append(id).await?;
        let before = to.length();
        if from.is_some_and(|f| f != before) {
            return Err(Fault::new(
                Code::BlobUploadInvalid,
                format!("the upload has {before} bytes, so the next chunk begins at {before}"),
            )
            .status(416)
            .header("Range", range_of(before)));
        }
        let known = self.hashes.lock().ok().and_then(|mut h| h.remove(&id));
        let hasher = match known {
            Some((at, h)) if at == before && h.algorithm() == algorithm => Some(h),
            _ if before == 0 => Some(Hasher::new(algorithm)),
            _ => None,
        };
        let exact = hasher.is_some();
        let start = hasher.unwrap_or_else(|| Hasher::new(algorithm));
        let end = before
            .checked_add(length.unwrap_or(0))
            .ok_or_else(|| Fault::new(Code::SizeInvalid, "more bytes than a blob can have"))?;
        let received = self.receive(to.as_mut(), body, start).await;
        let received = match to.flush().await {
            Ok(()) => received,
            Err(e) => Err(e.into()),
        };
        let done = received.and_then(|h| match length {
            Some(_) if to.length() != end => Err(Fault::new(
                Code::SizeInvalid,
                format!("{} bytes came, {} were announced", to.length() - before, end - before),
            )),
            _ => Ok(h),
        });
        match done {
            Ok(h) => {
                if exact && let Ok(mut all) = self.hashes.lock() {
                    if all.len() >= HASHES {
                        all.clear();
                    }
                    all.insert(id, (to.length(), h));
                }
                Ok(to.length())
            }
            Err(f) => {
                // A body that broke off keeps what came: the client asks for
                // the state and goes on. Anything else is as if it never was,
                // so that a full disk has its room again.
                if f.code != Code::BlobUploadInvalid {
                    to.cut(before).await?;
                }
                Err(f)
            }
        }
    }

    /// One batch is written while the next one is received.
    async fn receive<S, E>(
        &self,
        to: &mut dyn Append,
        body: S,
        mut hasher: Hasher,
    ) -> Result<Hasher, Fault>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin + Send,
        E: std::fmt::Display,
    {
        let mut body = body.fuse();
        let (mut this, mut other) = (BytesMut::new(), BytesMut::new());
        let mut batch = self.gather(&mut body, &mut this).await?;
        while !batch.is_empty() {
            std::mem::swap(&mut this, &mut other);
            let bytes = batch.len() as u64;
            let (written, next) =
                tokio::join!(to.write(vec![batch], hasher), self.gather(&mut body, &mut this));
            hasher = written?;
            Counters::add(&self.counters.bytes_in, bytes);
            batch = next?;
        }
        Ok(hasher)
    }

    /// About 1 MiB of the body, or what is left of it. Copied into one of two
    /// buffers that are used in turn: so the frames are let go at once, and
    /// the connection reads into the same memory again. Kept instead, each
    /// made it ask the kernel for fresh pages, which cost more than the rest.
    async fn gather<S, E>(&self, body: &mut S, into: &mut BytesMut) -> Result<Bytes, Fault>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin + Send,
        E: std::fmt::Display,
    {
        into.reserve(CHUNK + CHUNK / 2);
        while into.len() < CHUNK {
            let idle = self.settings.idle;
            match tokio::time::timeout(idle, body.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(b))) => into.extend_from_slice(&b),
                Ok(Some(Err(e))) => {
                    return Err(Fault::new(
                        Code::BlobUploadInvalid,
                        format!("the body broke off: {e}; ask for the state and go on from there"),
                    ));
                }
                Err(_) => {
                    return Err(Fault::new(
                        Code::BlobUploadInvalid,
                        format!(
                            "nothing came for {} s; ask for the state and go on from there",
                            idle.as_secs()
                        ),
                    )
                    .status(408));
                }
            }
        }
        Ok(into.split().freeze())
    }

    /// The upload becomes the blob `digest` of `repo`, durably; returns its
    /// bytes. With another digest than it has, it is given up.
    pub(super) async fn finish_upload(
        self: &Arc<Self>,
        repo: &RepositoryName,
        id: UploadId,
        digest: &Digest,
    ) -> Result<u64, Fault> {
        // To its end, also when the client goes away.
        let (me, repo, digest) = (self.clone(), repo.clone(), digest.clone());
        tokio::spawn(async move { me.finish(&repo, id, &digest).await })
            .await
            .unwrap_or_else(|e| Err(Fault::new(Code::Unknown, e.to_string())))
    }

    async fn finish(
        &self,
        repo: &RepositoryName,
        id: UploadId,
        digest: &Digest,
    ) -> Result<u64, Fault> {
        // Held to the end: no other request writes any more.
        let held = self.store.append(id).await?;
        let length = held.length();
        let known = self.hashes.lock().ok().and_then(|mut h| h.remove(&id));
        let real = match known {
            Some((at, h)) if at == length && h.algorithm() == digest.algorithm() => h.finish(),
            _ => self.rehash(id, digest.algorithm()).await?,
        };
        if real != *digest {
            self.give_up(id).await?;
            return Err(Fault::new(
                Code::DigestInvalid,
                format!(
                    "the {length} bytes that came are {real}, not {digest}; the upload is given up"
                ),
            ));
        }
        // The reference first, then what it refers to: see the module's page.
        let placed = match self.link(repo, digest).await {
            Ok(()) => self.store.place(id, digest, length).await,
            Err(e) => Err(e),
        };
        if let Err(e) = placed {
            if matches!(e, super::storage::StorageError::Full { .. }) {
                self.give_up(id).await?;
            }
            return Err(e.into());
        }
        self.store.remove(&keys::upload(id)).await?;
        Ok(length)
    }

    async fn rehash(&self, id: UploadId, algorithm: Algorithm) -> Result<Digest, Fault> {
        let mut stream = self.store.read_upload(id).await?;
        let mut hasher = Hasher::new(algorithm);
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            hasher = tokio::task::spawn_blocking(move || {
                hasher.update(&piece);
                hasher
            })
            .await
            .map_err(|e| Fault::new(Code::Unknown, e.to_string()))?;
        }
        Ok(hasher.finish())
    }

    /// Forgets a session and its bytes.
    pub(super) async fn give_up(&self, id: UploadId) -> Result<(), Fault> {
        if let Ok(mut h) = self.hashes.lock() {
            h.remove(&id);
        }
        self.store.discard(id).await?;
        self.store.remove(&keys::upload(id)).await?;
        Ok(())
    }
}

/// `Range` as the specification writes it for uploads: inclusive, without a
/// unit. An empty upload is `0-0`, as clients expect it.
pub(super) fn range_of(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}
