//! `POST /v1/installs`: many nodes in one call. One operation answers for all
//! of them; each node's install is one of its own, which names that one as
//! its `parent`.

use super::ask::Json;
use super::choice::choose;
use super::install::{InstallRequest, order, ordered};
use super::{Caller, Ctx, Problem, demand};
use crate::auth::Role;
use crate::lifecycle::LifeError;
use crate::lifecycle::rollout::{Next, Rollout, What};
use crate::model::{Asker, NodeName, Operation, OperationId};
use crate::store::StoreError;
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Nodes in one call.
const MOST: usize = 1000;
/// How many are installed at once when nothing is said.
const AT_ONCE: usize = 8;
/// How soon it is looked again where no event says so.
const PACE: Duration = Duration::from_secs(2);

/// Nodes to install.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallMany {
    /// Names or addresses, 1 to 1000, in the order they are begun in.
    #[schema(min_items = 1, max_items = 1000)]
    pub nodes: Vec<String>,
    /// Profile.
    #[serde(rename = "type", alias = "profile")]
    pub profile: String,
    /// Image; the configured one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Mirror, as for one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// How many at once; 8 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub at_once: Option<usize>,
    /// After how many that failed no other is begun; all are tried when left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub stop_after: Option<usize>,
}

fn within(name: &str, n: usize) -> Result<usize, Problem> {
    if (1..=MOST).contains(&n) {
        return Ok(n);
    }
    Err(Problem::unfit(format!("{name}: {n} is not possible; use 1 to {MOST}"))
        .at(format!("/{name}")))
}

/// Each node once, by its name; every fault is found before any is begun.
async fn checked(
    ctx: &Arc<Ctx>,
    asker: &Asker,
    r: &InstallMany,
) -> Result<(Vec<NodeName>, What), Problem> {
    within("nodes", r.nodes.len())?;
    let mut nodes = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, n) in r.nodes.iter().enumerate() {
        let at = |p: Problem| p.at(format!("/nodes/{i}"));
        let found = ctx.rack.view().inventory.find(n).map(|n| n.spec.name.clone());
        let name = found.map_err(|e| at(e.into()))?;
        if !seen.insert(name.clone()) {
            return Err(at(Problem::unfit(format!("{name} is named twice (as {n:?} too)"))));
        }
        ctx.rack.must_be_free(&name).map_err(|e| at(e.into()))?;
        ctx.rack.must_be_fit(&name).map_err(|e| at(e.into()))?;
        nodes.push(name);
    }
    let what =
        What { profile: r.profile.clone(), image: r.image.clone(), mirror: r.mirror.clone() };
    let chosen = choose(ctx, &request(&what)).await?;
    for n in &nodes {
        let node = (**ctx.rack.view().inventory.find(n.as_str())?).clone();
        ordered(ctx, (asker, None), node, &chosen)?;
    }
    Ok((nodes, what))
}

fn request(w: &What) -> InstallRequest {
    InstallRequest { profile: w.profile.clone(), image: w.image.clone(), mirror: w.mirror.clone() }
}

/// Installs many nodes, some at a time; their disks are wiped.
#[utoipa::path(
    post,
    path = "/v1/installs",
    tag = "nodes",
    request_body(content = InstallMany, example = json!({
        "nodes": ["node01", "node02"], "type": "docker", "at_once": 10, "stop_after": 3
    })),
    responses((status = 202, description = "An operation to watch", body = Operation))
)]
pub(super) async fn start(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Json(r): Json<InstallMany>,
) -> Result<(StatusCode, Out<Operation>), Problem> {
    demand(&*ctx, &caller, Role::Controller, "installing").await?;
    let asker = caller.asker();
    let at_once = within("at_once", r.at_once.unwrap_or(AT_ONCE))?;
    let (nodes, what) = checked(&ctx, &asker, &r).await?;
    let stop_after = within("stop_after", r.stop_after.unwrap_or(MOST))?;
    let make = |operation| Rollout {
        operation,
        actor: asker.name.clone(),
        nodes,
        what,
        at_once,
        stop_after,
        refused: Default::default(),
        stopped_by: None,
    };
    let o = ctx.rack.begin_rollout(&asker, make).await?;
    tokio::spawn(drive(ctx, o.id.clone()));
    Ok((StatusCode::ACCEPTED, Out(o)))
}

/// Goes on with those that a server before this one left.
pub fn take_up(ctx: &Arc<Ctx>) {
    for id in ctx.rack.running_rollouts() {
        tokio::spawn(drive(ctx.clone(), id));
    }
}

/// Sees one to its end, or as far as this server lives.
async fn drive(ctx: Arc<Ctx>, id: OperationId) {
    let mut events = ctx.rack.subscribe();
    loop {
        match advance(&ctx, &id).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(LifeError::Store(StoreError::Unavailable { .. })) => {}
            Err(e) => {
                tracing::error!(operation = %id, error = %e, "an install of many nodes goes on badly");
            }
        }
        // Packets and files of a whole rack come by here: only what an install
        // says of itself is worth a look. Whoever lags behind looks too.
        let worth_a_look = async {
            while events.recv().await.is_ok_and(|e| !e.event.action.starts_with("install.")) {}
        };
        let _ = tokio::time::timeout(PACE, worth_a_look).await;
    }
}

/// Does what is next; whether that was all.
async fn advance(ctx: &Arc<Ctx>, id: &OperationId) -> Result<bool, LifeError> {
    let Some(rollout) = ctx.rack.rollout(id) else { return Ok(true) };
    let installs = ctx.rack.installs_of(id);
    let (text, done, all) = rollout.progress(&installs);
    ctx.rack.progress(id, &text, done, all);
    match rollout.next(&installs) {
        Next::Wait => Ok(false),
        Next::End(end) => ctx.rack.end_rollout(id, end).await.map(|()| true),
        Next::Begin(nodes) => {
            let asker = Asker { name: rollout.actor.clone(), request: None };
            for n in nodes {
                begin(ctx, (&asker, id), &n, &request(&rollout.what)).await?;
            }
            Ok(false)
        }
    }
}

async fn begin(
    ctx: &Arc<Ctx>,
    (asker, id): (&Asker, &OperationId),
    node: &NodeName,
    what: &InstallRequest,
) -> Result<(), LifeError> {
    let why = match order(ctx, (asker, Some(id)), node.as_str(), what).await {
        Ok(order) => match ctx.rack.install(order).await {
            Ok(_) => return Ok(()),
            Err(e @ LifeError::Store(_)) => return Err(e),
            Err(e) => e.to_string(),
        },
        Err(p) => p.detail,
    };
    ctx.rack.refuse_in_rollout(id, node, &why).await
}
