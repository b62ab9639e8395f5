//! `/v1/bases`: the images that builds start from: built from the local
//! packages, or taken from a file or another registry.

use super::Desk;
use super::ingest::unreadable;
use crate::api::problem::{Json, Query};
use crate::api::{Caller, Problem, demand};
use crate::auth::Role;
use crate::ingest::{Refused, Run};
use crate::model::Invalid;
use axum::Json as Out;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A base image to be made.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BaseRequest {
    /// `debian:12` or `debian:13`.
    #[schema(pattern = "^debian:1[23]$", example = "debian:12")]
    pub image: String,
}

/// An image to be taken, in the query. Without `from` the body is the image: an
/// OCI archive, or what `docker save` writes, also compressed with gzip.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportAsk {
    /// What Dockerfiles call it: `alpine:3.20`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the sender calls the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Image in another registry, in place of a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Builds a base image from the local packages.
#[utoipa::path(
    post,
    path = "/v1/bases",
    tag = "bases",
    request_body(content = BaseRequest),
    responses((status = 202, description = "The run, in the queue", body = Run))
)]
pub(super) async fn build(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Json(r): Json<BaseRequest>,
) -> Result<(StatusCode, Out<Run>), Problem> {
    demand(&*desk, &caller, Role::Operate, "making a base image").await?;
    let run = desk.pipeline.base_build(&r.image, &caller.name).await;
    let run = run.map_err(|e| unfit(e, "/image"))?;
    Ok((StatusCode::ACCEPTED, Out(run)))
}

/// Takes a base image.
#[utoipa::path(
    post,
    path = "/v1/bases/import",
    tag = "bases",
    params(ImportAsk),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 202, description = "The run, in the queue", body = Run))
)]
pub(super) async fn import(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Query(ask): Query<ImportAsk>,
    body: Body,
) -> Result<(StatusCode, Out<Run>), Problem> {
    demand(&*desk, &caller, Role::Operate, "taking a base image").await?;
    let by = caller.name.as_str();
    let run = match (&ask.from, &ask.name) {
        (Some(from), name) => {
            let run = desk.pipeline.base_import_remote(from, name.as_deref(), by).await;
            let named = |i: &Invalid| name.as_ref().is_some_and(|n| n.starts_with(&i.value));
            run.map_err(|e| match &e {
                Refused::Invalid(i) if named(i) => unfit(e, "name"),
                _ => unfit(e, "from"),
            })?
        }
        (None, None) => {
            return Err(Problem::unfit("name=NAME:TAG is missing: what Dockerfiles will call it")
                .at("name"));
        }
        (None, Some(name)) => {
            let stream = body.into_data_stream().map_err(std::io::Error::other);
            let body = tokio_util::io::StreamReader::new(Box::pin(stream));
            let label = ask.label.as_deref().unwrap_or("upload");
            let got = desk.pipeline.receive_image(label, body).await;
            let upload = got.map_err(unreadable)?;
            let run = desk.pipeline.base_import_upload(upload, name, by).await;
            run.map_err(|e| unfit(e, "name"))?
        }
    };
    Ok((StatusCode::ACCEPTED, Out(run)))
}

/// A refusal; where it is one of what was asked for, `at` is at fault.
fn unfit(r: Refused, at: &str) -> Problem {
    match r {
        Refused::Invalid(_) => Problem::unfit(r.to_string()).at(at),
        r => r.into(),
    }
}
