//! `/healthz`, `/readyz`, `/metrics` of the deployment server.

use super::Desk;
use crate::api::Problem;
use crate::model::Time;
use crate::tls::Held;
use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::fmt::Write as _;
use std::sync::Arc;

/// The process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    responses((status = 200, description = "ok", body = String, content_type = "text/plain")),
    security(())
)]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The store takes writes, and the registry's storage answers.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, description = "ready", body = String, content_type = "text/plain")),
    security(())
)]
pub(super) async fn readyz(State(desk): State<Arc<Desk>>) -> Result<String, Problem> {
    let away = |why| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why));
    let (store, images) = tokio::join!(desk.book.store().health(), desk.registry.health());
    if let Err(e) = images {
        return away(format!("{e}; neither pulls nor pushes work until it answers again"));
    }
    if let Err(e) = store {
        return away(format!("{e}; pulls and pushes go on, what is recorded is refused"));
    }
    let follows = desk.following.as_ref().map(|f| f.line()).unwrap_or_default();
    Ok(format!("ready\n{follows}"))
}

/// Numbers for Prometheus (text format 0.0.4).
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((status = 200, description = "Text format 0.0.4", body = String, content_type = "text/plain")),
    security(())
)]
pub(super) async fn metrics(
    State(desk): State<Arc<Desk>>,
    shown: Option<Extension<Arc<Held>>>,
) -> Response {
    let c = desk.registry.counts();
    let (store, images) = tokio::join!(desk.book.store().health(), desk.registry.health());
    let (up, storage_up) = (u64::from(store.is_ok()), u64::from(images.is_ok()));
    let mut out = String::new();
    for (name, kind, n) in [
        ("registry_requests_total", "counter", c.requests),
        ("registry_refused_total", "counter", c.errors),
        ("registry_faults_total", "counter", c.faults),
        ("registry_received_bytes_total", "counter", c.bytes_in),
        ("registry_sent_bytes_total", "counter", c.bytes_out),
        ("registry_uploads", "gauge", c.uploads_in_flight),
        ("store_up", "gauge", up),
        ("registry_storage_up", "gauge", storage_up),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# TYPE provision_{name} {kind}\nprovision_{name} {n}");
    }
    if let Some(f) = &desk.following {
        f.metrics(&mut out);
    }
    if let Some(Extension(held)) = shown {
        held.metrics(Time::now(), &mut out);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], out).into_response()
}
