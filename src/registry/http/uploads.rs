//! Pushing blobs: end-4a (POST, then PUT), end-4b (POST alone), end-5
//! (PATCH), end-6 (PUT), end-11 (mount), end-13 (state), and cancelling.

use super::Call;
use super::answer::Answer;
use super::range::content_range;
use crate::registry::digest::{Algorithm, Digest};
use crate::registry::error::{Code, Fault};
use crate::registry::name::{RepositoryName, UploadId};
use crate::registry::seams::{Deed, Seen, Verb};
use crate::registry::upload::range_of;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;

/// Repositories looked into for a mount that names none.
const LOOKED_INTO: usize = 256;

fn accepted(name: &RepositoryName, id: UploadId, length: u64) -> Answer {
    Answer::new(StatusCode::ACCEPTED)
        .header("location", format!("/v2/{name}/blobs/uploads/{id}"))
        .header("range", range_of(length))
        .header("docker-upload-uuid", id)
        .header("content-length", 0)
}

fn created(name: &RepositoryName, digest: &Digest) -> Response {
    Answer::new(StatusCode::CREATED)
        .header("location", format!("/v2/{name}/blobs/{digest}"))
        .header("docker-content-digest", digest)
        .header("content-length", 0)
        .done()
}

fn tell(call: &Call<'_>, deed: Deed, name: &RepositoryName, digest: &Digest, bytes: u64) {
    call.registry.tell(Seen {
        manifest: false,
        deed,
        repository: name.clone(),
        reference: digest.to_string(),
        digest: Some(digest.clone()),
        bytes,
        caller: call.caller.name.clone(),
    });
}

fn content_length(call: &Call<'_>) -> Result<Option<u64>, Fault> {
    call.header("content-length")
        .map(|l| {
            l.parse().map_err(|_| Fault::new(Code::SizeInvalid, "Content-Length is no number"))
        })
        .transpose()
}

pub(super) async fn post(
    call: &Call<'_>,
    name: &RepositoryName,
    body: Body,
) -> Result<Response, Fault> {
    let _writing = call.registry.writing()?;
    if let Some(digest) = call.query.digest("mount")? {
        if let Some(from) = mount(call, name, &digest).await? {
            let bytes = call.registry.store.blob(&digest).await?.map_or(0, |(s, _)| s.size);
            tell(call, Deed::Mounted(from), name, &digest, bytes);
            return Ok(created(name, &digest));
        }
        // "MUST return 202": an ordinary upload.
        let id = call.registry.begin_upload(name).await?;
        return Ok(accepted(name, id, 0).done());
    }
    let digest = call.query.digest("digest")?;
    let id = call.registry.begin_upload(name).await?;
    let Some(digest) = digest else { return Ok(accepted(name, id, 0).done()) };
    let length = content_length(call)?;
    let got = call
        .registry
        .append(id, Some(0), length, digest.algorithm(), body.into_data_stream())
        .await;
    let bytes = match got {
        Ok(_) => call.registry.finish_upload(name, id, &digest).await?,
        Err(f) => {
            // Nobody was told of this session.
            call.registry.give_up(id).await?;
            return Err(f);
        }
    };
    tell(call, Deed::Pushed, name, &digest, bytes);
    Ok(created(name, &digest))
}

/// From where it was mounted, or `None`.
async fn mount(
    call: &Call<'_>,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<RepositoryName>, Fault> {
    let r = call.registry;
    if let Some(from) = call.query.get("from") {
        let Ok(from) = from.parse::<RepositoryName>() else { return Ok(None) };
        if !call.may(name, Verb::Mount { from: from.clone() }).await {
            return Ok(None);
        }
        return Ok(r.mount(name, &from, digest).await?.map(|_| from));
    }
    if r.use_blob(name, digest).await?.is_some() {
        return Ok(Some(name.clone()));
    }
    // Without `from` any will do that the caller may read.
    if r.store.blob(digest).await?.is_none() {
        return Ok(None);
    }
    for from in r.repositories().await?.into_iter().take(LOOKED_INTO) {
        let there = r.use_blob(&from, digest).await?.is_some();
        if there
            && call.may(name, Verb::Mount { from: from.clone() }).await
            && r.mount(name, &from, digest).await?.is_some()
        {
            return Ok(Some(from));
        }
    }
    Ok(None)
}

pub(super) async fn state(
    call: &Call<'_>,
    name: &RepositoryName,
    id: UploadId,
) -> Result<Response, Fault> {
    let length = call.registry.upload_length(name, id).await?;
    Ok(Answer::new(StatusCode::NO_CONTENT)
        .header("location", format!("/v2/{name}/blobs/uploads/{id}"))
        .header("range", range_of(length))
        .header("docker-upload-uuid", id)
        .done())
}

/// Where the client says that its chunk begins, and how long it is.
fn announced(call: &Call<'_>) -> Result<(Option<u64>, Option<u64>), Fault> {
    let length = content_length(call)?;
    let Some(text) = call.header("content-range") else { return Ok((None, length)) };
    let range = content_range(text).ok_or_else(|| {
        Fault::new(
            Code::BlobUploadInvalid,
            format!("Content-Range {text:?} must be <first>-<last>, both inclusive"),
        )
        .status(416)
    })?;
    let span = range.end - range.start;
    if length.is_some_and(|l| l != span) {
        return Err(Fault::new(
            Code::SizeInvalid,
            format!("Content-Range spans {span} bytes, Content-Length says otherwise"),
        ));
    }
    Ok((Some(range.start), Some(span)))
}

pub(super) async fn patch(
    call: &Call<'_>,
    name: &RepositoryName,
    id: UploadId,
    body: Body,
) -> Result<Response, Fault> {
    let _writing = call.registry.writing()?;
    call.registry.upload_length(name, id).await?;
    let (from, length) = announced(call)?;
    let have = call
        .registry
        .append(id, from, length, Algorithm::Sha256, body.into_data_stream())
        .await
        .map_err(|f| at_upload(f, name, id))?;
    Ok(accepted(name, id, have).done())
}

/// "A 416 tells where to go on": the place goes with the range.
fn at_upload(f: Fault, name: &RepositoryName, id: UploadId) -> Fault {
    if f.status != 416 {
        return f;
    }
    f.header("Location", format!("/v2/{name}/blobs/uploads/{id}"))
}

pub(super) async fn put(
    call: &Call<'_>,
    name: &RepositoryName,
    id: UploadId,
    body: Body,
) -> Result<Response, Fault> {
    let _writing = call.registry.writing()?;
    let before = call.registry.upload_length(name, id).await?;
    let digest = call.query.digest("digest")?.ok_or_else(|| {
        Fault::new(Code::DigestInvalid, "the query must say digest=<digest> of the whole blob")
    })?;
    let (from, length) = announced(call)?;
    if length != Some(0) || from.is_some() {
        let algorithm = if before == 0 { digest.algorithm() } else { Algorithm::Sha256 };
        call.registry
            .append(id, from, length, algorithm, body.into_data_stream())
            .await
            .map_err(|f| at_upload(f, name, id))?;
    }
    let bytes = call.registry.finish_upload(name, id, &digest).await?;
    tell(call, Deed::Pushed, name, &digest, bytes);
    Ok(created(name, &digest))
}

pub(super) async fn cancel(
    call: &Call<'_>,
    name: &RepositoryName,
    id: UploadId,
) -> Result<Response, Fault> {
    call.registry.upload_length(name, id).await?;
    call.registry.give_up(id).await?;
    Ok(Answer::new(StatusCode::NO_CONTENT).done())
}
