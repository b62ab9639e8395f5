//! `/v1/ingest`: from a folder or a git repository to an image in `staging/`;
//! `/v1/attestations`: what is signed about an image.

use super::Desk;
use crate::api::problem::{Path, Query, Whole};
use crate::api::{Caller, List, Problem, demand};
use crate::auth::Role;
use crate::ingest::context::ContextError;
use crate::ingest::context::git::Commit;
use crate::ingest::provenance::ARTIFACT_TYPE;
use crate::ingest::{Refused, Request, Run, Source};
use crate::registry::{Reference, RepositoryName};
use axum::Json as Out;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

/// Largest JSON request, in bytes.
const LARGEST: usize = 64 << 10;
/// Most of a log in one answer, in bytes.
const PIECE: u64 = 256 << 10;

/// What is wanted, in the query: the body is the folder as a tar, or nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Ask {
    /// Git repository, in place of a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<String>,
    /// Branch, tag or commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Folder in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What the sender calls the tar that is the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Commit that the tar is a copy of, as its sender says: all its digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// When that commit was made, in seconds since 1970.
    #[serde(default)]
    pub committed: u64,
    /// The folder differs from it.
    #[serde(default)]
    pub dirty: bool,
    /// Name below `staging/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Path of the Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// Stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Let the build use the network.
    #[serde(default)]
    pub network: bool,
}

/// Build arguments, as the JSON body of a request that names a git repository.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    /// Name to value; no secrets.
    #[serde(default)]
    pub arguments: BTreeMap<String, String>,
}

/// What is signed about an image.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Attestations {
    /// Of the image.
    pub digest: String,
    /// DSSE envelopes, each as text.
    pub envelopes: Vec<String>,
    /// The key this server signs with, PEM.
    pub public_key: String,
}

impl From<Refused> for Problem {
    fn from(r: Refused) -> Self {
        let status = match &r {
            Refused::Unknown(_) => StatusCode::NOT_FOUND,
            Refused::Over { .. } => StatusCode::CONFLICT,
            Refused::Queue(_) => StatusCode::TOO_MANY_REQUESTS,
            Refused::NoBuilder(_) | Refused::Closing | Refused::Keep(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refused::Network | Refused::Folder { .. } | Refused::Registry { .. } => {
                StatusCode::FORBIDDEN
            }
            Refused::Io { .. } | Refused::Key(_) | Refused::Settings(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            // It can be read, and is not possible.
            Refused::Invalid(_) | Refused::Source(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let p = Self::new(status, r.to_string());
        match field(&r) {
            Some(name) => p.at(name),
            None => p,
        }
    }
}

/// Which parameter a refusal is about, where it is one alone.
fn field(r: &Refused) -> Option<&'static str> {
    match r {
        Refused::Network => Some("network"),
        Refused::Invalid(i) => match i.what {
            "git address" => Some("git"),
            "git reference" => Some("reference"),
            "name of the source" | "image name" => Some("name"),
            "tag" => Some("tag"),
            "path of the Dockerfile" => Some("dockerfile"),
            "build argument" => Some("/arguments"),
            _ => None,
        },
        _ => None,
    }
}

/// Builds an image: the body is the folder as a tar, or with `git` its build arguments.
#[utoipa::path(
    post,
    path = "/v1/ingest",
    tag = "ingest",
    params(Ask),
    request_body(content((Vec<u8> = "application/x-tar"), (Arguments = "application/json"))),
    responses((status = 202, description = "The run, in the queue", body = Run))
)]
pub(super) async fn submit(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Query(ask): Query<Ask>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Out<Run>), Problem> {
    demand(&*desk, &caller, Role::Operate, "building an image").await?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|k| k.to_str().ok()).unwrap_or_default();
    let mut arguments = BTreeMap::new();
    let source = match (ask.git, kind) {
        (Some(url), _) => {
            let bytes = axum::body::to_bytes(body, LARGEST).await.map_err(|_| {
                let m = format!("the body has more than {LARGEST} bytes");
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, m)
            })?;
            if !bytes.is_empty() {
                let a: Arguments = crate::api::ask::read(&bytes)?;
                arguments = a.arguments;
            }
            let folder = ask.folder.map(Into::into);
            Source::Git { url, reference: ask.reference, folder }
        }
        (None, "application/x-tar") => {
            let stream = body.into_data_stream().map_err(std::io::Error::other);
            let label = ask.label.unwrap_or_else(|| "upload".into());
            let body = tokio_util::io::StreamReader::new(Box::pin(stream));
            let got = desk.pipeline.receive(&label, body).await;
            let got = got.map_err(unreadable)?;
            Source::Upload(match ask.commit {
                Some(id) => got
                    .of_commit(Commit { id, time: ask.committed, dirty: ask.dirty })
                    .map_err(|e| Problem::unfit(e.to_string()).at("commit"))?,
                None => got,
            })
        }
        (None, kind) => {
            let status = match kind {
                "application/json" => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            };
            let m = "send the folder as a tar (content-type application/x-tar), or name a \
                     repository with ?git=URL";
            return Err(Problem::new(status, m).at("git"));
        }
    };
    let request = Request {
        name: ask.name,
        tag: ask.tag,
        dockerfile: ask.dockerfile,
        target: ask.target,
        arguments,
        network: ask.network,
        ..Request::new(source, &caller.name)
    };
    let run = desk.pipeline.submit(request).await?;
    Ok((StatusCode::ACCEPTED, Out(run)))
}

