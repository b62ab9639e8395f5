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
use crate::api::openapi::Common;
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
        registry
    ),
    modifiers(&Common)
)]
struct Document;

/// The document, as JSON.
pub fn json() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| Document::openapi().to_json().unwrap_or_default())
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "health",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)),
    security(())
)]
pub(super) async fn document(State(_): State<Arc<Desk>>) -> Response {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], json()).into_response()
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
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn described() -> BTreeSet<(String, String)> {
        let doc: Value = serde_json::from_str(json()).unwrap();
        let mut all = BTreeSet::new();
        for (path, item) in doc["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                all.insert((method.clone(), path.clone()));
            }
        }
        all
    }

    /// What `router` says, read from its text: axum does not tell.
    fn routed() -> BTreeSet<(String, String)> {
        let text = include_str!("mod.rs");
        let text = text.split("pub fn router").nth(1).unwrap();
        let text = text.split(".fallback").next().unwrap();
        let mut all = BTreeSet::new();
        for one in text.split(".route(").skip(1) {
            let path = one.split('"').nth(1).unwrap().replace("{*", "{");
            for method in ["get", "post", "put", "patch", "delete"] {
                if one.contains(&format!("{method}(")) {
                    all.insert((method.to_owned(), path.clone()));
                }
            }
        }
        all
    }

    #[test]
    fn what_is_routed_is_described_and_the_other_way_round() {
        let (described, routed) = (described(), routed());
        assert!(routed.len() > 30, "{routed:?}");
        let missing: Vec<_> = routed.difference(&described).collect();
        assert!(missing.is_empty(), "add these to `paths` above: {missing:?}");
        let extra: Vec<_> = described.difference(&routed).filter(|(_, p)| p != "/v2/").collect();
        assert!(extra.is_empty(), "no route serves these: {extra:?}");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_name() {
        let doc: Value = serde_json::from_str(json()).unwrap();
        assert_eq!(doc["openapi"], "3.1.0");
        let (mut todo, mut refs) = (vec![&doc], BTreeSet::new());
        while let Some(v) = todo.pop() {
            match v {
                Value::Object(o) => {
                    refs.extend(o.get("$ref").and_then(Value::as_str));
                    todo.extend(o.values());
                }
                Value::Array(a) => todo.extend(a),
                _ => {}
            }
        }
        assert!(refs.len() > 20);
        for r in refs {
            assert!(doc.pointer(r.trim_start_matches('#')).is_some(), "{r} leads nowhere");
        }
        let mut names = BTreeSet::new();
        for item in doc["paths"].as_object().unwrap().values() {
            for o in item.as_object().unwrap().values() {
                assert!(names.insert(o["operationId"].as_str().unwrap()), "{o}");
                assert!(o["summary"].is_string(), "{o}");
                assert!(o["responses"]["default"]["$ref"].is_string(), "{o}");
            }
        }
    }
}
