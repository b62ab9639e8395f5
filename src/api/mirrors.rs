//! `/v1/mirrors`: everything that an install takes, in one signed directory.

use super::background::{Work, start};
use super::problem::{Json, Path};
use super::{Caller, Ctx, Problem, Report, demand};
use crate::auth::Role;
use crate::image::{BuildError, Catalogue};
use crate::mirror::{Accept, ImageHere, Imported, Mirror, MirrorError, Mirrors, Origin};
use crate::model::{Digest, Name, NewEvent, Operation, OperationKind, Outcome, Time};
use async_trait::async_trait;
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Read;
use std::sync::Arc;

/// Faults that are named when a mirror is damaged.
const NAMED: usize = 10;

/// Which mirror to make.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildMirror {
    /// Image it is for.
    pub image: Name,
    /// Profile it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Name>,
    /// What to call it; image, profile and day by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Packages beside those.
    #[serde(default)]
    pub packages: Vec<String>,
}

/// A mirror to make, with its name.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its name.
    pub name: Name,
    /// What was asked for.
    pub build: BuildMirror,
}

/// Makes and takes in mirrors; handed in by `app`, since it runs programs and
/// has the key.
#[async_trait]
pub trait MirrorKeeper: Send + Sync {
    /// The mirrors there are.
    fn shelf(&self) -> &Mirrors;
    /// Makes one; its digest.
    async fn build(&self, order: Order, progress: Report) -> Result<Digest, String>;
    /// Takes one in that was exported, with its image, if a key that is
    /// accepted signed it, or our own.
    async fn import(
        &self,
        from: Box<dyn Read + Send>,
        accept: Accept,
    ) -> Result<Imported, MirrorError>;
}

impl From<MirrorError> for Problem {
    fn from(e: MirrorError) -> Self {
        let status = match &e {
            MirrorError::Unknown { .. } => StatusCode::NOT_FOUND,
            MirrorError::Taken(_)
            | MirrorError::OtherImage(_)
            | MirrorError::Build(BuildError::Busy(_)) => StatusCode::CONFLICT,
            MirrorError::Import(_) | MirrorError::Stranger(_) => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let problem = Self::new(status, e.to_string());
        match e {
            MirrorError::OtherImage(_) => problem.at("other_image"),
            _ => problem,
        }
    }
}

/// A mirror.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownMirror {
    /// Name.
    pub name: Name,
    /// Digest of its description, which names every file's digest.
    pub digest: Digest,
    /// Suite in it.
    #[schema(example = "trixie")]
    pub suite: String,
    /// Date of the newest index it was made from, seconds since 1970.
    pub date: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub made: Time,
    /// Image it is for.
    pub image: Name,
    /// Its digest then.
    pub image_digest: Digest,
    /// Whether it is here as it was then: without it, it cannot be installed
    /// from the mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_here: Option<ImageHere>,
    /// Profile it is for.
    pub profile: Option<Name>,
    /// Its digest then.
    pub profile_digest: Option<Digest>,
    /// Packages in it.
    pub packages: u32,
    /// Installer components in it.
    pub components: u32,
    /// Packages that were asked for by name.
    pub asked: Vec<String>,
    /// Those of them that the release does not have.
    pub absent: Vec<String>,
    /// Fingerprint of the key that signed it.
    pub key: String,
    /// Where its packages came from.
    pub from: Vec<Origin>,
    /// Bytes of its files.
    pub bytes: u64,
}

/// The mirrors there are.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownMirrors {
    /// Mirrors.
    pub items: Vec<ShownMirror>,
    /// Why others cannot be used, a sentence each.
    pub faults: Vec<String>,
}

pub(super) fn shown(m: &Mirror, images: &Catalogue) -> ShownMirror {
    let d = m.description.clone();
    ShownMirror {
        digest: m.digest,
        bytes: d.bytes(),
        image_here: Some(d.image_in(images).0),
        name: d.name,
        suite: d.suite,
        date: d.date,
        made: d.made,
        image: d.image,
        image_digest: d.image_digest,
        profile: d.profile,
        profile_digest: d.profile_digest,
        packages: d.packages,
        components: d.components,
        asked: d.asked,
        absent: d.absent,
        key: d.key,
        from: d.from,
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MirrorError> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??)
}

pub(super) fn named(text: &str) -> Result<Name, Problem> {
    text.parse().map_err(|e| Problem::bad(format!("{e}")).at("name"))
}

/// All mirrors.
#[utoipa::path(
    get,
    path = "/v1/mirrors",
    tag = "mirrors",
    responses((status = 200, description = "Mirrors", body = ShownMirrors))
)]
pub(super) async fn list(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
) -> Result<Out<ShownMirrors>, Problem> {
    let (shelf, images) = (ctx.mirrors.shelf().clone(), ctx.images.clone());
    let all = blocking(move || {
        let (good, faults) = shelf.list()?;
        Ok(ShownMirrors { items: good.iter().map(|m| shown(m, &images)).collect(), faults })
    });
    Ok(Out(all.await?))
}

