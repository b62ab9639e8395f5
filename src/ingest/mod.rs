//! From a folder, an uploaded tar or a git repository with a Dockerfile to an
//! image in our registry: built without network, tagged, pushed, and signed
//! for. Base images come from the same registry, which `debian` and `import`
//! fill.
//!
//! Pure: `dockerfile` and `expand` (what a Dockerfile takes from elsewhere),
//! `names`, `queue` (who is built when), `provenance` and `check` (what is
//! signed),
//! `webhook` (is this push real). Shell: `context` (brings the source here),
//! `builder` (buildah or docker as child processes), `work` (one run from
//! start to end), `pipeline` (the door: submit, cancel, watch), `bases` (what
//! builds start from).
//!
//! It knows neither the registry nor the store: `app` hands it a [`Shelf`] and
//! a [`Keep`]. Everything of a run is in `DIR/runs/ID` while it lasts, and
//! gone afterwards; its log stays in `DIR/logs/ID.log`.

mod bases;
pub mod builder;
pub mod check;
pub mod context;
pub mod debian;
pub mod dockerfile;
pub mod expand;
pub mod import;
pub mod layout;
pub mod names;
pub mod pipeline;
pub mod provenance;
pub mod queue;
pub mod run;
mod said;
pub mod settings;
mod submit;
pub mod totals;
pub mod webhook;
mod work;

pub use pipeline::Pipeline;
pub use run::{Notice, Origin, Run, RunId, RunState};
pub use settings::{PipelineSettings, Refused, Request, Source, Upload};

use async_trait::async_trait;
use std::path::Path;

/// The registry, as this room sees it. References are `REPOSITORY:TAG` or
/// `REPOSITORY@DIGEST`, without a host. Errors are texts for a person.
#[async_trait]
pub trait Shelf: Send + Sync {
    /// Digest of the manifest or index behind a reference; `None` when it is
    /// not there.
    async fn resolve(&self, reference: &str) -> Result<Option<String>, String>;
    /// Writes an image with all its content as an OCI layout into `layout`,
    /// which is not there yet; `index.json` names that one image. Returns its
    /// digest.
    async fn export(&self, reference: &str, layout: &Path) -> Result<String, String>;
    /// Takes the one image of an OCI layout, puts it under `repository:tag`,
    /// returns the digest of its manifest.
    async fn import(&self, layout: &Path, repository: &str, tag: &str) -> Result<String, String>;
    /// Stores a manifest of `artifact_type` with one layer, whose subject is
    /// the manifest `subject`, and returns its digest.
    async fn attach(
        &self,
        repository: &str,
        subject: &str,
        artifact_type: &str,
        media_type: &str,
        content: &[u8],
    ) -> Result<String, String>;
    /// Contents of the first layers of all referrers of `subject` with that
    /// type.
    async fn referrers(
        &self,
        repository: &str,
        subject: &str,
        artifact_type: &str,
    ) -> Result<Vec<Vec<u8>>, String>;
}

/// Where records of runs live.
#[async_trait]
pub trait Keep: Send + Sync {
    /// Writes a record; a later one of the same id replaces it.
    async fn save(&self, run: &Run) -> Result<(), String>;
    /// Records of earlier lives of the server, at least those that are not
    /// over. In any order.
    async fn load(&self) -> Result<Vec<Run>, String>;
}
