//! HTTP for people and programs: `/v1/…`, and `/node/…` for the nodes
//! themselves and their installers on the boot network. One file a resource; errors are
//! problem+json (RFC 9457) and name what would be right.
//!
//! `deployment` has the deployment server's resources; tokens and the record
//! are the same for both servers ([`Clerk`]).
//!
//! A call that takes time answers 202 with an operation at once. The
//! resources read the rack's view and give orders to it; none changes a node.
//! What a call needs is in [`Ctx`], made by `app`.

mod ask;
mod background;
pub mod builds;
pub mod caller;
mod choice;
pub mod clerk;
pub mod delivery;
pub mod deployment;
pub mod events;
pub mod filter;
pub mod health;
mod idempotency;
pub mod images;
pub mod install;
pub mod installs;
mod known;
mod mirror_carry;
pub mod mirrors;
pub mod node_installer;
pub mod node_reports;
pub mod nodes;
pub mod numbers;
pub mod openapi;
pub mod operations;
pub mod phases;
pub mod power;
pub mod problem;
mod protocols;
pub mod remainder;
pub mod tokens;
pub mod traffic;
pub mod webhooks;
pub mod window;

pub use background::Report;
pub use caller::{Caller, LocalPeer};
pub use clerk::{Clerk, demand};
pub use problem::Problem;

use crate::auth::{MasterKey, TokenRecord};
use crate::config::Config;
use crate::image::Catalogue;
use crate::lifecycle::Rack;
use crate::model::plan::SignedCertificate;
use crate::model::{BuildId, Digest, Event, Name, Node, NodeName};
use crate::netboot::script::Scripts;
use crate::power::PowerControl;
use crate::preseed::Preseeds;
use crate::profile::Profiles;
use crate::store::{Batch, Store};
use async_trait::async_trait;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};

/// A machine that was seen and is not known.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Discovered {
    /// Its MAC.
    pub mac: crate::model::Mac,
    /// Who made the card, where that is known.
    pub vendor: String,
    /// What it said of itself (option 60).
    pub vendor_class: Option<String>,
    /// Firmware and processor, where it said so.
    pub arch: Option<crate::model::ClientArch>,
    /// First packet.
    #[schema(value_type = String, format = DateTime)]
    pub first_seen: crate::model::Time,
    /// Last packet.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen: crate::model::Time,
    /// Packets since the server started or it was first seen.
    pub packets: u64,
}

/// Builds images; handed in by `app`, since it runs programs.
#[async_trait]
pub trait ImageBuilder: Send + Sync {
    /// Builds `image` with `bake` profiles, and ends soon when that is not
    /// wanted any more. Returns the image's digest.
    async fn build(&self, image: Name, bake: Vec<Name>, progress: Report)
    -> Result<Digest, String>;
    /// Adds the distribution's own installer as image `name`.
    async fn add(
        &self,
        name: Name,
        add: images::AddImage,
        progress: Report,
    ) -> Result<Digest, String>;
}

/// A node's BMC, opened with the stored password.
#[async_trait]
pub trait Bmcs: Send + Sync {
    /// A handle; the text of an error is for people.
    async fn open(&self, node: &Node) -> Result<Arc<dyn PowerControl>, String>;
    /// Forgets what is cached of a node's BMC.
    fn forget(&self, node: &NodeName);
}

/// Gets nodes their certificates for the registry; handed in by `app`.
#[async_trait]
pub trait Certifier: Send + Sync {
    /// A certificate for what `build` makes of `node`; the text of an error is
    /// for people.
    async fn sign(
        &self,
        node: &NodeName,
        build: &BuildId,
        csr: String,
    ) -> Result<SignedCertificate, String>;
    /// There is a new [`nodes::REVOCATION`] to carry out.
    fn wake(&self);
}

/// Bytes of a request's body, uploads apart.
const BODY: usize = 2 << 20;

/// What the resources need.
pub struct Ctx {
    /// Configuration.
    pub config: Arc<Config>,
    /// The rack.
    pub rack: Arc<Rack>,
    /// Images.
    pub images: Catalogue,
    /// Profiles.
    pub profiles: Profiles,
    /// Package archives that come through our cache.
    pub through: Vec<(String, String)>,
    /// Boot scripts, for their digests.
    pub scripts: Scripts,
    /// What the distributions' installers are answered.
    pub preseeds: Preseeds,
    /// The key.
    pub key: Arc<MasterKey>,
    /// Tokens by digest.
    pub tokens: RwLock<HashMap<Digest, TokenRecord>>,
    /// What was refused lately.
    pub refusals: caller::Refusals,
    /// Named requests that are being answered: actor and name.
    pub answering: Mutex<HashSet<(String, String)>>,
    /// Who is told of events.
    pub webhooks: webhooks::Webhooks,
    /// BMCs.
    pub bmcs: Arc<dyn Bmcs>,
    /// Certificates, if there is a deployment server.
    pub certifier: Option<Arc<dyn Certifier>>,
    /// Image builds.
    pub builder: Arc<dyn ImageBuilder>,
    /// Mirrors.
    pub mirrors: Arc<dyn mirrors::MirrorKeeper>,
    /// Logs of builds.
    pub logs: PathBuf,
    /// Strangers.
    pub discovered: Arc<RwLock<BTreeMap<crate::model::Mac, Discovered>>>,
    /// Counters of the protocols, for `/metrics`, by name.
    pub counters: Box<dyn Fn() -> BTreeMap<String, u64> + Send + Sync>,
    /// What else `/metrics` counts.
    pub numbers: Arc<numbers::Numbers>,
    /// Whether something outside keeps this host's clock; `None` where time is
    /// not served.
    pub clock: Box<dyn Fn() -> Option<bool> + Send + Sync>,
}

