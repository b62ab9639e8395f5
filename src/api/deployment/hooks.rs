//! `/v1/hooks`: pushes that become images. `POST /v1/hooks/{name}` asks for no
//! token: the signature is what lets a call in, checked over the bytes as they
//! came, before anything of them is read.
//!
//! A delivery is built once: what it is known again by is kept in the store,
//! beside the event that says what became of it. Refusals are events too, so
//! many a minute; a flood of them is counted and not written.

use super::Desk;
use crate::api::problem::Path;
use crate::api::{Caller, List, Problem};
use crate::ingest::webhook::{self, Heard, Hook, HookError, LARGEST, Push};
use crate::ingest::{Request, Source};
use crate::model::{Digest, NewEvent, Outcome, Time};
use crate::store::{Batch, Expect, Store, StoreError};
use axum::Json as Out;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The document kind of deliveries, by what they are known again by.
pub const DELIVERY: &str = "delivery";

/// Deliveries that are remembered, of all hooks together.
const REMEMBERED: usize = 10_000;
/// Calls that are read at once: each may take [`LARGEST`] of memory. Others
/// wait for their turn.
const READ_AT_ONCE: usize = 16;
/// Bytes of a body past [`LARGEST`] that are read to be polite.
const THROWN_AWAY: usize = 16 << 20;
/// A call is sent within this, or given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Refusals that are written down in [`WINDOW`].
const REFUSALS: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);

/// One webhook and what its pushes become.
#[derive(Debug, Clone)]
pub struct Configured {
    /// How a call is checked.
    pub hook: Hook,
    /// Name below `staging/`; the repository's without it.
    pub image: Option<String>,
    /// Rule for the tag, see [`webhook::tag`].
    pub tag: String,
}

/// All webhooks, and what was heard by them.
pub struct Hooks {
    all: BTreeMap<String, Configured>,
    readers: Semaphore,
    seen: tokio::sync::Mutex<Option<Seen>>,
    refused: Mutex<Refusals>,
}

/// Runs by the marks of their deliveries, the oldest first.
#[derive(Default)]
struct Seen {
    runs: HashMap<String, String>,
    order: VecDeque<String>,
}

struct Refusals {
    since: Instant,
    written: u32,
    left_out: u32,
}

/// What is kept of a delivery.
#[derive(Serialize, Deserialize)]
struct Delivery {
    at: Time,
    hook: String,
    run: String,
}

/// A webhook as shown.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownHook {
    /// Name.
    pub name: String,
    /// Where the forge sends to, below this server's address.
    pub path: String,
    /// `github`, `gitlab`, `gitea` or `git`.
    pub kind: String,
    /// What may be built from.
    pub repositories: Vec<String>,
    /// Branches that are built; with no branches and no tags, all are.
    pub branches: Vec<String>,
    /// Tags that are built.
    pub tags: Vec<String>,
    /// Name of the image, if one is set.
    pub image: Option<String>,
    /// Rule for its tag.
    pub tag: String,
}

/// What became of a call.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HookAnswer {
    /// The run that builds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Where the image will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Why nothing is built, or nothing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<String>,
}

impl Hooks {
    /// With these, by name.
    pub fn new(all: BTreeMap<String, Configured>) -> Self {
        let refused = Refusals { since: Instant::now(), written: 0, left_out: 0 };
        Self {
            all,
            readers: Semaphore::new(READ_AT_ONCE),
            seen: tokio::sync::Mutex::new(None),
            refused: Mutex::new(refused),
        }
    }

    /// Whether one more refusal is written down, and how many were not since
    /// the last that was.
    fn room(&self) -> Option<u32> {
        let mut r = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if r.since.elapsed() > WINDOW {
            (r.since, r.written) = (Instant::now(), 0);
        }
        if r.written < REFUSALS {
            r.written += 1;
            return Some(std::mem::take(&mut r.left_out));
        }
        r.left_out = r.left_out.saturating_add(1);
        None
    }
}

