//! `provision-agent watch`, on installed nodes with an engine and a registry:
//! tells the deployment server what runs here and what happens to it. When
//! something happens, and every half minute, so that silence means something.
//!
//! A report that was not answered is sent again as it is, with its number, so
//! that nothing is written down twice; what happens meanwhile waits, bounded.

use super::engine::{Engine, Event, SOCKET};
use super::registry::{Registry, registries};
use crate::model::workload::{MOST_RUNNING, MOST_SEEN};
use crate::model::{Container, Happening, Seen, Time, WorkloadReport};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The unit. Nothing to do where there is no engine.
pub const UNIT: &str = "[Unit]
Description=Tells the deployment server what runs on this node
After=network-online.target docker.service
Wants=network-online.target
ConditionPathExists=|/usr/bin/dockerd
ConditionPathExists=|/usr/sbin/dockerd

[Service]
ExecStart=/usr/lib/provision/provision-agent watch
Restart=always
RestartSec=10
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
MemoryMax=64M

[Install]
WantedBy=multi-user.target
";

/// At the latest after this long the server hears of us.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// What happens within this long is told together.
const GATHER: Duration = Duration::from_millis(300);
/// Longest pause between two tries to tell.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Things that wait to be told, at most.
const MOST_WAITING: usize = 2000;

/// Runs for ever.
pub fn run() -> ExitCode {
    let engine = Engine::at(Path::new(SOCKET));
    let mut book = Ledger::new(session());
    let mut since = Time::now();
    loop {
        match follow(&engine, &mut book, &mut since) {
            Ok(()) => eprintln!("the engine has closed its events"),
            Err(e) => eprintln!("{SOCKET}: {e}"),
        }
        std::thread::sleep(Duration::from_secs(5));
    }
}

