//! Manifests (end-3, end-7, end-9), tags (end-8), referrers (end-12) and the
//! catalogue.

use super::Call;
use super::answer::Answer;
use super::path::encode;
use crate::registry::digest::Digest;
use crate::registry::error::{Code, Fault};
use crate::registry::manifest::{self, LARGEST};
use crate::registry::manifests::order;
use crate::registry::name::{Reference, RepositoryName};
use crate::registry::seams::{Counters, Deed, Seen};
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::json;

/// Entries in one answer, at most: the rest is behind its `Link`.
const PAGE: usize = 1000;
/// Descriptors in one list of referrers, at most: each may have annotations.
const REFERRERS: usize = 200;

fn seen(call: &Call<'_>, deed: Deed, name: &RepositoryName, r: &Reference) -> Seen {
    let digest = match r {
        Reference::Digest(d) => Some(d.clone()),
        Reference::Tag(_) => None,
    };
    Seen {
        manifest: true,
        deed,
        repository: name.clone(),
        reference: r.to_string(),
        digest,
        bytes: 0,
        caller: call.caller.name.clone(),
    }
}

pub(super) async fn get(
    call: &Call<'_>,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Response, Fault> {
    let m = call.registry.manifest(name, reference).await?;
    let tag = format!("\"{}\"", m.digest);
    let base = |s| Answer::new(s).header("docker-content-digest", &m.digest).header("etag", &tag);
    let none_match = call.header("if-none-match");
    if none_match.is_some_and(|t| t.split(',').any(|t| t.trim().trim_start_matches("W/") == tag)) {
        return Ok(base(StatusCode::NOT_MODIFIED).done());
    }
    let size = m.bytes.len() as u64;
    let answer = base(StatusCode::OK).header("content-type", &m.media_type);
    if call.head() {
        return Ok(answer.header("content-length", size).done());
    }
    Counters::add(&call.registry.counters.bytes_out, size);
    call.registry.tell(Seen {
        digest: Some(m.digest.clone()),
        bytes: size,
        ..seen(call, Deed::Pulled, name, reference)
    });
    Ok(answer.body(m.bytes.into(), size).done())
}

/// The body, if it is no larger than a manifest may be.
async fn whole(call: &Call<'_>, body: Body) -> Result<Bytes, Fault> {
    let too_large = || {
        Fault::new(Code::SizeInvalid, format!("a manifest has at most {LARGEST} bytes")).status(413)
    };
    let announced = call.header("content-length").and_then(|l| l.parse::<u64>().ok());
    if announced.is_some_and(|l| l > LARGEST) {
        return Err(too_large());
    }
    let (mut stream, mut all) = (body.into_data_stream(), Vec::new());
    loop {
        let next = tokio::time::timeout(call.registry.settings.idle, stream.next()).await;
        match next {
            Ok(None) => return Ok(all.into()),
            Ok(Some(Ok(b))) if (all.len() + b.len()) as u64 > LARGEST => return Err(too_large()),
            Ok(Some(Ok(b))) => all.extend_from_slice(&b),
            Ok(Some(Err(e))) => {
                return Err(Fault::new(Code::ManifestInvalid, format!("it broke off: {e}")));
            }
            Err(_) => {
                return Err(Fault::new(Code::ManifestInvalid, "it stopped coming").status(408));
            }
        }
    }
}

pub(super) async fn put(
    call: &Call<'_>,
    name: &RepositoryName,
    reference: &Reference,
    body: Body,
) -> Result<Response, Fault> {
    let writing = call.registry.writing()?;
    let bytes = whole(call, body).await?;
    let size = bytes.len() as u64;
    let declared = call.header("content-type").map(str::to_owned);
    let (me, n, r) = (call.registry.clone(), name.clone(), reference.clone());
    // To its end, also when the client goes away.
    let (digest, m) = tokio::spawn(async move {
        let _writing = writing;
        me.put_manifest(&n, &r, declared.as_deref(), bytes).await
    })
    .await
    .unwrap_or_else(|e| Err(Fault::new(Code::Unknown, e.to_string())))?;
    Counters::add(&call.registry.counters.bytes_in, size);
    let pushed = Seen {
        digest: Some(digest.clone()),
        bytes: size,
        ..seen(call, Deed::Pushed, name, reference)
    };
    if let Reference::Tag(t) = reference {
        let tagged = Seen { deed: Deed::Tagged(t.clone()), ..pushed.clone() };
        call.registry.tell(pushed);
        call.registry.tell(tagged);
    } else {
        call.registry.tell(pushed);
    }
    let mut answer = Answer::new(StatusCode::CREATED)
        .header("location", format!("/v2/{name}/manifests/{digest}"))
        .header("docker-content-digest", &digest)
        .header("content-length", 0);
    if let Some(s) = &m.subject {
        answer = answer.header("oci-subject", &s.digest);
    }
    Ok(answer.done())
}