#[async_trait]
impl Clerk for Ctx {
    fn tokens(&self) -> &RwLock<HashMap<Digest, TokenRecord>> {
        &self.tokens
    }

    fn refusals(&self) -> &caller::Refusals {
        &self.refusals
    }

    fn store(&self) -> &dyn Store {
        &**self.rack.store()
    }

    async fn commit(&self, batch: Batch) -> Result<(), Problem> {
        Ok(self.rack.commit(batch).await.map(drop)?)
    }

    fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Event> {
        self.rack.subscribe()
    }

    /// The log outlives the inventory: a removed node can be asked for.
    fn node(&self, text: &str) -> Result<NodeName, Problem> {
        match self.rack.view().inventory.find(text) {
            Ok(node) => Ok(node.spec.name.clone()),
            Err(e) if text.parse::<std::net::Ipv4Addr>().is_ok() => Err(e.into()),
            Err(_) => text.parse().map_err(|e| Problem::bad(format!("{e}"))),
        }
    }
}

/// The routes of `/v1`, and health.
pub fn router(ctx: Arc<Ctx>) -> Router {
    Router::new()
        .route("/v1/nodes", get(nodes::list).post(nodes::add))
        .route("/v1/nodes/import", post(nodes::import))
        .route("/v1/nodes/{n}", get(nodes::show).patch(nodes::set).delete(nodes::remove))
        .route("/v1/nodes/{n}/power", get(power::status).post(power::command))
        .route("/v1/nodes/{n}/install", post(install::install))
        .route("/v1/installs", post(installs::start))
        .route("/v1/nodes/{n}/explain", get(builds::explain_node))
        .route("/v1/discovered", get(nodes::discovered))
        .route("/v1/operations", get(operations::list))
        .route("/v1/operations/{id}", get(operations::show).delete(operations::cancel))
        .route("/v1/events", get(events::query::<Ctx>))
        .route("/v1/events/verify", get(events::verify::<Ctx>))
        .route("/v1/images", get(images::list))
        .route("/v1/images/{name}", get(images::show))
        .route("/v1/images/{name}/build", post(images::build))
        .route("/v1/images/{name}/add", post(images::add))
        .route("/v1/mirrors", get(mirrors::list).post(mirrors::build))
        .route("/v1/mirrors/import", post(mirror_carry::import).layer(DefaultBodyLimit::disable()))
        .route("/v1/mirrors/{name}", get(mirrors::show).delete(mirrors::remove))
        .route("/v1/mirrors/{name}/verify", post(mirrors::verify))
        .route("/v1/mirrors/{name}/export", get(mirror_carry::export))
        .route("/v1/profiles", get(images::profiles))
        .route("/v1/builds", get(builds::list))
        .route("/v1/builds/{id}", get(builds::show))
        .route("/v1/builds/{id}/explain", get(builds::explain_build))
        .route("/v1/builds/{id}/log", get(builds::log))
        .route("/v1/builds/{id}/console", get(builds::console))
        .route("/v1/builds/{id}/files", get(builds::files))
        .route("/v1/tokens", get(tokens::list::<Ctx>).post(tokens::add::<Ctx>))
        .route("/v1/tokens/{name}", axum::routing::delete(tokens::revoke::<Ctx>))
        .route("/v1/webhooks", get(webhooks::list).post(webhooks::add))
        .route("/v1/webhooks/{name}", axum::routing::delete(webhooks::remove))
        .route("/v1/metrics/profiles", get(delivery::profiles::<Ctx>))
        .route("/v1/metrics/phases", get(phases::list))
        .route("/openapi.json", get(openapi::build::document))
        .route("/docs", get(openapi::build::docs))
        .route("/metrics", get(health::metrics))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .fallback(|| async { Problem::not_found("there is no such resource; /docs tells") })
        .method_not_allowed_fallback(known::other_method)
        .route_layer(axum::middleware::from_fn(known::parameters(openapi::build::json())))
        .layer(DefaultBodyLimit::max(BODY))
        .layer(axum::middleware::from_fn_with_state(ctx.clone(), idempotency::once))
        .layer(axum::middleware::from_fn_with_state(ctx.clone(), caller::misfits::<Ctx>))
        .layer(axum::middleware::from_fn(remainder::read))
        .with_state(ctx)
}

/// The routes of `/node`, for the boot network.
pub fn node_router(ctx: Arc<Ctx>) -> Router {
    let mut router = Router::new();
    for file in ["preseed.cfg", "user-data", "meta-data", "vendor-data"] {
        let answer = move |ctx, peer, mac| node_installer::boot_file(ctx, peer, mac, file);
        router = router.route(&format!("/boot/{{mac}}/{file}"), get(answer));
    }
    router
        .route("/node/early", get(node_installer::early))
        .route("/node/late", get(node_installer::late))
        .route("/node/agent", get(node_installer::agent))
        .route("/node/plan", get(node_reports::plan))
        .route("/node/facts", post(node_reports::facts))
        .route("/node/phase", post(node_reports::phase))
        .route("/node/log", post(node_reports::log))
        .route("/node/failed", post(node_reports::failed))
        .route("/node/installed", post(node_reports::installed))
        .route("/node/booted", post(node_reports::booted))
        .route("/node/certificate", post(node_reports::certificate))
        .route("/node/verified", post(node_reports::verified))
        .layer(DefaultBodyLimit::max(1 << 20))
        .with_state(ctx)
}

/// A list with the page it is of.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub struct List<T> {
    /// The things.
    pub items: Vec<T>,
}
