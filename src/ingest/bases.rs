//! What the pipeline may be asked about base images: to build one, to take one
//! from a file, an upload or another registry.

use super::context::ContextError;
use super::debian::Release;
use super::run::{Origin, Run, RunId};
use super::settings::{OwnDir, Refused, Remote, Upload};
use super::work::{Import, Task};
use super::{Pipeline, import, names};
use crate::model::Invalid;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

impl Pipeline {
    /// Puts `debian:12` or `debian:13` into the queue, for `base/debian`.
    pub async fn base_build(self: &Arc<Self>, name: &str, by: &str) -> Result<Run, Refused> {
        let release = Release::of(name)
            .ok_or_else(|| Invalid::new("base image", name, "'debian:12' or 'debian:13'"))?;
        let origin = Origin::Debian { release: release.number.to_owned() };
        let mut run = self.record(names::BASE, "debian", origin, by)?;
        run.tag = release.number.to_owned();
        self.enter(run, Task::Debian(release)).await
    }

    /// Takes a file with an image as it comes in, no larger than a source may
    /// be. `label` is what the sender calls it.
    pub async fn receive_image(
        &self,
        label: &str,
        from: impl AsyncRead + Send + Unpin,
    ) -> Result<Upload, ContextError> {
        let dir = self.shop.settings.dir.join("uploads").join(RunId::generate().as_str());
        let upload = Upload {
            label: label.chars().filter(|c| !c.is_control()).take(200).collect(),
            dir: Arc::new(OwnDir(dir.clone())),
            commit: None,
        };
        let (limit, deadline) = (self.shop.settings.limits.bytes, self.shop.settings.deadline);
        let path = upload.image();
        let write = async {
            let here = ContextError::io(&path);
            tokio::fs::create_dir(&dir).await.map_err(ContextError::io(&dir))?;
            let mut file = tokio::fs::File::create_new(&path).await.map_err(here)?;
            let mut from = from.take(limit.saturating_add(1));
            let got = tokio::io::copy(&mut from, &mut file).await;
            let got = got
                .map_err(|e| ContextError::Source(format!("the upload could not be taken: {e}")))?;
            if got > limit {
                let m = format!("the image has more than {limit} bytes, which is the limit");
                return Err(ContextError::Source(m));
            }
            file.flush().await.map_err(ContextError::io(&path))
        };
        let late = || ContextError::Source(format!("the upload took longer than {deadline:?}"));
        tokio::time::timeout(deadline, write).await.map_err(|_| late())??;
        Ok(upload)
    }

    /// Puts an image from a file on the server into the queue: `name` is as a
    /// Dockerfile calls it, such as `alpine:3.20`.
    pub async fn base_import(
        self: &Arc<Self>,
        path: &Path,
        name: &str,
        by: &str,
    ) -> Result<Run, Refused> {
        let path = self.allowed(path)?;
        if path.to_str().is_none_or(|p| p.contains(':')) {
            let shown = path.display().to_string();
            return Err(Invalid::new("path of an image", &shown, "a path without ':'").into());
        }
        let origin = Origin::ImageFile { path: path.clone() };
        self.import(name, origin, Import::File(path), by).await
    }

    /// The same from what [`Self::receive_image`] took.
    pub async fn base_import_upload(
        self: &Arc<Self>,
        upload: Upload,
        name: &str,
        by: &str,
    ) -> Result<Run, Refused> {
        let origin = Origin::Upload { label: upload.label.clone() };
        self.import(name, origin, Import::Upload(upload), by).await
    }

    /// The same from another registry, if that is allowed. `name` is what it
    /// is called here; otherwise the same as there.
    pub async fn base_import_remote(
        self: &Arc<Self>,
        reference: &str,
        name: Option<&str>,
        by: &str,
    ) -> Result<Run, Refused> {
        let plain = reference.strip_prefix("docker://").unwrap_or(reference);
        // By the grammar of names: no path, no option, no other transport.
        names::in_our_registry(plain, &[])?;
        let remotes = &self.shop.settings.remotes;
        let remote = remotes.iter().find(|r| plain.starts_with(&r.prefix));
        let remote = remote.cloned().ok_or_else(|| Refused::Registry {
            name: plain.to_owned(),
            allowed: match remotes.as_slice() {
                [] => "none is set".to_owned(),
                all => all.iter().map(|r| r.prefix.as_str()).collect::<Vec<_>>().join(", "),
            },
        })?;
        let reference = plain.to_owned();
        let origin = Origin::Registry { reference: reference.clone() };
        let what = Import::Remote { reference, remote };
        self.import(name.unwrap_or(plain), origin, what, by).await
    }

    async fn import(
        self: &Arc<Self>,
        name: &str,
        origin: Origin,
        what: Import,
        by: &str,
    ) -> Result<Run, Refused> {
        import::identity().map_err(Refused::NoBuilder)?;
        let place = names::in_our_registry(name, &[])?;
        let wrong = || Invalid::new("base image", name, "NAME:TAG, not a digest");
        let (repository, tag) =
            place.rsplit_once(':').filter(|_| !place.contains('@')).ok_or_else(wrong)?;
        let short = repository.strip_prefix("base/").unwrap_or(repository);
        let mut run = self.record(names::BASE, short, origin, by)?;
        run.tag = tag.to_owned();
        self.enter(run, Task::Import(what)).await
    }
}

impl Upload {
    /// Where the file is.
    pub(super) fn image(&self) -> std::path::PathBuf {
        self.dir.0.join("image")
    }
}

impl Remote {
    /// What skopeo is told about it.
    pub(super) fn options(&self) -> Vec<String> {
        let option = |name: &str, path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|p| format!("--{name}={}", p.display()))
        };
        let all =
            [option("src-cert-dir", &self.certificates), option("src-authfile", &self.auth_file)];
        all.into_iter().flatten().collect()
    }
}
