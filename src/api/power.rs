//! `/v1/nodes/{n}/power`.

use super::problem::{Json, Path};
use super::{Caller, Ctx, Problem, demand};
use crate::auth::Role;
use crate::model::{NewEvent, Node, NodeName, Operation, OperationKind, Outcome, Time};
use crate::power::{PowerCommand, run};
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The body of a power command.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// `on`, `off` or `cycle`.
    #[schema(pattern = "^(on|off|cycle)$", example = "cycle")]
    pub command: String,
}

/// Power, as the BMC says.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownPower {
    /// Node.
    pub node: NodeName,
    /// `on` or `off`.
    #[schema(example = "on")]
    pub power: String,
}

fn find(ctx: &Ctx, n: &str) -> Result<Node, Problem> {
    Ok((**ctx.rack.view().inventory.find(n)?).clone())
}

/// Whether a node has power; asks its BMC.
#[utoipa::path(
    get,
    path = "/v1/nodes/{n}/power",
    tag = "nodes",
    params(("n" = String, Path, description = "Name or address of the node", example = "node01")),
    responses(
        (status = 200, description = "What the BMC says", body = ShownPower),
        (
            status = 409,
            description = "It has no BMC, or no password of it is stored",
            body = Problem,
            content_type = "application/problem+json"
        ),
        (
            status = 502,
            description = "The BMC does not answer, or refuses",
            body = Problem,
            content_type = "application/problem+json"
        )
    )
)]
pub(super) async fn status(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(n): Path<String>,
) -> Result<Out<ShownPower>, Problem> {
    let node = find(&ctx, &n)?;
    let bad_gateway = |e: String| Problem::new(StatusCode::BAD_GATEWAY, e);
    // Nothing was asked yet: it has no BMC, or no password is stored.
    let unknown = |e: String| Problem::new(StatusCode::CONFLICT, e);
    let bmc = ctx.bmcs.open(&node).await.map_err(unknown)?;
    let state = bmc.status().await.map_err(|e| bad_gateway(e.to_string()))?;
    Ok(Out(ShownPower { node: node.spec.name, power: state.to_string() }))
}

/// Switches a node on or off, or cycles it.
#[utoipa::path(
    post,
    path = "/v1/nodes/{n}/power",
    tag = "nodes",
    params(("n" = String, Path, description = "Name or address of the node", example = "node01")),
    request_body(content = PowerRequest, example = json!({ "command": "cycle" })),
    responses((status = 202, description = "An operation to watch", body = Operation))
)]
pub(super) async fn command(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(n): Path<String>,
    Json(r): Json<PowerRequest>,
) -> Result<(StatusCode, Out<Operation>), Problem> {
    demand(&*ctx, &caller, Role::Controller, "power").await?;
    let node = find(&ctx, &n)?;
    let name = node.spec.name.clone();
    let now = Time::now();
    let command = match r.command.parse::<PowerCommand>() {
        Ok(c) if c != PowerCommand::Status => c,
        _ => {
            let e = NewEvent::new(now, &caller.name, "power.refused", Outcome::Refused);
            ctx.rack.log(vec![e.node(&name).with("command", &r.command)]).await?;
            let m = format!("{:?} is not a power command: use on, off or cycle", r.command);
            return Err(Problem::bad(m).at("/command"));
        }
    };
    let action = format!("power.{command}");
    let asked = NewEvent::new(now, &caller.name, &action, Outcome::Info).node(&name);
    let o = ctx.rack.begin(OperationKind::Power, Some(&name), &caller.asker(), asked).await?;
    let (id, ctx2) = (o.id.clone(), ctx.clone());
    tokio::spawn(async move {
        let done = match ctx2.bmcs.open(&node).await {
            Ok(bmc) => run(&*bmc, command).await.map_err(|e| e.to_string()),
            Err(e) => Err(e),
        };
        let outcome = if done.is_ok() { Outcome::Ok } else { Outcome::Failed };
        let mut e = NewEvent::new(Time::now(), &caller.name, &action, outcome).node(&name);
        if let Err(why) = &done {
            e = e.with("reason", why);
        }
        let result = done.map(|s| json!({ "power": s.to_string() }));
        if let Err(e) = ctx2.rack.end(&id, result, e).await {
            tracing::error!(operation = %id, error = %e, "an operation's end is not written down");
        }
    });
    Ok((StatusCode::ACCEPTED, Out(o)))
}
