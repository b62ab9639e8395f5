//! `/openapi.json` of the build server, made from the code. A new route is
//! listed here, under the handler that serves it; a test holds this list and
//! the router together.
//!
//! What nodes say on the boot network (`/node`, `/boot`) is between this
//! program and its own agent, and not described.

use super::{Common, text};
use crate::api::{
    Ctx, builds, delivery, events, health, images, install, installs, mirror_carry, mirrors, nodes,
    operations, phases, power, tokens, webhooks,
};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use std::sync::{Arc, OnceLock};
use utoipa::OpenApi as _;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Provision, build server",
        description = "Turns powered-off servers into installed, verified, named nodes. What takes time answers 202 with an operation to watch; errors are problem+json and name the field.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    security(("bearer" = [])),
    tags(
        (name = "nodes", description = "The inventory, power, installs"),
        (name = "operations", description = "What is being done, and what became of it"),
        (name = "builds", description = "The record of how each node came to be"),
        (name = "images", description = "What can be installed: images and profiles"),
        (name = "mirrors", description = "All that an install takes, in one signed directory"),
        (name = "record", description = "The log of events, chained"),
        (name = "metrics", description = "How well machines are delivered"),
        (name = "tokens", description = "Who may ask"),
        (name = "health", description = "For those who watch the server; no token")
    ),
    paths(
        nodes::list,
        nodes::add,
        nodes::import,
        nodes::show,
        nodes::set,
        nodes::remove,
        nodes::discovered,
        power::status,
        power::command,
        install::install,
        installs::start,
        builds::explain_node,
        operations::list,
        operations::show,
        operations::cancel,
        builds::list,
        builds::show,
        builds::explain_build,
        builds::log,
        builds::console,
        builds::files,
        images::list,
        images::show,
        images::build,
        images::add,
        images::profiles,
        mirrors::list,
        mirrors::build,
        mirrors::show,
        mirrors::remove,
        mirrors::verify,
        mirror_carry::export,
        mirror_carry::import,
        events::query,
        events::verify,
        webhooks::list,
        webhooks::add,
        webhooks::remove,
        delivery::profiles,
        phases::list,
        tokens::list,
        tokens::add,
        tokens::revoke,
        health::metrics,
        health::healthz,
        health::readyz,
        document,
        docs
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
pub(crate) async fn document(State(_): State<Arc<Ctx>>) -> Response {
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
pub(crate) async fn docs(State(_): State<Arc<Ctx>>) -> Response {
    static PAGE: OnceLock<String> = OnceLock::new();
    super::page::response(PAGE.get_or_init(|| super::page::html(json())))
}

#[cfg(test)]
mod tests {
    use super::super::checks;
    use super::*;

    #[test]
    fn what_is_routed_is_described_and_the_other_way_round() {
        checks::same(json(), include_str!("../mod.rs"), &[]);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_name() {
        checks::sound(json());
    }
}
