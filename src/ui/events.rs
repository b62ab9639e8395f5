//! `/ui/events`: the record, searched. The newest first, a page at a time.

use super::Window;
use super::dress::Fault;
use super::frame::{Frame, show};
use super::session::Seat;
use super::view::events::{EventRow, event, says};
use crate::api::Clerk;
use crate::api::events::parse_since;
use crate::model::{Event, Time};
use crate::store::EventQuery;
use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use std::sync::Arc;

/// Lines on a page.
const PAGE: usize = 100;
/// Numbers that are read at once.
const WINDOW: u64 = 1000;
/// How often that is done for one page; the next goes on from there.
const READS: usize = 40;

/// What is looked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    node: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    since: String,
    #[serde(default)]
    text: String,
    /// Only events before this number; taken for none where it is no number.
    #[serde(default)]
    before: String,
}

impl Asked {
    /// The same question, of events before `seq`.
    fn older(&self, seq: u64) -> String {
        let enc = |t: &str| {
            let e = askama::filters::urlencode_strict(t.trim());
            e.map(|t| t.to_string()).unwrap_or_default()
        };
        format!(
            "/ui/events?node={}&action={}&since={}&text={}&before={seq}",
            enc(&self.node),
            enc(&self.action),
            enc(&self.since),
            enc(&self.text)
        )
    }
}

#[derive(Template)]
#[template(path = "events.html")]
struct Page {
    f: Frame,
    asked: Asked,
    rows: Vec<EventRow>,
    /// Where older ones are.
    older: Option<String>,
    /// Whether it was given up for now before the page was full.
    tired: bool,
    /// What is wrong with the question.
    wrong: Option<String>,
}

pub(super) async fn page(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    let newest = asked.before.is_empty();
    let f = match newest {
        true => Frame::live(&w, &seat, "Events", "/ui/events").await,
        false => Frame::still(&w, &seat, "Events", "/ui/events"),
    };
    let now = Time::now();
    let (found, wrong) = match question(&w, &asked, now) {
        Ok(q) => (look(&w, q, &asked).await?, None),
        Err(why) => (Found::default(), Some(why)),
    };
    let rows = found.events.iter().map(|e| event(e, now)).collect();
    let older = found.next.map(|seq| asked.older(seq));
    show(&Page { f, asked, rows, older, tired: found.tired, wrong })
}

fn question(w: &Window, a: &Asked, now: Time) -> Result<EventQuery, String> {
    let text = |s: &str| Some(s.trim().to_owned()).filter(|s| !s.is_empty());
    let node = text(&a.node).map(|n| w.ctx.node(&n).map_err(|p| p.detail)).transpose()?;
    let since = text(&a.since).map(|s| parse_since(&s, now).map_err(|p| p.detail)).transpose()?;
    Ok(EventQuery { node, since, action: text(&a.action), ..EventQuery::default() })
}

#[derive(Default)]
struct Found {
    /// The newest first.
    events: Vec<Event>,
    /// Older ones are before this number.
    next: Option<u64>,
    tired: bool,
}

/// Reads backwards, a window of numbers at a time: the store gives the newest
/// or those after a number.
async fn look(w: &Window, q: EventQuery, asked: &Asked) -> Result<Found, Fault> {
    let store = w.ctx.rack.store();
    let one = |q: EventQuery| EventQuery { limit: 1, ..q };
    let mut found = Found::default();
    let newest = store.query(&one(q.clone())).await?;
    let oldest = store.query(&one(EventQuery { after: Some(0), ..q.clone() })).await?;
    let (Some(newest), Some(oldest)) = (newest.last(), oldest.first()) else { return Ok(found) };
    let asked_end = asked.before.trim().parse().unwrap_or(u64::MAX);
    let mut end = (newest.seq + 1).min(asked_end);
    for _ in 0..READS {
        if end <= oldest.seq {
            return Ok(found);
        }
        let start = end.saturating_sub(WINDOW).max(oldest.seq);
        let after = Some(start.saturating_sub(1));
        let page = EventQuery { after, limit: WINDOW as usize, ..q.clone() };
        let page = store.query(&page).await?;
        let fit = page.into_iter().rev().filter(|e| e.seq < end && says(e, &asked.text));
        for e in fit {
            if found.events.len() == PAGE {
                found.next = found.events.last().map(|e| e.seq);
                return Ok(found);
            }
            found.events.push(e);
        }
        end = start;
    }
    if end > oldest.seq {
        found.next = Some(end);
        found.tired = true;
    }
    Ok(found)
}
