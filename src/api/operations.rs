//! `/v1/operations`.

use super::{Caller, Ctx, List, Problem, demand};
use crate::auth::Role;
use crate::model::{Operation, OperationId};
use axum::Json as Out;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
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
) -> Out<List<Operation>> {
    let v = ctx.rack.view();
    let wanted = |o: &&Arc<Operation>| {
        f.node.as_ref().is_none_or(|n| o.node.as_ref().is_some_and(|x| x.as_str() == n))
    };
    let newest = v.operations.values().rev().filter(wanted).take(f.limit.unwrap_or(50).min(500));
    Out(List { items: newest.map(|o| (**o).clone()).collect() })
}

fn parse(id: &str) -> Result<OperationId, Problem> {
    id.parse().map_err(|_| Problem::not_found(format!("there is no operation {id:?}")))
}

pub(super) async fn show(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
) -> Result<Out<Operation>, Problem> {
    let id = parse(&id)?;
    let v = ctx.rack.view();
    let o = v.operations.get(&id);
    o.map(|o| Out((**o).clone()))
        .ok_or_else(|| Problem::not_found(format!("there is no operation {id}")))
}

pub(super) async fn cancel(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    demand(&ctx, &caller, Role::Operate, "cancelling").await?;
    ctx.rack.cancel(&parse(&id)?, &caller.name).await?;
    Ok(StatusCode::ACCEPTED)
}
