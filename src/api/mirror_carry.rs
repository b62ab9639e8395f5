//! A mirror as one file: `/v1/mirrors/{name}/export` and `/v1/mirrors/import`.

use super::mirrors::{ShownMirror, blocking, named, shown};
use super::problem::{Path, Query};
use super::{Caller, Ctx, Problem, demand};
use crate::auth::Role;
use crate::mirror::{Accept, OtherImage};
use crate::model::{Name, NewEvent, Outcome, Time};
use axum::Json as Out;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, header};
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
/// Says whether the image is in the file too, as in [`ShownMirror::image_here`].
const IMAGE: HeaderName = HeaderName::from_static("provision-image");

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

/// A mirror as one file, to carry away, with the image that it was made for.
#[utoipa::path(
    get,
    path = "/v1/mirrors/{name}/export",
    tag = "mirrors",
    params(("name" = Name, Path, description = "Name of the mirror")),
    responses((
        status = 200, description = "A tar, compressed", body = Vec<u8>,
        content_type = "application/zstd",
        headers((
            "provision-image",
            description = "`same`: the image is in it. `other`, `absent`: it is not, since the \
                           one of its name here is another one by now, or damaged, or gone"
        ))
    ))
)]
pub(super) async fn export(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    demand(&*ctx, &caller, Role::Operate, "exporting a mirror").await?;
    let (shelf, images, name) = (ctx.mirrors.shelf().clone(), ctx.images.clone(), named(&name)?);
    let wanted = name.clone();
    let found = blocking(move || {
        let mirror = shelf.get(&wanted)?;
        let (here, image) = mirror.description.image_in(&images);
        Ok((mirror, here, image))
    });
    let (mirror, here, image) = found.await?;
    let (to, from) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let pipe = io::BufWriter::with_capacity(PIECE, Pipe(to.clone()));
        if let Err(e) = crate::mirror::export(&mirror, image.as_ref(), pipe) {
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
        (IMAGE, here.as_str().to_owned()),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// What is accepted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Ask {
    /// Fingerprint of a key that is believed beside our own.
    key: Option<String>,
    /// What becomes of an image here that has the name of the one in the file
    /// and is another one; refused (409) when left out.
    #[param(inline)]
    other_image: Option<OtherImage>,
}

/// Takes in a mirror that was exported, if a believed key signed it, and the
/// image in the file, unless it is here already.
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
    let accept = Accept { believed: ask.key.into_iter().collect(), other_image: ask.other_image };
    let done = ctx.mirrors.import(from, accept).await?;
    let d = &done.mirror.description;
    let e = NewEvent::new(Time::now(), &caller.name, "mirror.import", Outcome::Ok);
    let mut e = e.with("mirror", &d.name);
    if done.took_image {
        e = e.with("image", &d.image).with("image_digest", d.image_digest);
    }
    ctx.rack.log(vec![e]).await?;
    let images = ctx.images.clone();
    Ok(Out(blocking(move || Ok(shown(&done.mirror, &images))).await?))
}
