//! `/openapi.json`: the deployment server's resources, made from the code. A
//! new route is listed here, under the handler that serves it; a test holds
//! this list and the router together.
//!
//! The registry itself (`/v2`) is described by its own specification: only
//! where it begins stands here.

use super::{
    Desk, bases, catalog, certificates, checks, follow, health, hooks, ingest, login, people,
    promote, upkeep, workload,
};
use crate::api::openapi::{Common, page, text};
use crate::api::{delivery, events, tokens};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use std::sync::{Arc, OnceLock};
use utoipa::OpenApi as _;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Provision, deployment server",
        description = "A container registry and the pipeline that fills it.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    external_docs(
        url = "https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md",
        description = "The registry at /v2: OCI Distribution Specification 1.1"
    ),
    security(("bearer" = [])),
    paths(
        events::query,
        events::verify,
        tokens::list,
        tokens::add,
        tokens::revoke,
        people::list,
        people::add,
        people::remove,
        certificates::list,
        certificates::sign,
        certificates::renew,
        certificates::revoke,
        certificates::ca,
        ingest::list,
        ingest::submit,
        ingest::show,
        ingest::cancel,
        ingest::log,
        ingest::attestations,
        hooks::list,
        hooks::receive,
        bases::build,
        bases::import,
        catalog::list,
        upkeep::gc,
        upkeep::verify,
        checks::add,
        promote::promote,
        follow::show,
        workload::report,
        workload::nodes,
        workload::node,
        delivery::software,
        login::token,
        health::metrics,
        health::healthz,
        health::readyz,
        document,
        docs,
        registry
    ),
    modifiers(&Common)
)]
struct Document;

/// The document, as JSON.
pub fn json() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| text(&Document::openapi()))
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "health",
    responses((
        status = 200,
        description = "OpenAPI 3.1",
        body = serde_json::Value,
        example = json!({ "openapi": "3.1.0", "info": {}, "paths": {} })
    )),
    security(())
)]
pub(super) async fn document(State(_): State<Arc<Desk>>) -> Response {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], json()).into_response()
}

/// This document, to be read by people.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "health",
    responses((status = 200, description = "A page", body = String, content_type = "text/html")),
    security(())
)]
pub(super) async fn docs(State(_): State<Arc<Desk>>) -> Response {
    static PAGE: OnceLock<String> = OnceLock::new();
    page::response(PAGE.get_or_init(|| page::html(json())))
}

/// Where the registry begins: 200 for who is known (OCI Distribution
/// Specification 1.1; its other routes are in the specification).
#[utoipa::path(
    get,
    path = "/v2/",
    tag = "registry",
    responses((status = 200, description = "Known here")),
    security(("bearer" = []), ("certificate" = []))
)]
#[allow(dead_code, reason = "`registry` serves it; here it is described")]
fn registry() {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::openapi::checks;

    #[test]
    fn what_is_routed_is_described_and_the_other_way_round() {
        checks::same(json(), include_str!("mod.rs"), &["/v2/"]);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_name() {
        checks::sound(json());
    }
}
