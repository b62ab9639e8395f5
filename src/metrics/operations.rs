//! Operations as Prometheus reads them: what is under way, for how long, and
//! totals of what has ended, by kind.

use super::ended::Ends;
use super::exposition::{Exposition, Kind};
use super::installs::seconds;
use crate::model::tally::WORK;
use crate::model::{Operation, OperationId, OperationKind, OperationState, Time, Times};
use std::collections::BTreeMap;

const KINDS: [OperationKind; 5] = [
    OperationKind::Install,
    OperationKind::InstallMany,
    OperationKind::Power,
    OperationKind::ImageBuild,
    OperationKind::Mirror,
];
const OUTCOMES: [&str; 3] = ["done", "failed", "cancelled"];

/// As the API calls it.
fn word(kind: &OperationKind) -> &'static str {
    match kind {
        OperationKind::Install => "install",
        OperationKind::Power => "power",
        OperationKind::ImageBuild => "image-build",
        OperationKind::Mirror => "mirror",
        OperationKind::InstallMany => "install-many",
    }
}

impl Ends for Operation {
    type Key = OperationId;

    fn key(&self) -> &OperationId {
        &self.id
    }

    fn has_ended(&self) -> bool {
        self.state.is_final()
    }
}

/// The totals; see the module.
#[derive(Debug, Clone, Default)]
pub struct OperationTotals {
    ended: BTreeMap<(&'static str, &'static str), u64>,
    took: BTreeMap<&'static str, Times>,
}

impl OperationTotals {
    /// Adds an operation that has ended.
    pub fn add(&mut self, o: &Operation) {
        let outcome = match o.state {
            OperationState::Running => return,
            OperationState::Done => "done",
            OperationState::Failed => "failed",
            OperationState::Cancelled => "cancelled",
        };
        let kind = word(&o.kind);
        *self.ended.entry((kind, outcome)).or_default() += 1;
        let times = self.took.entry(kind).or_insert_with(|| Times::new(WORK));
        times.add(seconds(o.started, o.updated));
    }

    /// Writes them.
    pub fn write(&self, e: &mut Exposition) {
        let mut f = e.family(
            "provision_operations_total",
            Kind::Counter,
            "Operations that have ended, by kind and outcome.",
        );
        for kind in KINDS.iter().map(word) {
            for outcome in OUTCOMES {
                let n = self.ended.get(&(kind, outcome)).copied().unwrap_or_default();
                f.is(&[("kind", kind), ("outcome", outcome)], n);
            }
        }
        let mut f = e.family(
            "provision_operation_duration_seconds",
            Kind::Histogram,
            "From an operation's beginning to its end.",
        );
        for (kind, times) in &self.took {
            f.took(&[("kind", kind)], times);
        }
    }
}

/// Operations under way, by kind, and how old the oldest is.
pub fn write_running<'a>(all: impl Iterator<Item = &'a Operation>, now: Time, e: &mut Exposition) {
    let mut running: BTreeMap<&str, (u64, f64)> =
        KINDS.iter().map(|k| (word(k), (0, 0.0))).collect();
    for o in all {
        let (n, oldest) = running.entry(word(&o.kind)).or_default();
        *n += 1;
        *oldest = oldest.max(seconds(o.started, now));
    }
    let mut f =
        e.family("provision_operations_running", Kind::Gauge, "Operations under way, by kind.");
    running.iter().for_each(|(kind, (n, _))| f.is(&[("kind", kind)], *n));
    let mut f = e.family(
        "provision_operation_oldest_seconds",
        Kind::Gauge,
        "How long the oldest operation under way has been, 0 without one.",
    );
    running.iter().for_each(|(kind, (_, oldest))| f.is(&[("kind", kind)], *oldest));
}
