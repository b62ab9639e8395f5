//! What was built since the start, for those who watch: runs by how they
//! ended, how long they waited and took.

use super::run::{Run, RunState};
use crate::model::Times;
use crate::model::tally::WORK;
use std::collections::BTreeMap;

/// The totals; see the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// Runs that are over: done, failed, cancelled.
    pub ended: BTreeMap<&'static str, u64>,
    /// From the order to the beginning.
    pub waited: Times,
    /// From the beginning to the end.
    pub took: Times,
    /// Runs that wait.
    pub waiting: usize,
    /// Runs under way.
    pub running: usize,
}

impl Default for Totals {
    fn default() -> Self {
        let ended = ["done", "failed", "cancelled"].map(|word| (word, 0)).into();
        let (waited, took) = (Times::new(WORK), Times::new(WORK));
        Self { ended, waited, took, waiting: 0, running: 0 }
    }
}

impl Totals {
    /// A run is over.
    pub fn add(&mut self, run: &Run) {
        let word = match run.state {
            RunState::Done => "done",
            RunState::Failed => "failed",
            RunState::Cancelled => "cancelled",
            RunState::Queued | RunState::Running => return,
        };
        *self.ended.entry(word).or_default() += 1;
        let Some(began) = run.started else { return };
        self.waited.add(began.duration_since(run.asked).as_secs_f64());
        if let Some(end) = run.ended {
            self.took.add(end.duration_since(began).as_secs_f64());
        }
    }
}
