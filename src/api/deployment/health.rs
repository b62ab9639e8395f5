//! `/healthz`, `/readyz`, `/metrics` of the deployment server.

use super::Desk;
use crate::api::Problem;
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

/// The store takes writes.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, description = "ready", body = String, content_type = "text/plain")),
    security(())
)]
pub(super) async fn readyz(State(desk): State<Arc<Desk>>) -> Result<&'static str, Problem> {
    match desk.book.store().health().await {
        Ok(()) => Ok("ready\n"),
        Err(e) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{e}; pulls and pushes go on, what is recorded is refused"),
        )),
    }
}

/// Numbers for Prometheus (text format 0.0.4).
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((status = 200, description = "Text format 0.0.4", body = String, content_type = "text/plain")),
    security(())
)]
pub(super) async fn metrics(State(desk): State<Arc<Desk>>) -> Response {
    let c = desk.registry.counts();
    let up = u64::from(desk.book.store().health().await.is_ok());
    let mut out = String::new();
    for (name, kind, n) in [
        ("registry_requests_total", "counter", c.requests),
        ("registry_refused_total", "counter", c.errors),
        ("registry_faults_total", "counter", c.faults),
        ("registry_received_bytes_total", "counter", c.bytes_in),
        ("registry_sent_bytes_total", "counter", c.bytes_out),
        ("registry_uploads", "gauge", c.uploads_in_flight),
        ("store_up", "gauge", up),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# TYPE provision_{name} {kind}\nprovision_{name} {n}");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], out).into_response()
}
