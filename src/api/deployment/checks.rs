//! `POST /v1/registry/checks`: somebody says that an image passed or failed a
//! check. Signed, kept beside the image, and asked for by promotion's rules.

use super::Desk;
use super::promote::image;
use super::visitor::Visitor;
use crate::api::Problem;
use crate::api::problem::Json;
use crate::auth::rights::Right;
use crate::ingest::check::{Checked, check_name};
use crate::model::{NewEvent, Outcome, Time};
use crate::store::Batch;
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What was checked, and how it ended.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// `NAME:TAG` or `NAME@DIGEST`.
    #[schema(
        max_length = 255,
        example = "staging/web:1",
        pattern = "^[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))$"
    )]
    pub image: String,
    /// Name of the check.
    #[schema(max_length = 64, pattern = "^[a-z0-9._-]+$", example = "smoke")]
    pub check: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was done, or why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(example = "answers on port 80")]
    pub note: String,
}

/// Says that an image passed or failed a check.
#[utoipa::path(
    post,
    path = "/v1/registry/checks",
    tag = "registry",
    request_body(content = CheckRequest),
    responses((status = 201, description = "What was signed", body = Checked))
)]
pub(super) async fn add(
    visitor: Visitor,
    State(desk): State<Arc<Desk>>,
    Json(r): Json<CheckRequest>,
) -> Result<(StatusCode, Out<Checked>), Problem> {
    let (name, reference) = image(&r.image).map_err(|p| p.at("/image"))?;
    check_name(&r.check).map_err(|e| Problem::bad(e.to_string()).at("/check"))?;
    // Who may move images up may also say what they are worth.
    visitor.needs(&desk, name.as_str(), Right::Promote).await?;
    let digest = desk.registry.digest_of(&name, &reference).await?;
    let digest = digest.ok_or_else(|| Problem::not_found(format!("{} is not here", r.image)))?;
    let other = |e| Problem::bad(format!("{digest}: {e}")).at("/image");
    let checked = Checked {
        check: r.check,
        digest: digest.to_string().parse().map_err(other)?,
        passed: r.passed,
        by: visitor.0.name(),
        at: Time::now(),
        note: r.note.chars().filter(|c| !c.is_control()).take(500).collect(),
    };
    let outcome = if checked.passed { Outcome::Ok } else { Outcome::Failed };
    let event = NewEvent::new(checked.at, &checked.by, "image.check", outcome)
        .with("image", &r.image)
        .with("digest", &digest)
        .with("check", &checked.check)
        .with("note", &checked.note);
    // First the record: what is signed must be found in it.
    desk.book.commit(Batch::new().event(event)).await?;
    let kept = desk.pipeline.attest_check(&checked, name.as_str()).await;
    kept.map_err(Problem::internal)?;
    Ok((StatusCode::CREATED, Out(checked)))
}
