//! What the pages order: the very functions behind the routes, so that a
//! button and a program are held to the same checks and leave the same record.

use super::ask::{Json, Path};
use super::install::{self, InstallRequest};
use super::power::{self, PowerRequest};
use super::{Caller, Ctx, Problem, operations};
use crate::model::Operation;
use axum::extract::State;
use std::sync::Arc;

/// Installs `node`.
///
/// # Errors
/// Those of `POST /v1/nodes/{n}/install`.
pub(crate) async fn install(
    ctx: &Arc<Ctx>,
    caller: &Caller,
    node: &str,
    what: InstallRequest,
) -> Result<Operation, Problem> {
    let (caller, node) = (caller.clone(), Path(node.to_owned()));
    let (_, o) = install::install(caller, State(ctx.clone()), node, Json(what)).await?;
    Ok(o.0)
}

/// Switches `node`: `on`, `off` or `cycle`.
///
/// # Errors
/// Those of `POST /v1/nodes/{n}/power`.
pub(crate) async fn power(
    ctx: &Arc<Ctx>,
    caller: &Caller,
    node: &str,
    command: &str,
) -> Result<Operation, Problem> {
    let (caller, node) = (caller.clone(), Path(node.to_owned()));
    let what = PowerRequest { command: command.to_owned() };
    let (_, o) = power::command(caller, State(ctx.clone()), node, Json(what)).await?;
    Ok(o.0)
}

/// Gives an operation up.
///
/// # Errors
/// Those of `DELETE /v1/operations/{id}`.
pub(crate) async fn cancel(ctx: &Arc<Ctx>, caller: &Caller, id: &str) -> Result<(), Problem> {
    operations::cancel(caller.clone(), State(ctx.clone()), Path(id.to_owned())).await.map(drop)
}
