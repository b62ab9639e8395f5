//! `/v1/builds`: the record of how each node came to be.

use super::filter::OfNode;
use super::{Caller, Ctx, List, Problem};
use crate::lifecycle::explain::{Explanation, explain};
use crate::model::{Build, BuildId, NodeName, Time};
use crate::store::{EventQuery, kind};
use axum::Json as Out;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::sync::Arc;

pub(super) async fn list(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Query(f): Query<OfNode>,
) -> Result<Out<List<Build>>, Problem> {
    let v = ctx.rack.view();
    let items = f.newest(&v.inventory, v.builds.values(), |b| Some(&b.node))?;
    Ok(Out(List { items }))
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
