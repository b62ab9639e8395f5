//! `/healthz`, `/readyz`, `/metrics`.

use super::{Ctx, Problem};
use crate::model::{LifeCycle, Time};
use crate::tls::Held;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// The process runs.
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

/// The routes while the server waits for its store: alive, and not ready for
/// the reason in `why`.
pub fn waiting(why: Arc<Mutex<String>>) -> Router {
    let not_yet = move || {
        let text = why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move { Problem::new(StatusCode::SERVICE_UNAVAILABLE, text) }
    };
    Router::new().route("/healthz", get(healthz)).fallback(not_yet)
}

/// It can do its work: the store takes writes.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, description = "ready", body = String, content_type = "text/plain"),
        (
            status = 503,
            description = "Why not",
            body = Problem,
            content_type = "application/problem+json"
        )),
    security(())
)]
pub(super) async fn readyz(State(ctx): State<Arc<Ctx>>) -> Result<&'static str, Problem> {
    match ctx.rack.store().health().await {
        Ok(()) => Ok("ready\n"),
        Err(e) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{e}; boots go on, new commands are refused"),
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
pub(super) async fn metrics(
    State(ctx): State<Arc<Ctx>>,
    shown: Option<Extension<Arc<Held>>>,
) -> Response {
    let mut out = String::new();
    let mut lives: BTreeMap<String, u64> = BTreeMap::new();
    let builds = {
        let v = ctx.rack.view();
        for n in v.inventory.all() {
            *lives.entry(n.status.life.to_string()).or_default() += 1;
        }
        v.builds.len()
    };
    lives.entry(LifeCycle::Failed.to_string()).or_default();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# TYPE provision_nodes gauge");
    for (life, n) in lives {
        let _ = writeln!(out, "provision_nodes{{state=\"{life}\"}} {n}");
    }
    let _ = writeln!(out, "# TYPE provision_builds_total counter\nprovision_builds_total {builds}");
    let up = u8::from(ctx.rack.store().health().await.is_ok());
    let _ = writeln!(out, "# TYPE provision_store_up gauge\nprovision_store_up {up}");
    if let Some(kept) = (ctx.clock)() {
        let _ = writeln!(out, "# TYPE provision_clock_kept gauge");
        let _ = writeln!(out, "provision_clock_kept {}", u8::from(kept));
    }
    let (cache, packets): (Vec<_>, Vec<_>) =
        (ctx.counters)().into_iter().partition(|(name, _)| name.starts_with("cache_"));
    for (name, n) in cache {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let _ = writeln!(out, "# TYPE provision_{name} {kind}\nprovision_{name} {n}");
    }
    let _ = writeln!(out, "# TYPE provision_packets_total counter");
    for (name, n) in packets {
        let _ = writeln!(out, "provision_packets_total{{kind=\"{name}\"}} {n}");
    }
    if let Some(Extension(held)) = shown {
        held.metrics(Time::now(), &mut out);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], out).into_response()
}
