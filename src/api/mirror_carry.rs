//! A mirror as one file: `/v1/mirrors/{name}/export` and `/v1/mirrors/import`.

use super::mirrors::{ShownMirror, blocking, named, shown, written};
use super::problem::{Path, Query};
use super::{Caller, Ctx, Problem, demand};
use crate::auth::Role;
use crate::model::Name;
use axum::Json as Out;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Deserialize;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A client that sends nothing, or takes nothing, for so long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes handed over at once.
const PIECE: usize = 256 << 10;

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

/// A mirror as one file, to carry away.
#[utoipa::path(
    get,
    path = "/v1/mirrors/{name}/export",
    tag = "mirrors",
    params(("name" = Name, Path, description = "Name of the mirror")),
    responses((
        status = 200, description = "A tar, compressed", body = Vec<u8>,
        content_type = "application/zstd"
    ))
)]
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
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Ask {
    /// Its fingerprint.
    key: Option<String>,
}

/// Takes in a mirror that was exported, if a believed key signed it.
#[utoipa::path(
    post,
    path = "/v1/mirrors/import",
    tag = "mirrors",
    params(Ask),
    request_body(content = Vec<u8>, content_type = "application/zstd"),
    responses((status = 200, description = "The mirror", body = ShownMirror))
)]
pub(super) async fn import(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Query(ask): Query<Ask>,
    body: Body,
) -> Result<Out<ShownMirror>, Problem> {
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
