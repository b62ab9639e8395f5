//! `/v1/operations`.

use super::filter::OfNode;
use super::{Caller, Ctx, List, Problem, demand};
use crate::auth::Role;
use crate::model::{Operation, OperationId};
use axum::Json as Out;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use std::sync::Arc;

pub(super) async fn list(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Query(f): Query<OfNode>,
) -> Result<Out<List<Operation>>, Problem> {
    let v = ctx.rack.view();
    let items = f.newest(&v.inventory, v.operations.values(), |o| o.node.as_ref())?;
    Ok(Out(List { items }))
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
    demand(&*ctx, &caller, Role::Operate, "cancelling").await?;
    ctx.rack.cancel(&parse(&id)?, &caller.name).await?;
    Ok(StatusCode::ACCEPTED)
}
