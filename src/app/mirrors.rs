//! Mirrors for the API: made one at a time, on a blocking thread.

use super::images::Steps;
use crate::api::Report;
use crate::api::mirrors::{MirrorKeeper, Order};
use crate::archive::SigningKey;
use crate::image::{Catalogue, Silent};
use crate::mirror::{self, Accept, Imported, MirrorError, MirrorRequest, Mirrors};
use crate::model::Digest;
use crate::profile::Profiles;
use async_trait::async_trait;
use std::io::Read;
use std::path::PathBuf;
use tokio::sync::Mutex;

/// See the module.
pub struct HostKeeper {
    /// Where mirrors are.
    pub shelf: Mirrors,
    /// Images.
    pub images: Catalogue,
    /// Profiles.
    pub profiles: Profiles,
    /// Archives that come through our cache.
    pub through: Vec<(String, String)>,
    /// Kept between builds: packages.
    pub cache: PathBuf,
    /// Where the package cache keeps its files.
    pub cache_files: Option<PathBuf>,
    /// Our key for package archives.
    pub key: PathBuf,
    /// One at a time.
    pub turn: Mutex<()>,
}

#[async_trait]
impl MirrorKeeper for HostKeeper {
    fn shelf(&self) -> &Mirrors {
        &self.shelf
    }

    async fn build(&self, order: Order, progress: Report) -> Result<Digest, String> {
        let _turn = progress.wait("waiting for another mirror", self.turn.lock()).await?;
        let image = self.images.get(&order.build.image).map_err(|e| e.to_string())?;
        let profile = order.build.profile.as_ref().map(|p| self.profiles.get(p)).transpose();
        let profile = profile.map_err(|e| e.to_string())?;
        let mut packages = order.build.packages;
        packages.extend(profile.iter().flat_map(|p| p.packages.iter().cloned()));
        let request = MirrorRequest {
            name: order.name,
            image,
            profile: profile.map(|p| (p.name, p.digest)),
            packages,
            sources: None,
            through: self.through.clone(),
            mirrors: self.shelf.dir().to_owned(),
            cache: self.cache.clone(),
            cache_files: self.cache_files.clone(),
            key: self.key.clone(),
        };
        let work = move || {
            let mut steps = Steps::new(progress);
            mirror::build_mirror(&request, &mut steps).map(|m| m.digest).map_err(|e| match &e {
                MirrorError::Build(_) => steps.story(&e),
                _ => e.to_string(),
            })
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
    }

    async fn import(
        &self,
        from: Box<dyn Read + Send>,
        mut accept: Accept,
    ) -> Result<Imported, MirrorError> {
        let (shelf, images, key) = (self.shelf.clone(), self.images.clone(), self.key.clone());
        let work = move || {
            accept.believed.push(SigningKey::open(&key)?.fingerprint());
            mirror::import(&shelf, &images, from, &accept, &mut Silent)
        };
        let died = |e: tokio::task::JoinError| MirrorError::Import(e.to_string());
        tokio::task::spawn_blocking(work).await.map_err(died)?
    }
}
