//! `/ui/software`: the deployment server's images and builds, asked for over
//! the link that this server has to it. Without a link the page says so; what
//! cannot be had now is told, and nothing is made up for it.

use super::Window;
use super::dress::Fault;
use super::frame::{Frame, show};
use super::session::Seat;
use super::view::text::{At, Mark, bytes, took};
use crate::api::deployment::catalog::{Catalog, ShownImage};
use crate::ingest::run::{Run, RunState};
use crate::model::Time;
use askama::Template;
use async_trait::async_trait;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use std::time::Duration;

/// How long a page waits for the other server.
const WAIT: Duration = Duration::from_secs(6);
/// Builds that are shown.
const RUNS: usize = 30;

/// The deployment server, asked with this server's own token; handed in by
/// `app`. The text of an error is for people.
#[async_trait]
pub trait Software: Send + Sync {
    /// Where it is.
    fn url(&self) -> &str;
    /// The first page of its images.
    async fn catalog(&self) -> Result<Catalog, String>;
    /// Its builds of images, newest first.
    async fn runs(&self) -> Result<Vec<Run>, String>;
}

/// An image's line.
struct ImageRow {
    reference: String,
    staging: bool,
    attested: bool,
    pushed: At,
    by: String,
    size: String,
    digest: String,
}

/// A build's line.
struct RunRow {
    reference: String,
    mark: Mark,
    source: String,
    asked: At,
    by: String,
    took: String,
    reason: String,
}

#[derive(Template)]
#[template(path = "software.html")]
struct Page {
    f: Frame,
    url: Option<String>,
    images: Result<Vec<ImageRow>, String>,
    more: bool,
    runs: Result<Vec<RunRow>, String>,
}

fn image(i: ShownImage, now: Time) -> ImageRow {
    ImageRow {
        staging: i.repository.starts_with("staging/"),
        reference: format!("{}:{}", i.repository, i.tag),
        attested: i.attested,
        pushed: At::new(i.pushed, now),
        by: i.by.unwrap_or_default(),
        size: bytes(i.bytes),
        digest: i.digest,
    }
}

fn run(r: Run, now: Time) -> RunRow {
    let mark = match r.state {
        RunState::Done => Mark::DONE,
        RunState::Failed => Mark::FAILED,
        RunState::Cancelled => Mark { symbol: "–", word: "cancelled", tone: "idle" },
        RunState::Queued => Mark { symbol: "○", word: "queued", tone: "idle" },
        _ => Mark::RUNNING,
    };
    let began = r.started.unwrap_or(r.asked);
    RunRow {
        reference: r.reference(),
        mark,
        source: r.source.to_string(),
        asked: At::new(r.asked, now),
        took: took(r.ended.unwrap_or(now).duration_since(began)),
        by: r.asked_by,
        reason: r.reason.unwrap_or_default(),
    }
}

pub(super) async fn page(seat: Seat, State(w): State<Arc<Window>>) -> Result<Response, Fault> {
    let f = Frame::still(&w, &seat, "Software", "/ui/software");
    let now = Time::now();
    let Some(s) = &w.software else {
        let none = (Ok(Vec::new()), Ok(Vec::new()));
        return show(&Page { f, url: None, images: none.0, more: false, runs: none.1 });
    };
    let late = |_| format!("no answer within {} s", WAIT.as_secs());
    let (catalog, runs) =
        tokio::join!(tokio::time::timeout(WAIT, s.catalog()), tokio::time::timeout(WAIT, s.runs()));
    let catalog = catalog.map_err(late).and_then(|r| r);
    let runs = runs.map_err(late).and_then(|r| r);
    let more = catalog.as_ref().is_ok_and(|c| c.next.is_some());
    show(&Page {
        f,
        url: Some(s.url().to_owned()),
        images: catalog.map(|c| c.items.into_iter().map(|i| image(i, now)).collect()),
        more,
        runs: runs.map(|all| all.into_iter().take(RUNS).map(|r| run(r, now)).collect()),
    })
}
