//! Phases, progress and log on their way to the server, from a thread of their
//! own: a server that is away for a while must not stop the disk. Phases are
//! kept in order and repeated until they arrive; of progress only the latest
//! counts.

use super::AgentError;
use super::journal::{self, say};
use super::server::{Server, ServerError};
use crate::model::Phase;
use crate::model::plan::PhaseReport;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of the running phase, counted by whoever moves them.
#[derive(Debug, Default)]
pub struct Meter {
    /// Done.
    pub done: AtomicU64,
    /// In all.
    pub total: AtomicU64,
}

/// The reporting thread's other end.
#[derive(Debug)]
pub struct Reporter {
    phases: Sender<Message>,
    thread: Option<JoinHandle<()>>,
    over: Arc<Mutex<Option<String>>>,
    is_over: Arc<AtomicBool>,
    /// Shared with the threads that move bytes.
    pub meter: Arc<Meter>,
    current: Phase,
}

enum Message {
    Begin(PhaseReport),
    Flush(Sender<()>),
}

impl Reporter {
    /// Starts reporting.
    pub fn start(server: Server) -> Self {
        let (phases, inbox) = channel();
        let meter = Arc::new(Meter::default());
        let over = Arc::new(Mutex::new(None));
        let is_over = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            server,
            inbox,
            meter: Arc::clone(&meter),
            over: Arc::clone(&over),
            is_over: Arc::clone(&is_over),
            phase: None,
            told: (0, 0),
        };
        let thread = std::thread::spawn(move || worker.run());
        Self { phases, thread: Some(thread), over, is_over, meter, current: Phase::Installer }
    }

    /// A phase begins. Fails when the server has said that the build is over.
    pub fn begin(&mut self, phase: Phase, message: &str) -> Result<(), AgentError> {
        self.check()?;
        say(format_args!("== {phase}: {message}"));
        self.current = phase;
        self.meter.done.store(0, Ordering::Relaxed);
        self.meter.total.store(0, Ordering::Relaxed);
        let report = PhaseReport { phase, bytes: 0, total: 0, message: Some(message.to_owned()) };
        // Fails only when the thread is gone, which `flush` finds out.
        let _ = self.phases.send(Message::Begin(report));
        Ok(())
    }

    /// The phase that runs.
    pub fn phase(&self) -> Phase {
        self.current
    }

    /// Fails when the build is over.
    pub fn check(&self) -> Result<(), AgentError> {
        if !self.is_over.load(Ordering::Relaxed) {
            return Ok(());
        }
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        Err(AgentError::Over(over.clone().unwrap_or_default()))
    }

    /// For threads that move bytes: whether to stop.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_over)
    }

    /// Waits until everything said so far has arrived, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let (done, arrived) = channel();
        if self.phases.send(Message::Flush(done)).is_ok() {
            // Too late is not an error: the caller has something to say itself.
            let _ = arrived.recv_timeout(patience);
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let (closed, _) = channel();
        drop(std::mem::replace(&mut self.phases, closed));
        if let Some(thread) = self.thread.take() {
            // It panicked: there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

struct Worker {
    server: Server,
    inbox: Receiver<Message>,
    meter: Arc<Meter>,
    over: Arc<Mutex<Option<String>>>,
    is_over: Arc<AtomicBool>,
    phase: Option<Phase>,
    told: (u64, u64),
}

impl Worker {
    fn run(mut self) {
        loop {
            let ended = match self.inbox.recv_timeout(Duration::from_secs(1)) {
                Ok(Message::Begin(report)) => {
                    self.phase = Some(report.phase);
                    self.told = (0, 0);
                    self.judge(self.server.post("/node/phase", &report));
                    false
                }
                Ok(Message::Flush(done)) => {
                    self.send_log();
                    // The caller has stopped waiting: fine.
                    let _ = done.send(());
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if self.is_over.load(Ordering::Relaxed) && !ended {
                continue;
            }
            self.send_progress();
            self.send_log();
            if ended {
                return;
            }
        }
    }

    fn send_progress(&mut self) {
        let bytes = self.meter.done.load(Ordering::Relaxed);
        let total = self.meter.total.load(Ordering::Relaxed);
        let Some(phase) = self.phase.filter(|_| total > 0 && self.told != (bytes, total)) else {
            return;
        };
        self.told = (bytes, total);
        let report = PhaseReport { phase, bytes, total, message: None };
        // Once: the next second's numbers are better than these repeated.
        self.judge(self.server.post_for("/node/phase", &report, Duration::ZERO));
    }

    fn send_log(&mut self) {
        while let Some((offset, text)) = journal::with(|j| j.next()) {
            match self.server.post_log(offset, &text) {
                Ok(true) => journal::with(|j| j.arrived(offset + text.len() as u64)),
                Ok(false) => return,
                Err(e) => {
                    self.judge(Err(e));
                    return;
                }
            }
        }
    }

    fn judge(&self, sent: Result<(), ServerError>) {
        if let Err(ServerError::Over(why)) = sent
            && !self.is_over.swap(true, Ordering::Relaxed)
        {
            say(format_args!("the server says that this build is over ({why})"));
            *self.over.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
    }
}
