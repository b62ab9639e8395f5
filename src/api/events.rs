//! `/v1/events`: the log, as a list or as a stream (Server-Sent Events).

use super::caller::{LocalPeer, bearer};
use super::filter::{Limit, Paged, cursor, place};
use super::problem::{Query, Whole};
use super::{Caller, Clerk, Problem};
use crate::model::{Digest, Event, Outcome, Time};
use crate::store::{ChainReport, EventQuery, verify_chain};
use axum::Extension;
use axum::Json as Out;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// No event comes after this: stores count with a sign.
const LAST: u64 = i64::MAX.unsigned_abs();

/// How often a silent stream's token is looked up again.
const LOOK: Duration = Duration::from_secs(15);

/// Most events in one answer.
const MOST: usize = 10_000;

/// Which events; all conditions hold together.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Name or address of the node they are about; the record of a node that
    /// was removed stays.
    #[param(max_length = 63, pattern = "^([0-9][0-9-]*)?[a-z]([a-z0-9-]*[a-z0-9])?$")]
    node: Option<String>,
    /// At or after a time (RFC 3339), or how long ago: `90s`, `2h`, `7d`.
    #[param(
        example = "7d",
        pattern = "^([1-9][0-9]{0,2}[smhd]|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}Z)$"
    )]
    since: Option<String>,
    /// Actions that begin so: `power.`.
    #[param(example = "power.")]
    action: Option<String>,
    /// How they ended.
    outcome: Option<Outcome>,
    /// After the event with this number; 0 reads from the beginning. Without
    /// it the newest are given.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991u64)]
    after: Option<Whole>,
    /// The same place, as the last answer called it: its `next`.
    next: Option<String>,
    /// At most so many in one answer, 1000 when left out, never more than
    /// 10000.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000_000)]
    limit: Option<Limit>,
}

/// What the record is called in a cursor.
const LIST: &str = "events";

fn after_event(next: &str) -> Result<u64, Problem> {
    let key = place(LIST, next)?;
    key.parse().map_err(|_| Problem::unfit("parameter next: no event has this number").at("next"))
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
        .at("since")
    })
}

/// The record, newest last; with `Accept: text/event-stream` as it grows.
///
/// As a stream each event has its number as id: sent back as `Last-Event-ID`
/// it goes on there, with nothing missed or doubled.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "record",
    params(Filter),
    responses((
        status = 200,
        description = "Events",
        content((Paged<Event> = "application/json"), (String = "text/event-stream"))
    ))
)]
pub(super) async fn query<C: Clerk>(
    _: Caller,
    State(ctx): State<Arc<C>>,
    Query(f): Query<Filter>,
    local: Option<Extension<LocalPeer>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let node = f.node.as_deref().map(|n| ctx.node(n)).transpose();
    let node = node.map_err(|p| p.at("node"))?;
    let since = f.since.as_deref().map(|s| parse_since(s, Time::now())).transpose()?;
    let next = f.next.as_deref().map(after_event).transpose()?;
    let mut q = EventQuery {
        after: next.or(f.after.map(|a| a.0)).map(|a| a.min(LAST)),
        node,
        since,
        action: f.action,
        outcome: f.outcome,
        limit: f.limit.map_or(1000, |l| l.0).min(MOST),
    };
    let accepts = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()).unwrap_or_default();
    if !accepts.contains("text/event-stream") {
        let items = ctx.store().query(&q).await?;
        let last = items.last().filter(|_| q.after.is_some() && items.len() == q.limit);
        let next = last.map(|e| cursor(LIST, &e.seq.to_string()));
        return Ok(Out(Paged { items, next }).into_response());
    }
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok()?.parse().ok());
    q.after = last.or(q.after).map(|a: u64| a.min(LAST));
    // By the local socket there is none; else it was looked up on the way here.
    let token = bearer(&headers).filter(|_| local.is_none()).map(|t| Digest::of(t.as_bytes()));
    let clerk = ctx.clone();
    let holds = move || token.is_none_or(|t| clerk.holds(&t));
    let events = Box::pin(follow(ctx, q).map(Some));
    let looks = Box::pin(futures::stream::unfold((), |()| async {
        tokio::time::sleep(LOOK).await;
        Some((None, ()))
    }));
    let told = futures::stream::select(events, looks)
        // A token that was revoked, or is over, is told nothing more.
        .take_while(move |_| std::future::ready(holds()))
        .filter_map(std::future::ready);
    let stream = told.map(|e| {
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
                    Err(_) => tokio::time::sleep(Duration::from_secs(2)).await,
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
