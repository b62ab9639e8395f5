//! `/v1/mirrors`: everything that an install takes, in one signed directory.

use super::background::{Work, start};
use super::problem::Json;
use super::{Caller, Ctx, Problem, Report, demand};
use crate::auth::Role;
use crate::mirror::{Mirror, MirrorError, Mirrors};
use crate::model::{Digest, Name, NewEvent, Operation, OperationKind, Outcome, Time};
use async_trait::async_trait;
use axum::Json as Out;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A client that sends nothing, or takes nothing, for so long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes handed over at once.
const PIECE: usize = 256 << 10;
/// Faults that are named when a mirror is damaged.
const NAMED: usize = 10;

/// Which mirror to make.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// Takes one in that was exported, if a key with one of these fingerprints
    /// signed it, or our own.
    async fn import(
        &self,
        from: Box<dyn Read + Send>,
        believed: Vec<String>,
    ) -> Result<Mirror, MirrorError>;
}

impl From<MirrorError> for Problem {
    fn from(e: MirrorError) -> Self {
        let status = match &e {
            MirrorError::Unknown { .. } => StatusCode::NOT_FOUND,
            MirrorError::Taken(_) => StatusCode::CONFLICT,
            MirrorError::Import(_) | MirrorError::Stranger(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, e.to_string())
    }
}

fn shown(m: &Mirror) -> Value {
    let d = &m.description;
    json!({
        "name": d.name, "digest": m.digest, "suite": d.suite, "date": d.date, "made": d.made,
        "image": d.image, "image_digest": d.image_digest, "profile": d.profile,
        "profile_digest": d.profile_digest, "packages": d.packages, "components": d.components,
        "asked": d.asked, "absent": d.absent, "key": d.key, "from": d.from, "bytes": d.bytes(),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MirrorError> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??)
}

fn named(text: &str) -> Result<Name, Problem> {
    text.parse().map_err(|e| Problem::bad(format!("{e}")))
}

pub(super) async fn list(_: Caller, State(ctx): State<Arc<Ctx>>) -> Result<Out<Value>, Problem> {
    let shelf = ctx.mirrors.shelf().clone();
    let (good, bad) = blocking(move || shelf.list()).await?;
    let items: Vec<Value> = good.iter().map(shown).collect();
    Ok(Out(json!({ "items": items, "faults": bad })))
}

pub(super) async fn show(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
) -> Result<Out<Value>, Problem> {
    let (shelf, name) = (ctx.mirrors.shelf().clone(), named(&name)?);
    Ok(Out(shown(&blocking(move || shelf.get(&name)).await?)))
}

pub(super) async fn build(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Json(b): Json<BuildMirror>,
) -> Result<(StatusCode, Out<Operation>), Problem> {
    demand(&*ctx, &caller, Role::Operate, "building a mirror").await?;
    ctx.images.get(&b.image)?;
    if let Some(p) = &b.profile {
        ctx.profiles.get(p)?;
    }
    let name = match &b.name {
        Some(n) => n.clone(),
        None => named(&default_name(&b, Time::now()))?,
    };
    if ctx.mirrors.shelf().get(&name).is_ok() {
        return Err(MirrorError::Taken(name).into());
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
                progress("reading", done, total);
                true
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

/// Bytes from a thread to a client.
struct Pipe(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) async fn export(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    demand(&*ctx, &caller, Role::Operate, "exporting a mirror").await?;
    let (shelf, name) = (ctx.mirrors.shelf().clone(), named(&name)?);
    let wanted = name.clone();
    let mirror = blocking(move || shelf.get(&wanted)).await?;
    let (to, from) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let pipe = io::BufWriter::with_capacity(PIECE, Pipe(to.clone()));
        if let Err(e) = crate::mirror::export(&mirror, pipe) {
            tracing::warn!(mirror = %mirror.description.name, error = %e, "not exported");
            // The transfer must look broken, not finished.
            let _ = to.blocking_send(Err(io::Error::other(e)));
        }
    });
    let body =
        futures::stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) });
    let disposition = format!("attachment; filename=\"{name}.tar.zst\"");
    let headers = [
        (header::CONTENT_TYPE, "application/zstd".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Which key is believed beside our own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    /// Its fingerprint.
    key: Option<String>,
}

pub(super) async fn import(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Query(ask): Query<Ask>,
    body: Body,
) -> Result<Out<Value>, Problem> {
    demand(&*ctx, &caller, Role::Operate, "importing a mirror").await?;
    let arriving = futures::stream::unfold(body.into_data_stream(), |mut body| async move {
        match tokio::time::timeout(IDLE, body.next()).await {
            Ok(Some(piece)) => Some((piece.map_err(io::Error::other), body)),
            Ok(None) => None,
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), body)),
        }
    });
    let reader = tokio_util::io::StreamReader::new(Box::pin(arriving));
    let from = Box::new(tokio_util::io::SyncIoBridge::new(reader));
    let mirror = ctx.mirrors.import(from, ask.key.into_iter().collect()).await?;
    written(&ctx, &caller, "mirror.import", &mirror.description.name).await?;
    Ok(Out(shown(&mirror)))
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
