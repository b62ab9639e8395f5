//! Software by name, from the deployment server's log (M45, M46).
//!
//! | number | what it is |
//! |---|---|
//! | deployments | a node changes to a digest that is not the one last deployed under that name; further nodes that follow belong to the same deployment, a step back is one of its own |
//! | commit to image | from the commit's time to the end of its ingest |
//! | commit to running | from the commit's time to the first start on a node, for each deployment |
//! | change failure rate | deployments after which, before the next one, the new digest ended badly by itself, or was ill, on some node |
//! | recovery | from a failure (or a node that was lost) to the next start of that name on that node, or on one that did not run it; a start after which it fails again within five minutes is none |
//!
//! `staging/web` and `web` are one name: promotion moves a digest, it does not
//! change what it is.

use super::{Episodes, Spread, Window, share};
use crate::model::{Event, NewEvent, NodeName, Outcome, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The numbers of one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SoftwareNumbers {
    /// Name.
    pub name: String,
    /// Images made.
    pub images: usize,
    /// Ingest runs that failed.
    pub failed_runs: usize,
    /// Deployments.
    pub deployments: usize,
    /// The same, a day.
    pub deployments_per_day: f64,
    /// Seconds.
    pub commit_to_image: Spread,
    /// Seconds.
    pub commit_to_running: Spread,
    /// Deployments that failed.
    pub failed_deployments: usize,
    /// Of all deployments, 0 to 1.
    pub change_failure_rate: f64,
    /// Seconds, of what has recovered.
    pub time_to_recover: Spread,
    /// Nodes on which it is down now.
    pub down: usize,
}

#[derive(Debug, Default)]
struct Name {
    images: usize,
    failed_runs: usize,
    to_image: Vec<f64>,
    to_running: Vec<f64>,
    /// Last deployed digest.
    current: Option<String>,
    /// Counted deployments, and those of them that failed.
    deployments: usize,
    failed: usize,
    /// The current one is counted; it has failed.
    counted: bool,
    current_failed: bool,
    /// What each node last started.
    on: BTreeMap<NodeName, String>,
    /// Where it runs now; containers by name.
    runs: BTreeMap<NodeName, BTreeSet<String>>,
    episodes: BTreeMap<NodeName, Episodes>,
}

/// The fold; see the module.
#[derive(Debug)]
pub struct Software {
    window: Window,
    names: BTreeMap<String, Name>,
    /// When the commit behind a digest was made.
    committed: HashMap<String, Time>,
}

/// `staging/web` → `web`.
fn name_of(repository: &str) -> &str {
    repository.strip_prefix("staging/").unwrap_or(repository)
}

impl Software {
    /// Nothing read yet.
    pub fn new(window: Window) -> Self {
        Self { window, names: BTreeMap::new(), committed: HashMap::new() }
    }

    /// Reads the next event of the log.
    pub fn take(&mut self, event: &Event) {
        let e = &event.event;
        if e.at >= self.window.until {
            return;
        }
        match (e.action.as_str(), &e.node) {
            ("ingest.end", _) => self.ingested(e),
            ("container.start", Some(n)) => self.started(e, n),
            ("container.exit" | "container.unhealthy", Some(n)) => self.ended(e, n),
            ("container.healthy", Some(n)) => {
                if let Some(name) = self.name(e) {
                    name.episodes.entry(n.clone()).or_default().recovers(e.at);
                }
            }
            ("node.lost", Some(n)) => self.lost(e.at, n),
            _ => {}
        }
    }

    fn name(&mut self, e: &NewEvent) -> Option<&mut Name> {
        let r = e.detail.get("repository").filter(|r| !r.is_empty())?;
        Some(self.names.entry(name_of(r).to_owned()).or_default())
    }

    fn ingested(&mut self, e: &NewEvent) {
        let counts = self.window.holds(e.at);
        let committed = e.detail.get("committed").and_then(|t| t.parse::<Time>().ok());
        if let (Some(d), Some(t)) = (e.detail.get("digest"), committed) {
            // The same content committed again is as old as its first commit.
            let known = self.committed.entry(d.clone()).or_insert(t);
            *known = (*known).min(t);
        }
        let Some(name) = self.name(e).filter(|_| counts) else { return };
        if e.outcome != Outcome::Ok {
            name.failed_runs += 1;
            return;
        }
        name.images += 1;
        if let Some(t) = committed {
            name.to_image.push(e.at.duration_since(t).as_secs_f64().max(0.0));
        }
    }

    fn started(&mut self, e: &NewEvent, node: &NodeName) {
        let Some(digest) = e.detail.get("digest").filter(|d| !d.is_empty()) else { return };
        let committed = self.committed.get(digest).copied();
        let (counts, window) = (self.window.holds(e.at), self.window);
        let Some(name) = self.name(e) else { return };
        let was = name.on.insert(node.clone(), digest.clone());
        let changes = was.as_ref() != Some(digest);
        if changes && name.current.as_ref() != Some(digest) {
            name.current = Some(digest.clone());
            (name.counted, name.current_failed) = (counts, false);
            if counts {
                name.deployments += 1;
                if let Some(t) = committed {
                    name.to_running.push(e.at.duration_since(t).as_secs_f64().max(0.0));
                }
            }
        }
        let ran_here = name.runs.get(node).is_some_and(|c| !c.is_empty());
        name.runs.entry(node.clone()).or_default().insert(container(e));
        if let Some(own) = name.episodes.get_mut(node) {
            own.recovers(e.at);
        }
        if !ran_here {
            // It came to another node in place of one where it is down.
            let other = name.episodes.iter_mut().find(|(n, x)| *n != node && x.is_down());
            if let Some((_, x)) = other {
                x.recovers(e.at);
            }
        }
        for x in name.episodes.values_mut() {
            // Long enough ago to stand.
            if matches!(x.open, Some((_, Some(t))) if e.at.duration_since(t) >= super::STEADY) {
                x.settle(&window);
            }
        }
    }

    fn ended(&mut self, e: &NewEvent, node: &NodeName) {
        let window = self.window;
        let Some(name) = self.name(e) else { return };
        if e.action == "container.exit"
            && let Some(c) = name.runs.get_mut(node)
        {
            c.remove(&container(e));
        }
        if e.outcome != Outcome::Failed {
            return;
        }
        name.episodes.entry(node.clone()).or_default().fails(e.at, &window);
        if name.current.is_some() && e.detail.get("digest") == name.current.as_ref() {
            name.fail_current();
        }
    }

    fn lost(&mut self, at: Time, node: &NodeName) {
        for name in self.names.values_mut() {
            if name.runs.remove(node).is_some_and(|c| !c.is_empty()) {
                // No fault of the change: the machine is gone.
                name.episodes.entry(node.clone()).or_default().fails(at, &self.window);
            }
        }
    }

    /// All names, in order.
    pub fn numbers(mut self) -> Vec<SoftwareNumbers> {
        let window = self.window;
        let days = window.days();
        let mut all = Vec::new();
        for (name, mut n) in std::mem::take(&mut self.names) {
            let mut recovered = Vec::new();
            let mut down = 0;
            for x in n.episodes.values_mut() {
                down += usize::from(x.is_down());
                x.settle(&window);
                recovered.append(&mut x.done);
            }
            #[expect(clippy::cast_precision_loss, reason = "counts of events are far below 2^52")]
            let per_day = if days > 0.0 { n.deployments as f64 / days } else { 0.0 };
            all.push(SoftwareNumbers {
                name,
                images: n.images,
                failed_runs: n.failed_runs,
                deployments: n.deployments,
                deployments_per_day: per_day,
                commit_to_image: Spread::of(n.to_image),
                commit_to_running: Spread::of(n.to_running),
                failed_deployments: n.failed,
                change_failure_rate: share(n.failed, n.deployments),
                time_to_recover: Spread::of(recovered),
                down,
            });
        }
        all
    }
}

impl Name {
    fn fail_current(&mut self) {
        if !std::mem::replace(&mut self.current_failed, true) && self.counted {
            self.failed += 1;
        }
    }
}

fn container(e: &NewEvent) -> String {
    e.detail.get("container").cloned().unwrap_or_default()
}
