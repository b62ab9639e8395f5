//! `/v1/builds`: the record of how each node came to be.

use super::ask::Whole;
use super::filter::{Limit, Paged, Part, node_of};
use super::problem::{Path, Query};
use super::{Caller, Ctx, Discovered, List, Problem};
use crate::lifecycle::explain::{Explanation, Scene, Stranger, explain};
use crate::lifecycle::usual::Usual;
use crate::model::{Build, BuildId, BuildOutcome, Name, Rendering, Time};
use crate::store::{Doc, EventQuery, kind};
use axum::Json as Out;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::io::SeekFrom;
use std::sync::{Arc, PoisonError};
use tokio::io::AsyncSeekExt as _;

/// Unknown machines that a story names: those heard last.
const STRANGERS: usize = 5;

/// Which builds; all conditions hold together.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Name or address of a node.
    node: Option<String>,
    /// How they ended.
    outcome: Option<BuildOutcome>,
    /// With this profile.
    profile: Option<Name>,
    /// With this image.
    image: Option<Name>,
    /// At most so many in one answer, 50 when left out, never more than 1000.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000_000)]
    limit: Option<Limit>,
    /// Where the last answer ended: its `next`.
    next: Option<String>,
}

/// Builds, newest first.
#[utoipa::path(
    get,
    path = "/v1/builds",
    tag = "builds",
    params(Wanted),
    responses((status = 200, description = "Builds", body = Paged<Build>))
)]
pub(super) async fn list(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Query(w): Query<Wanted>,
) -> Result<Out<Paged<Build>>, Problem> {
    let part = Part::of("builds", w.limit, w.next.as_deref(), 50)?;
    let v = ctx.rack.view();
    let node = node_of(w.node.as_deref(), &v.inventory, v.builds.values().map(|b| &b.node))?;
    let fits = |b: &&Arc<Build>| {
        node.as_ref().is_none_or(|n| b.node.as_str() == n)
            && w.outcome.is_none_or(|o| b.outcome == o)
            && w.profile.as_ref().is_none_or(|p| b.inputs.profile == *p)
            && w.image.as_ref().is_none_or(|i| b.inputs.image == *i)
    };
    let all = v.builds.values().rev().filter(fits);
    Ok(Out(part.take(all, |b| b.id.as_str(), |id, last| id < last)))
}

fn find(ctx: &Ctx, id: &str) -> Result<Arc<Build>, Problem> {
    let unknown = || Problem::not_found(format!("there is no build {id:?}"));
    let id: BuildId = id.parse().map_err(|_| unknown())?;
    ctx.rack.view().builds.get(&id).cloned().ok_or_else(unknown)
}

/// One build: inputs, phases with their times, outcome.
#[utoipa::path(
    get,
    path = "/v1/builds/{id}",
    tag = "builds",
    params(("id" = BuildId, Path, description = "Build")),
    responses((status = 200, description = "The build", body = Build))
)]
pub(super) async fn show(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
) -> Result<Out<Build>, Problem> {
    Ok(Out((*find(&ctx, &id)?).clone()))
}

/// A build's story on one timeline, and what it waits for.
#[utoipa::path(
    get,
    path = "/v1/builds/{id}/explain",
    tag = "builds",
    params(("id" = BuildId, Path, description = "Build")),
    responses((status = 200, description = "The story", body = Explanation))
)]
pub(super) async fn explain_build(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
) -> Result<Out<Explanation>, Problem> {
    let build = find(&ctx, &id)?;
    tell(&ctx, &build).await
}

/// The story of a node's last build.
#[utoipa::path(
    get,
    path = "/v1/nodes/{n}/explain",
    tag = "nodes",
    params(("n" = String, Path, description = "Name or address of the node", example = "node01")),
    responses((status = 200, description = "The story", body = Explanation))
)]
pub(super) async fn explain_node(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(n): Path<String>,
) -> Result<Out<Explanation>, Problem> {
    let (name, build) = {
        let v = ctx.rack.view();
        let node = v.inventory.find(&n)?;
        let build = node.status.build.as_ref().and_then(|b| v.builds.get(b)).cloned();
        (node.spec.name.clone(), build)
    };
    let none = || Problem::not_found(format!("{name} was never installed from here"));
    let build = build.ok_or_else(none)?;
    tell(&ctx, &build).await
}

