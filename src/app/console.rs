//! The consoles of machines that are being installed: listened to through
//! their BMCs, kept beside the build's log, and what they tell told in the
//! event log.
//!
//! A console is a convenience: no install waits for it or fails of it. It is
//! listened to from the moment the machine was switched on until the build
//! ends; somebody who takes it away from us with `ipmitool` keeps it.

use super::installer_log::{append, without_secrets};
use crate::api::Bmcs;
use crate::auth::MasterKey;
use crate::console::{Lines, remark};
use crate::lifecycle::Rack;
use crate::model::{
    Build, BuildId, NewEvent, Node, NodeName, Outcome, Phase, PowerDriver, Secret, Time,
};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pieces that may wait; what is not taken the BMC keeps, or drops.
const QUEUE: usize = 64;
/// A prompt is a line when nothing follows it for so long.
const QUIET: Duration = Duration::from_secs(1);
/// Between tries to get at a console: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));
/// An event may come before what it tells of can be seen: it is looked again.
const LOOK: Duration = Duration::from_secs(3);
/// Lines of an attempt that are told in the event log: a machine that panics
/// at each restart is not worth more.
const TOLD: usize = 40;

/// What is listened to, or was until just now.
type Open = HashMap<NodeName, Listening>;

struct Listening {
    build: BuildId,
    end: CancellationToken,
    task: JoinHandle<()>,
}

/// Who listens.
pub struct Consoles {
    /// The rack.
    pub rack: Arc<Rack>,
    /// The way to the BMCs.
    pub bmcs: Arc<dyn Bmcs>,
    /// Directory of the builds' logs.
    pub logs: PathBuf,
    /// For the tokens that must not be in them.
    pub key: Arc<MasterKey>,
}

impl Consoles {
    /// Listens to every machine that is being installed, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let all = Arc::new(self);
        let mut events = all.rack.subscribe();
        let mut open = Open::new();
        let tasks = TaskTracker::new();
        let mut nodes = all.every_node();
        // When to look again; an event does not put it off.
        let mut due = Some(Instant::now() + LOOK);
        loop {
            for name in nodes {
                all.look(name, &mut open, &tasks, &stop);
            }
            open.retain(|_, l| !l.task.is_finished() || !l.end.is_cancelled());
            let later = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            // A build's beginning and end are events, and so is each phase.
            nodes = tokio::select! {
                () = stop.cancelled() => break,
                () = later => {
                    due = (!open.is_empty()).then(|| Instant::now() + LOOK);
                    all.every_node().into_iter().chain(open.keys().cloned()).collect()
                }
                next = events.recv() => match next {
                    Ok(e) if e.event.action.starts_with("install.") => {
                        due.get_or_insert_with(|| Instant::now() + LOOK);
                        e.event.node.into_iter().collect()
                    }
                    Ok(_) => Vec::new(),
                    Err(RecvError::Lagged(_)) => {
                        due.get_or_insert_with(|| Instant::now() + LOOK);
                        all.every_node()
                    }
                    Err(RecvError::Closed) => break,
                },
            };
        }
        open.values().for_each(|l| l.end.cancel());
        tasks.close();
        tasks.wait().await;
    }

    fn every_node(&self) -> Vec<NodeName> {
        self.rack.view().inventory.all().map(|n| n.spec.name.clone()).collect()
    }

    /// Begins or ends listening to one machine, as its build has it.
    fn look(
        self: &Arc<Self>,
        name: NodeName,
        open: &mut Open,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let wanted = self.wanted(&name);
        if let Some(l) = open.get(&name) {
            if wanted.as_ref().is_some_and(|(_, b)| b.id == l.build) && !l.end.is_cancelled() {
                return;
            }
            l.end.cancel();
        }
        if let Some((node, build)) = wanted {
            let (end, id) = (stop.child_token(), build.id.clone());
            // Two at once would take the console from each other.
            let before = open.remove(&name).map(|l| l.task);
            let own = self.clone();
            let task = tasks.spawn({
                let end = end.clone();
                async move {
                    if let Some(task) = before {
                        // How it ended is in its own words.
                        let _ = task.await;
                    }
                    own.keep(node, build, end).await;
                }
            });
            open.insert(name, Listening { build: id, end, task });
        }
    }

    /// The node and its build, while its console is wanted: not before the
    /// machine was switched on, when the BMC has other things to do.
    fn wanted(&self, name: &NodeName) -> Option<(Arc<Node>, Arc<Build>)> {
        let build = self.rack.running_build(name).filter(|b| b.phase != Phase::Power)?;
        let node = self.rack.view().inventory.get(name).cloned()?;
        let ipmi = node.spec.bmc.as_ref().is_some_and(|b| b.driver == PowerDriver::Ipmi);
        ipmi.then_some((node, build))
    }

    /// Keeps what one machine says, until `end`.
    async fn keep(self: Arc<Self>, node: Arc<Node>, build: Arc<Build>, end: CancellationToken) {
        let (to, from) = mpsc::channel(QUEUE);
        let writing = tokio::spawn(Writer::new(&self, &build).run(from));
        let (mut complained, mut pause) = (false, AGAIN.0);
        while !end.is_cancelled() {
            let opened = tokio::select! {
                opened = self.bmcs.open(&node) => opened,
                () = end.cancelled() => break,
            };
            let (reason, again) = match opened {
                Ok(bmc) => match bmc.console(to.clone(), end.clone()).await {
                    Ok(()) => break,
                    Err(e) => (e.to_string(), e.is_passing()),
                },
                Err(why) => (why, false),
            };
            if !std::mem::replace(&mut complained, true) {
                let e = event(&build, "console.unavailable", Outcome::Info).with("reason", reason);
                self.tell(e).await;
            }
            // Who is refused is refused again, and some BMCs count it.
            if !again {
                break;
            }
            tokio::select! {
                () = end.cancelled() => {}
                () = sleep(pause) => pause = (pause * 2).min(AGAIN.1),
            }
        }
        drop(to);
        if let Err(error) = writing.await {
            tracing::error!(node = %build.node, %error, "the console's writer broke off");
        }
    }

    async fn tell(&self, event: NewEvent) {
        // The store may be away: the line is in the file all the same.
        if let Err(error) = self.rack.log(vec![event]).await {
            tracing::debug!(%error, "console.tell");
        }
    }
}

