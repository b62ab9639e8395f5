//! `/v1/images` and `/v1/profiles`.

use super::problem::Json;
use super::{Caller, Ctx, List, Problem, demand};
use crate::auth::Role;
use crate::image::Image;
use crate::model::{Name, NewEvent, Operation, OperationKind, Outcome, Time};
use axum::Json as Out;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// What to bake while building an image.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildImage {
    /// Profiles to apply ahead of time.
    #[serde(default)]
    pub bake: Vec<Name>,
}

fn shown(i: &Image) -> Value {
    let d = &i.description;
    let signed = ["shimx64.efi", "grubx64.efi"].iter().all(|f| d.files.contains_key(*f));
    let bytes: u64 = d.files.values().map(|f| f.size).sum();
    json!({
        "name": i.name, "digest": i.digest, "os": d.os, "release": d.release,
        "version": d.version, "method": d.method, "kernel": d.kernel, "bytes": bytes,
        // Installed nodes, and the network, start it under Secure Boot.
        "signed_loaders": signed,
        "packages": d.provenance.package_count, "provenance": d.provenance,
        "baked": i
            .baked
            .iter()
            .map(|(p, b)| (p.to_string(), json!(b.description.profile_digest)))
            .collect::<serde_json::Map<_, _>>(),
    })
}

pub(super) async fn list(_: Caller, State(ctx): State<Arc<Ctx>>) -> Result<Out<Value>, Problem> {
    let (good, bad) = ctx.images.list()?;
    let faults: Vec<Value> =
        bad.iter().map(|f| json!({ "name": f.name, "reason": f.error.to_string() })).collect();
    Ok(Out(json!({ "items": good.iter().map(shown).collect::<Vec<_>>(), "faults": faults })))
}

pub(super) async fn show(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
) -> Result<Out<Value>, Problem> {
    let name: Name = name.parse().map_err(|e| Problem::bad(format!("{e}")))?;
    Ok(Out(shown(&ctx.images.get(&name)?)))
}

pub(super) async fn build(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
    Json(b): Json<BuildImage>,
) -> Result<(StatusCode, Out<Operation>), Problem> {
    demand(&*ctx, &caller, Role::Operate, "building an image").await?;
    let name: Name = name.parse().map_err(|e| Problem::bad(format!("{e}")))?;
    for p in &b.bake {
        ctx.profiles.get(p)?;
    }
    let event = |o| NewEvent::new(Time::now(), &caller.name, "image.build", o).with("image", &name);
    let o =
        ctx.rack.begin(OperationKind::ImageBuild, None, &caller.name, event(Outcome::Info)).await?;
    let (id, ctx2, actor) = (o.id.clone(), ctx.clone(), caller.name.clone());
    tokio::spawn(async move {
        let (rack, progress_id) = (ctx2.rack.clone(), id.clone());
        let progress =
            Arc::new(move |t: &str, done, total| rack.progress(&progress_id, t, done, total));
        let done = ctx2.builder.build(name.clone(), b.bake, progress).await;
        let outcome = if done.is_ok() { Outcome::Ok } else { Outcome::Failed };
        let mut e = NewEvent::new(Time::now(), &actor, "image.build", outcome).with("image", &name);
        e = match &done {
            Ok(d) => e.with("digest", d),
            Err(why) => e.with("reason", why),
        };
        if let Err(e) = ctx2.rack.end(&id, done.map(|d| json!({ "digest": d })), e).await {
            tracing::error!(operation = %id, error = %e, "an operation's end is not written down");
        }
    });
    Ok((StatusCode::ACCEPTED, Out(o)))
}

/// A profile as listed.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProfileShown {
    /// Name.
    pub name: Name,
    /// In a line.
    pub description: String,
    /// Digest of its directory.
    pub digest: crate::model::Digest,
    /// What it needs.
    pub needs: Vec<String>,
    /// What it offers.
    pub offers: Vec<String>,
    /// Its scripts.
    pub services: Vec<String>,
}

pub(super) async fn profiles(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
) -> Result<Out<Value>, Problem> {
    let (good, bad) = ctx.profiles.list()?;
    let items: List<ProfileShown> = List {
        items: good
            .into_iter()
            .map(|p| ProfileShown {
                services: p.scripts.iter().map(|s| s.name.clone()).collect(),
                name: p.name,
                description: p.description,
                digest: p.digest,
                needs: p.needs,
                offers: p.offers,
            })
            .collect(),
    };
    let faults: Vec<Value> =
        bad.iter().map(|f| json!({ "name": f.name, "reason": f.error.to_string() })).collect();
    Ok(Out(json!({ "items": items.items, "faults": faults })))
}
