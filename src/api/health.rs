//! `/healthz`, `/readyz`, `/metrics`.

use super::{Ctx, Problem, numbers, protocols};
use crate::metrics::Kind;
use crate::model::LifeCycle;
use crate::tls::Held;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use std::collections::BTreeMap;
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
    let mut e = ctx.numbers.records(&ctx).await;
    let mut lives: BTreeMap<String, u64> =
        LifeCycle::ALL.iter().map(|life| (life.to_string(), 0)).collect();
    let builds = {
        let v = ctx.rack.view();
        for n in v.inventory.all() {
            *lives.entry(n.status.life.to_string()).or_default() += 1;
        }
        v.builds.len()
    };
    let mut f = e.family("provision_nodes", Kind::Gauge, "Nodes in the inventory, by state.");
    lives.iter().for_each(|(life, n)| f.is(&[("state", life)], *n));
    let strangers = ctx.discovered.read().unwrap_or_else(PoisonError::into_inner).len();
    e.gauge(
        "provision_discovered_machines",
        "Machines that were seen and are no nodes.",
        strangers,
    );
    e.counter("provision_builds_total", "Installs ordered, ever.", builds);
    numbers::write_power(&ctx.numbers.power, &mut e);
    let up = ctx.rack.store().health().await.is_ok();
    numbers::write_store(up, &ctx.rack.store_counts(), &mut e);
    if let Some(kept) = (ctx.clock)() {
        let help = "Whether something outside keeps this host's clock.";
        e.gauge("provision_clock_kept", help, kept);
    }
    protocols::write(&(ctx.counters)(), &mut e);
    ctx.numbers.traffic.write(&mut e);
    numbers::write_certificate(shown.as_deref(), &mut e);
    numbers::write_process(&mut e);
    numbers::answer(e)
}
