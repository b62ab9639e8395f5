//! `/ui/live`: that something has changed, and where. An open page takes it
//! for a reason to fetch itself again; what has changed stands there alone.

use super::Window;
use super::dress::Fault;
use super::session::Seat;
use crate::api::events::follow;
use crate::model::Time;
use crate::store::EventQuery;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use futures::stream::select;
use serde::Deserialize;
use serde_json::json;
use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often it is looked whether bytes have moved.
const TICK: Duration = Duration::from_secs(2);
/// While something goes on, a page grows old without any news: times pass.
const OLD: Duration = Duration::from_secs(10);

/// Where to begin.
#[derive(Deserialize)]
pub(super) struct From {
    /// The newest event that the page knows.
    after: Option<u64>,
}

/// What an open connection sends.
enum News {
    Event(Box<crate::model::Event>),
    Tick,
}

pub(super) async fn stream(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let after = match last.or(from.after) {
        Some(seq) => seq,
        None => {
            let newest = EventQuery { limit: 1, ..EventQuery::default() };
            w.ctx.rack.store().query(&newest).await?.last().map_or(0, |e| e.seq)
        }
    };
    // Stores count with a sign.
    let after = Some(after.min(i64::MAX.unsigned_abs()));
    let q = EventQuery { after, limit: 1000, ..EventQuery::default() };
    let events = follow(w.ctx.clone(), q).map(|e| News::Event(Box::new(e)));
    let mut every = interval(TICK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ticks = futures::stream::unfold(every, |mut every| async move {
        every.tick().await;
        Some((News::Tick, every))
    });
    let mut told = (moved(&w).0, Instant::now());
    let watch = w.clone();
    let news = select(Box::pin(events), Box::pin(ticks))
        // A session that has ended is told nothing more.
        .take_while(move |n| {
            let goes_on = !matches!(n, News::Tick) || seat.holds(&watch);
            std::future::ready(goes_on)
        })
        .filter_map(move |n| std::future::ready(message(&w, n, &mut told)))
        .map(Ok::<_, Infallible>);
    let news =
        futures::stream::once(async { Ok(Event::default().comment("connected")) }).chain(news);
    Ok(Sse::new(news).keep_alive(KeepAlive::default()).into_response())
}

fn message(w: &Window, n: News, told: &mut (u64, Instant)) -> Option<Event> {
    match n {
        News::Event(e) => {
            let data = json!({ "seq": e.seq, "node": e.event.node, "action": e.event.action });
            Some(Event::default().id(e.seq.to_string()).data(data.to_string()))
        }
        News::Tick => {
            let (now, busy) = moved(w);
            if now == told.0 && !(busy && told.1.elapsed() >= OLD) {
                return None;
            }
            *told = (now, Instant::now());
            let data = json!({ "at": Time::now() });
            Some(Event::default().event("progress").data(data.to_string()))
        }
    }
}

/// A number that changes when a running operation has moved, and whether any
/// runs.
fn moved(w: &Window) -> (u64, bool) {
    let mut hash = DefaultHasher::new();
    let mut busy = false;
    let v = w.ctx.rack.view();
    for o in v.operations.values().rev().filter(|o| !o.state.is_final()) {
        busy = true;
        (o.id.as_str(), o.bytes, o.reason.as_deref()).hash(&mut hash);
    }
    drop(v);
    w.ctx.rack.store_ok().hash(&mut hash);
    (hash.finish(), busy)
}