impl Seen {
    async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut all = Vec::new();
        for d in store.list(DELIVERY).await? {
            let v: Delivery = serde_json::from_value(d.value)
                .map_err(|e| StoreError::Corrupt(format!("delivery {}: {e}", d.key)))?;
            all.push((v.at, d.key, v.run));
        }
        all.sort();
        let mut seen = Self::default();
        for (_, key, run) in all {
            seen.order.push_back(key.clone());
            seen.runs.insert(key, run);
        }
        Ok(seen)
    }

    /// Remembers, and says what is forgotten for it.
    fn add(&mut self, keys: &[String], run: &str) -> Vec<String> {
        for k in keys {
            self.runs.insert(k.clone(), run.to_owned());
            self.order.push_back(k.clone());
        }
        let over = self.order.len().saturating_sub(REMEMBERED);
        let old: Vec<String> = self.order.drain(..over).collect();
        old.iter().for_each(|k| drop(self.runs.remove(k)));
        old
    }
}

impl From<&HookError> for StatusCode {
    fn from(e: &HookError) -> Self {
        match e {
            HookError::Signature | HookError::Stale(_) => Self::UNAUTHORIZED,
            HookError::Repository(_) => Self::FORBIDDEN,
            HookError::Body { .. } => Self::BAD_REQUEST,
            HookError::TooLarge => Self::PAYLOAD_TOO_LARGE,
        }
    }
}

/// The webhooks.
#[utoipa::path(
    get,
    path = "/v1/hooks",
    tag = "hooks",
    responses((status = 200, description = "Webhooks", body = List<ShownHook>))
)]
pub(super) async fn list(
    _: Caller,
    State(desk): State<Arc<Desk>>,
) -> Result<Out<List<ShownHook>>, Problem> {
    let shown = |(name, c): (&String, &Configured)| ShownHook {
        name: name.clone(),
        path: format!("/v1/hooks/{name}"),
        kind: format!("{:?}", c.hook.forge).to_lowercase(),
        repositories: c.hook.repositories.clone(),
        branches: c.hook.branches.clone(),
        tags: c.hook.tags.clone(),
        image: c.image.clone(),
        tag: c.tag.clone(),
    };
    Ok(Out(List { items: desk.hooks.all.iter().map(shown).collect() }))
}

/// A push, as the forge says it.
#[utoipa::path(
    post,
    path = "/v1/hooks/{name}",
    tag = "hooks",
    params(("name" = String, Path, description = "Name of the webhook")),
    request_body(content = Vec<u8>, content_type = "application/json"),
    responses((status = 200, description = "Nothing is built, and why", body = HookAnswer), (status = 202, description = "It is built", body = HookAnswer)),
    security(())
)]
pub(super) async fn receive(
    State(desk): State<Arc<Desk>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Out<HookAnswer>), Problem> {
    let result = heard(&desk, &name, &headers, body).await;
    let (c, push, body) = match result {
        Ok((_, Heard::Nothing(why), _)) => return Ok(ignored(why.to_owned(), None)),
        Ok((c, Heard::Push(push), body)) => (c, push, body),
        Err(p) => return refuse(&desk, &name, None, p).await,
    };
    // One after another: the same delivery twice at once is built once.
    let mut seen = desk.hooks.seen.lock().await;
    if seen.is_none() {
        *seen = Some(Seen::load(desk.book.store()).await?);
    }
    let Some(seen) = seen.as_mut() else {
        return Err(Problem::internal("deliveries are not remembered"));
    };
    let keys: Vec<String> = webhook::marks(&c.hook, &headers, &body)
        .iter()
        .map(|m| Digest::of(format!("{name}\0{m}").as_bytes()).to_hex())
        .collect();
    if let Some(run) = keys.iter().find_map(|k| seen.runs.get(k)) {
        return Ok(ignored("this delivery was taken before".to_owned(), Some(run.clone())));
    }
    let run = match desk.pipeline.submit(wish(c, &name, &push)).await {
        Ok(run) => run,
        Err(e) => return refuse(&desk, &name, Some(&push), e.into()).await,
    };
    let id = run.id.to_string();
    let now = Time::now();
    let event = event(&name, "hook.push", Outcome::Ok, Some(&push)).with("run", &id);
    let mut batch = Batch::new().event(event);
    let kept = Delivery { at: now, hook: name.clone(), run: id.clone() };
    for k in &keys {
        batch = batch.put(DELIVERY, k, &kept, Expect::Any)?;
    }
    for old in seen.add(&keys, &id) {
        batch = batch.delete(DELIVERY, &old);
    }
    // The build is in the queue and in the record already.
    if let Err(e) = desk.book.commit(batch).await {
        tracing::error!(error = %e, hook = name, run = id, "a delivery is remembered in memory only");
    }
    let image = Some(run.reference().trim_end_matches(':').to_owned());
    Ok((StatusCode::ACCEPTED, Out(HookAnswer { run: Some(id), image, ignored: None })))
}

