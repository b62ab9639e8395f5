//! `/v1/registry/gc` and `/v1/registry/verify`: what operators ask of the
//! registry, and the server of itself by the clock. Both read the whole store
//! and may take long; each runs to its end also when the caller goes away, and
//! one at a time.

use super::Desk;
use crate::api::problem::Json;
use crate::api::{Caller, Problem, demand};
use crate::auth::Role;
use crate::model::{NewEvent, Outcome, Time};
use crate::registry::{Damage, GcReport, Judged, RegistryError, Verdict};
use crate::store::Batch;
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Things named in one answer, at most; all are counted.
const SHOWN: usize = 500;

/// What to do.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    /// Say what would be done, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// One thing and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownThing {
    /// `link`, `blob`, `manifest` or `upload`.
    pub what: String,
    /// Where; empty for a blob.
    pub repository: String,
    /// Digest or id.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// `freed`, `set aside`, `put back`, `waiting` or `kept`.
    pub verdict: String,
    /// Why.
    pub why: String,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownGc {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Bytes that are free now.
    pub freed: u64,
    /// Bytes that will be, after the wait.
    pub set_aside: u64,
    /// Things by verdict.
    pub counts: BTreeMap<String, u64>,
    /// Things: first what goes, then what is kept, at most 500.
    pub things: Vec<ShownThing>,
    /// How many more there are.
    pub more: u64,
}

/// What reading everything found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownVerify {
    /// Blobs read to their end.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests read.
    pub manifests: u64,
    /// Tags followed.
    pub tags: u64,
    /// What is wrong, at most 500.
    pub damage: Vec<ShownDamage>,
    /// How much more is wrong.
    pub more: u64,
}

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownDamage {
    /// `blob`, `manifest`, `tag` or `referrer`.
    pub what: String,
    /// Where; empty for a blob.
    pub repository: String,
    /// Digest or tag.
    pub name: String,
    /// What is wrong, and what mends it.
    pub problem: String,
}

impl From<RegistryError> for Problem {
    fn from(e: RegistryError) -> Self {
        match e {
            RegistryError::Collecting => Self::new(StatusCode::CONFLICT, e.to_string()),
            e => Self::internal(e.to_string()),
        }
    }
}

/// Collects garbage, or says what would be collected.
#[utoipa::path(
    post,
    path = "/v1/registry/gc",
    tag = "registry",
    request_body(content = GcRequest),
    responses((status = 200, description = "What was done", body = ShownGc))
)]
pub(super) async fn gc(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Json(r): Json<GcRequest>,
) -> Result<Out<ShownGc>, Problem> {
    let least = if r.dry_run { Role::Read } else { Role::Admin };
    demand(&*desk, &caller, least, "collecting garbage").await?;
    let done = tokio::spawn(async move { collect(&desk, &caller.name, r.dry_run).await });
    Ok(Out(done.await.map_err(|e| Problem::internal(e.to_string()))??))
}

/// Collects, and writes down what was freed.
///
/// # Errors
/// Another collection; the registry's storage. The event of one that was
/// done and cannot be written down is in the log.
pub async fn collect(desk: &Desk, who: &str, dry_run: bool) -> Result<ShownGc, RegistryError> {
    let begun = std::time::Instant::now();
    let result = desk.registry.collect_garbage(dry_run).await;
    if dry_run {
        return result.map(shown);
    }
    let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Failed };
    let mut e = NewEvent::new(Time::now(), who, "registry.gc", outcome)
        .with("seconds", begun.elapsed().as_secs());
    let result = result.map(shown);
    match &result {
        Ok(s) => {
            e = e.with("freed_bytes", s.freed).with("set_aside_bytes", s.set_aside);
            for (verdict, n) in &s.counts {
                e = e.with(&verdict.replace(' ', "_"), n);
            }
        }
        Err(why) => e = e.with("reason", why),
    }
    if let Err(e) = desk.book.commit(Batch::new().event(e)).await {
        tracing::error!(error = %e, "garbage was collected, and the record does not say so");
    }
    result
}

fn shown(r: GcReport) -> ShownGc {
    let mut out = ShownGc {
        dry_run: r.dry_run,
        freed: r.freed,
        set_aside: r.set_aside,
        ..ShownGc::default()
    };
    let (mut goes, mut stays) = (Vec::new(), Vec::new());
    for j in r.judged {
        let t = thing(j);
        *out.counts.entry(t.verdict.clone()).or_default() += 1;
        let to = if t.verdict == "kept" { &mut stays } else { &mut goes };
        if to.len() < SHOWN {
            to.push(t);
        }
    }
    let all: u64 = out.counts.values().sum();
    out.things = goes.into_iter().chain(stays).take(SHOWN).collect();
    out.more = all - out.things.len() as u64;
    out
}

fn thing(j: Judged) -> ShownThing {
    let ago = |s: u64| match s {
        0..=7199 => format!("{} min ago", s / 60),
        _ => format!("{} h ago", s / 3600),
    };
    let (verdict, why) = match j.verdict {
        Verdict::Named { by } => ("kept", format!("named by {by}")),
        Verdict::Young { age } => ("kept", format!("written or used {}", ago(age))),
        Verdict::SetAside => ("set aside", "nothing names it".into()),
        Verdict::Waiting { age } => ("waiting", format!("set aside {}", ago(age))),
        Verdict::PutBack => ("put back", "it is named again".into()),
        Verdict::Freed => ("freed", "nothing named it while it was set aside".into()),
    };
    let what = j.what.to_owned();
    let verdict = verdict.to_owned();
    ShownThing { what, repository: j.repository, name: j.name, bytes: j.bytes, verdict, why }
}

/// Reads the whole registry and names what is rotten or missing.
#[utoipa::path(
    post,
    path = "/v1/registry/verify",
    tag = "registry",
    responses((status = 200, description = "What was found", body = ShownVerify))
)]
pub(super) async fn verify(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
) -> Result<Out<ShownVerify>, Problem> {
    demand(&*desk, &caller, Role::Operate, "reading the whole registry").await?;
    let turn = desk.house.reading.clone().try_acquire_owned().map_err(|_| {
        Problem::new(StatusCode::CONFLICT, "the registry is being read already: wait for that")
    })?;
    let work = async move {
        let _turn = turn;
        let r = desk.registry.verify_store().await?;
        let wrong = r.damage.len();
        let outcome = if wrong == 0 { Outcome::Ok } else { Outcome::Failed };
        let mut e = NewEvent::new(Time::now(), &caller.name, "registry.verify", outcome)
            .with("blobs", r.blobs)
            .with("bytes", r.bytes)
            .with("manifests", r.manifests)
            .with("damage", wrong);
        if let Some(d) = r.damage.first() {
            e = e.with("first", format!("{} {} {}: {}", d.what, d.repository, d.name, d.problem));
        }
        desk.book.commit(Batch::new().event(e)).await?;
        let damage: Vec<ShownDamage> = r.damage.into_iter().take(SHOWN).map(damage).collect();
        Ok::<_, Problem>(ShownVerify {
            blobs: r.blobs,
            bytes: r.bytes,
            manifests: r.manifests,
            tags: r.tags,
            more: (wrong - damage.len()) as u64,
            damage,
        })
    };
    Ok(Out(tokio::spawn(work).await.map_err(|e| Problem::internal(e.to_string()))??))
}

fn damage(d: Damage) -> ShownDamage {
    ShownDamage {
        what: d.what.to_owned(),
        repository: d.repository,
        name: d.name,
        problem: d.problem,
    }
}