pub(super) async fn delete(
    call: &Call<'_>,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Response, Fault> {
    let writing = call.registry.writing()?;
    let (me, n, r) = (call.registry.clone(), name.clone(), reference.clone());
    tokio::spawn(async move {
        let _writing = writing;
        me.delete_reference(&n, &r).await
    })
    .await
    .unwrap_or_else(|e| Err(Fault::new(Code::Unknown, e.to_string())))?;
    call.registry.tell(seen(call, Deed::Deleted, name, reference));
    Ok(Answer::new(StatusCode::ACCEPTED).header("content-length", 0).done())
}

/// One page of `all`, which is sorted by `key`; and the `Link` to the next.
fn page<K: Ord>(
    call: &Call<'_>,
    path: &str,
    all: Vec<String>,
    key: impl Fn(&str) -> K,
) -> Result<(Vec<String>, Option<String>), Fault> {
    let asked = call.query.n()?;
    let n = asked.unwrap_or(PAGE).min(PAGE);
    let after = call.query.get("last").filter(|l| !l.is_empty()).map(&key);
    let mut rest = all.into_iter().filter(|t| after.as_ref().is_none_or(|a| key(t) > *a));
    let shown: Vec<String> = rest.by_ref().take(n).collect();
    // "When n is zero, this endpoint MUST return an empty list, and MUST NOT
    // include a Link header."
    let link = shown
        .last()
        .filter(|_| rest.next().is_some())
        .map(|l| format!("<{path}?n={n}&last={}>; rel=\"next\"", encode(l)));
    Ok((shown, link))
}

fn listed(answer: serde_json::Value, link: Option<String>) -> Response {
    let a = Answer::new(StatusCode::OK).json(&answer);
    match link {
        Some(l) => a.header("link", l).done(),
        None => a.done(),
    }
}

pub(super) async fn tags(call: &Call<'_>, name: &RepositoryName) -> Result<Response, Fault> {
    let all = call.registry.tags(name).await?;
    let (tags, link) = page(call, &format!("/v2/{name}/tags/list"), all, order)?;
    Ok(listed(json!({ "name": name.as_str(), "tags": tags }), link))
}

pub(super) async fn catalog(call: &Call<'_>) -> Result<Response, Fault> {
    let all = call.registry.repositories().await?.iter().map(ToString::to_string).collect();
    let (names, link) = page(call, "/v2/_catalog", all, str::to_owned)?;
    Ok(listed(json!({ "repositories": names }), link))
}

pub(super) async fn referrers(
    call: &Call<'_>,
    name: &RepositoryName,
    subject: &Digest,
) -> Result<Response, Fault> {
    let kind = call.query.get("artifactType").filter(|t| !t.is_empty());
    let last = call.query.get("last").and_then(|l| l.parse::<Digest>().ok()).map(|d| d.dashed());
    let (found, more) =
        call.registry.referrers(name, subject, kind, last.as_deref(), REFERRERS).await?;
    let mut answer = Answer::new(StatusCode::OK);
    if let Some(d) = found.last().filter(|_| more) {
        let kind = kind.map(|k| format!("artifactType={}&", encode(k))).unwrap_or_default();
        let to =
            format!("/v2/{name}/referrers/{subject}?{kind}last={}", encode(&d.digest.to_string()));
        answer = answer.header("link", format!("<{to}>; rel=\"next\""));
    }
    if kind.is_some() {
        answer = answer.header("oci-filters-applied", "artifactType");
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": found,
    });
    Ok(answer.typed_json(&index, manifest::OCI_INDEX).done())
}
