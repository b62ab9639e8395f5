//! Starts runs when it is their turn, keeps their records, tells who listens.
//! `submit` is the other half of the same type: what may be asked.

use super::check::{self, Checked};
use super::provenance::{ARTIFACT_TYPE, ENVELOPE_TYPE};
use super::queue::{Found, Queue};
use super::run::{Notice, Run, RunId, RunState};
use super::said::{Log, Stop, Why};
use super::settings::{PipelineSettings, Refused};
use super::totals::Totals;
use super::work::{Shop, Task, Work};
use super::{Keep, Shelf, builder};
use crate::model::Time;
use crate::tls::signing::{SigningKey, VerifyingKey};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

/// Records in memory: older ones that are over are in the store only.
const REMEMBERED: usize = 1000;

/// See the module.
pub struct Pipeline {
    pub(super) shop: Arc<Shop>,
    keep: Arc<dyn Keep>,
    inner: Mutex<Inner>,
    entering: tokio::sync::Mutex<()>,
    notices: broadcast::Sender<Notice>,
    tasks: TaskTracker,
}

struct Inner {
    queue: Queue,
    runs: BTreeMap<RunId, Run>,
    open: HashMap<RunId, (Task, Stop)>,
    totals: Totals,
    closing: bool,
}

impl Pipeline {
    /// Sets it up. Runs that an earlier life of the server left open become
    /// failed, with that as their reason.
    pub async fn new(
        settings: PipelineSettings,
        shelf: Arc<dyn Shelf>,
        keep: Arc<dyn Keep>,
    ) -> Result<Arc<Self>, Refused> {
        let dir = &settings.dir;
        let plain =
            |c: char| !(c == ':' || c == '"' || c == '\\' || c.is_whitespace() || c.is_control());
        if !dir.is_absolute() || !dir.to_str().is_some_and(|d| d.chars().all(plain)) {
            return Err(Refused::Settings(format!(
                "{}: must be an absolute path without blanks, colons, quotes and backslashes",
                dir.display()
            )));
        }
        for part in ["runs", "uploads"] {
            // What was under way when the server ended.
            let _ = fs::remove_dir_all(dir.join(part));
        }
        for part in ["", "runs", "uploads", "logs", "cache"] {
            let path = dir.join(part);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| Refused::Io { path, source })?;
        }
        let key = SigningKey::load_or_make(&settings.signing_key)?;
        let probe = settings.clone();
        let builder =
            tokio::task::spawn_blocking(move || builder::find(&probe, &probe.dir.join("runs")))
                .await
                .unwrap_or_else(|e| Err(format!("looking for a builder failed: {e}")));
        if let Err(why) = &builder {
            tracing::warn!(%why, "no image can be built here");
        }
        let mut runs = BTreeMap::new();
        for mut run in keep.load().await.map_err(Refused::Keep)? {
            if !run.state.is_over() {
                run.reason = Some(
                    match run.state {
                        RunState::Queued => "the server was restarted before it began: ask again",
                        _ => "the server was restarted while it ran: ask again",
                    }
                    .to_owned(),
                );
                run.state = RunState::Failed;
                run.ended = Some(Time::now());
                keep.save(&run).await.map_err(Refused::Keep)?;
            }
            runs.insert(run.id.clone(), run);
        }
        let queue = Queue::new(settings.at_once, settings.queue);
        let (open, totals) = Default::default();
        let inner = Inner { queue, runs, open, totals, closing: false };
        let this = Self {
            shop: Arc::new(Shop { settings, shelf, builder, key }),
            keep,
            inner: Mutex::new(inner),
            entering: tokio::sync::Mutex::new(()),
            notices: broadcast::channel(4096).0,
            tasks: TaskTracker::new(),
        };
        this.inner().forget();
        Ok(Arc::new(this))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs that an image of `repository` passed or failed a check, and keeps
    /// that beside it; the digest of the attestation.
    ///
    /// # Errors
    /// The registry's.
    pub async fn attest_check(&self, c: &Checked, repository: &str) -> Result<String, String> {
        let bytes = check::attest(c, repository, &self.shop.key);
        let image = c.digest.to_string();
        let shelf = &self.shop.shelf;
        shelf.attach(repository, &image, ARTIFACT_TYPE, ENVELOPE_TYPE, &bytes).await
    }

