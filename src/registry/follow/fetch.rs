//! Takes a blob from the leader. It comes into an upload, as from a client,
//! whose id stands in a document under the blob's digest: so whoever is next,
//! this pass or one after a restart, goes on from the bytes that are here.

use super::Follower;
use super::leader::FollowError;
use crate::registry::error::Code;
use crate::registry::keys;
use crate::registry::manifest::Descriptor;
use crate::registry::name::{RepositoryName, UploadId};
use futures::StreamExt as _;
use reqwest::StatusCode;

impl Follower {
    /// Makes sure that `repo` has the blob.
    pub(super) async fn fetch(
        &self,
        repo: &RepositoryName,
        b: &Descriptor,
    ) -> Result<(), FollowError> {
        let r = &self.registry;
        if r.use_blob(repo, &b.digest).await?.is_some() {
            return Ok(());
        }
        if r.store.blob(&b.digest).await?.is_some() {
            return Ok(r.link(repo, &b.digest).await?);
        }
        let note = keys::fetch(&b.digest);
        let (id, have) = self.session(repo, b, &note).await?;
        if have < b.size && !self.bring(repo, b, id, have).await? {
            r.give_up(id).await?;
            r.store.remove(&note).await?;
            return Ok(());
        }
        let finished = r.finish_upload(repo, id, &b.digest).await;
        // Placed, or given up: either way that upload is no more.
        r.store.remove(&note).await?;
        match finished {
            Ok(_) => self.progress.count(|s| s.blobs += 1),
            Err(f) if f.code == Code::DigestInvalid => {
                let m = format!("{} sent wrong bytes: {}", self.leader.name(), f.message);
                return Err(FollowError::Content(m));
            }
            Err(f) => return Err(f.into()),
        }
        Ok(())
    }

    /// The upload under way, with its length; or a new one.
    async fn session(
        &self,
        repo: &RepositoryName,
        b: &Descriptor,
        note: &str,
    ) -> Result<(UploadId, u64), FollowError> {
        let r = &self.registry;
        if let Some(text) = r.store.read(note, 4096).await? {
            let text = String::from_utf8_lossy(&text).into_owned();
            let (of, id) = text.split_once(' ').unwrap_or_default();
            if let (Ok(of), Ok(id)) = (of.parse::<RepositoryName>(), id.parse::<UploadId>())
                && let Ok(have) = r.upload_length(&of, id).await
            {
                if of == *repo && have <= b.size {
                    self.progress.count(|s| s.resumed_bytes += have);
                    return Ok((id, have));
                }
                r.give_up(id).await?;
            }
        }
        let id = r.begin_upload(repo).await?;
        r.store.write(note, format!("{repo} {id}").into()).await?;
        Ok((id, 0))
    }

    /// Brings the rest of a blob; false when the leader has not got it and
    /// need not have it.
    async fn bring(
        &self,
        repo: &RepositoryName,
        b: &Descriptor,
        id: UploadId,
        have: u64,
    ) -> Result<bool, FollowError> {
        let wrong = |why: String| {
            FollowError::Content(format!("{}: blob {}: {why}", self.leader.name(), b.digest))
        };
        let Some(answer) = self.leader.blob(repo, &b.digest, have).await? else {
            if b.may_be_elsewhere() {
                return Ok(false);
            }
            return Err(wrong("it is not there, although a manifest names it".into()));
        };
        let begins = answer.headers().get("content-range").and_then(|v| v.to_str().ok());
        let begins: Option<u64> =
            begins.and_then(|v| v.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
        // One that knows no ranges sends all of it: what is here is skipped.
        let skip = match (answer.status(), begins) {
            (StatusCode::PARTIAL_CONTENT, Some(at)) if at == have => 0,
            (StatusCode::OK, _) => have,
            (s, _) => return Err(wrong(format!("{s} instead of its bytes from {have} on"))),
        };
        let left = b.size - have;
        if answer.content_length().is_some_and(|l| l != left + skip) {
            return Err(wrong(format!("its length is not the {} bytes of the manifest", b.size)));
        }
        let way = self.progress.fetching(repo.as_str(), &b.digest, have, b.size);
        let (mut skip, mut left) = (skip, left);
        let body = answer.bytes_stream().map(|piece| {
            let mut piece = piece.map_err(|e| e.to_string())?;
            let over = skip.min(piece.len() as u64);
            skip -= over;
            let piece = piece.split_off(usize::try_from(over).unwrap_or(piece.len()));
            left = left
                .checked_sub(piece.len() as u64)
                .ok_or_else(|| "more bytes than the manifest says".to_owned())?;
            way.came(piece.len() as u64);
            Ok::<_, String>(piece)
        });
        let body = std::pin::pin!(body);
        let taken = self.registry.append(id, Some(have), None, b.digest.algorithm(), body).await;
        match taken {
            Ok(n) if n == b.size => Ok(true),
            Ok(n) => {
                Err(wrong(format!("{n} of {} bytes came; the rest is asked for soon", b.size)))
            }
            Err(f) if f.code == Code::BlobUploadInvalid => {
                Err(wrong(format!("{}; what came is kept", f.message)))
            }
            Err(f) => Err(f.into()),
        }
    }
}