async fn tell(ctx: &Ctx, build: &Build) -> Result<Out<Explanation>, Problem> {
    let usual = Usual::of(ctx.rack.view().builds.values());
    story(ctx, build, &usual, Time::now()).await.map(Out)
}

/// A build's story, from its node's events since it began.
pub async fn story(
    ctx: &Ctx,
    build: &Build,
    usual: &Usual,
    now: Time,
) -> Result<Explanation, Problem> {
    let q = EventQuery {
        node: Some(build.node.clone()),
        since: Some(build.started),
        limit: 5000,
        ..EventQuery::default()
    };
    let events = ctx.rack.store().query(&q).await?;
    let strangers: Vec<Stranger> = {
        let all = ctx.discovered.read().unwrap_or_else(PoisonError::into_inner);
        let of = |d: &Discovered| Stranger {
            last_seen: d.last_seen,
            text: format!("{} ({}), {} packets", d.mac, d.vendor, d.packets),
        };
        let mut heard: Vec<_> = all.values().filter(|d| d.last_seen >= build.started).collect();
        heard.sort_by_key(|d| std::cmp::Reverse(d.last_seen));
        heard.into_iter().take(STRANGERS).map(of).collect()
    };
    let node = ctx.rack.view().inventory.get(&build.node).cloned();
    let node = node.as_deref();
    Ok(explain(&Scene { build, node, events: &events, usual, strangers: &strangers, now }))
}

/// The installer's log of a build; empty when there is none.
#[utoipa::path(
    get,
    path = "/v1/builds/{id}/log",
    tag = "builds",
    params(("id" = BuildId, Path, description = "Build")),
    responses((status = 200, description = "The log", body = String, content_type = "text/plain"))
)]
pub(super) async fn log(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let build = find(&ctx, &id)?;
    text(&ctx.logs.join(format!("{}.log", build.id)), 0).await
}

/// From where on.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct From {
    /// Bytes that are known already: the sum of the lengths of earlier answers.
    #[serde(default)]
    #[param(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991u64)]
    offset: Whole,
}

/// What the machine wrote on its serial console during a build, as its BMC
/// passed it on (IPMI serial over LAN): lines of text, each with the seconds
/// since the build began, without colours and cursor movements. Empty when
/// there is none; the event `console.unavailable` says why.
#[utoipa::path(
    get,
    path = "/v1/builds/{id}/console",
    tag = "builds",
    params(("id" = BuildId, Path, description = "Build"), From),
    responses(
        (status = 200, description = "The console", body = String, content_type = "text/plain")
    )
)]
pub(super) async fn console(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
    Query(from): Query<From>,
) -> Result<Response, Problem> {
    let build = find(&ctx, &id)?;
    text(&ctx.logs.join(format!("{}.console", build.id)), from.offset.0).await
}

/// A file as text; nothing, when it is not there.
async fn text(path: &std::path::Path, offset: u64) -> Result<Response, Problem> {
    let text = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    let Ok(mut file) = tokio::fs::File::open(path).await else {
        return Ok((text, "").into_response());
    };
    let fault = |e: std::io::Error| Problem::internal(format!("{}: {e}", path.display()));
    let length = file.metadata().await.map_err(fault)?.len();
    file.seek(SeekFrom::Start(offset.min(length))).await.map_err(fault)?;
    let body = Body::from_stream(tokio_util::io::ReaderStream::new(file));
    Ok((text, body).into_response())
}

/// The texts that were rendered for a build, each with its time.
#[utoipa::path(
    get,
    path = "/v1/builds/{id}/files",
    tag = "builds",
    params(("id" = BuildId, Path, description = "Build")),
    responses((status = 200, description = "Texts, in order", body = List<Rendering>))
)]
pub(super) async fn files(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
) -> Result<Out<List<Rendering>>, Problem> {
    let build = find(&ctx, &id)?;
    let prefix = format!("{}/", build.id);
    let own = ctx.rack.store().list_below(kind::RENDERING, &prefix).await?;
    let read = |d: Doc| {
        let fault = |e| Problem::internal(format!("rendering {:?}: {e}", d.key));
        serde_json::from_value(d.value).map_err(fault)
    };
    Ok(Out(List { items: own.into_iter().map(read).collect::<Result<_, _>>()? }))
}