/// A text that no other start of the agent has.
fn session() -> String {
    let mut bytes = [0u8; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    match read {
        Ok(()) => format!("{:016x}", u64::from_ne_bytes(bytes)),
        Err(_) => format!("{}", Time::now().as_nanosecond()),
    }
}

/// Until the engine ends its stream.
fn follow(engine: &Engine, book: &mut Ledger, since: &mut Time) -> std::io::Result<()> {
    let events = engine.events(*since)?;
    // Of what happened before we listened, the engine may have told nothing.
    book.missed += 1;
    let (tell, told) = mpsc::sync_channel(64);
    let reader = std::thread::spawn(move || {
        for e in events {
            let end = e.is_err();
            if tell.send(e).is_err() || end {
                return;
            }
        }
    });
    let mut next = Instant::now();
    let mut pause = Duration::from_secs(1);
    loop {
        match told.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(e) => {
                let e = e?;
                // The engine gives the instant asked for once more.
                if e.at() <= *since {
                    continue;
                }
                *since = e.at();
                if book.note(&e, |e| engine.container(e)) && book.is_answered() {
                    next = next.min(Instant::now() + GATHER);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                let more = book.tell(engine)?;
                (next, pause) = match more {
                    Told::All => (Instant::now() + HEARTBEAT, Duration::from_secs(1)),
                    Told::Part => (Instant::now(), Duration::from_secs(1)),
                    Told::Not(why) => {
                        eprintln!("not told: {why}; again in {} s", pause.as_secs());
                        (Instant::now() + pause, (pause * 2).min(LONGEST_PAUSE))
                    }
                };
            }
            Err(RecvTimeoutError::Disconnected) => {
                let _ = reader.join();
                return Ok(());
            }
        }
    }
}

enum Told {
    All,
    /// More waits.
    Part,
    Not(String),
}

/// What has happened and was not told yet.
struct Ledger {
    session: String,
    number: u64,
    waiting: VecDeque<Seen>,
    missed: u64,
    /// Sent, not answered.
    pending: Option<WorkloadReport>,
    /// Containers by id, since an event may come after its container is gone.
    known: HashMap<String, Container>,
    /// Containers that somebody sent a signal.
    asked: HashSet<String>,
}

impl Ledger {
    fn new(session: String) -> Self {
        Self {
            session,
            number: 0,
            waiting: VecDeque::new(),
            missed: 0,
            pending: None,
            known: HashMap::new(),
            asked: HashSet::new(),
        }
    }

    fn is_answered(&self) -> bool {
        self.pending.is_none()
    }

    /// Takes an event in; whether it is to be told.
    fn note(&mut self, e: &Event, find: impl Fn(&Event) -> Container) -> bool {
        let id = &e.actor.id;
        let happening = match e.action.as_str() {
            "start" => {
                self.asked.remove(id);
                self.known.insert(id.clone(), find(e));
                Happening::Start
            }
            "kill" => {
                // Some signals are no wish to end: HUP, USR1, WINCH.
                if ["1", "10", "12", "28"].contains(&e.attribute("signal")) {
                    return false;
                }
                self.asked.insert(id.clone());
                return false;
            }
            "die" => {
                let asked = self.asked.remove(id);
                Happening::Exit { code: e.attribute("exitCode").parse().unwrap_or(-1), asked }
            }
            "health_status: healthy" => Happening::Healthy,
            "health_status: unhealthy" => Happening::Unhealthy,
            _ => return false,
        };
        let container = match self.known.get(id) {
            Some(c) => c.clone(),
            None => find(e),
        };
        if matches!(happening, Happening::Exit { .. }) {
            self.known.remove(id);
        }
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
            self.missed += 1;
        }
        self.waiting.push_back(Seen { at: e.at(), container, happening });
        true
    }

    /// The report to send: one that was not answered, or a new one.
    fn report(
        &mut self,
        running: impl FnOnce() -> std::io::Result<Vec<(String, Container)>>,
    ) -> std::io::Result<&WorkloadReport> {
        if self.pending.is_none() {
            let mut running = running()?;
            running.truncate(MOST_RUNNING);
            // Ids of containers that ended while nobody listened.
            let still: HashSet<&str> = running.iter().map(|(id, _)| id.as_str()).collect();
            self.known.retain(|id, _| still.contains(id.as_str()));
            self.asked.retain(|id| still.contains(id.as_str()));
            self.known.extend(running.iter().cloned());
            let mut running: Vec<Container> = running.into_iter().map(|(_, c)| c).collect();
            running.sort();
            let n = self.waiting.len().min(MOST_SEEN);
            self.number += 1;
            self.pending = Some(WorkloadReport {
                session: self.session.clone(),
                number: self.number,
                seen: self.waiting.drain(..n).collect(),
                missed: std::mem::take(&mut self.missed),
                running,
            });
        }
        self.pending.as_ref().ok_or_else(|| std::io::Error::other("no report"))
    }

    fn tell(&mut self, engine: &Engine) -> std::io::Result<Told> {
        let more = self.waiting.len() > MOST_SEEN || !self.is_answered();
        let report = self.report(|| engine.running())?;
        for dir in registries() {
            let sent = Registry::open(&dir).and_then(|r| r.post("/v1/workload", report));
            match sent {
                Ok(_) => {}
                // It will not be understood the next time either.
                Err(e) if e.status == Some(400) => eprintln!("left out: {e}"),
                Err(e) => return Ok(Told::Not(e.to_string())),
            }
        }
        self.pending = None;
        Ok(if more { Told::Part } else { Told::All })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::engine::Actor;

    fn event(action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes =
            attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Event {
            action: action.into(),
            actor: Actor { id: id.into(), attributes },
            nanoseconds: 1_800_000_000_000_000_000,
        }
    }

    fn found(e: &Event) -> Container {
        Container { name: e.actor.id.clone(), image: "r/a:1".into(), digest: "sha256:1".into() }
    }

    fn running() -> std::io::Result<Vec<(String, Container)>> {
        Ok(Vec::new())
    }

    #[test]
    fn an_end_that_somebody_asked_for_is_told_apart() {
        let mut l = Ledger::new("s".into());
        for (id, signal) in [("a", None), ("b", Some("15")), ("c", Some("1"))] {
            assert!(l.note(&event("start", id, &[]), found));
            if let Some(s) = signal {
                assert!(!l.note(&event("kill", id, &[("signal", s)]), found));
            }
            assert!(l.note(&event("die", id, &[("exitCode", "137")]), |_| unreachable!()));
        }
        let seen = &l.report(running).unwrap().seen;
        let failed: Vec<_> = seen.iter().map(|s| s.happening.is_failure()).collect();
        assert_eq!(failed, [false, true, false, false, false, true]);
    }

    #[test]
    fn an_unanswered_report_stays_as_it_is() {
        let mut l = Ledger::new("s".into());
        l.note(&event("start", "a", &[]), found);
        let first = l.report(running).unwrap().clone();
        assert_eq!((first.number, first.seen.len()), (1, 1));
        l.note(&event("die", "a", &[("exitCode", "1")]), found);
        assert_eq!(l.report(running).unwrap(), &first, "the same number is the same report");
        l.pending = None;
        let second = l.report(running).unwrap();
        assert_eq!((second.number, second.seen.len()), (2, 1));
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_lost_is_said() {
        let mut l = Ledger::new("s".into());
        for _ in 0..MOST_WAITING + 5 {
            l.note(&event("start", "a", &[]), found);
        }
        let r = l.report(running).unwrap();
        assert_eq!((r.seen.len(), r.missed), (MOST_SEEN, 5));
    }
}
