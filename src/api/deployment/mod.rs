//! The deployment server's resources: who people and nodes are (`people`,
//! `certificates`, `login`), and what they may do in the registry (`gate`); how
//! images come from source (`ingest`, `hooks`, `bases`); what is in it
//! (`catalog`), how it is kept (`upkeep`), what moves up in it (`promote`,
//! `checks`), whom it follows (`follow`), and where its images went
//! (`workload`). `openapi` describes all of them,
//! `book` holds all of it in memory and in the store.
//!
//! Rights are looked up at every request, never carried in a token: what is
//! taken away is gone at once, also for a pull that was allowed a minute ago.

pub mod bases;
pub mod book;
pub mod catalog;
pub mod certificates;
pub mod checks;
pub mod follow;
pub mod gate;
pub mod health;
pub mod hooks;
pub mod ingest;
pub mod login;
pub mod openapi;
pub mod people;
pub mod promote;
pub mod upkeep;
pub mod visitor;
pub mod workload;

pub use book::Book;

use super::traffic::Traffic;
use super::{Clerk, Problem, caller, delivery, events, known, remainder, tokens};
use crate::auth::TokenRecord;
use crate::ingest::Pipeline;
use crate::model::{Digest, Event};
use crate::registry::Registry;
use crate::store::{Batch, Store};
use crate::tls::ca::Authority;
use async_trait::async_trait;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::broadcast;

/// Who a TLS client showed itself to be; put beside each of its requests.
#[derive(Debug, Clone, Default)]
pub struct ClientCertificate(pub Option<crate::tls::ca::Peer>);

/// What the resources need.
pub struct Desk {
    /// People, tokens, certificates.
    pub book: Arc<Book>,
    /// What was refused lately.
    pub refusals: caller::Refusals,
    /// Signs nodes' certificates.
    pub authority: Arc<Authority>,
    /// How long those are good.
    pub certificate_life: Duration,
    /// Images.
    pub registry: Arc<Registry>,
    /// What makes images from source.
    pub pipeline: Arc<Pipeline>,
    /// What runs on nodes.
    pub workloads: workload::Workloads,
    /// Pushes that become images.
    pub hooks: hooks::Hooks,
    /// Rules of its upkeep.
    pub house: promote::House,
    /// Whom this server follows.
    pub following: Option<Arc<follow::Following>>,
    /// What goes through its listeners.
    pub traffic: Arc<Traffic>,
}

#[async_trait]
impl Clerk for Desk {
    fn tokens(&self) -> &RwLock<HashMap<Digest, TokenRecord>> {
        self.book.tokens()
    }

    fn refusals(&self) -> &caller::Refusals {
        &self.refusals
    }

    fn store(&self) -> &dyn Store {
        self.book.store()
    }

    async fn commit(&self, batch: Batch) -> Result<(), Problem> {
        Ok(self.book.commit(batch).await?)
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.book.subscribe()
    }
}

/// The routes beside `/v2`.
pub fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/v1/events", get(events::query::<Desk>))
        .route("/v1/events/verify", get(events::verify::<Desk>))
        .route("/v1/tokens", get(tokens::list::<Desk>).post(tokens::add::<Desk>))
        .route("/v1/tokens/{name}", axum::routing::delete(tokens::revoke::<Desk>))
        .route("/v1/users", get(people::list).post(people::add))
        .route("/v1/users/{name}", axum::routing::delete(people::remove))
        .route("/v1/certificates", get(certificates::list).post(certificates::sign))
        .route("/v1/certificates/renew", post(certificates::renew))
        .route("/v1/certificates/revoke", post(certificates::revoke))
        .route("/v1/ca", get(certificates::ca))
        .route("/v1/ingest", get(ingest::list).post(ingest::submit))
        .route("/v1/ingest/{id}", get(ingest::show).delete(ingest::cancel))
        .route("/v1/ingest/{id}/log", get(ingest::log))
        .route("/v1/hooks", get(hooks::list))
        .route("/v1/hooks/{name}", post(hooks::receive))
        .route("/v1/bases", post(bases::build))
        .route("/v1/bases/import", post(bases::import))
        .route("/v1/attestations/{*reference}", get(ingest::attestations))
        .route("/v1/registry/catalog", get(catalog::list))
        .route("/v1/registry/gc", post(upkeep::gc))
        .route("/v1/registry/verify", post(upkeep::verify))
        .route("/v1/registry/checks", post(checks::add))
        .route("/v1/registry/promote", post(promote::promote))
        .route("/v1/workload", post(workload::report))
        .route("/v1/nodes", get(workload::nodes))
        .route("/v1/nodes/{name}", get(workload::node))
        .route("/v1/metrics/software", get(delivery::software::<Desk>))
        .route("/v1/follow", get(follow::show))
        .route("/auth/token", get(login::token))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/docs", get(openapi::docs))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .fallback(|| async {
            Problem::not_found(
                "there is no such resource; the registry is at /v2/, and /docs tells",
            )
        })
        .method_not_allowed_fallback(known::other_method)
        .route_layer(axum::middleware::from_fn(known::parameters(openapi::json())))
        .layer(DefaultBodyLimit::max(1 << 20))
        .layer(axum::middleware::from_fn_with_state(desk.clone(), caller::misfits::<Desk>))
        .layer(axum::middleware::from_fn(remainder::read))
        .with_state(desk)
}