fn event(build: &Build, action: &str, outcome: Outcome) -> NewEvent {
    NewEvent::new(Time::now(), "server", action, outcome).node(&build.node).with("build", &build.id)
}

/// Writes what one console says.
struct Writer {
    all: Arc<Consoles>,
    build: Arc<Build>,
    path: PathBuf,
    token: Secret,
    told: usize,
}

impl Writer {
    fn new(all: &Arc<Consoles>, build: &Arc<Build>) -> Self {
        let path = all.logs.join(format!("{}.console", build.id));
        let token = all.key.build_token(&build.id);
        Self { all: all.clone(), build: build.clone(), path, token, told: 0 }
    }

    async fn run(mut self, mut from: mpsc::Receiver<Vec<u8>>) {
        let mut lines = Lines::default();
        let mut pieces = Vec::new();
        loop {
            let mut said = Vec::new();
            let more = from.recv_many(&mut pieces, QUEUE);
            let more = match lines.is_unfinished() {
                true => timeout(QUIET, more).await.ok(),
                false => Some(more.await),
            };
            match more {
                Some(0) => break,
                Some(_) => {
                    for piece in pieces.drain(..) {
                        lines.push(&piece, |l| said.push(without_secrets(l, &self.token)));
                    }
                }
                None => lines.rest(|l| said.push(without_secrets(l, &self.token))),
            }
            self.take(said).await;
        }
        let mut said = Vec::new();
        lines.rest(|l| said.push(without_secrets(l, &self.token)));
        self.take(said).await;
    }

    async fn take(&mut self, said: Vec<String>) {
        if said.is_empty() {
            return;
        }
        let at = Time::now().duration_since(self.build.started).as_secs_f64();
        let text: String = said.iter().map(|l| format!("{at:>9.1}  {l}\n")).collect();
        let path = self.path.clone();
        let done = tokio::task::spawn_blocking(move || append(&path, &text)).await;
        if let Ok(Err(error)) = done {
            tracing::error!(build = %self.build.id, %error, "the console cannot be written down");
        }
        for line in said {
            let Some(r) = remark(&line).filter(|_| self.told < TOLD) else { continue };
            self.told += 1;
            let outcome = if r.stops { Outcome::Failed } else { Outcome::Info };
            let line: String = line.chars().take(200).collect();
            let e = event(&self.build, "console.line", outcome);
            self.all.tell(e.with("line", line).with("means", r.means)).await;
        }
    }
}
