//! Image builds for the API: one at a time, on a blocking thread.

use crate::api::images::AddImage;
use crate::api::{ImageBuilder, Report};
use crate::image::{
    AddRequest, BakeProfile, BuildError, BuildRequest, Image, Progress, add_installer, build_image,
};
use crate::model::{Digest, Name};
use crate::profile::Profiles;
use async_trait::async_trait;
use std::path::PathBuf;
use tokio::sync::Mutex;

/// See the module.
pub struct HostBuilder {
    /// Catalogue directory.
    pub images: PathBuf,
    /// Kept between builds: packages.
    pub cache: PathBuf,
    /// Archives that come through our cache.
    pub through: Vec<(String, String)>,
    /// Where the package cache keeps its files.
    pub cache_files: Option<PathBuf>,
    /// Our key for package archives.
    pub key: PathBuf,
    /// Profiles.
    pub profiles: Profiles,
    /// One build at a time: each takes all cores.
    pub turn: Mutex<()>,
}

pub(super) struct Steps {
    report: Report,
    step: String,
    tail: Vec<String>,
}

impl Steps {
    pub fn new(report: Report) -> Self {
        Self { report, step: String::new(), tail: Vec::new() }
    }

    /// An error with the step it came in, and what was said last.
    pub fn story(&self, e: &dyn std::error::Error) -> String {
        format!("{}: {e}; its last lines: {}", self.step, self.tail.join(" / "))
    }
}

impl Progress for Steps {
    fn step(&mut self, what: &str) {
        tracing::info!(step = what, "image build");
        self.step = what.to_owned();
        self.report.tell(what, 0, 0);
    }

    fn bytes(&mut self, done: u64, total: u64) {
        self.report.tell(&self.step, done, total);
    }

    fn log(&mut self, line: &str) {
        tracing::debug!(line, "image build");
        if self.tail.len() >= 20 {
            self.tail.remove(0);
        }
        self.tail.push(line.to_owned());
    }

    fn cancelled(&self) -> bool {
        self.report.is_cancelled()
    }
}

#[async_trait]
impl ImageBuilder for HostBuilder {
    async fn build(
        &self,
        image: Name,
        bake: Vec<Name>,
        progress: Report,
    ) -> Result<Digest, String> {
        let _turn = progress.wait("waiting for another build", self.turn.lock()).await?;
        let mut profiles = Vec::new();
        for name in bake {
            let p = self.profiles.get(&name).map_err(|e| e.to_string())?;
            profiles.push(BakeProfile { name: p.name, digest: p.digest, scripts: p.scripts });
        }
        let request = BuildRequest {
            recipe: image.to_string(),
            name: image,
            mirror: None,
            through: self.through.clone(),
            components: None,
            packages: Vec::new(),
            profiles,
            images: self.images.clone(),
            cache: self.cache.clone(),
        };
        on_a_thread(progress, move |steps| build_image(&request, steps)).await
    }

    async fn add(&self, name: Name, add: AddImage, progress: Report) -> Result<Digest, String> {
        let _turn = progress.wait("waiting for another build", self.turn.lock()).await?;
        let request = AddRequest {
            name,
            release: add.release.to_string(),
            sources: None,
            through: self.through.clone(),
            images: self.images.clone(),
            cache: self.cache.clone(),
            cache_files: self.cache_files.clone(),
            key: self.key.clone(),
            repack: add.repack,
            files: add.files(),
            firmware: add.firmware,
        };
        on_a_thread(progress, move |steps| add_installer(&request, steps)).await
    }
}

async fn on_a_thread(
    progress: Report,
    work: impl FnOnce(&mut Steps) -> Result<Image, BuildError> + Send + 'static,
) -> Result<Digest, String> {
    let work = move || {
        let mut steps = Steps::new(progress);
        work(&mut steps).map(|i| i.digest).map_err(|e| match &e {
            // These say all there is to say.
            BuildError::Components(_)
            | BuildError::Netboot(..)
            | BuildError::Files(..)
            | BuildError::Needs(..)
            | BuildError::Taken(_) => e.to_string(),
            _ => steps.story(&e),
        })
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
}
