//! `/ui/nodes/{n}`: one node.

use super::Window;
use super::dress::Fault;
use super::frame::{Frame, show};
use super::records::{Log, story, tail};
use super::session::Seat;
use super::view::events::{EventRow, event};
use super::view::node::{self, NodePage};
use super::view::timeline::Timeline;
use crate::model::{Name, Time};
use crate::store::EventQuery;
use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use std::sync::Arc;

/// Events that are shown.
const EVENTS: usize = 20;
/// Bytes of log and console that are shown.
const LOG: u64 = 6 << 10;

/// What can be chosen for an install.
pub(super) struct Choices {
    pub profiles: Vec<Name>,
    pub images: Vec<Name>,
    pub mirrors: Vec<Name>,
    /// The profile and the image that are chosen already.
    pub profile: String,
    pub image: String,
}

#[derive(Template)]
#[template(path = "node.html")]
struct Page {
    f: Frame,
    v: NodePage,
    /// Whether the buttons are there, and the form token.
    acts: Option<String>,
    choices: Option<Choices>,
    story: Option<Timeline>,
    log: Log,
    console: Log,
    events: Vec<EventRow>,
}

pub(super) async fn page(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Path(n): Path<String>,
) -> Result<Response, Fault> {
    let (node, build) = {
        let v = w.ctx.rack.view();
        let node = v.inventory.find(&n)?.clone();
        let build = node::newest(&v, &node).cloned();
        (node, build)
    };
    let name = node.spec.name.clone();
    let f = Frame::live(&w, &seat, name.as_str(), "/ui/").await;
    let now = Time::now();
    let v = node::node(&w.ctx.rack.view(), &node, now);
    let (log, console, story) = match &build {
        Some(b) => (
            tail(&w, &b.id, "log", LOG).await,
            tail(&w, &b.id, "console", LOG).await,
            Some(story(&w, b, now).await?.0),
        ),
        None => (Log::default(), Log::default(), None),
    };
    let q = EventQuery { node: Some(name.clone()), limit: EVENTS, ..EventQuery::default() };
    let events = w.ctx.rack.store().query(&q).await?;
    let events = events.iter().rev().map(|e| event(e, now)).collect();
    let acts = seat.may_act().then(|| seat.who(&w).form);
    let choices = match acts {
        Some(_) => {
            let last = build.as_ref().map(|b| (&b.inputs.profile, &b.inputs.image));
            Some(choices(&w, last).await)
        }
        None => None,
    };
    show(&Page { f, v, acts, choices, story, log, console, events })
}

/// What there is to install; what cannot be read is told on its own page.
async fn choices(w: &Window, last: Option<(&Name, &Name)>) -> Choices {
    let (images, profiles) = (w.ctx.images.clone(), w.ctx.profiles.clone());
    let shelf = w.ctx.mirrors.shelf().clone();
    let read = tokio::task::spawn_blocking(move || {
        let images = images.list().map(|(good, _)| good).unwrap_or_default();
        let profiles = profiles.list().map(|(good, _)| good).unwrap_or_default();
        let mirrors = shelf.list().map(|(good, _)| good).unwrap_or_default();
        (
            images.into_iter().map(|i| i.name).collect::<Vec<_>>(),
            profiles.into_iter().map(|p| p.name).collect::<Vec<_>>(),
            mirrors.into_iter().map(|m| m.description.name).collect::<Vec<_>>(),
        )
    });
    let (images, profiles, mirrors) = read.await.unwrap_or_default();
    let usual = &w.ctx.config.install.image;
    let (profile, image) = last.map_or((None, usual), |(p, i)| (Some(p), i));
    Choices {
        profile: profile.map(ToString::to_string).unwrap_or_default(),
        image: image.to_string(),
        profiles,
        images,
        mirrors,
    }
}
