//! `GET /v1/registry/catalog`: which images there are, and who pushed them.
//! Each caller sees what they may pull.

use super::Desk;
use super::visitor::Visitor;
use crate::api::Problem;
use crate::api::problem::Query;
use crate::auth::rights::Right;
use crate::model::{Event, Time};
use crate::registry::{Fault, RepositoryName};
use crate::store::{EventQuery, StoreError};
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// Tags in one answer, at most.
const PAGE: usize = 500;
/// Events of each kind that are looked through for who pushed.
const LOOKED_THROUGH: usize = 10_000;

/// What is asked for.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Repositories that begin so.
    #[serde(default)]
    prefix: String,
    /// Behind this `repository:tag`.
    #[param(pattern = ":")]
    after: Option<String>,
}

/// A tag.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownImage {
    /// Repository.
    pub repository: String,
    /// Tag.
    pub tag: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Bytes of all that it names, each blob once.
    pub bytes: u64,
    /// When the tag was set.
    #[schema(value_type = String, format = DateTime)]
    pub pushed: Time,
    /// Who set it, if the record still says so.
    pub by: Option<String>,
    /// An attestation refers to it.
    pub attested: bool,
}

/// A page.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Catalog {
    /// Tags, by repository and tag.
    pub items: Vec<ShownImage>,
    /// What to give as `after` for more.
    pub next: Option<String>,
}

impl From<Fault> for Problem {
    fn from(f: Fault) -> Self {
        let status = StatusCode::from_u16(f.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, f.message)
    }
}

/// The tags that the caller may pull, a page at a time.
#[utoipa::path(
    get,
    path = "/v1/registry/catalog",
    tag = "registry",
    params(Wanted),
    responses((status = 200, description = "A page", body = Catalog))
)]
pub(super) async fn list(
    Visitor(who): Visitor,
    State(desk): State<Arc<Desk>>,
    Query(w): Query<Wanted>,
) -> Result<Out<Catalog>, Problem> {
    let after = w.after.as_deref().map(|a| {
        a.rsplit_once(':')
            .ok_or_else(|| Problem::bad(format!("after={a:?} is not NAME:TAG")).at("after"))
    });
    let after = after.transpose()?;
    let may = |r: &RepositoryName| desk.book.may(&who, r.as_str(), Right::Pull);
    let (found, more) = desk.registry.survey(&w.prefix, may, after, PAGE).await?;
    let pushers = if found.is_empty() { HashMap::new() } else { pushers(&desk).await? };
    let mut items = Vec::new();
    for t in found {
        let digest = t.digest.to_string();
        let key = (t.repository.to_string(), t.tag.to_string(), digest);
        let event = pushers.get(&key);
        let set = Time::try_from(t.set).unwrap_or_else(|_| Time::now());
        let (repository, tag, digest) = key;
        items.push(ShownImage {
            repository,
            tag,
            digest,
            bytes: t.bytes,
            pushed: event.map_or(set, |(at, _)| *at),
            by: event.map(|(_, who)| who.clone()),
            attested: t.attested,
        });
    }
    let next = items.last().filter(|_| more).map(|i| format!("{}:{}", i.repository, i.tag));
    Ok(Out(Catalog { items, next }))
}

type Pushers = HashMap<(String, String, String), (Time, String)>;

/// Who last let a tag point where it points, as far back as is looked.
async fn pushers(desk: &Desk) -> Result<Pushers, StoreError> {
    let mut all = Pushers::new();
    for action in ["image.tag", "image.promote"] {
        let q = EventQuery {
            action: Some(action.into()),
            limit: LOOKED_THROUGH,
            ..EventQuery::default()
        };
        for e in desk.book.store().query(&q).await? {
            let Some(key) = pushed(&e) else { continue };
            let entry = all.entry(key).or_insert_with(|| (e.event.at, e.event.actor.clone()));
            if entry.0 < e.event.at {
                *entry = (e.event.at, e.event.actor);
            }
        }
    }
    Ok(all)
}

fn pushed(e: &Event) -> Option<(String, String, String)> {
    let d = &e.event.detail;
    let digest = d.get("digest")?.clone();
    if let (Some(r), Some(t)) = (d.get("repository"), d.get("reference")) {
        return Some((r.clone(), t.clone(), digest));
    }
    let (r, t) = d.get("to")?.rsplit_once(':')?;
    Some((r.to_owned(), t.to_owned(), digest))
}
