//! `/v1/webhooks`: addresses that are told of events, for those who would
//! rather be called than follow `/v1/events`. At least once each, in the
//! order of the log; what could not be delivered is listed.
//!
//! Here is what is kept and asked; `app::courier` delivers.

use super::problem::{Json, Path};
use super::{Caller, Clerk as _, Ctx, List, Problem, demand};
use crate::auth::Role;
use crate::auth::seal::random;
use crate::model::{Name, NewEvent, Outcome, Secret, Time};
use crate::store::{Batch, Expect, StoreError, kind};
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Notify;

/// The document kind of webhooks, by name.
pub const WEBHOOK: &str = "webhook";
/// The document kind of how far each is, by name.
pub const PROGRESS: &str = "webhook-progress";
/// Webhooks at most.
const MOST: usize = 32;
/// Undelivered events that are listed, the newest.
pub const LISTED: usize = 200;

/// A webhook to add.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// What to call it.
    pub name: Name,
    /// Where to, `https://…` or `http://…`, without a name and password.
    #[schema(max_length = 2000, example = "https://telescope.example/provision")]
    pub url: String,
    /// Which events, by the beginning of their action, such as `install.`;
    /// all, if none is given.
    #[serde(default)]
    #[schema(max_items = 32)]
    pub actions: Vec<String>,
    /// Signs what is sent; made here and shown once, if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 16, max_length = 256)]
    pub secret: Option<String>,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Webhook {
    /// Its name.
    pub name: Name,
    /// Where to.
    pub url: String,
    /// Which events.
    pub actions: Vec<String>,
    /// When it was made; it is told of what came after.
    #[schema(value_type = String, format = DateTime)]
    pub made: Time,
    /// The last event before it was made.
    pub after: u64,
}

impl Webhook {
    /// Whether it is to be told of `action`.
    pub fn wants(&self, action: &str) -> bool {
        self.actions.is_empty() || self.actions.iter().any(|a| action.starts_with(a.as_str()))
    }
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Undelivered {
    /// Its sequence number: `/v1/events?after=SEQ-1&limit=1` has it.
    pub seq: u64,
    /// What it was about.
    pub action: String,
    /// When it was given up.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// Why.
    pub why: String,
}

/// How far a webhook is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = WebhookProgress)]
pub struct Progress {
    /// The last event that was delivered, given up, or not wanted.
    pub done: u64,
    /// Delivered since it was made.
    pub delivered: u64,
    /// Given up since it was made.
    pub given_up: u64,
    /// Why the last try failed, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// The newest that were given up.
    #[serde(default)]
    pub undelivered: Vec<Undelivered>,
}

/// A webhook as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = WebhookShown)]
pub struct Shown {
    /// It.
    #[serde(flatten)]
    pub webhook: Webhook,
    /// How far it is.
    pub progress: Progress,
    /// What signs; shown when it was made here, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// All of them, and how far they are.
#[derive(Default)]
pub struct Webhooks {
    all: RwLock<BTreeMap<Name, (Webhook, Progress)>>,
    /// Told when one is added or taken away.
    pub changed: Notify,
}

impl Webhooks {
    /// Reads them from the store.
    pub async fn load(store: &dyn crate::store::Store) -> Result<Self, StoreError> {
        let corrupt = |e: serde_json::Error| StoreError::Corrupt(format!("webhook: {e}"));
        let mut far: BTreeMap<String, Progress> = BTreeMap::new();
        for d in store.list(PROGRESS).await? {
            far.insert(d.key, serde_json::from_value(d.value).map_err(corrupt)?);
        }
        let mut all = BTreeMap::new();
        for d in store.list(WEBHOOK).await? {
            let w: Webhook = serde_json::from_value(d.value).map_err(corrupt)?;
            let fresh = Progress { done: w.after, ..Progress::default() };
            all.insert(w.name.clone(), (w, far.remove(&d.key).unwrap_or(fresh)));
        }
        Ok(Self { all: RwLock::new(all), changed: Notify::new() })
    }

