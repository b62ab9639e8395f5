//! `/healthz`, `/readyz`, `/metrics` of the deployment server.

use super::Desk;
use crate::api::{Problem, numbers};
use crate::ingest::totals::Totals;
use crate::metrics::{Exposition, Kind};
use crate::registry::Counts;
use crate::tls::Held;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
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
    let (store, images) = tokio::join!(desk.book.store().health(), desk.registry.health());
    let mut e = Exposition::new();
    registry(&desk.registry.counts(), images.is_ok(), &mut e);
    ingest(&desk.pipeline.totals(), &mut e);
    desk.workloads.write(&mut e);
    if let Some(f) = &desk.following {
        f.metrics(&mut e);
    }
    numbers::write_store(store.is_ok(), &desk.book.store_counts(), &mut e);
    desk.traffic.write(&mut e);
    numbers::write_certificate(shown.as_deref(), &mut e);
    numbers::write_process(&mut e);
    numbers::answer(e)
}

fn registry(c: &Counts, up: bool, e: &mut Exposition) {
    for (name, help, n) in [
        ("requests_total", "Requests below /v2.", c.requests),
        ("refused_total", "Requests below /v2 that were answered 4xx.", c.errors),
        ("faults_total", "Requests below /v2 that were answered 5xx.", c.faults),
        ("received_bytes_total", "Bytes of blobs and manifests that came.", c.bytes_in),
        ("sent_bytes_total", "Bytes of blobs and manifests that went.", c.bytes_out),
    ] {
        e.counter(&format!("provision_registry_{name}"), help, n);
    }
    let help = "Requests that are writing now.";
    e.gauge("provision_registry_uploads", help, c.uploads_in_flight);
    e.gauge("provision_registry_storage_up", "Whether the registry's storage answers.", up);
}

fn ingest(t: &Totals, e: &mut Exposition) {
    let mut f = e.family(
        "provision_ingest_runs_total",
        Kind::Counter,
        "Runs from source to image that are over, by outcome.",
    );
    t.ended.iter().for_each(|(outcome, n)| f.is(&[("outcome", outcome)], *n));
    let mut f =
        e.family("provision_ingest_queue_runs", Kind::Gauge, "Runs that wait or are under way.");
    f.is(&[("state", "waiting")], t.waiting);
    f.is(&[("state", "running")], t.running);
    let help = "From the order of a run to its beginning.";
    e.family("provision_ingest_wait_seconds", Kind::Histogram, help).took(&[], &t.waited);
    let help = "From the beginning of a run to its end.";
    e.family("provision_ingest_duration_seconds", Kind::Histogram, help).took(&[], &t.took);
}