/// One mirror.
#[utoipa::path(
    get,
    path = "/v1/mirrors/{name}",
    tag = "mirrors",
    params(("name" = Name, Path, description = "Name of the mirror")),
    responses((status = 200, description = "The mirror", body = ShownMirror))
)]
pub(super) async fn show(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
) -> Result<Out<ShownMirror>, Problem> {
    let (shelf, images, name) = (ctx.mirrors.shelf().clone(), ctx.images.clone(), named(&name)?);
    Ok(Out(blocking(move || Ok(shown(&shelf.get(&name)?, &images))).await?))
}

/// Makes a mirror of all that an install takes.
#[utoipa::path(
    post,
    path = "/v1/mirrors",
    tag = "mirrors",
    request_body(content = BuildMirror, example = json!({
        "image": "debian-13-installer", "profile": "docker"
    })),
    responses((status = 202, description = "An operation to watch", body = Operation))
)]
pub(super) async fn build(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Json(b): Json<BuildMirror>,
) -> Result<(StatusCode, Out<Operation>), Problem> {
    demand(&*ctx, &caller, Role::Operate, "building a mirror").await?;
    ctx.images.get(&b.image).map_err(|e| Problem::from(e).at("/image"))?;
    if let Some(p) = &b.profile {
        ctx.profiles.get(p).map_err(|e| Problem::from(e).at("/profile"))?;
    }
    let name = match &b.name {
        Some(n) => n.clone(),
        None => named(&default_name(&b, Time::now())).map_err(|p| {
            // Too long, put together: the caller may choose a shorter one.
            Problem { field: Some("/name".into()), ..p }
        })?,
    };
    if ctx.mirrors.shelf().get(&name).is_ok() {
        return Err(Problem::from(MirrorError::Taken(name)).at("/name"));
    }
    let (keeper, order) = (ctx.mirrors.clone(), Order { name: name.clone(), build: b });
    let what = Work { kind: OperationKind::Mirror, event: "mirror.build", about: ("mirror", name) };
    start(&ctx, caller, what, move |progress| async move {
        keeper.build(order, progress).await.map(|d| json!({ "digest": d }))
    })
    .await
}

/// `debian-13-installer-docker-20261121`
fn default_name(b: &BuildMirror, now: Time) -> String {
    let profile = b.profile.as_ref().map(|p| format!("-{p}")).unwrap_or_default();
    format!("{}{profile}-{}", b.image, now.strftime("%Y%m%d"))
}

/// Reads a whole mirror and compares it with its digests.
#[utoipa::path(
    post,
    path = "/v1/mirrors/{name}/verify",
    tag = "mirrors",
    params(("name" = Name, Path, description = "Name of the mirror")),
    responses((status = 202, description = "An operation to watch", body = Operation))
)]
pub(super) async fn verify(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Out<Operation>), Problem> {
    demand(&*ctx, &caller, Role::Operate, "reading a whole mirror").await?;
    let (shelf, name) = (ctx.mirrors.shelf().clone(), named(&name)?);
    let mirror = shelf.get(&name)?;
    let what =
        Work { kind: OperationKind::Mirror, event: "mirror.verify", about: ("mirror", name) };
    start(&ctx, caller, what, move |progress| async move {
        let read = move || {
            mirror.verify(|done, total| {
                progress.tell("reading", done, total);
                !progress.is_cancelled()
            })
        };
        let verdict = tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())?;
        let verdict = verdict.map_err(|e| e.to_string())?;
        if verdict.faults.is_empty() {
            return Ok(json!(verdict));
        }
        let n = verdict.faults.len();
        let some: Vec<&str> = verdict.faults.iter().take(NAMED).map(String::as_str).collect();
        Err(format!("{n} faults: {}", some.join("; ")))
    })
    .await
}

/// Removes a mirror.
#[utoipa::path(
    delete,
    path = "/v1/mirrors/{name}",
    tag = "mirrors",
    params(("name" = Name, Path, description = "Name of the mirror")),
    responses((status = 204, description = "It is gone"))
)]
pub(super) async fn remove(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    demand(&*ctx, &caller, Role::Operate, "removing a mirror").await?;
    let (shelf, name) = (ctx.mirrors.shelf().clone(), named(&name)?);
    let gone = name.clone();
    blocking(move || shelf.remove(&gone)).await?;
    written(&ctx, &caller, "mirror.remove", &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn written(
    ctx: &Ctx,
    caller: &Caller,
    kind: &'static str,
    name: &Name,
) -> Result<(), Problem> {
    let e = NewEvent::new(Time::now(), &caller.name, kind, Outcome::Ok).with("mirror", name);
    Ok(ctx.rack.log(vec![e]).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_without_a_name_is_called_by_image_profile_and_day() {
        let b = BuildMirror {
            image: "debian-13-installer".parse().unwrap(),
            profile: Some("docker".parse().unwrap()),
            name: None,
            packages: Vec::new(),
        };
        let now = "2026-11-21T23:59:00Z".parse().unwrap();
        assert_eq!(default_name(&b, now), "debian-13-installer-docker-20261121");
    }
}
