//! Blobs: end-2 (pull) and end-10 (delete).

use super::Call;
use super::answer::Answer;
use crate::model::range::{Wanted, wanted};
use crate::registry::blobs::unknown;
use crate::registry::digest::Digest;
use crate::registry::error::{Code, Fault};
use crate::registry::name::RepositoryName;
use crate::registry::seams::{Counters, Deed, Seen};
use crate::registry::{Registry, storage::StorageError};
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use std::sync::Arc;

pub(super) async fn get(
    call: &Call<'_>,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Response, Fault> {
    let stat = call.registry.use_blob(name, digest).await?.ok_or_else(|| unknown(digest))?;
    let tag = format!("\"{digest}\"");
    let base = |status| {
        Answer::new(status)
            .header("docker-content-digest", digest)
            .header("etag", &tag)
            .header("accept-ranges", "bytes")
            .header("cache-control", "private, max-age=31536000, immutable")
    };
    let none_match = call.header("if-none-match");
    if none_match.is_some_and(|t| t.split(',').any(|t| t.trim().trim_start_matches("W/") == tag)) {
        return Ok(base(StatusCode::NOT_MODIFIED).done());
    }
    // RFC 9110 §13.1.5: another ETag means that the client has other content.
    let same = call.header("if-range").is_none_or(|t| t == tag);
    let asked = call.header("range").filter(|_| same);
    let (status, range) = match wanted(asked, stat.size) {
        Wanted::Whole => (StatusCode::OK, 0..stat.size),
        Wanted::Part(r) => (StatusCode::PARTIAL_CONTENT, r),
        Wanted::Impossible => {
            return Err(Fault::new(
                Code::SizeInvalid,
                format!("the blob has {} bytes, none of them in that range", stat.size),
            )
            .status(416)
            .header("Content-Range", format!("bytes */{}", stat.size)));
        }
    };
    let length = range.end - range.start;
    let mut answer = base(status).header("content-type", "application/octet-stream");
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, stat.size);
        answer = answer.header("content-range", text);
    }
    if call.head() {
        return Ok(answer.header("content-length", length).done());
    }
    let stream = call.registry.store.open(digest, range).await?.ok_or_else(|| unknown(digest))?;
    let seen = Seen {
        manifest: false,
        deed: Deed::Pulled,
        repository: name.clone(),
        reference: digest.to_string(),
        digest: Some(digest.clone()),
        bytes: length,
        caller: call.caller.name.clone(),
    };
    let counted = counted(call.registry.clone(), stream, seen);
    Ok(answer.body(Body::from_stream(counted), length).done())
}

/// Counts bytes as they go, and tells of the pull when all have gone.
fn counted(
    registry: Arc<Registry>,
    stream: impl Stream<Item = Result<Bytes, StorageError>> + Send + 'static,
    seen: Seen,
) -> impl Stream<Item = Result<Bytes, StorageError>> + Send + 'static {
    let mut left = seen.bytes;
    let mut seen = Some(seen);
    stream.map(move |piece| {
        match &piece {
            Ok(b) => {
                Counters::add(&registry.counters.bytes_out, b.len() as u64);
                left = left.saturating_sub(b.len() as u64);
                if left == 0
                    && let Some(s) = seen.take()
                {
                    registry.tell(s);
                }
            }
            Err(e) => tracing::error!(error = %e, "a blob could not be read to its end"),
        }
        piece
    })
}

pub(super) async fn delete(
    call: &Call<'_>,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Response, Fault> {
    let _writing = call.registry.writing()?;
    let (me, n, d) = (call.registry.clone(), name.clone(), digest.clone());
    // To its end, also when the client goes away: see `gc`.
    let bytes = tokio::spawn(async move { me.delete_blob(&n, &d).await })
        .await
        .unwrap_or_else(|e| Err(Fault::new(Code::Unknown, e.to_string())))?;
    call.registry.tell(Seen {
        manifest: false,
        deed: Deed::Deleted,
        repository: name.clone(),
        reference: digest.to_string(),
        digest: Some(digest.clone()),
        bytes,
        caller: call.caller.name.clone(),
    });
    Ok(Answer::new(StatusCode::ACCEPTED).header("content-length", 0).done())
}