/// Builds of images, newest first.
#[utoipa::path(
    get,
    path = "/v1/ingest",
    tag = "ingest",
    responses((status = 200, description = "Runs", body = List<Run>))
)]
pub(super) async fn list(
    _: Caller,
    State(desk): State<Arc<Desk>>,
) -> Result<Out<List<Run>>, Problem> {
    Ok(Out(List { items: desk.pipeline.list() }))
}

/// A body that is of the kind it should be, and cannot be used.
pub(super) fn unreadable(e: ContextError) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, e.to_string())
}

fn find(desk: &Desk, id: &str) -> Result<Run, Problem> {
    let unknown = || Problem::not_found(format!("there is no run {id:?}"));
    let id = id.parse().map_err(|_| unknown())?;
    desk.pipeline.get(&id).ok_or_else(unknown)
}

/// One build.
#[utoipa::path(
    get,
    path = "/v1/ingest/{id}",
    tag = "ingest",
    params(("id" = String, Path, description = "Run")),
    responses((status = 200, description = "The run", body = Run))
)]
pub(super) async fn show(
    _: Caller,
    State(desk): State<Arc<Desk>>,
    Path(id): Path<String>,
) -> Result<Out<Run>, Problem> {
    Ok(Out(find(&desk, &id)?))
}

/// Ends a build, or takes it out of the queue.
#[utoipa::path(
    delete,
    path = "/v1/ingest/{id}",
    tag = "ingest",
    params(("id" = String, Path, description = "Run")),
    responses((status = 204, description = "It ends"))
)]
pub(super) async fn cancel(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    demand(&*desk, &caller, Role::Operate, "cancelling a build").await?;
    let run = find(&desk, &id)?;
    desk.pipeline.cancel(&run.id, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where in a log.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct At {
    /// Bytes that came before.
    #[serde(default)]
    #[param(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991u64)]
    offset: Whole,
    /// In place of an offset: the last so many bytes.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991u64)]
    tail: Option<Whole>,
}

/// A piece of the log from `offset`, or its end; empty when there is no more yet.
#[utoipa::path(
    get,
    path = "/v1/ingest/{id}/log",
    tag = "ingest",
    params(("id" = String, Path, description = "Run"), At),
    responses((status = 200, description = "A piece of at most 256 KiB", body = Vec<u8>, content_type = "application/octet-stream"))
)]
pub(super) async fn log(
    _: Caller,
    State(desk): State<Arc<Desk>>,
    Path(id): Path<String>,
    Query(at): Query<At>,
) -> Result<Vec<u8>, Problem> {
    let path = find(&desk, &id)?.log;
    let read = move || -> std::io::Result<Vec<u8>> {
        let mut f = match std::fs::File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            f => f?,
        };
        let length = f.metadata()?.len();
        let last = at.tail.map(|t| length.saturating_sub(t.0.min(PIECE)));
        let from = last.unwrap_or(at.offset.0);
        // Where no file reaches, the system takes no offset either.
        if from >= length {
            return Ok(Vec::new());
        }
        f.seek(SeekFrom::Start(from))?;
        let mut piece = Vec::new();
        f.take(PIECE).read_to_end(&mut piece)?;
        Ok(piece)
    };
    let piece = tokio::task::spawn_blocking(read).await;
    let failed = |e: String| Problem::internal(format!("the log of {id}: {e}"));
    piece.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))
}

/// What is signed about an image.
#[utoipa::path(
    get,
    path = "/v1/attestations/{reference}",
    tag = "ingest",
    params((
        "reference" = String,
        Path,
        description = "REPOSITORY:TAG or REPOSITORY@DIGEST, slashes as they are",
        example = "staging/web:1",
        max_length = 255,
        pattern = "^[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))$"
    )),
    responses((status = 200, description = "Envelopes and the key", body = Attestations))
)]
pub(super) async fn attestations(
    _: Caller,
    State(desk): State<Arc<Desk>>,
    Path(reference): Path<String>,
) -> Result<Out<Attestations>, Problem> {
    let wrong = || {
        Problem::bad(format!("{reference:?} is neither REPOSITORY:TAG nor REPOSITORY@DIGEST"))
            .at("reference")
    };
    let parts = reference.split_once('@').or_else(|| reference.rsplit_once(':'));
    let (name, tag) = parts.ok_or_else(wrong)?;
    let name: RepositoryName = name.parse().map_err(|_| wrong())?;
    let tag: Reference = tag.parse().map_err(|_| wrong())?;
    let failed = |e: crate::registry::RegistryError| Problem::internal(e.to_string());
    let digest = desk.registry.digest_of(&name, &tag).await?;
    let digest =
        digest.ok_or_else(|| Problem::not_found(format!("there is no image {reference}")))?;
    let all = desk.registry.attached(&name, &digest, ARTIFACT_TYPE).await.map_err(failed)?;
    Ok(Out(Attestations {
        digest: digest.to_string(),
        envelopes: all.into_iter().map(|(_, b)| String::from_utf8_lossy(&b).into_owned()).collect(),
        public_key: desk.pipeline.verifying_key().to_pem(),
    }))
}