    /// All.
    pub fn all(&self) -> Vec<(Webhook, Progress)> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Shows how far one is, if it is still the same one.
    pub fn set(&self, w: &Webhook, p: &Progress) -> bool {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&w.name) {
            Some((there, progress)) if there == w => {
                progress.clone_from(p);
                true
            }
            _ => false,
        }
    }
}

/// The name under which the secret is sealed.
pub fn secret_key(name: &Name) -> String {
    format!("webhook/{name}")
}

fn checked(n: &NewWebhook) -> Result<(), Problem> {
    let good = n.url.parse::<reqwest::Url>().ok().filter(|u| {
        matches!(u.scheme(), "http" | "https")
            && u.has_host()
            && u.username().is_empty()
            && u.password().is_none()
    });
    if good.is_none() || n.url.len() > 2000 {
        return Err(Problem::unfit(
            "url: an address like https://host/path of at most 2000 characters, without a name \
             and password in it (the signature is what shows that it is us)",
        )
        .at("/url"));
    }
    if n.actions.len() > 32 || n.actions.iter().any(|a| a.is_empty() || a.len() > 64) {
        let m = "actions: at most 32, each of 1 to 64 characters";
        return Err(Problem::unfit(m).at("/actions"));
    }
    if n.secret.as_ref().is_some_and(|s| s.len() < 16 || s.len() > 256) {
        let m = "secret: 16 to 256 characters, or none and one is made";
        return Err(Problem::unfit(m).at("/secret"));
    }
    Ok(())
}

/// Who is told of events, and how far each is.
#[utoipa::path(
    get,
    path = "/v1/webhooks",
    tag = "record",
    responses((status = 200, description = "Webhooks", body = List<Shown>))
)]
pub(super) async fn list(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
) -> Result<Out<List<Shown>>, Problem> {
    demand(&*ctx, &caller, Role::Admin, "listing webhooks").await?;
    let all = ctx.webhooks.all().into_iter();
    let items = all.map(|(webhook, progress)| Shown { webhook, progress, secret: None });
    Ok(Out(List { items: items.collect() }))
}

/// Has an address told of events from now on.
#[utoipa::path(
    post,
    path = "/v1/webhooks",
    tag = "record",
    request_body(content = NewWebhook, example = json!({
        "name": "telescope", "url": "https://telescope.example/provision", "actions": ["install."]
    })),
    responses((status = 201, description = "The webhook, its secret once", body = Shown))
)]
pub(super) async fn add(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Json(n): Json<NewWebhook>,
) -> Result<(StatusCode, Out<Shown>), Problem> {
    demand(&*ctx, &caller, Role::Admin, "adding a webhook").await?;
    checked(&n)?;
    let there = ctx.webhooks.all();
    if there.iter().any(|(w, _)| w.name == n.name) {
        let m = format!("there is a webhook '{}'; remove it first", n.name);
        return Err(Problem::new(StatusCode::CONFLICT, m));
    }
    if there.len() >= MOST {
        return Err(Problem::new(StatusCode::CONFLICT, format!("there are {MOST} webhooks")));
    }
    let secret = match &n.secret {
        Some(s) => s.clone(),
        None => hex::encode(random::<32>()?),
    };
    let key = secret_key(&n.name);
    let sealed = ctx.key.seal(&key, &Secret::new(secret.clone()))?;
    let newest = crate::store::EventQuery { limit: 1, ..Default::default() };
    let after = ctx.store().query(&newest).await?.last().map_or(0, |e| e.seq);
    let made = Time::now();
    let w = Webhook { name: n.name, url: n.url, actions: n.actions, made, after };
    let progress = Progress { done: after, ..Progress::default() };
    let event = NewEvent::new(made, &caller.name, "webhook.add", Outcome::Ok)
        .with("name", &w.name)
        .with("url", &w.url);
    let batch = Batch::new()
        .put(WEBHOOK, w.name.as_str(), &w, Expect::Absent)?
        .put(PROGRESS, w.name.as_str(), &progress, Expect::Any)?
        .put(kind::SECRET, &key, &sealed, Expect::Any)?
        .event(event);
    ctx.commit(batch).await?;
    ctx.webhooks
        .all
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(w.name.clone(), (w.clone(), progress.clone()));
    ctx.webhooks.changed.notify_one();
    let made_here = n.secret.is_none().then_some(secret);
    Ok((StatusCode::CREATED, Out(Shown { webhook: w, progress, secret: made_here })))
}

/// Has an address told no more.
#[utoipa::path(
    delete,
    path = "/v1/webhooks/{name}",
    tag = "record",
    params(("name" = String, Path, description = "Name of the webhook", example = "telescope")),
    responses((status = 204, description = "Gone"))
)]
pub(super) async fn remove(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    demand(&*ctx, &caller, Role::Admin, "removing a webhook").await?;
    let there = ctx.webhooks.all().into_iter().find(|(w, _)| w.name.as_str() == name);
    let Some((w, _)) = there else {
        return Err(Problem::not_found(format!("there is no webhook {name:?}")));
    };
    let event = NewEvent::new(Time::now(), &caller.name, "webhook.remove", Outcome::Ok);
    let batch = Batch::new()
        .delete(WEBHOOK, w.name.as_str())
        .delete(PROGRESS, w.name.as_str())
        .delete(kind::SECRET, &secret_key(&w.name))
        .event(event.with("name", &w.name));
    ctx.commit(batch).await?;
    ctx.webhooks.all.write().unwrap_or_else(PoisonError::into_inner).remove(&w.name);
    ctx.webhooks.changed.notify_one();
    Ok(StatusCode::NO_CONTENT)
}
