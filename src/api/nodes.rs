//! `/v1/nodes`: the inventory.

use super::filter::{Limit, MOST, Paged, Part};
use super::problem::{Json, Path, Query};
use super::{Caller, Ctx, Discovered, List, Problem, demand};
use crate::auth::Role;
use crate::lifecycle::Rack;
use crate::model::{
    Arch, BmcSpec, DiskHint, Firmware, LifeCycle, Mac, Name, Node, NodeName, NodeSpec, Secret,
};
use crate::store::{Batch, Expect, kind};
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError};

/// A node to add.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    /// Name.
    pub name: NodeName,
    /// MACs, the booting one first.
    #[schema(min_items = 1)]
    pub macs: Vec<Mac>,
    /// Address; the first free one of the range when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Ipv4, example = "10.1.0.11")]
    pub address: Option<Ipv4Addr>,
    /// Firmware.
    #[serde(default)]
    pub firmware: Firmware,
    /// Processor.
    #[serde(default)]
    pub arch: Arch,
    /// BMC.
    #[serde(default)]
    pub bmc: Option<BmcSpec>,
    /// Its password; kept encrypted, never given back.
    #[schema(min_length = 1, max_length = 20, example = "calvin")]
    #[serde(default)]
    pub bmc_password: Option<String>,
    /// Disk.
    #[serde(default)]
    pub disk: DiskHint,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Spare.
    #[serde(default)]
    pub spare: bool,
}

/// A change of a node: what is left out stays.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeChange {
    /// New MACs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macs: Option<Vec<Mac>>,
    /// New address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Ipv4, example = "10.1.0.11")]
    pub address: Option<Ipv4Addr>,
    /// New firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// New BMC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcSpec>,
    /// New BMC password.
    #[schema(min_length = 1, max_length = 20, example = "calvin")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc_password: Option<String>,
    /// New disk hint, as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskHint>,
    /// Labels to set; an empty value removes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Spare or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare: Option<bool>,
    /// Out of service (true) or back in it (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<bool>,
}

/// 1 to 20 bytes (IPMI 2.0 §22.30).
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 20, example = "calvin")]
#[allow(dead_code, reason = "a schema; the value is a `String` for a moment, and then sealed")]
struct BmcPassword(String);

/// An inventory file and the passwords it points to.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// File name, for messages.
    #[schema(example = "rack.toml")]
    pub file: String,
    /// Its text, TOML.
    #[schema(example = "[[node]]\nname = \"node08\"\nmac = \"b0:83:fe:00:00:08\"\n")]
    pub text: String,
    /// BMC passwords by node name.
    #[schema(value_type = BTreeMap<NodeName, BmcPassword>)]
    #[serde(default)]
    pub passwords: BTreeMap<NodeName, String>,
}

type Answer<T> = Result<Out<T>, Problem>;

/// Which nodes; all conditions hold together.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// In this state.
    state: Option<LifeCycle>,
    /// With this profile installed.
    profile: Option<Name>,
    /// With this image installed.
    image: Option<Name>,
    /// Kept in reserve, or not.
    spare: Option<bool>,
    /// At most so many in one answer, and never more than 1000; all of them
    /// up to that when left out.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000_000)]
    limit: Option<Limit>,
    /// Where the last answer ended: its `next`.
    next: Option<String>,
}

/// All nodes, by name.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    tag = "nodes",
    params(Wanted),
    responses((status = 200, description = "Nodes", body = Paged<Node>))
)]
pub(super) async fn list(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Query(w): Query<Wanted>,
) -> Answer<Paged<Node>> {
    let part = Part::of("nodes", w.limit, w.next.as_deref(), MOST)?;
    let v = ctx.rack.view();
    let fits = |n: &&Arc<Node>| {
        w.state.is_none_or(|s| n.status.life == s)
            && w.profile.as_ref().is_none_or(|p| n.status.profile.as_ref() == Some(p))
            && w.image.as_ref().is_none_or(|i| n.status.image.as_ref() == Some(i))
            && w.spare.is_none_or(|s| n.spec.spare == s)
    };
    let all = v.inventory.all().filter(fits);
    Ok(Out(part.take(all, |n| n.spec.name.as_str(), |name, last| name > last)))
}

