//! `/ui/software`: the deployment server's images, builds and promotions,
//! asked for over the link that this server has to it. Without a link the page
//! says so; what cannot be had now is told, and nothing is made up for it.
//!
//! `run` is one build with its log, `image` what is signed about an image.
//! That server's news do not come here: a page on which something moves is
//! looked at again by the clock.

pub(super) mod image;
pub(super) mod run;

use super::Window;
use super::dress::Fault;
use super::frame::{Frame, show};
use super::session::Seat;
use super::view::software::{self, ImageRow, PromotionRow, RunRow};
use crate::api::Problem;
use crate::api::deployment::catalog::Catalog;
use crate::api::deployment::ingest::Attestations;
use crate::ingest::run::{Run, RunId};
use crate::model::{Event, Time};
use askama::Template;
use async_trait::async_trait;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// How long a page waits for the other server.
const WAIT: Duration = Duration::from_secs(6);
/// Builds that are shown.
const RUNS: usize = 30;
/// Promotions that are shown beside others, and on their own page.
const PROMOTIONS: (usize, usize) = (10, 200);
/// Seconds between two looks at a page on which something moves.
const AGAIN: u32 = 5;

/// Why something of the deployment server is not here; texts for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// It says that there is no such thing.
    #[error("{0}")]
    Absent(String),
    /// It could not be asked, or did not answer as it should.
    #[error("{0}")]
    Away(String),
}

/// Which part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// From this byte, as much as comes in one piece; empty at the end.
    From(u64),
    /// The last so many bytes.
    Last(u64),
}

/// The deployment server, asked with this server's own token; handed in by
/// `app`.
#[async_trait]
pub trait Software: Send + Sync {
    /// Where it is.
    fn url(&self) -> &str;
    /// The first page of its images.
    async fn catalog(&self) -> Result<Catalog, Unheard>;
    /// Its builds of images, newest first.
    async fn runs(&self) -> Result<Vec<Run>, Unheard>;
    /// One of them.
    async fn run(&self, id: &RunId) -> Result<Run, Unheard>;
    /// What was said in it.
    async fn log(&self, id: &RunId, part: Part) -> Result<Bytes, Unheard>;
    /// What is signed about `NAME:TAG` or `NAME@DIGEST`.
    async fn attestations(&self, image: &str) -> Result<Attestations, Unheard>;
    /// Its latest promotions, done or refused, at most so many, newest last.
    async fn promotions(&self, most: usize) -> Result<Vec<Event>, Unheard>;
}

/// An answer, or none within [`WAIT`].
async fn heard<T>(asked: impl Future<Output = Result<T, Unheard>>) -> Result<T, Unheard> {
    let late = |_| Unheard::Away(format!("no answer within {} s", WAIT.as_secs()));
    tokio::time::timeout(WAIT, asked).await.map_err(late)?
}

/// The deployment server, where there is one.
fn there(w: &Window) -> Result<&Arc<dyn Software>, Fault> {
    let none = "this server knows no deployment server: `[deployment]` in its configuration says \
                where one is";
    w.software.as_ref().ok_or_else(|| Problem::not_found(none).into())
}

impl From<Unheard> for Fault {
    fn from(u: Unheard) -> Self {
        Self(match u {
            Unheard::Absent(why) => Problem::not_found(why),
            Unheard::Away(why) => {
                let m = format!("the deployment server cannot be asked now: {why}");
                Problem::new(StatusCode::BAD_GATEWAY, m)
            }
        })
    }
}

#[derive(Template)]
#[template(path = "software.html")]
struct Page {
    f: Frame,
    url: Option<String>,
    images: Result<Vec<ImageRow>, Unheard>,
    more: bool,
    runs: Result<Vec<RunRow>, Unheard>,
    /// Builds that are not shown.
    older: usize,
    promotions: Result<Vec<PromotionRow>, Unheard>,
}

pub(super) async fn page(seat: Seat, State(w): State<Arc<Window>>) -> Result<Response, Fault> {
    let mut f = Frame::still(&w, &seat, "Software", "/ui/software");
    let now = Time::now();
    let Some(s) = &w.software else {
        let (images, runs, promotions) = (Ok(Vec::new()), Ok(Vec::new()), Ok(Vec::new()));
        return show(&Page { f, url: None, images, more: false, runs, older: 0, promotions });
    };
    let (catalog, runs, promotions) =
        tokio::join!(heard(s.catalog()), heard(s.runs()), heard(s.promotions(PROMOTIONS.0)));
    let more = catalog.as_ref().is_ok_and(|c| c.next.is_some());
    let older = runs.as_ref().map_or(0, |all| all.len().saturating_sub(RUNS));
    let runs: Result<Vec<RunRow>, _> =
        runs.map(|all| all.iter().take(RUNS).map(|r| software::run(r, now)).collect());
    // Also while it is away: it may be back.
    let moves = runs.as_ref().map_or(true, |all| all.iter().any(|r| r.moves));
    f.every = moves.then_some(AGAIN);
    show(&Page {
        f,
        url: Some(s.url().to_owned()),
        images: catalog.map(|c| c.items.into_iter().map(|i| software::image(i, now)).collect()),
        more,
        runs,
        older,
        promotions: promotions.map(|all| rows(&all, PROMOTIONS.0, now)),
    })
}

/// The newest first.
fn rows(all: &[Event], most: usize, now: Time) -> Vec<PromotionRow> {
    all.iter().rev().take(most).map(|e| software::promotion(e, now)).collect()
}

#[derive(Template)]
#[template(path = "promotions.html")]
struct PromotionsPage {
    f: Frame,
    rows: Vec<PromotionRow>,
    /// Whether there may be older ones.
    more: bool,
}

/// `/ui/software/promotions`.
pub(super) async fn promotions(
    seat: Seat,
    State(w): State<Arc<Window>>,
) -> Result<Response, Fault> {
    let all = heard(there(&w)?.promotions(PROMOTIONS.1)).await?;
    let f = Frame::still(&w, &seat, "Promotions", "/ui/software");
    let more = all.len() >= PROMOTIONS.1;
    show(&PromotionsPage { f, rows: rows(&all, PROMOTIONS.1, Time::now()), more })
}