fn ignored(why: String, run: Option<String>) -> (StatusCode, Out<HookAnswer>) {
    (StatusCode::OK, Out(HookAnswer { ignored: Some(why), run, image: None }))
}

/// Reads and checks a call.
async fn heard<'d>(
    desk: &'d Desk,
    name: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<(&'d Configured, Heard, Vec<u8>), Problem> {
    let known = desk.hooks.all.get(name);
    let c = known.ok_or_else(|| Problem::not_found("there is no webhook of this name"))?;
    let wrong = |e: &HookError| Problem::new(e.into(), e.to_string());
    let busy =
        || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many calls at once: send it again");
    let turn = tokio::time::timeout(PATIENCE, desk.hooks.readers.acquire()).await;
    let _turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
    let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come within 30 s");
    let read = tokio::time::timeout(PATIENCE, whole(body)).await.map_err(late)?;
    let body = read?.ok_or_else(|| wrong(&HookError::TooLarge))?;
    let heard = webhook::hear(&c.hook, headers, &body, Time::now()).map_err(|e| wrong(&e))?;
    Ok((c, heard, body))
}

/// The body; `None` when it is too large. The rest is read then and thrown
/// away, for a while: a client that is cut off while it sends does not see why.
async fn whole(body: Body) -> Result<Option<Vec<u8>>, Problem> {
    let mut stream = body.into_data_stream();
    let (mut all, mut over) = (Vec::new(), 0);
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| Problem::bad("the body broke off"))?;
        if over == 0 && all.len() + piece.len() <= LARGEST {
            all.extend_from_slice(&piece);
        } else {
            all = Vec::new();
            over += piece.len();
        }
        if over > THROWN_AWAY {
            break;
        }
    }
    Ok((over == 0).then_some(all))
}

fn wish(c: &Configured, name: &str, push: &Push) -> Request {
    // The commit and not the branch: what was pushed is built, also when the
    // next push comes first.
    let source =
        Source::Git { url: push.url.clone(), reference: Some(push.commit.clone()), folder: None };
    Request {
        name: c.image.clone(),
        tag: Some(webhook::tag(&c.tag, push)),
        ..Request::new(source, &format!("hook:{name} ({})", push.by))
    }
}

fn event(name: &str, action: &str, outcome: Outcome, push: Option<&Push>) -> NewEvent {
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    let mut e = NewEvent::new(Time::now(), &format!("hook:{name}"), action, outcome);
    if let Some(p) = push {
        e = e.with("repository", &p.url).with("ref", &p.reference).with("commit", &p.commit);
        e = e.with("by", &p.by);
    }
    e
}

/// Writes a refusal down, and gives it.
async fn refuse<T>(
    desk: &Desk,
    name: &str,
    push: Option<&Push>,
    why: Problem,
) -> Result<T, Problem> {
    if let Some(left_out) = desk.hooks.room() {
        let mut e = event(name, "hook.refused", Outcome::Refused, push)
            .with("status", why.status)
            .with("reason", &why.detail);
        if left_out > 0 {
            e = e.with("not_written", left_out);
        }
        // A refusal stands also when it cannot be written down.
        let _ = desk.book.commit(Batch::new().event(e)).await;
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_written() {
        let h = Hooks::new(BTreeMap::new());
        assert_eq!((0..REFUSALS).filter_map(|_| h.room()).sum::<u32>(), 0);
        assert_eq!((0..5).find_map(|_| h.room()), None);
        h.refused.lock().unwrap().since -= WINDOW * 2;
        assert_eq!(h.room(), Some(5));
        assert_eq!(h.room(), Some(0));
    }

    #[test]
    fn the_oldest_deliveries_are_forgotten() {
        let mut s = Seen::default();
        for n in 0..REMEMBERED {
            assert!(s.add(&[n.to_string()], "r").is_empty());
        }
        assert_eq!(s.add(&["x".into(), "y".into()], "r"), ["0", "1"]);
        assert!(!s.runs.contains_key("1") && s.runs.contains_key("2"));
        assert_eq!((s.runs.len(), s.order.len()), (REMEMBERED, REMEMBERED));
    }
}