/// One node, with hardware and host keys.
#[utoipa::path(
    get,
    path = "/v1/nodes/{n}",
    tag = "nodes",
    params(("n" = String, Path, description = "Name or address of the node", example = "node01")),
    responses((status = 200, description = "The node", body = Node))
)]
pub(super) async fn show(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(n): Path<String>,
) -> Answer<Node> {
    let v = ctx.rack.view();
    Ok(Out((**v.inventory.find(&n)?).clone()))
}

/// Machines seen on the wire that are not in the inventory.
#[utoipa::path(
    get,
    path = "/v1/discovered",
    tag = "nodes",
    responses((status = 200, description = "Machines, by MAC", body = List<Discovered>))
)]
pub(super) async fn discovered(_: Caller, State(ctx): State<Arc<Ctx>>) -> Out<List<Discovered>> {
    let all = ctx.discovered.read().unwrap_or_else(PoisonError::into_inner);
    Out(List { items: all.values().cloned().collect() })
}

fn sealed(ctx: &Ctx, name: &NodeName, password: Option<String>) -> Result<Batch, Problem> {
    let Some(p) = password else { return Ok(Batch::new()) };
    if p.is_empty() || p.len() > 20 {
        let m = "a BMC password has 1 to 20 bytes (IPMI 2.0 §22.30)";
        return Err(Problem::unfit(m).at("/bmc_password"));
    }
    let key = format!("bmc/{name}");
    let sealed = ctx.key.seal(&key, &Secret::new(p))?;
    Ok(Batch::new().put(kind::SECRET, &key, &sealed, Expect::Any)?)
}

/// The document kind of nodes that the registry is to refuse, until the
/// deployment server has been told.
pub const REVOCATION: &str = "revocation";

/// See [`REVOCATION`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Revocation {
    /// Why, for the other server's record.
    pub reason: String,
}

/// Adds the end of the node's certificates, in the commit that ends the node.
fn revoked(ctx: &Ctx, batch: Batch, name: &NodeName, reason: &str) -> Result<Batch, Problem> {
    if ctx.certifier.is_none() {
        return Ok(batch);
    }
    let doc = Revocation { reason: reason.to_owned() };
    Ok(batch.put(REVOCATION, name.as_str(), &doc, Expect::Any)?)
}

fn wake(ctx: &Ctx) {
    if let Some(c) = &ctx.certifier {
        c.wake();
    }
}

/// Adds a node.
#[utoipa::path(
    post,
    path = "/v1/nodes",
    tag = "nodes",
    request_body(content = NewNode, example = json!({
        "name": "node07", "macs": ["b0:83:fe:00:00:07"], "address": "10.1.0.17",
        "bmc": { "address": "10.2.0.7", "user": "root" }, "bmc_password": "calvin",
        "disk": { "serial": "S3Z1NX0K" }, "labels": { "row": "3" }
    })),
    responses((status = 201, description = "The node", body = Node))
)]
pub(super) async fn add(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Json(n): Json<NewNode>,
) -> Result<(StatusCode, Out<Node>), Problem> {
    demand(&*ctx, &caller, Role::Admin, "adding a node").await?;
    let secrets = sealed(&ctx, &n.name, n.bmc_password)?;
    let spec = NodeSpec {
        name: n.name,
        macs: n.macs,
        address: n.address.unwrap_or(Ipv4Addr::UNSPECIFIED),
        firmware: n.firmware,
        arch: n.arch,
        bmc: n.bmc,
        disk: n.disk,
        labels: n.labels,
        spare: n.spare,
    };
    let node = ctx.rack.add_node(spec, &ctx.config.network, &caller.name, secrets).await?;
    let mut strangers = ctx.discovered.write().unwrap_or_else(PoisonError::into_inner);
    node.spec.macs.iter().for_each(|m| drop(strangers.remove(m)));
    Ok((StatusCode::CREATED, Out(node)))
}

