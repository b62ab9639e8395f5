//! `/v1/images` and `/v1/profiles`.

use super::background::{Work, start};
use super::problem::{Json, Path};
use super::{Caller, Ctx, Problem, demand};
use crate::auth::Role;
use crate::image::{Files, Image, ImageFault, Installer, Provenance, recipe};
use crate::model::{Digest, Method, Name, Operation, OperationKind};
use crate::profile::ProfileFault;
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Boot loaders that firmware with Secure Boot starts.
const SIGNED: [&str; 2] = ["shimx64.efi", "grubx64.efi"];

/// What to bake while building an image.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildImage {
    /// Profiles to apply ahead of time.
    #[serde(default)]
    pub bake: Vec<Name>,
}

/// Which installer to add as an image.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddImage {
    /// Release, such as `debian-13`.
    pub release: Name,
    /// Whether installer components that the archive lists and does not have
    /// are made from its ordinary packages.
    #[serde(default = "yes")]
    pub repack: bool,
    /// A directory on the build host with the installer's kernel and ramdisk,
    /// as netboot files are laid out, in place of the archive's package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 4096, example = "/srv/netboot")]
    pub dir: Option<PathBuf>,
    /// An ISO image on the build host with the same, such as `mini.iso`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 4096)]
    pub iso: Option<PathBuf>,
    /// A directory on the build host with firmware for the installer's kernel,
    /// laid out as `/lib/firmware`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 4096)]
    pub firmware: Option<PathBuf>,
}

impl AddImage {
    /// Where kernel and ramdisk are, if not in the archive.
    pub fn files(&self) -> Option<Files> {
        let dir = self.dir.clone().map(Files::Dir);
        dir.or_else(|| self.iso.clone().map(Files::Iso))
    }

    /// Its files are the host's, and come to be served to machines: refused
    /// is what cannot be meant, before an operation begins.
    fn fault(&self) -> Option<Problem> {
        if self.dir.is_some() && self.iso.is_some() {
            return Some(Problem::unfit("either dir or iso, not both").at("/iso"));
        }
        let firmware = self.firmware.clone().map(Files::Dir);
        let at = if self.iso.is_some() { "/iso" } else { "/dir" };
        [(at, self.files()), ("/firmware", firmware)].into_iter().find_map(|(at, files)| {
            files?.fault().map(|why| Problem::unfit(format!("{} {why}", &at[1..])).at(at))
        })
    }
}

fn yes() -> bool {
    true
}

/// An image.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownImage {
    /// Name.
    pub name: Name,
    /// Digest of its description, which names every file's digest.
    pub digest: Digest,
    /// Distribution.
    #[schema(example = "debian")]
    pub os: String,
    /// Release.
    #[schema(example = "12")]
    pub release: String,
    /// Point release or build.
    #[schema(example = "12.11")]
    pub version: String,
    /// How it gets onto a disk.
    pub method: Method,
    /// Release of its kernel.
    #[schema(example = "6.1.0-35-amd64")]
    pub kernel: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// It has boot loaders that start under Secure Boot.
    pub signed_loaders: bool,
    /// Packages in it.
    pub packages: u32,
    /// What it was made from.
    pub provenance: Provenance,
    /// The distribution's installer, where that makes the node.
    pub installer: Option<Installer>,
    /// Digests of the profiles that were applied ahead of time, by name.
    pub baked: BTreeMap<Name, Digest>,
}

/// Something in a directory that cannot be used.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Fault {
    /// Its name.
    pub name: Name,
    /// Why.
    pub reason: String,
}

/// What there is, and what cannot be used.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Shelf<T> {
    /// The things.
    pub items: Vec<T>,
    /// Those that cannot be used.
    pub faults: Vec<Fault>,
}

fn shown(i: &Image) -> ShownImage {
    let d = &i.description;
    let baked = i.baked.iter().map(|(p, b)| (p.clone(), b.description.profile_digest));
    ShownImage {
        name: i.name.clone(),
        digest: i.digest,
        os: d.os.clone(),
        release: d.release.clone(),
        version: d.version.clone(),
        method: d.method,
        kernel: d.kernel.clone(),
        bytes: d.files.values().map(|f| f.size).sum(),
        // Installed nodes, and the network, start it under Secure Boot.
        signed_loaders: SIGNED.iter().all(|f| d.files.contains_key(*f)),
        packages: d.provenance.package_count,
        provenance: d.provenance.clone(),
        installer: d.installer.clone(),
        baked: baked.collect(),
    }
}

