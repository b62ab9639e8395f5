//! `/ui/`: the rack at a glance.

use super::Window;
use super::dress::Fault;
use super::frame::{Frame, show};
use super::session::Seat;
use super::view::alerts::Server;
use super::view::rack::{Asked, RackPage, rack};
use crate::api::Discovered;
use crate::model::Time;
use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use std::sync::{Arc, PoisonError};

#[derive(Template)]
#[template(path = "rack.html")]
struct Page {
    f: Frame,
    v: RackPage,
}

pub(super) async fn page(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    let f = Frame::live(&w, &seat, "Rack", "/ui/").await;
    let strangers: Vec<Discovered> = {
        let all = w.ctx.discovered.read().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    };
    let clock = (w.ctx.clock)();
    let r = &w.ctx.rack;
    let server = Server { store_ok: r.store_ok(), store: r.store().name(), clock };
    let v = rack(&r.view(), &strangers, server, asked, Time::now());
    show(&Page { f, v })
}
