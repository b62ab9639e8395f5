//! The installers' logs, from the network to the log of each build, and what
//! they show of its progress.
//!
//! Lines wait in a queue of bounded length and are appended many at a time;
//! what does not fit is counted, not waited for: a log that is lost in parts
//! is no reason to lose anything else.

use crate::api::node_reports::LOG_LIMIT;
use crate::auth::MasterKey;
use crate::lifecycle::{Input, LifeError, Rack};
use crate::model::plan::PhaseReport;
use crate::model::{BuildId, NodeName, Secret};
use crate::preseed::{Progress, Sign, without_token};
use crate::store::StoreError;
use crate::syslog::{Line, Sink};
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Lines that may wait.
const QUEUE: usize = 16384;
/// How often progress of one installer is told: each time takes the rack's turn.
const PACE: Duration = Duration::from_secs(1);
/// How soon a question is told again that the store did not take.
const AGAIN: Duration = Duration::from_secs(2);

/// The end that the receiver holds.
#[derive(Clone)]
pub struct Lines {
    to: mpsc::Sender<(Ipv4Addr, Line)>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    /// Lines that did not fit.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Sink for Lines {
    fn line(&self, from: Ipv4Addr, line: Line) {
        if self.to.try_send((from, line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The queue's two ends.
pub fn queue() -> (Lines, mpsc::Receiver<(Ipv4Addr, Line)>) {
    let (to, from) = mpsc::channel(QUEUE);
    (Lines { to, lost: Arc::default() }, from)
}

/// What is known of one installer.
struct Running {
    build: BuildId,
    token: Secret,
    progress: Progress,
    /// When progress was told last.
    told: Instant,
    /// What it does, not told yet.
    news: Option<String>,
}

/// Inputs, in their order, and those that wait for the store.
#[derive(Default)]
struct Inputs {
    now: Vec<(NodeName, Input)>,
    /// Questions: an installer that asks says nothing more.
    unsaid: HashMap<NodeName, Input>,
}

impl Inputs {
    /// Whether the last word of `node` is a question.
    fn asks(&self, node: &NodeName) -> bool {
        let last = self.now.iter().rev().find(|(n, _)| n == node).map(|(_, i)| i);
        matches!(last.or_else(|| self.unsaid.get(node)), Some(Input::Asked(_)))
    }

    fn push(&mut self, node: NodeName, input: Input) {
        self.unsaid.remove(&node);
        self.now.push((node, input));
    }
}

/// The end that writes.
pub struct InstallerLog {
    /// The rack.
    pub rack: Arc<Rack>,
    /// Directory of the builds' logs.
    pub logs: PathBuf,
    /// For the tokens that must not be in them.
    pub key: Arc<MasterKey>,
}

impl InstallerLog {
    /// Works until the queue is closed.
    pub async fn run(self, mut from: mpsc::Receiver<(Ipv4Addr, Line)>) {
        let mut known: HashMap<NodeName, Running> = HashMap::new();
        let mut waiting = Vec::new();
        let mut inputs = Inputs::default();
        loop {
            let more = from.recv_many(&mut waiting, 512);
            if inputs.unsaid.is_empty() {
                if more.await == 0 {
                    return;
                }
            } else if let Ok(0) = tokio::time::timeout(AGAIN, more).await {
                return;
            }
            inputs.now.extend(inputs.unsaid.drain());
            let mut texts: BTreeMap<BuildId, String> = BTreeMap::new();
            for (address, line) in waiting.drain(..) {
                let Some((node, build)) = self.build_at(address) else { continue };
                let fresh = || Running {
                    build: build.clone(),
                    token: self.key.build_token(&build),
                    progress: Progress::default(),
                    told: Instant::now(),
                    news: None,
                };
                let r = known.entry(node.clone()).or_insert_with(fresh);
                if r.build != build {
                    *r = fresh();
                }
                let said = without_secrets(&line.text, &r.token);
                let text = texts.entry(build).or_default();
                text.push_str(&format!("{}: {said}\n", line.program));
                match r.progress.read(&line.program, &said) {
                    Sign::Asks(question) => inputs.push(node, Input::Asked(question)),
                    Sign::Goes(what) => {
                        r.news = what.or(r.news.take());
                        if r.told.elapsed() >= PACE || inputs.asks(&node) {
                            r.told = Instant::now();
                            inputs.push(node, Input::Progress(r.news.take()));
                        }
                    }
                    Sign::Begins(phase, what) => {
                        let message = Some(what);
                        let report = PhaseReport { phase, bytes: 0, total: 0, message };
                        inputs.push(node, Input::Reported(report));
                    }
                    Sign::Nothing => {}
                }
            }
            for (build, text) in texts {
                let path = self.logs.join(format!("{build}.log"));
                let done = tokio::task::spawn_blocking(move || append(&path, &text)).await;
                if let Ok(Err(e)) = done {
                    tracing::error!(%build, error = %e, "the installer's log cannot be written");
                }
            }
            for (node, input) in std::mem::take(&mut inputs.now) {
                match self.rack.observe(&node, input.clone()).await {
                    Ok(()) => {}
                    // The store is away. Of progress the next line says as much.
                    Err(LifeError::Store(StoreError::Unavailable { .. })) => {
                        if matches!(input, Input::Asked(_)) {
                            inputs.unsaid.insert(node, input);
                        }
                    }
                    Err(e) => tracing::error!(%node, error = %e, "progress could not be used"),
                }
            }
        }
    }

    /// Which install the machine at `address` is in the middle of.
    fn build_at(&self, address: Ipv4Addr) -> Option<(NodeName, BuildId)> {
        let node = self.rack.view().inventory.by_address(address)?.spec.name.clone();
        let build = self.rack.running_build(&node)?;
        build.inputs.method.is_installer().then(|| (node, build.id.clone()))
    }
}

/// So many characters in a row of a token's secret part are a piece of it.
const PIECE: usize = 8;

/// The installer logs every answer that it reads, and a kernel its arguments:
/// the token and the hash of the password are among them. Consoles lose
/// characters and break lines anywhere, so pieces of a token count as well.
pub(super) fn without_secrets(text: &str, token: &Secret) -> String {
    let mut text = without_token(text, token);
    for mark in ["$6$", "$y$"] {
        while let Some(at) = text.find(mark) {
            let end = text[at..].find([' ', '\'', '"']).map_or(text.len(), |n| at + n);
            text.replace_range(at..end, "***");
        }
    }
    let secret = token.expose().rsplit('.').next().unwrap_or_default().as_bytes();
    let is_piece =
        |word: &str| word.as_bytes().windows(PIECE).any(|w| secret.windows(PIECE).any(|s| s == w));
    if is_piece(&text) {
        let words: Vec<&str> =
            text.split(' ').map(|w| if is_piece(w) { "***" } else { w }).collect();
        text = words.join(" ");
    }
    text
}

pub(super) fn append(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() + text.len() as u64 > LOG_LIMIT {
        return Ok(());
    }
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_secrets_are_not_kept() {
        let token = Secret::new("b-1.0123456789abcdef");
        for (text, want) in [
            ("--> SET provision/token b-1.0123456789abcdef", "--> SET provision/token ***"),
            // Broken by a screen's edge, and with a character lost.
            ("x provision.token=b-1.0123456789a", "x ***"),
            ("89abcdef quiet", "*** quiet"),
            ("x token=b-1.013456789abcdef y", "x *** y"),
            ("b-1 0123456 9abcdef", "b-1 0123456 9abcdef"),
            ("<-- 0 $6$salt$hash", "<-- 0 ***"),
            ("set '$y$j9T$x' and $6$b go", "set '***' and *** go"),
            ("--> GO", "--> GO"),
        ] {
            assert_eq!(without_secrets(text, &token), want);
        }
    }
}
