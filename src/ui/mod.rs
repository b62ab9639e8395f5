//! The operator's window: pages over the API's listener, for a person who
//! wants to see the rack and why something does not move.
//!
//! - `session`: login by API token, the cookie, the gate every post passes.
//! - `dress`: what every answer gets: strict headers, errors as pages.
//! - `rack`, `node`, `orders`, `records`, `events`, `shelf`, `software`: the
//!   pages; thin, they fetch and hand over.
//! - `view`: what a page shows, from what the server knows and the time. Pure.
//! - `live`: news, so that an open page stays true. All of it reads without
//!   scripts too; `assets` has the one script and the one stylesheet.
//!
//! It reads the rack's view and orders through `api`'s own functions: what a
//! button may do is what the token behind it may do. It is never served on the
//! local socket, and a local peer is nobody here.

mod assets;
mod dress;
mod events;
mod frame;
mod live;
mod node;
mod orders;
mod rack;
mod records;
mod session;
mod shelf;
mod software;
pub mod view;

use crate::api::{Ctx, Problem, remainder};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Redirect;
use axum::routing::{get, post};
pub use software::{Part, Software, Unheard};
use std::sync::Arc;

/// Largest body of a form, bytes.
const FORM: usize = 16 << 10;

/// What the pages need.
pub struct Window {
    ctx: Arc<Ctx>,
    /// Whether it is served over TLS: the cookie is then sent over nothing
    /// else.
    secure: bool,
    software: Option<Arc<dyn Software>>,
    sessions: session::Book,
}

impl Window {
    /// A window on `ctx`, with what is on the deployment server where there is
    /// one.
    pub fn new(ctx: Arc<Ctx>, secure: bool, software: Option<Arc<dyn Software>>) -> Arc<Self> {
        Arc::new(Self { ctx, secure, software, sessions: session::Book::default() })
    }
}

/// The routes of `/ui/`, and `/`, which leads there.
pub fn router(window: Arc<Window>) -> Router {
    let home = || async { Redirect::to("/ui/") };
    let unknown = || async {
        dress::Fault(Problem::not_found("there is no such page; the bar above has those there are"))
    };
    let pages = Router::new()
        .route("/ui/", get(rack::page))
        .route("/ui/login", get(session::form).post(session::login))
        .route("/ui/logout", post(session::logout))
        .route("/ui/live", get(live::stream))
        .route("/ui/nodes/{n}", get(node::page))
        .route("/ui/nodes/{n}/install", get(orders::ask_install).post(orders::install))
        .route("/ui/nodes/{n}/power", get(orders::ask_power).post(orders::power))
        .route("/ui/builds", get(records::builds))
        .route("/ui/builds/{id}", get(records::build))
        .route("/ui/builds/{id}/files", get(records::files))
        .route("/ui/builds/{id}/log", get(records::log))
        .route("/ui/builds/{id}/console", get(records::console))
        .route("/ui/operations", get(records::operations))
        .route("/ui/operations/{id}/cancel", get(orders::ask_cancel).post(orders::cancel))
        .route("/ui/events", get(events::page))
        .route("/ui/images", get(shelf::images))
        .route("/ui/profiles", get(shelf::profiles))
        .route("/ui/mirrors", get(shelf::mirrors))
        .route("/ui/software", get(software::page))
        .route("/ui/software/promotions", get(software::promotions))
        .route("/ui/software/runs/{id}", get(software::run::page))
        .route("/ui/software/runs/{id}/log", get(software::run::log))
        .route("/ui/software/images/{*reference}", get(software::image::page))
        .route("/ui/style.css", get(assets::style))
        .route("/ui/app.js", get(assets::script))
        .route("/ui/icon.svg", get(assets::icon))
        .route("/ui/{*rest}", get(unknown).post(unknown))
        .layer(from_fn_with_state(window.clone(), dress::dress))
        .layer(DefaultBodyLimit::max(FORM))
        .layer(from_fn(remainder::read));
    Router::new().merge(pages).route("/", get(home)).route("/ui", get(home)).with_state(window)
}
