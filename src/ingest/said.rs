//! What a run says while it goes (its log file and its listeners), and how it
//! is told to end.

use super::run::{Notice, RunId};
use crate::image::build::Progress;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Longest log, in bytes: the rest of a build that never stops talking is
/// left out.
const LONGEST_LOG: usize = 32 << 20;

/// Why a run was told to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// By whom.
    Wish(String),
    /// After how long.
    Deadline(Duration),
    /// The server stops.
    Closing,
}

/// Tells a run to end. The first reason counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    token: CancellationToken,
    why: Arc<OnceLock<Why>>,
}

impl Stop {
    pub fn now(&self, why: Why) {
        // A reason that is there stays.
        let _ = self.why.set(why);
        self.token.cancel();
    }

    pub fn asked(&self) -> bool {
        self.token.is_cancelled()
    }

    pub async fn wait(&self) {
        self.token.cancelled().await;
    }

    pub fn why(&self) -> Option<&Why> {
        self.why.get()
    }
}

/// One run's log.
#[derive(Debug)]
pub(super) struct Log {
    id: RunId,
    file: Mutex<(fs::File, usize)>,
    listeners: broadcast::Sender<Notice>,
}

impl Log {
    pub fn open(path: &Path, id: RunId, listeners: broadcast::Sender<Notice>) -> io::Result<Self> {
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self { id, file: Mutex::new((file, LONGEST_LOG)), listeners })
    }

    pub fn line(&self, line: &str) {
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let need = line.len() + 1;
            if file.1 == 0 {
                return;
            }
            let text = if need > file.1 {
                file.1 = 0;
                "(the rest is left out: the log is full)\n".to_owned()
            } else {
                file.1 -= need;
                format!("{line}\n")
            };
            // A full disk must not end a build that goes well; the build will
            // find out by itself if it needs the disk.
            let _ = file.0.write_all(text.as_bytes());
        }
        // Nobody listening is no error.
        let _ = self.listeners.send(Notice::Line { id: self.id.clone(), line: line.to_owned() });
    }
}

/// A [`Progress`] that writes the log and stops when asked.
pub(super) struct Teller<'a> {
    pub log: &'a Log,
    pub stop: &'a Stop,
    /// Replaced in every line: names of ours by those the user knows.
    pub names: &'a [(String, String)],
}

impl Progress for Teller<'_> {
    fn step(&mut self, what: &str) {
        self.log.line(&format!("== {what}"));
    }

    fn bytes(&mut self, _: u64, _: u64) {}

    fn log(&mut self, line: &str) {
        self.log.line(&renamed(line, self.names));
    }

    fn cancelled(&self) -> bool {
        self.stop.asked()
    }
}

/// `line` with the first of each pair written as the second.
pub(super) fn renamed(line: &str, names: &[(String, String)]) -> String {
    names.iter().fold(line.to_owned(), |l, (ours, theirs)| l.replace(ours, theirs))
}