fn named(text: &str) -> Result<Name, Problem> {
    text.parse().map_err(|e| Problem::bad(format!("{e}")).at("name"))
}

/// All images.
#[utoipa::path(
    get,
    path = "/v1/images",
    tag = "images",
    responses((status = 200, description = "Images", body = Shelf<ShownImage>))
)]
pub(super) async fn list(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
) -> Result<Out<Shelf<ShownImage>>, Problem> {
    let (good, bad) = ctx.images.list()?;
    let fault = |f: ImageFault| Fault { reason: f.error.to_string(), name: f.name };
    let faults = bad.into_iter().map(fault).collect();
    Ok(Out(Shelf { items: good.iter().map(shown).collect(), faults }))
}

/// One image.
#[utoipa::path(
    get,
    path = "/v1/images/{name}",
    tag = "images",
    params(("name" = Name, Path, description = "Name of the image")),
    responses((status = 200, description = "The image", body = ShownImage))
)]
pub(super) async fn show(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
) -> Result<Out<ShownImage>, Problem> {
    Ok(Out(shown(&ctx.images.get(&named(&name)?)?)))
}

/// Builds an image, with profiles baked in.
#[utoipa::path(
    post,
    path = "/v1/images/{name}/build",
    tag = "images",
    params(("name" = Name, Path, description = "A release that images are made of", example = "debian-12")),
    request_body(content = BuildImage, example = json!({ "bake": ["docker"] })),
    responses((status = 202, description = "An operation to watch", body = Operation))
)]
pub(super) async fn build(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
    Json(b): Json<BuildImage>,
) -> Result<(StatusCode, Out<Operation>), Problem> {
    demand(&*ctx, &caller, Role::Operate, "building an image").await?;
    let name = named(&name)?;
    for (n, p) in b.bake.iter().enumerate() {
        ctx.profiles.get(p).map_err(|e| Problem::from(e).at(format!("/bake/{n}")))?;
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

/// Adds a distribution's own installer as an image. `dir`, `iso` and `firmware`
/// are files of the build host: naming any of them takes the role admin.
#[utoipa::path(
    post,
    path = "/v1/images/{name}/add",
    tag = "images",
    params(("name" = Name, Path, description = "What to call it", example = "debian-13-installer")),
    request_body(content = AddImage, example = json!({ "release": "debian-13" })),
    responses((status = 202, description = "An operation to watch", body = Operation))
)]
pub(super) async fn add(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
    Json(b): Json<AddImage>,
) -> Result<(StatusCode, Out<Operation>), Problem> {
    demand(&*ctx, &caller, Role::Operate, "adding an image").await?;
    let name = named(&name)?;
    if b.files().is_some() || b.firmware.is_some() {
        demand(&*ctx, &caller, Role::Admin, "adding an image from the host's files").await?;
        let add = b.clone();
        let fault = tokio::task::spawn_blocking(move || add.fault()).await;
        if let Some(problem) = fault.map_err(|e| Problem::internal(e.to_string()))? {
            return Err(problem);
        }
    }
    if recipe::installer(b.release.as_str()).is_none() {
        let known = recipe::installers();
        let text = format!("no installer of '{}' is known; there are {known}", b.release);
        return Err(Problem::unfit(text).at("/release"));
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
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
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

/// All profiles.
#[utoipa::path(
    get,
    path = "/v1/profiles",
    tag = "images",
    responses((status = 200, description = "Profiles", body = Shelf<ProfileShown>))
)]
pub(super) async fn profiles(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
) -> Result<Out<Shelf<ProfileShown>>, Problem> {
    let (good, bad) = ctx.profiles.list()?;
    let items = good.into_iter().map(|p| ProfileShown {
        services: p.scripts.iter().map(|s| s.name.clone()).collect(),
        name: p.name,
        description: p.description,
        digest: p.digest,
        needs: p.needs,
        offers: p.offers,
    });
    let fault = |f: ProfileFault| Fault { reason: f.error.to_string(), name: f.name };
    Ok(Out(Shelf { items: items.collect(), faults: bad.into_iter().map(fault).collect() }))
}
