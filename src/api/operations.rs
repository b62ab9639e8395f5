//! `/v1/operations`.

use super::filter::{Limit, Paged, Part, node_of};
use super::problem::{Path, Query};
use super::{Caller, Ctx, Problem, demand};
use crate::auth::Role;
use crate::model::{Operation, OperationId, OperationKind, OperationState};
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

/// Which operations; all conditions hold together.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Name or address of a node.
    node: Option<String>,
    /// In this state.
    state: Option<OperationState>,
    /// Of this kind.
    kind: Option<OperationKind>,
    /// At most so many in one answer, 50 when left out, never more than 1000.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000_000)]
    limit: Option<Limit>,
    /// Where the last answer ended: its `next`.
    next: Option<String>,
}

/// Operations, newest first.
#[utoipa::path(
    get,
    path = "/v1/operations",
    tag = "operations",
    params(Wanted),
    responses((status = 200, description = "Operations", body = Paged<Operation>))
)]
pub(super) async fn list(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Query(w): Query<Wanted>,
) -> Result<Out<Paged<Operation>>, Problem> {
    let part = Part::of("operations", w.limit, w.next.as_deref(), 50)?;
    let v = ctx.rack.view();
    let recorded = v.operations.values().filter_map(|o| o.node.as_ref());
    let node = node_of(w.node.as_deref(), &v.inventory, recorded)?;
    let fits = |o: &&Arc<Operation>| {
        node.as_ref().is_none_or(|n| o.node.as_ref().is_some_and(|m| m.as_str() == n))
            && w.state.is_none_or(|s| o.state == s)
            && w.kind.as_ref().is_none_or(|k| o.kind == *k)
    };
    let all = v.operations.values().rev().filter(fits);
    Ok(Out(part.take(all, |o| o.id.as_str(), |id, last| id < last)))
}

fn parse(id: &str) -> Result<OperationId, Problem> {
    id.parse().map_err(|_| Problem::not_found(format!("there is no operation {id:?}")))
}

/// One operation: phase, progress, what it waits for and until when.
#[utoipa::path(
    get,
    path = "/v1/operations/{id}",
    tag = "operations",
    params(("id" = OperationId, Path, description = "Operation")),
    responses((status = 200, description = "The operation as it now is", body = Operation))
)]
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

/// Gives an operation up; the machine is left as it is.
#[utoipa::path(
    delete,
    path = "/v1/operations/{id}",
    tag = "operations",
    params(("id" = OperationId, Path, description = "Operation")),
    responses((status = 202, description = "It ends"))
)]
pub(super) async fn cancel(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    demand(&*ctx, &caller, who_cancels(&ctx, &id), "cancelling").await?;
    ctx.rack.cancel(&parse(&id)?, &caller.name).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Who may begin such an operation may give it up.
pub(crate) fn who_cancels(ctx: &Ctx, id: &str) -> Role {
    let id = id.parse::<OperationId>().ok();
    let v = ctx.rack.view();
    match id.and_then(|id| v.operations.get(&id)).map(|o| o.kind.clone()) {
        Some(OperationKind::ImageBuild | OperationKind::Mirror) => Role::Operate,
        _ => Role::Controller,
    }
}
