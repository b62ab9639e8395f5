//! One run from start to end: source → context → bases → build → registry →
//! attestation. Knows nothing of queues; changes the record as it goes.

use super::builder::{Builder, Job};
use super::context::git::Commit;
use super::context::{self, folder, git};
use super::debian::{self, Release};
use super::run::{BuilderIdentity, Run, UsedBase};
use super::said::{Log, Stop, Teller, renamed};
use super::settings::{PipelineSettings, Remote, Source, Upload};
use super::{Shelf, dockerfile, import, layout, names, provenance};
use crate::model::{Digest, Time};
use crate::tls::signing::SigningKey;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a run has to do.
#[derive(Debug, Clone)]
pub(super) enum Task {
    /// A source with a Dockerfile.
    Build(Source),
    /// `base build`.
    Debian(Release),
    /// `base import`.
    Import(Import),
}

/// Where an image is taken from.
#[derive(Debug, Clone)]
pub(super) enum Import {
    /// A file or layout on the server.
    File(PathBuf),
    /// A file that was sent.
    Upload(Upload),
    /// Another registry.
    Remote {
        /// `HOST/NAME:TAG`.
        reference: String,
        /// How it is reached.
        remote: Remote,
    },
}

/// What all runs share.
pub(super) struct Shop {
    pub settings: PipelineSettings,
    pub shelf: Arc<dyn Shelf>,
    pub builder: Result<Arc<dyn Builder>, String>,
    pub key: SigningKey,
}

/// One run at work.
pub(super) struct Work {
    pub shop: Arc<Shop>,
    pub task: Task,
    pub stop: Stop,
    pub log: Arc<Log>,
    /// Is told whenever the record has changed.
    pub changed: Box<dyn Fn(&Run) + Send + Sync>,
}

/// Why it is not done: a text for the record.
type Reason = String;

fn text(e: impl std::fmt::Display) -> Reason {
    e.to_string()
}

impl Work {
    /// Does all of it. What is not done at the end stands in the error.
    pub async fn go(&self, run: &mut Run) -> Result<(), Reason> {
        let dir = self.shop.settings.dir.join("runs").join(run.id.as_str());
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let own = super::settings::OwnDir(dir.clone());
        let done = self.steps(run, &dir).await;
        // Many files: not on a thread that others wait for.
        let _ = tokio::task::spawn_blocking(move || drop(own)).await;
        done
    }

    async fn steps(&self, run: &mut Run, dir: &Path) -> Result<(), Reason> {
        let out = dir.join("out");
        match &self.task {
            Task::Build(source) => self.build(run, source, dir, &out).await?,
            Task::Debian(release) => {
                self.says(run, "makes the root file system");
                run.builder = Some(debian::identity());
                let (release, settings) = (*release, self.shop.settings.clone());
                let (work, out) = (dir.to_owned(), out.clone());
                let digest = self
                    .blocking(Vec::new(), move |t| {
                        let cache = settings.dir.join("cache");
                        debian::make(release, &settings.apt, &work, &cache, &out, t).map_err(text)
                    })
                    .await?;
                run.context_digest = Some(digest.to_string());
            }
            Task::Import(what) => {
                self.says(run, "reads the image");
                run.builder = Some(import::identity()?);
                let (what, out) = (what.clone(), out.clone());
                let largest = self.shop.settings.limits.bytes;
                let digest = self
                    .blocking(Vec::new(), move |t| {
                        let digest = match &what {
                            Import::File(path) => import::take(path, &out, largest, t),
                            Import::Upload(u) => import::take(&u.image(), &out, largest, t),
                            Import::Remote { reference, remote } => {
                                import::fetch(reference, &remote.options(), &out, largest, t)
                            }
                        };
                        digest.map_err(text)
                    })
                    .await?;
                run.context_digest = Some(digest.to_string());
            }
        }
        self.publish(run, &out).await
    }

    fn says(&self, run: &mut Run, what: &str) {
        run.reason = Some(what.to_owned());
        self.log.line(&format!("== {what}"));
        (self.changed)(run);
    }

    /// Runs `f` on a thread for blocking work; it ends soon after the run is
    /// told to end, since it asks.
    async fn blocking<T: Send + 'static>(
        &self,
        names: Vec<(String, String)>,
        f: impl FnOnce(&mut Teller<'_>) -> Result<T, Reason> + Send + 'static,
    ) -> Result<T, Reason> {
        let (log, stop) = (self.log.clone(), self.stop.clone());
        let done = tokio::task::spawn_blocking(move || {
            if stop.asked() {
                return Err("cancelled".to_owned());
            }
            f(&mut Teller { log: &log, stop: &stop, names: &names })
        });
        done.await.map_err(|e| format!("an internal error: {e}"))?
    }