    /// The key that attestations can be checked with.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.shop.key.verifying_key()
    }

    /// Which program builds, or why none does.
    pub fn builder(&self) -> Result<super::run::BuilderIdentity, String> {
        self.shop.builder.as_ref().map(|b| b.identity()).map_err(Clone::clone)
    }

    /// Writes a run down, then puts it into the queue.
    pub(super) async fn enter(self: &Arc<Self>, run: Run, task: Task) -> Result<Run, Refused> {
        let id = run.id.clone();
        // Nobody else fills the queue meanwhile: what was written down gets in.
        let _entering = self.entering.lock().await;
        {
            let inner = self.inner();
            if inner.closing {
                return Err(Refused::Closing);
            }
            inner.queue.room()?;
        }
        self.keep.save(&run).await.map_err(Refused::Keep)?;
        self.tell(&run);
        {
            let mut inner = self.inner();
            inner.open.insert(id.clone(), (task, Stop::default()));
            inner.queue.offer(id.clone(), &run.repository)?;
        }
        self.pump();
        Ok(self.get(&id).unwrap_or(run))
    }

    /// Starts whoever may start.
    fn pump(self: &Arc<Self>) {
        let mut inner = self.inner();
        while !inner.closing
            && let Some(id) = inner.queue.start_next()
        {
            let this = self.clone();
            self.tasks.spawn(async move { this.run(id).await });
        }
    }

    async fn run(self: Arc<Self>, id: RunId) {
        if let Some(run) = self.clone().run_to_end(&id).await {
            self.over(run).await;
        }
        self.inner().queue.ended(&id);
        self.pump();
    }

    async fn run_to_end(self: Arc<Self>, id: &RunId) -> Option<Run> {
        let (mut run, task, stop) = {
            let inner = self.inner();
            let (task, stop) = inner.open.get(id).cloned()?;
            (inner.runs.get(id).cloned()?, task, stop)
        };
        run.state = RunState::Running;
        run.started = Some(Time::now());
        self.note(&run).await;
        let work = self.clone().work(run.clone(), task, stop.clone());
        let mut work = tokio::spawn(work);
        let deadline = self.shop.settings.deadline;
        let done = tokio::select! {
            done = &mut work => done,
            () = tokio::time::sleep(deadline) => {
                stop.now(Why::Deadline(deadline));
                work.await
            }
        };
        let (mut run, result) = done.unwrap_or_else(|e| {
            // A defect of ours must not hold up the queue.
            tracing::error!(run = %id, error = %e, "a run ended in an internal error");
            (run, Err(format!("an internal error: {e}")))
        });
        run.ended.get_or_insert_with(Time::now);
        (run.state, run.reason) = match (result, stop.why()) {
            (Ok(()), _) => (RunState::Done, None),
            (Err(_), Some(Why::Wish(by))) => {
                (RunState::Cancelled, Some(format!("cancelled by {by}")))
            }
            (Err(_), Some(Why::Closing)) => (
                RunState::Failed,
                Some("the server was stopped while it ran: ask again".to_owned()),
            ),
            (Err(_), Some(Why::Deadline(d))) => {
                let at = run.reason.take().unwrap_or_default();
                (RunState::Failed, Some(format!("took longer than the limit of {d:?}; last: {at}")))
            }
            (Err(why), None) => (RunState::Failed, Some(why)),
        };
        Some(run)
    }

    async fn work(
        self: Arc<Self>,
        mut run: Run,
        task: Task,
        stop: Stop,
    ) -> (Run, Result<(), String>) {
        let log = match Log::open(&run.log, run.id.clone(), self.notices.clone()) {
            Ok(log) => Arc::new(log),
            Err(e) => {
                let why = format!("{}: {e}", run.log.display());
                return (run, Err(why));
            }
        };
        let this = self.clone();
        let changed = Box::new(move |run: &Run| this.tell(run));
        let work = Work { shop: self.shop.clone(), task, stop, log: log.clone(), changed };
        let result = work.go(&mut run).await;
        if let Err(why) = &result {
            log.line(&format!("failed: {why}"));
        }
        (run, result)
    }

    /// Shows a record.
    fn tell(&self, run: &Run) {
        self.inner().runs.insert(run.id.clone(), run.clone());
        // Nobody listening is no error.
        let _ = self.notices.send(Notice::Run(Box::new(run.clone())));
    }

    /// Shows and writes a record.
    async fn note(&self, run: &Run) {
        if let Err(why) = self.keep.save(run).await {
            tracing::error!(run = %run.id, %why, "the record of a build could not be written");
        }
        self.tell(run);
    }

    async fn over(&self, run: Run) {
        self.note(&run).await;
        let mut inner = self.inner();
        inner.totals.add(&run);
        inner.open.remove(&run.id);
        inner.forget();
    }

    /// Ends a run, or takes it out of the queue. A running one is over soon
    /// afterwards, when its processes are gone: watch it.
    pub async fn cancel(self: &Arc<Self>, id: &RunId, by: &str) -> Result<Run, Refused> {
        let waiting = {
            let mut inner = self.inner();
            let run =
                inner.runs.get(id).cloned().ok_or_else(|| Refused::Unknown(id.to_string()))?;
            match inner.queue.cancel(id) {
                Found::Waiting => Some(run),
                Found::Running => {
                    if let Some((_, stop)) = inner.open.get(id) {
                        stop.now(Why::Wish(by.to_owned()));
                    }
                    return Ok(run);
                }
                Found::Nothing => {
                    return Err(Refused::Over { id: id.to_string(), state: run.state });
                }
            }
        };
        let mut run = waiting.ok_or_else(|| Refused::Unknown(id.to_string()))?;
        run.state = RunState::Cancelled;
        run.reason = Some(format!("cancelled by {by}"));
        run.ended = Some(Time::now());
        self.over(run.clone()).await;
        Ok(run)
    }

    /// One record.
    pub fn get(&self, id: &RunId) -> Option<Run> {
        let inner = self.inner();
        let mut run = inner.runs.get(id).cloned()?;
        if let Some((_, why)) = inner.queue.reasons().into_iter().find(|(i, _)| i == id) {
            run.reason = Some(why);
        }
        Some(run)
    }

    /// Records, newest first: all that are open, and the last thousand.
    pub fn list(&self) -> Vec<Run> {
        let inner = self.inner();
        let why: HashMap<RunId, String> = inner.queue.reasons().into_iter().collect();
        let with = |r: &Run| Run {
            reason: why.get(&r.id).cloned().or_else(|| r.reason.clone()),
            ..r.clone()
        };
        inner.runs.values().rev().map(with).collect()
    }

    /// What was built since the start, and what waits and runs now.
    pub fn totals(&self) -> Totals {
        let inner = self.inner();
        let (waiting, running) = inner.queue.lengths();
        Totals { waiting, running, ..inner.totals.clone() }
    }

    /// Where the log of a run is, if it has one yet. It grows while the run
    /// goes; [`Notice::Line`] tells of each line.
    pub fn log(&self, id: &RunId) -> Option<PathBuf> {
        self.get(id).map(|r| r.log).filter(|p| p.is_file())
    }

    /// Everything that happens from now on. Who is too slow misses some.
    pub fn watch(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Waits until a run is over.
    pub async fn finished(&self, id: &RunId) -> Option<Run> {
        let mut news = self.watch();
        loop {
            let run = self.get(id)?;
            if run.state.is_over() {
                return Some(run);
            }
            // Missing some is no matter: the record is read again.
            let _ = news.recv().await;
        }
    }

    /// Takes nothing any more, ends what runs, and returns when all is gone.
    /// What waits stays written as queued, and is failed at the next start.
    pub async fn close(&self) {
        {
            let mut inner = self.inner();
            inner.closing = true;
            inner.open.values().for_each(|(_, stop)| stop.now(Why::Closing));
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Inner {
    fn forget(&mut self) {
        let over: Vec<RunId> =
            self.runs.values().filter(|r| r.state.is_over()).map(|r| r.id.clone()).collect();
        for id in over.iter().take(over.len().saturating_sub(REMEMBERED)) {
            self.runs.remove(id);
        }
    }
}
