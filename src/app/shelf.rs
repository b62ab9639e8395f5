//! The registry and the store, as the ingest pipeline sees them.

use crate::api::deployment::Book;
use crate::ingest::{Keep, Run, RunState, Shelf};
use crate::model::{NewEvent, Outcome, Time};
use crate::registry::{Digest, Reference, Registry, RegistryError, RepositoryName};
use crate::store::{Batch, Expect};
use async_trait::async_trait;
use std::path::Path;
use std::sync::Arc;

/// The document kind of runs, by id.
pub const RUN: &str = "run";

/// The registry's own shelf.
pub struct OwnShelf(pub Arc<Registry>);

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// `REPOSITORY:TAG` or `REPOSITORY@DIGEST`.
fn split(reference: &str) -> Result<(RepositoryName, Reference), String> {
    let parts = reference.split_once('@').or_else(|| reference.rsplit_once(':'));
    let (name, tag) = parts
        .ok_or_else(|| format!("{reference:?} is neither REPOSITORY:TAG nor REPOSITORY@DIGEST"))?;
    Ok((name.parse().map_err(text)?, tag.parse().map_err(text)?))
}

#[async_trait]
impl Shelf for OwnShelf {
    async fn resolve(&self, reference: &str) -> Result<Option<String>, String> {
        let (name, r) = split(reference)?;
        let found = self.0.digest_of(&name, &r).await.map_err(RegistryError::from).map_err(text)?;
        Ok(found.map(|d| d.to_string()))
    }

    async fn export(&self, reference: &str, layout: &Path) -> Result<String, String> {
        let (name, r) = split(reference)?;
        self.0.export_layout(&name, &r, layout).await.map(text).map_err(text)
    }

    async fn import(&self, layout: &Path, repository: &str, tag: &str) -> Result<String, String> {
        let name = repository.parse().map_err(text)?;
        let tag = tag.parse().map_err(text)?;
        self.0.import_layout(layout, None, &name, &tag).await.map(text).map_err(text)
    }

    async fn attach(
        &self,
        repository: &str,
        subject: &str,
        artifact_type: &str,
        media_type: &str,
        content: &[u8],
    ) -> Result<String, String> {
        let name = repository.parse().map_err(text)?;
        let subject: Digest = subject.parse().map_err(text)?;
        let content = content.to_vec().into();
        let made = self.0.attach(&name, &subject, artifact_type, media_type, content).await;
        made.map(text).map_err(text)
    }

    async fn referrers(
        &self,
        repository: &str,
        subject: &str,
        artifact_type: &str,
    ) -> Result<Vec<Vec<u8>>, String> {
        let name = repository.parse().map_err(text)?;
        let subject: Digest = subject.parse().map_err(text)?;
        let all = self.0.attached(&name, &subject, artifact_type).await.map_err(text)?;
        Ok(all.into_iter().map(|(_, bytes)| bytes.to_vec()).collect())
    }
}

/// Runs in the store; their beginning and end in the record.
pub struct Records(pub Arc<Book>);

#[async_trait]
impl Keep for Records {
    async fn save(&self, run: &Run) -> Result<(), String> {
        let mut batch = Batch::new().put(RUN, run.id.as_str(), run, Expect::Any).map_err(text)?;
        if let Some(e) = event(run) {
            batch = batch.event(e);
        }
        self.0.commit(batch).await.map_err(text)
    }

    async fn load(&self) -> Result<Vec<Run>, String> {
        let docs = self.0.store().list(RUN).await.map_err(text)?;
        docs.into_iter().map(|d| serde_json::from_value(d.value).map_err(text)).collect()
    }
}

/// Of the many times a run is written down, the two that the record is about.
fn event(run: &Run) -> Option<NewEvent> {
    let outcome = match run.state {
        RunState::Queued => Outcome::Info,
        RunState::Running => return None,
        RunState::Done => Outcome::Ok,
        RunState::Failed | RunState::Cancelled => Outcome::Failed,
    };
    let action = if run.state.is_over() { "ingest.end" } else { "ingest.request" };
    let mut e = NewEvent::new(Time::now(), &run.asked_by, action, outcome)
        .with("run", &run.id)
        .with("repository", &run.repository)
        .with("source", &run.source);
    let short = |s: &str| s.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    if let Some(t) = run.committed {
        e = e.with("committed", t);
    }
    for (key, value) in [
        ("tag", Some(&run.tag).filter(|t| !t.is_empty())),
        ("commit", run.commit.as_ref()),
        ("digest", run.image_digest.as_ref()),
        ("attestation", run.attestation_digest.as_ref()),
        ("reason", run.reason.as_ref().filter(|_| outcome == Outcome::Failed)),
    ] {
        if let Some(v) = value {
            e = e.with(key, short(v));
        }
    }
    Some(e)
}
