//! `/v1/builds`: the record of how each node came to be.

use super::{Caller, Ctx, List, Problem};
use crate::lifecycle::explain::{Explanation, explain};
use crate::model::{Build, BuildId, NodeName, Time};
use crate::store::{EventQuery, kind};
use axum::Json as Out;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

#[derive(Deserialize)]
pub(super) struct Filter {
    node: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Query(f): Query<Filter>,
) -> Result<Out<List<Build>>, Problem> {
    let v = ctx.rack.view();
    let has = |n: &str| v.builds.values().any(|b| b.node.as_str() == n);
    let name = match &f.node {
        None => String::new(),
        // A node that was removed keeps its record, under its name.
        Some(n) if has(n) => n.clone(),
        Some(n) => v.inventory.find(n)?.spec.name.to_string(),
    };
    let wanted = |b: &&Arc<Build>| name.is_empty() || b.node.as_str() == name;
    let newest = v.builds.values().rev().filter(wanted).take(f.limit.unwrap_or(50).min(1000));
    Ok(Out(List { items: newest.map(|b| (**b).clone()).collect() }))
}

fn find(ctx: &Ctx, id: &str) -> Result<Arc<Build>, Problem> {
    let unknown = || Problem::not_found(format!("there is no build {id:?}"));
    let id: BuildId = id.parse().map_err(|_| unknown())?;
    ctx.rack.view().builds.get(&id).cloned().ok_or_else(unknown)
}

pub(super) async fn show(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
) -> Result<Out<Build>, Problem> {
    Ok(Out((*find(&ctx, &id)?).clone()))
}

pub(super) async fn explain_build(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
) -> Result<Out<Explanation>, Problem> {
    let build = find(&ctx, &id)?;
    tell(&ctx, &build).await
}

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
    let node: NodeName = build.node.clone();
    let q = EventQuery {
        node: Some(node),
        since: Some(build.started),
        limit: 5000,
        ..EventQuery::default()
    };
    let events = ctx.rack.store().query(&q).await?;
    Ok(Out(explain(build.clone(), &events, Time::now())))
}

pub(super) async fn log(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let build = find(&ctx, &id)?;
    let path = ctx.logs.join(format!("{}.log", build.id));
    let text = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    match tokio::fs::File::open(&path).await {
        Ok(f) => {
            let body = Body::from_stream(tokio_util::io::ReaderStream::new(f));
            Ok((text, body).into_response())
        }
        Err(_) => Ok((text, "").into_response()),
    }
}

/// The texts that were rendered for a build, each with its time.
pub(super) async fn files(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
) -> Result<Out<List<Value>>, Problem> {
    let build = find(&ctx, &id)?;
    let prefix = format!("{}/", build.id);
    let all = ctx.rack.store().list(kind::RENDERING).await?;
    let own = all.into_iter().filter(|d| d.key.starts_with(&prefix)).map(|d| d.value);
    Ok(Out(List { items: own.collect() }))
}