/// Adds the nodes of an inventory file: all or none.
#[utoipa::path(
    post,
    path = "/v1/nodes/import",
    tag = "nodes",
    request_body(content = Import, example = json!({
        "file": "rack.toml",
        "text": "[[node]]\nname = \"node08\"\nmac = \"b0:83:fe:00:00:08\"\n",
        "passwords": {}
    })),
    responses((status = 201, description = "What was added", body = List<NodeSpec>))
)]
pub(super) async fn import(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Json(i): Json<Import>,
) -> Result<(StatusCode, Out<List<NodeSpec>>), Problem> {
    demand(&*ctx, &caller, Role::Admin, "importing nodes").await?;
    let entries = Rack::read_import(&i.text, &i.file)
        .map_err(|e| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, e.to_string()).at("/text"))?;
    let mut secrets = Batch::new();
    for (name, password) in i.passwords {
        let fault = |p: Problem| Problem { field: Some(format!("/passwords/{name}")), ..p };
        secrets.writes.extend(sealed(&ctx, &name, Some(password)).map_err(fault)?.writes);
    }
    let specs = ctx.rack.import(entries, &i.file, &ctx.config.network, &caller.name, secrets).await;
    // Whatever does not fit stands in the file.
    let specs = specs.map_err(|e| match Problem::from(e) {
        p if p.status == StatusCode::UNPROCESSABLE_ENTITY.as_u16() => p.at("/text"),
        p => p,
    })?;
    let mut strangers = ctx.discovered.write().unwrap_or_else(PoisonError::into_inner);
    specs.iter().flat_map(|n| &n.macs).for_each(|m| drop(strangers.remove(m)));
    drop(strangers);
    Ok((StatusCode::CREATED, Out(List { items: specs })))
}

/// Changes a node: what is left out stays.
#[utoipa::path(
    patch,
    path = "/v1/nodes/{n}",
    tag = "nodes",
    params(("n" = String, Path, description = "Name or address of the node", example = "node01")),
    request_body(content = NodeChange, example = json!({
        "disk": { "serial": "S3Z1NX0K" }, "labels": { "row": "3" }
    })),
    responses((status = 200, description = "The node as it now is", body = Node))
)]
pub(super) async fn set(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(n): Path<String>,
    Json(c): Json<NodeChange>,
) -> Answer<Node> {
    demand(&*ctx, &caller, Role::Admin, "changing a node").await?;
    let name = ctx.rack.view().inventory.find(&n)?.spec.name.clone();
    let mut secrets = sealed(&ctx, &name, c.bmc_password.clone())?;
    if c.retired == Some(true) {
        secrets = revoked(&ctx, secrets, &name, "the node is retired")?;
    }
    let changed = ctx
        .rack
        .set_node(&name, &ctx.config.network, &caller.name, secrets, |node| apply(node, c))
        .await?;
    ctx.bmcs.forget(&name);
    wake(&ctx);
    Ok(Out(changed))
}

/// Applies a change; returns the names of what was changed.
fn apply(node: &mut Node, c: NodeChange) -> Result<Vec<String>, String> {
    let mut what = Vec::new();
    let mut say = |s: &str| what.push(s.to_owned());
    let spec = &mut node.spec;
    if let Some(m) = c.macs {
        spec.macs = m;
        say("macs");
    }
    if let Some(a) = c.address {
        spec.address = a;
        say("address");
    }
    if let Some(f) = c.firmware {
        spec.firmware = f;
        say("firmware");
    }
    if let Some(b) = c.bmc {
        spec.bmc = Some(b);
        say("bmc");
    }
    if c.bmc_password.is_some() {
        say("bmc password");
    }
    if let Some(d) = c.disk {
        spec.disk = d;
        say("disk");
    }
    for (k, v) in c.labels.unwrap_or_default() {
        say(&format!("label {k}"));
        if v.is_empty() {
            spec.labels.remove(&k);
        } else {
            spec.labels.insert(k, v);
        }
    }
    if let Some(s) = c.spare {
        spec.spare = s;
        say("spare");
    }
    match (c.retired, node.status.life) {
        (Some(true), l) if l != LifeCycle::Retired => {
            node.status.life = LifeCycle::Retired;
            say("retired");
        }
        (Some(false), LifeCycle::Retired) => {
            node.status.life = LifeCycle::Ready;
            say("in service");
        }
        _ => {}
    }
    if what.is_empty() {
        return Err("there is nothing to change in this request".into());
    }
    Ok(what)
}

/// Takes a node out of the inventory; its record stays.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{n}",
    tag = "nodes",
    params(("n" = String, Path, description = "Name or address of the node", example = "node01")),
    responses((status = 204, description = "It is out"))
)]
pub(super) async fn remove(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(n): Path<String>,
) -> Result<StatusCode, Problem> {
    demand(&*ctx, &caller, Role::Admin, "removing a node").await?;
    let name = ctx.rack.view().inventory.find(&n)?.spec.name.clone();
    let also = revoked(&ctx, Batch::new(), &name, "the node was removed")?;
    ctx.rack.remove_node(&name, &caller.name, also).await?;
    wake(&ctx);
    ctx.bmcs.forget(&name);
    Ok(StatusCode::NO_CONTENT)
}
