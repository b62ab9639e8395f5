//! How well software and machines are delivered, computed from what is kept
//! for ever: so the same log gives the same numbers, today and in ten years.
//!
//! - [`software`]: by image name, from the deployment server's log: how often
//!   it is deployed, how long from commit to image and to running, how many
//!   changes fail, how long until it runs again.
//! - [`machines`]: by profile, from the build server's log: the same for
//!   installs.
//! - [`phases`]: by profile and hardware model, from the records of builds: how
//!   long each phase takes, and which one is the bottleneck.
//! - [`installs`] and [`operations`]: totals of these for Prometheus, through
//!   [`ended`], which adds each record once; [`exposition`] is its text.
//!
//! All are folds: events or records go in one after another, and only what is
//! needed later is kept. No I/O, no clock.

pub mod ended;
pub mod exposition;
pub mod installs;
pub mod machines;
pub mod operations;
pub mod phases;
pub mod software;

pub use ended::Ended;
pub use exposition::{Exposition, Kind};
pub use installs::InstallTotals;
pub use machines::{Machines, ProfileNumbers};
pub use operations::OperationTotals;
pub use phases::{PhaseNumbers, PhaseTimes, Phases};
pub use software::{Software, SoftwareNumbers};

use crate::model::Time;
use serde::{Deserialize, Serialize};

/// A start counts as recovery when nothing fails for so long after it.
pub const STEADY: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// What is counted: events in `[since, until)`. Earlier ones are read too:
/// they say where things stood at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First instant.
    pub since: Time,
    /// First instant that is out again.
    pub until: Time,
}

impl Window {
    fn holds(&self, at: Time) -> bool {
        self.since <= at && at < self.until
    }

    /// Its length in days.
    fn days(&self) -> f64 {
        self.until.duration_since(self.since).as_secs_f64() / 86_400.0
    }
}

/// A spread of times, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Half are at most so long (the lower middle one of an even number).
    pub median: f64,
    /// 95 of 100 are at most so long (nearest rank).
    pub p95: f64,
    /// 99 of 100 are at most so long.
    #[serde(default)]
    #[schema(required = true)]
    pub p99: f64,
    /// The longest.
    pub longest: f64,
}

impl Spread {
    /// Of these; all zero without any.
    pub fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let Some(&longest) = seconds.last() else { return Self::default() };
        let count = seconds.len();
        let rank = |percent: usize| {
            let n = (count * percent).div_ceil(100).max(1);
            seconds.get(n - 1).copied().unwrap_or(longest)
        };
        #[expect(clippy::cast_precision_loss, reason = "counts of events are far below 2^52")]
        let mean = seconds.iter().sum::<f64>() / count as f64;
        Self { count, mean, median: rank(50), p95: rank(95), p99: rank(99), longest }
    }
}

/// Part of a whole, 0 without a whole.
fn share(part: usize, whole: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of events are far below 2^52")]
    let share = part as f64 / whole.max(1) as f64;
    share
}

/// Times between a failure and what ended it.
#[derive(Debug, Clone, Default)]
struct Episodes {
    /// Failed at; ended at, for now: a failure soon after takes it back.
    open: Option<(Time, Option<Time>)>,
    done: Vec<f64>,
}

impl Episodes {
    fn fails(&mut self, at: Time, w: &Window) {
        match &mut self.open {
            Some((_, ended)) if ended.is_none_or(|e| at.duration_since(e) < STEADY) => {
                *ended = None;
            }
            _ => {
                self.settle(w);
                self.open = Some((at, None));
            }
        }
    }

    fn recovers(&mut self, at: Time) {
        if let Some((_, ended @ None)) = &mut self.open {
            *ended = Some(at);
        }
    }

    /// Counts the episode that has ended, by when it ended.
    fn settle(&mut self, w: &Window) {
        if let Some((failed, Some(ended))) = self.open {
            if w.holds(ended) {
                self.done.push(ended.duration_since(failed).as_secs_f64());
            }
            self.open = None;
        }
    }

    fn is_down(&self) -> bool {
        matches!(self.open, Some((_, None)))
    }
}

#[cfg(test)]
mod tests;
