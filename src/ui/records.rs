//! `/ui/builds` and `/ui/operations`: what was done, and what is being done.

use super::Window;
use super::dress::Fault;
use super::frame::{Frame, show};
use super::session::Seat;
use super::view::records::{self, BuildRow, OperationRow};
use super::view::timeline::{Timeline, timeline};
use crate::api::{Problem, builds};
use crate::lifecycle::explain::Line;
use crate::lifecycle::usual::Usual;
use crate::model::{Build, BuildId, Time};
use crate::store::kind;
use askama::Template;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

/// Lines on a page.
const PAGE: usize = 50;
/// Bytes of a log on its build's page.
const LOG: u64 = 64 << 10;
/// Rendered texts of a build that are shown, and characters of each.
const TEXTS: (usize, usize) = (100, 64 << 10);

/// The end of a build's log.
#[derive(Default)]
pub(super) struct Log {
    pub text: String,
    /// Bytes before it that are not shown.
    pub before: u64,
}

/// The last `most` bytes of what is kept of a build in a file (`log`,
/// `console`), from the start of a line.
pub(super) async fn tail(w: &Window, id: &BuildId, kept: &str, most: u64) -> Log {
    let path = w.ctx.logs.join(format!("{id}.{kept}"));
    let read = move || -> std::io::Result<Log> {
        let mut file = std::fs::File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(most);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let whole = if from == 0 { &*text } else { text.split_once('\n').map_or("", |t| t.1) };
        Ok(Log { text: whole.to_owned(), before: from })
    };
    // A build without a log has none to show.
    tokio::task::spawn_blocking(read).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// A build's timeline, and its events as the story goes.
pub(super) async fn story(
    w: &Window,
    b: &Build,
    now: Time,
) -> Result<(Timeline, Vec<Line>), Fault> {
    let usual = Usual::of(w.ctx.rack.view().builds.values());
    let mut told = builds::story(&w.ctx, b, &usual, now).await?;
    let lines = std::mem::take(&mut told.lines);
    Ok((timeline(told, &usual, now), lines))
}

/// Which lines are asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    node: String,
    /// Only older than this id.
    #[serde(default)]
    before: String,
}

impl Wanted {
    fn fits(&self, node: &str, id: &str) -> bool {
        let n = self.node.trim();
        (n.is_empty() || n == node) && (self.before.is_empty() || id < self.before.as_str())
    }
}

#[derive(Template)]
#[template(path = "builds.html")]
struct BuildsPage {
    f: Frame,
    rows: Vec<BuildRow>,
    asked: Wanted,
    older: Option<String>,
}

pub(super) async fn builds(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Query(asked): Query<Wanted>,
) -> Result<Response, Fault> {
    let f = Frame::live(&w, &seat, "Builds", "/ui/builds").await;
    let now = Time::now();
    let (rows, older) = {
        let v = w.ctx.rack.view();
        let all = v.builds.values().rev();
        let mut fit = all.filter(|b| asked.fits(b.node.as_str(), b.id.as_str()));
        let rows: Vec<_> = fit.by_ref().take(PAGE).map(|b| records::build(b, now)).collect();
        let more = fit.next().is_some();
        let older = rows.last().filter(|_| more).map(|r| r.id.clone());
        (rows, older)
    };
    show(&BuildsPage { f, rows, asked, older })
}

#[derive(Template)]
#[template(path = "operations.html")]
struct OperationsPage {
    f: Frame,
    rows: Vec<OperationRow>,
    asked: Wanted,
    older: Option<String>,
    acts: bool,
}

pub(super) async fn operations(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Query(asked): Query<Wanted>,
) -> Result<Response, Fault> {
    let f = Frame::live(&w, &seat, "Operations", "/ui/operations").await;
    let now = Time::now();
    let (rows, older) = {
        let v = w.ctx.rack.view();
        let node = |o: &crate::model::Operation| {
            o.node.as_ref().map(ToString::to_string).unwrap_or_default()
        };
        let all = v.operations.values().rev();
        let mut fit = all.filter(|o| asked.fits(&node(o), o.id.as_str()));
        let rows: Vec<_> = fit.by_ref().take(PAGE).map(|o| records::operation(o, now)).collect();
        let more = fit.next().is_some();
        let older = rows.last().filter(|_| more).map(|r| r.id.clone());
        (rows, older)
    };
    show(&OperationsPage { f, rows, asked, older, acts: seat.may_act() })
}

fn find(w: &Window, id: &str) -> Result<Arc<Build>, Fault> {
    let unknown = || Problem::not_found(format!("there is no build {id:?}"));
    let id: BuildId = id.parse().map_err(|_| unknown())?;
    Ok(w.ctx.rack.view().builds.get(&id).cloned().ok_or_else(unknown)?)
}

#[derive(Template)]
#[template(path = "build.html")]
struct BuildPage {
    f: Frame,
    story: Timeline,
    inputs: Vec<(String, String, String)>,
    lines: Vec<Line>,
    log: Log,
    console: Log,
    acts: bool,
}

pub(super) async fn build(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let b = find(&w, &id)?;
    let title = format!("Build of {}", b.node);
    let f = Frame::live(&w, &seat, &title, "/ui/builds").await;
    let (story, lines) = story(&w, &b, Time::now()).await?;
    let log = tail(&w, &b.id, "log", LOG).await;
    let console = tail(&w, &b.id, "console", LOG).await;
    let acts = seat.may_act();
    show(&BuildPage { f, story, inputs: records::inputs(&b), lines, log, console, acts })
}

/// The whole log, as text.
pub(super) async fn log(
    _: Seat,
    State(w): State<Arc<Window>>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let b = find(&w, &id)?;
    whole(&w, &b, "log").await
}

/// The whole console, as text.
pub(super) async fn console(
    _: Seat,
    State(w): State<Arc<Window>>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let b = find(&w, &id)?;
    whole(&w, &b, "console").await
}

async fn whole(w: &Window, b: &Build, kept: &str) -> Result<Response, Fault> {
    let text = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    let file = tokio::fs::File::open(w.ctx.logs.join(format!("{}.{kept}", b.id))).await;
    let none = |_| Problem::not_found(format!("this build has no {kept}"));
    let body = Body::from_stream(tokio_util::io::ReaderStream::new(file.map_err(none)?));
    Ok((text, body).into_response())
}

/// A text that was rendered for a build.
#[derive(Deserialize)]
struct Rendered {
    at: Time,
    file: String,
    text: String,
}

#[derive(Template)]
#[template(path = "files.html")]
struct FilesPage {
    f: Frame,
    id: String,
    node: String,
    files: Vec<Rendered>,
}

pub(super) async fn files(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let b = find(&w, &id)?;
    let prefix = format!("{}/", b.id);
    let all = w.ctx.rack.store().list_below(kind::RENDERING, &prefix).await?;
    let own = all.into_iter().take(TEXTS.0);
    let files = own.filter_map(|d| serde_json::from_value::<Rendered>(d.value).ok());
    let cut = |r: Rendered| Rendered { text: r.text.chars().take(TEXTS.1).collect(), ..r };
    let f = Frame::still(&w, &seat, &format!("Files of {}", b.node), "/ui/builds");
    let files = files.map(cut).collect();
    show(&FilesPage { f, id: b.id.to_string(), node: b.node.to_string(), files })
}
