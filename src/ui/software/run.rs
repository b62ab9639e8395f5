//! `/ui/software/runs/{id}`: one build of an image, what went into it and what
//! it says while it goes.

use super::{Part, Software, Unheard, heard, there};
use crate::api::Problem;
use crate::ingest::run::RunId;
use crate::model::Time;
use crate::ui::Window;
use crate::ui::dress::Fault;
use crate::ui::frame::{Frame, show};
use crate::ui::records::Log;
use crate::ui::session::Seat;
use crate::ui::view::software::{self, RunRow};
use askama::Template;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use std::sync::Arc;

/// Bytes of the log that are on the page.
const LOG: u64 = 64 << 10;
/// Seconds between two looks at a build that goes on.
const AGAIN: u32 = 2;

fn id(text: &str) -> Result<RunId, Fault> {
    let unknown = |_| Problem::not_found(format!("there is no build of an image {text:?}"));
    Ok(text.parse().map_err(unknown)?)
}

#[derive(Template)]
#[template(path = "run.html")]
struct Page {
    f: Frame,
    r: RunRow,
    inputs: Vec<(&'static str, String, String)>,
    results: Vec<(&'static str, String)>,
    log: Result<Log, Unheard>,
}

pub(in crate::ui) async fn page(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Path(text): Path<String>,
) -> Result<Response, Fault> {
    let (id, s) = (id(&text)?, there(&w)?);
    let (run, log) = tokio::join!(heard(s.run(&id)), heard(s.log(&id, Part::Last(LOG))));
    let (run, now) = (run?, Time::now());
    let mut f = Frame::still(&w, &seat, &format!("Image {}", run.reference()), "/ui/software");
    f.every = (!run.state.is_over()).then_some(AGAIN);
    show(&Page {
        f,
        r: software::run(&run, now),
        inputs: software::inputs(&run),
        results: software::results(&run),
        log: log.map(|bytes| tail(&bytes)),
    })
}

/// From the start of a line, unless it is all there is.
fn tail(bytes: &[u8]) -> Log {
    let cut = bytes.len() as u64 >= LOG;
    let text = String::from_utf8_lossy(bytes);
    let whole = if cut { text.split_once('\n').map_or("", |t| t.1) } else { &*text };
    Log { text: whole.to_owned(), before: u64::from(cut) }
}

/// The whole log as text, a piece after the other.
pub(in crate::ui) async fn log(
    _: Seat,
    State(w): State<Arc<Window>>,
    Path(text): Path<String>,
) -> Result<Response, Fault> {
    let (id, s) = (id(&text)?, there(&w)?.clone());
    // Asked before it is answered: what is wrong is a page and no torn file.
    let first = heard(s.log(&id, Part::From(0))).await?;
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    let at = first.len() as u64;
    let rest = futures::stream::try_unfold((s, id, at), |(s, id, at)| async move {
        let piece = piece(&*s, &id, at).await?;
        let at = at + piece.len() as u64;
        Ok::<_, Unheard>((!piece.is_empty()).then_some((piece, (s, id, at))))
    });
    let rest = if at == 0 { rest.take(0).left_stream() } else { rest.right_stream() };
    let all = futures::stream::once(async { Ok(first) }).chain(rest);
    Ok((kind, Body::from_stream(all)).into_response())
}

async fn piece(s: &dyn Software, id: &RunId, at: u64) -> Result<Bytes, Unheard> {
    heard(s.log(id, Part::From(at))).await
}