    /// Waits for the registry, no longer than for the run.
    async fn registry<T>(
        &self,
        what: &str,
        f: impl Future<Output = Result<T, String>>,
    ) -> Result<T, Reason> {
        tokio::select! {
            done = f => done.map_err(|e| format!("{what}: {e}")),
            () = self.stop.wait() => Err("cancelled".to_owned()),
        }
    }

    async fn build(
        &self,
        run: &mut Run,
        source: &Source,
        dir: &Path,
        out: &Path,
    ) -> Result<(), Reason> {
        let builder = self.shop.builder.clone()?;
        self.says(run, "brings the source here");
        let brought = self.bring(run, source, dir).await?;
        run.commit = brought.commit.as_ref().map(|c| c.id.clone());
        run.committed = brought.commit.as_ref().and_then(|c| when(c.time));
        run.dirty = brought.commit.as_ref().is_some_and(|c| c.dirty);
        run.dockerfile_digest = Some(Digest::of(&brought.dockerfile).to_string());
        run.context_digest = Some(brought.digest.to_string());
        if run.tag.is_empty() {
            run.tag = default_tag(brought.commit.as_ref(), run.asked);
        }
        self.says(run, "looks for the base images");
        let file = dockerfile::read(&brought.dockerfile, &run.arguments).map_err(text)?;
        if let Some(d) = file.downloads.first().filter(|_| !run.network) {
            return Err(format!(
                "Dockerfile line {}: ADD {} needs the network, which this build does not have: put the file into the source",
                d.line, d.what
            ));
        }
        let (mut bases, mut exact, mut renames) = (Vec::new(), Vec::new(), Vec::new());
        for (n, base) in file.bases.iter().enumerate() {
            let layout = dir.join(format!("base-{n:04}"));
            let digest = self.base(&base.name, base.line, &layout).await?;
            let word = builder.exact(&layout, &digest);
            renames.push((word.clone(), base.name.clone()));
            run.bases.push(UsedBase { name: base.name.clone(), digest: digest.to_string() });
            self.log.line(&format!("{} is {digest}", base.name));
            exact.push(word);
            bases.push((layout, digest));
        }
        let path = dir.join("Dockerfile");
        fs::write(&path, file.rewritten(|n| exact.get(n).cloned().unwrap_or_default()))
            .map_err(|e| format!("{}: {e}", path.display()))?;
        let identity: BuilderIdentity = builder.identity();
        self.says(run, &format!("builds with {} {}", identity.name, identity.version));
        run.builder = Some(identity);
        let (id, target, arguments) =
            (run.id.to_string(), run.target.clone(), run.arguments.clone());
        let (network, epoch) = (run.network, brought.epoch);
        let (dir, out) = (dir.to_owned(), out.to_owned());
        self.blocking(renames.clone(), move |t| {
            let job = Job {
                id: &id,
                work: &dir,
                context: &dir.join("context"),
                dockerfile: &dir.join("Dockerfile"),
                bases: &bases,
                target: target.as_deref(),
                arguments: &arguments,
                network,
                epoch,
                out: &out,
            };
            builder.build(&job, t).map_err(|e| renamed(&e.to_string(), &renames))
        })
        .await
    }

    /// Finds one base image in the registry and writes it to `layout`.
    async fn base(&self, name: &str, line: usize, layout: &Path) -> Result<Digest, Reason> {
        let at = |e: String| format!("Dockerfile line {line}: {e}");
        let reference = names::in_our_registry(name, &self.shop.settings.registry_hosts)
            .map_err(|e| at(e.to_string()))?;
        let shelf = &self.shop.shelf;
        let digest = self
            .registry("registry", shelf.resolve(&reference))
            .await?
            .ok_or_else(|| at(names::missing(name)))?;
        // By digest from here on: the tag may move while we read.
        let repository = reference.split(['@', ':']).next().unwrap_or_default();
        let exact = format!("{repository}@{digest}");
        self.registry(&format!("reading {exact}"), shelf.export(&exact, layout)).await?;
        digest.parse().map_err(text)
    }

