//! `/v1/events`: the log, as a list or as a stream (Server-Sent Events).

use super::problem::Query;
use super::{Caller, Clerk, List, Problem};
use crate::model::{Event, Time};
use crate::store::{ChainReport, EventQuery, verify_chain};
use axum::Json as Out;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// No event comes after this: stores count with a sign.
const LAST: u64 = i64::MAX.unsigned_abs();

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    node: Option<String>,
    since: Option<String>,
    action: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

/// A point in time (RFC 3339), or how long ago (`90s`, `2h`, `1h30m`, `7d`).
pub fn parse_since(text: &str, now: Time) -> Result<Time, Problem> {
    if let Ok(t) = text.parse::<Time>() {
        return Ok(t);
    }
    let ago = text.parse::<jiff::Span>().ok().and_then(|s| {
        // Days are 24 hours here: the log knows no calendar.
        s.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()
    });
    ago.map(|d| now - d.abs()).ok_or_else(|| {
        Problem::bad(format!(
            "since={text:?} is neither a time like 2026-11-21T09:00:00Z nor a span like 2h or 7d"
        ))
    })
}

/// The record, newest last; with `Accept: text/event-stream` as it grows.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "record",
    params(Filter),
    responses((status = 200, description = "Events", body = List<Event>))
)]
pub(super) async fn query<C: Clerk>(
    _: Caller,
    State(ctx): State<Arc<C>>,
    Query(f): Query<Filter>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let node = f.node.as_deref().map(|n| ctx.node(n)).transpose()?;
    let since = f.since.as_deref().map(|s| parse_since(s, Time::now())).transpose()?;
    let mut q = EventQuery {
        after: f.after.map(|a| a.min(LAST)),
        node,
        since,
        action: f.action,
        limit: f.limit.unwrap_or(1000).min(10_000),
    };
    let accepts = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()).unwrap_or_default();
    if !accepts.contains("text/event-stream") {
        return Ok(Out(List { items: ctx.store().query(&q).await? }).into_response());
    }
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok()?.parse().ok());
    q.after = last.or(q.after).map(|a: u64| a.min(LAST));
    let stream = follow(ctx, q).map(|e| {
        let event = axum::response::sse::Event::default().id(e.seq.to_string());
        let event = event.json_data(&e).unwrap_or_else(|_| axum::response::sse::Event::default());
        Ok::<_, Infallible>(event)
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

/// Events that are there already, then new ones, none missed or doubled. A
/// reader too slow for the live channel is fed from the store again.
pub(crate) fn follow<C: Clerk>(ctx: Arc<C>, q: EventQuery) -> impl Stream<Item = Event> {
    struct State<C> {
        ctx: Arc<C>,
        q: EventQuery,
        live: tokio::sync::broadcast::Receiver<Event>,
        ready: std::collections::VecDeque<Event>,
        last: u64,
        first: bool,
        behind: bool,
    }
    let live = ctx.subscribe();
    let last = q.after.unwrap_or(0);
    let s = State { ctx, q, live, ready: Default::default(), last, first: true, behind: true };
    futures::stream::unfold(s, |mut s| async move {
        loop {
            if let Some(e) = s.ready.pop_front() {
                s.last = e.seq;
                return Some((e, s));
            }
            if s.behind {
                let mut q = EventQuery { limit: 1000, ..s.q.clone() };
                // Without a starting point the first look is at the newest.
                if !s.first || s.q.after.is_some() {
                    q.after = Some(s.last);
                } else if s.q.since.is_none() {
                    q.limit = 10;
                }
                s.first = false;
                match s.ctx.store().query(&q).await {
                    Ok(page) => {
                        s.behind = page.len() == q.limit && q.limit == 1000;
                        s.ready.extend(page);
                    }
                    Err(_) => tokio::time::sleep(std::time::Duration::from_secs(2)).await,
                }
                continue;
            }
            match s.live.recv().await {
                Ok(e) if e.seq <= s.last => {}
                Ok(e) if s.q.wants(&e) => s.ready.push_back(e),
                Ok(e) => s.last = e.seq,
                Err(RecvError::Lagged(_)) => s.behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

/// Reads the whole record and checks its chain.
#[utoipa::path(
    get,
    path = "/v1/events/verify",
    tag = "record",
    responses((status = 200, description = "What was found", body = ChainReport))
)]
pub(super) async fn verify<C: Clerk>(
    _: Caller,
    State(ctx): State<Arc<C>>,
) -> Result<Out<ChainReport>, Problem> {
    Ok(Out(verify_chain(ctx.store()).await?))
}
