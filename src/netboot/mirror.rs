//! `/mirror/NAME/PATH`: a mirror as apt and the installers want it.

use super::http::send_file;
use crate::mirror::Mirrors;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

/// The route.
pub fn router(mirrors: Mirrors) -> Router {
    Router::new().route("/mirror/{name}/{*path}", get(file)).with_state(mirrors)
}

async fn file(
    State(mirrors): State<Mirrors>,
    Path((name, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let found = tokio::task::spawn_blocking(move || mirrors.file(&name, &path)).await;
    match found.ok().flatten() {
        Some(path) => send_file(path, &headers, None, None).await,
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