    async fn bring(&self, run: &Run, source: &Source, dir: &Path) -> Result<Brought, Reason> {
        let (source, settings) = (source.clone(), self.shop.settings.clone());
        let (dir, dockerfile) = (dir.to_owned(), PathBuf::from(&run.dockerfile));
        let asked = u64::try_from(run.asked.as_second()).unwrap_or(0);
        let is_upload = matches!(source, Source::Upload(_));
        self.blocking(Vec::new(), move |t| {
            let (from, commit) = match &source {
                Source::Folder(path) => (path.clone(), git::head(path).map_err(text)?),
                Source::Upload(upload) => (upload.dir.0.clone(), upload.commit.clone()),
                Source::Git { url, reference, folder } => {
                    let to = dir.join("source");
                    let largest = settings.limits.bytes;
                    let commit =
                        git::fetch(url, reference.as_deref(), &to, &settings.git, largest, t);
                    let commit = commit.map_err(text)?;
                    t.log.line(&format!("commit {}", commit.id));
                    (inner_folder(&to, folder.as_deref())?, Some(commit))
                }
            };
            let text_of = folder::read(&from, &dockerfile, dockerfile::LARGEST as u64);
            let bytes = text_of.map_err(text)?.ok_or_else(|| {
                format!(
                    "there is no {} in the source: write one, or name it with --dockerfile",
                    dockerfile.display()
                )
            })?;
            let ignore = folder::patterns(&from, &dockerfile).map_err(text)?;
            let to = dir.join("context");
            let stop = || t.stop.asked();
            let copied = folder::copy(&from, &to, &ignore, settings.limits, &stop).map_err(text)?;
            let _ = fs::remove_dir_all(dir.join("source"));
            let digest = context::digest(&to).map_err(text)?;
            let epoch = match &commit {
                Some(c) => c.time,
                // Unpacking made new times; the sender's are not believed.
                None if is_upload => 0,
                None => copied.newest.min(asked),
            };
            Ok(Brought { dockerfile: bytes, digest, commit, epoch })
        })
        .await
    }

    async fn publish(&self, run: &mut Run, out: &Path) -> Result<(), Reason> {
        let shelf = &self.shop.shelf;
        layout::image(out).map_err(|e| format!("the builder left no image: {e}"))?;
        self.says(run, "pushes the image");
        let import = shelf.import(out, &run.repository, &run.tag);
        let digest = self.registry("pushing the image", import).await?;
        run.image_digest = Some(digest.clone());
        // From here on it is not left half done when somebody cancels.
        let image: Digest = digest.parse().map_err(text)?;
        run.ended = Some(Time::now());
        let envelope =
            provenance::attest(run, &image, &self.shop.settings.builder_id, &self.shop.key);
        let (kind, media) = (provenance::ARTIFACT_TYPE, provenance::ENVELOPE_TYPE);
        let attached = shelf.attach(&run.repository, &digest, kind, media, &envelope);
        let attached = tokio::time::timeout(std::time::Duration::from_secs(60), attached)
            .await
            .map_err(|_| "the registry did not answer for a minute".to_owned())
            .and_then(|a| a);
        let attested = attached.map_err(|e| {
            format!("the image is in the registry, but without its attestation: {e}")
        })?;
        run.attestation_digest = Some(attested);
        self.log.line(&format!("{} is {digest}", run.reference()));
        Ok(())
    }
}

/// What [`Work::bring`] found.
struct Brought {
    dockerfile: Vec<u8>,
    digest: Digest,
    commit: Option<Commit>,
    epoch: u64,
}

/// A folder of a repository, none of whose parts is a link.
fn inner_folder(root: &Path, folder: Option<&Path>) -> Result<PathBuf, Reason> {
    let Some(folder) = folder else { return Ok(root.to_owned()) };
    let wrong = || format!("{}: no folder of the repository", folder.display());
    let mut at = root.to_owned();
    for part in context::inside(folder).ok_or_else(wrong)?.components() {
        at.push(part);
        if !fs::symlink_metadata(&at).is_ok_and(|m| m.is_dir()) {
            return Err(wrong());
        }
    }
    Ok(at)
}

/// Seconds since 1970 as a time.
fn when(seconds: u64) -> Option<Time> {
    Time::from_second(i64::try_from(seconds).ok()?).ok()
}

/// The commit's first twelve digits, `-dirty` when the folder differs from it;
/// the time in UTC when there is no commit.
fn default_tag(commit: Option<&Commit>, asked: Time) -> String {
    match commit {
        Some(c) => {
            let short = c.id.get(..12).unwrap_or(&c.id);
            if c.dirty { format!("{short}-dirty") } else { short.to_owned() }
        }
        None => asked.strftime("%Y%m%d-%H%M%S").to_string(),
    }
}
