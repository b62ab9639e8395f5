//! What the pipeline may be asked: builds and uploads. Checks a wish
//! as far as that needs no work, makes its record, and puts it into the queue.

use super::context::{self, ContextError, git, tarball};
use super::run::{Origin, Run, RunId, RunState};
use super::settings::{OwnDir, Refused, Request, Source, Upload};
use super::work::Task;
use super::{Pipeline, names};
use crate::model::{Invalid, Time};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncRead;

impl Pipeline {
    /// Unpacks a tar (plain, gzip or zstd) as it comes in. `label` is what the
    /// sender calls it, and becomes the name of the image if none is given.
    pub async fn receive(
        &self,
        label: &str,
        from: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Upload, ContextError> {
        let dir = self.shop.settings.dir.join("uploads").join(RunId::generate().as_str());
        let upload = Upload {
            label: label.chars().filter(|c| !c.is_control()).take(200).collect(),
            dir: Arc::new(OwnDir(dir.clone())),
            commit: None,
        };
        let (limits, deadline) = (self.shop.settings.limits, self.shop.settings.deadline);
        // The thread that unpacks waits on this end, which closes at the
        // deadline, or when the caller goes away, however slow the sender is.
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        let own = upload.dir.clone();
        let unpacking = tokio::task::spawn_blocking(move || {
            let _own = own;
            tarball::unpack(tokio_util::io::SyncIoBridge::new(ours), &dir, limits)
        });
        let (mut from, mut theirs) = (from, theirs);
        let feed = async move {
            let done = tokio::io::copy(&mut from, &mut theirs).await;
            // The archive may end before the bytes do: not an error of ours.
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut theirs).await;
            done
        };
        let fed = tokio::time::timeout(deadline, feed).await;
        let unpacked = unpacking
            .await
            .map_err(|e| ContextError::Source(format!("the upload could not be unpacked: {e}")))?;
        let late = || ContextError::Source(format!("the upload took longer than {deadline:?}"));
        match (fed.map_err(|_| late())?, unpacked) {
            (_, Err(e)) => Err(e),
            // Whoever unpacks stops reading at the archive's end.
            (Err(e), Ok(())) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(ContextError::Source(format!("the upload broke off: {e}")))
            }
            (_, Ok(())) => Ok(upload),
        }
    }

    /// Puts a build into the queue.
    pub async fn submit(self: &Arc<Self>, request: Request) -> Result<Run, Refused> {
        self.shop.builder.as_ref().map_err(|e| Refused::NoBuilder(e.clone()))?;
        if request.network && !self.shop.settings.allow_network {
            return Err(Refused::Network);
        }
        let mut source = request.source;
        let (origin, default) = match &mut source {
            Source::Folder(path) => {
                *path = self.allowed(path)?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                (Origin::Folder { path: path.clone() }, name)
            }
            Source::Git { url, reference, folder } => {
                git::protocol(url)?;
                reference.as_deref().map(git::reference).transpose()?;
                let origin = Origin::Git {
                    url: url.clone(),
                    reference: reference.clone(),
                    folder: folder.clone(),
                };
                let last = folder.as_deref().and_then(Path::file_name);
                let default = last.map_or_else(
                    || git::repository_name(url).to_owned(),
                    |l| l.to_string_lossy().into_owned(),
                );
                (origin, default)
            }
            Source::Upload(u) => (Origin::Upload { label: u.label.clone() }, u.label.clone()),
        };
        let name = match &request.name {
            Some(n) => names::repository(n)?.to_owned(),
            None => names::from_folder(&default).ok_or_else(|| {
                Invalid::new(
                    "name of the source",
                    &default,
                    "one with letters or digits; or give the image a name",
                )
            })?,
        };
        let mut run = self.record(names::STAGING, &name, origin, &request.asked_by)?;
        run.tag = request.tag.as_deref().map(names::tag).transpose()?.unwrap_or("").to_owned();
        let dockerfile = request.dockerfile.unwrap_or_else(|| "Dockerfile".to_owned());
        if context::inside(Path::new(&dockerfile)).is_none_or(|p| p.as_os_str().is_empty()) {
            let want = "a path inside of the source";
            return Err(Invalid::new("path of the Dockerfile", &dockerfile, want).into());
        }
        run.dockerfile = dockerfile;
        for key in request.arguments.keys() {
            if key.is_empty() || key.contains('=') || key.contains(char::is_control) {
                return Err(Invalid::new("build argument", key, "NAME without '='").into());
            }
        }
        run.arguments = request.arguments;
        run.target = request.target;
        run.network = request.network;
        self.enter(run, Task::Build(source)).await
    }

    /// The real path of something below one of the allowed folders.
    pub(super) fn allowed(&self, path: &Path) -> Result<PathBuf, Refused> {
        let roots = &self.shop.settings.source_roots;
        let refused = || Refused::Folder {
            path: path.to_owned(),
            allowed: match roots.as_slice() {
                [] => "none is set".to_owned(),
                all => all.iter().map(|r| r.display().to_string()).collect::<Vec<_>>().join(", "),
            },
        };
        // Not there and not allowed read the same: this is no way to find out
        // what files a server has.
        let real = path.canonicalize().map_err(|_| refused())?;
        let below = |r: &PathBuf| r.canonicalize().is_ok_and(|r| real.starts_with(r));
        if roots.iter().any(below) { Ok(real) } else { Err(refused()) }
    }

    pub(super) fn record(
        &self,
        place: &str,
        name: &str,
        source: Origin,
        by: &str,
    ) -> Result<Run, Refused> {
        let id = RunId::generate();
        let repository = format!("{place}/{name}");
        names::repository(&repository)?;
        Ok(Run {
            log: self.shop.settings.dir.join("logs").join(format!("{id}.log")),
            id,
            repository,
            name: name.to_owned(),
            tag: String::new(),
            source,
            asked_by: by.to_owned(),
            dockerfile: String::new(),
            target: None,
            arguments: BTreeMap::new(),
            network: false,
            commit: None,
            committed: None,
            dirty: false,
            dockerfile_digest: None,
            context_digest: None,
            bases: Vec::new(),
            builder: None,
            asked: Time::now(),
            started: None,
            ended: None,
            state: RunState::Queued,
            reason: None,
            image_digest: None,
            attestation_digest: None,
        })
    }
}
