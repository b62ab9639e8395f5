//! `/v1/images` and `/v1/profiles`.

use super::background::{Work, start};
use super::problem::Json;
use super::{Caller, Ctx, List, Problem, demand};
use crate::auth::Role;
use crate::image::Image;
use crate::model::{Name, Operation, OperationKind};
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

/// Which installer to add as an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddImage {
    /// Release, such as `debian-13`.
    pub release: Name,
    /// Whether installer components that the archive lists and does not have
    /// are made from its ordinary packages.
    #[serde(default = "yes")]
    pub repack: bool,
}

fn yes() -> bool {
    true
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
        "installer": d.installer,
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
    let builder = ctx.builder.clone();
    let what = Work {
        kind: OperationKind::ImageBuild,
        event: "image.build",
        about: ("image", name.clone()),
    };
    start(&ctx, caller, what, move |progress| async move {
        builder.build(name, b.bake, progress).await.map(|d| json!({ "digest": d }))
    })
    .await
}

pub(super) async fn add(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
    Json(b): Json<AddImage>,
) -> Result<(StatusCode, Out<Operation>), Problem> {
    demand(&*ctx, &caller, Role::Operate, "adding an image").await?;
    let name: Name = name.parse().map_err(|e| Problem::bad(format!("{e}")))?;
    if crate::image::recipe::find(b.release.as_str()).is_none() {
        let known = crate::image::recipe::RECIPES.map(|r| r.name).join(", ");
        let text = format!("no installer of '{}' is known; there are {known}", b.release);
        return Err(Problem::bad(text));
    }
    let builder = ctx.builder.clone();
    let what = Work {
        kind: OperationKind::ImageBuild,
        event: "image.add",
        about: ("image", name.clone()),
    };
    start(&ctx, caller, what, move |progress| async move {
        builder.add(name, b, progress).await.map(|d| json!({ "digest": d }))
    })
    .await
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
