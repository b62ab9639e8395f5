//! How long each phase of an install takes, and which one is the bottleneck
//! (M47), from the records of builds: by profile, by hardware model, and by
//! both.
//!
//! | what | is |
//! |---|---|
//! | counted | installs that ended verified in the window |
//! | a phase's time | of an install that was begun again, as that phase went the last time |
//! | total | all these phases of one install together |
//! | share | a phase's median, of the median total: shares need not add up to one |
//! | slowest | the phase with the largest share; of equal ones the earlier |
//!
//! Not every install has every phase: medians are of those that have it.

use super::installs::went_well;
use super::{Spread, Window};
use crate::model::{Build, BuildOutcome, Phase};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a machine is called that never told what it is.
pub const UNKNOWN_MODEL: &str = "unknown";

/// One phase of a group's installs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PhaseTimes {
    /// Which.
    pub phase: Phase,
    /// Seconds.
    pub seconds: Spread,
    /// Its median, of the median total; 0 to 1.
    pub share: f64,
}

/// The installs of one profile, of one hardware model, or of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PhaseNumbers {
    /// Profile; null for all together.
    #[schema(example = "docker")]
    pub profile: Option<String>,
    /// Hardware model, vendor and product as the firmware says, `unknown`
    /// where no agent ever told; null for all together.
    #[schema(example = "Dell Inc. PowerEdge R430")]
    pub model: Option<String>,
    /// Installs that ended verified.
    pub installs: usize,
    /// Those of them that needed more than one attempt.
    pub retried: usize,
    /// Seconds of all phases together.
    pub total: Spread,
    /// The bottleneck: the phase with the largest share.
    pub slowest: Option<Phase>,
    /// Each phase, in order.
    pub phases: Vec<PhaseTimes>,
}

impl PhaseNumbers {
    /// The bottleneck's own times.
    pub fn bottleneck(&self) -> Option<&PhaseTimes> {
        self.phases.iter().find(|p| Some(p.phase) == self.slowest)
    }
}

#[derive(Debug, Default)]
struct Group {
    retried: usize,
    totals: Vec<f64>,
    phases: BTreeMap<Phase, Vec<f64>>,
}

/// The fold; see the module.
#[derive(Debug)]
pub struct Phases {
    window: Window,
    /// By profile and model.
    groups: BTreeMap<(Option<String>, Option<String>), Group>,
}

impl Phases {
    /// Nothing read yet.
    pub fn new(window: Window) -> Self {
        Self { window, groups: BTreeMap::new() }
    }

    /// Whether `build` counts.
    pub fn wants(&self, build: &Build) -> bool {
        build.outcome == BuildOutcome::Deployed
            && build.ended.is_some_and(|end| self.window.holds(end))
    }

    /// Reads a build, on a machine of this model. The order does not matter.
    pub fn take(&mut self, build: &Build, model: Option<&str>) {
        if !self.wants(build) {
            return;
        }
        let mut last: BTreeMap<Phase, f64> = BTreeMap::new();
        for p in &build.phases {
            if let Some(s) = went_well(build, p) {
                last.insert(p.phase, s);
            }
        }
        let model = model.filter(|m| !m.is_empty()).unwrap_or(UNKNOWN_MODEL).to_owned();
        let profile = build.inputs.profile.to_string();
        for key in [
            (Some(profile.clone()), None),
            (None, Some(model.clone())),
            (Some(profile), Some(model)),
        ] {
            let group = self.groups.entry(key).or_default();
            group.retried += usize::from(build.attempt > 1);
            group.totals.push(last.values().sum());
            for (phase, s) in &last {
                group.phases.entry(*phase).or_default().push(*s);
            }
        }
    }

    /// Profiles, then models, then both.
    pub fn numbers(self) -> Vec<PhaseNumbers> {
        let mut all: Vec<PhaseNumbers> = self.groups.into_iter().map(numbers).collect();
        all.sort_by_key(|n| match (&n.profile, &n.model) {
            (Some(_), None) => 0,
            (None, _) => 1,
            (Some(_), Some(_)) => 2,
        });
        all
    }
}

fn numbers(((profile, model), group): ((Option<String>, Option<String>), Group)) -> PhaseNumbers {
    let installs = group.totals.len();
    let total = Spread::of(group.totals);
    let of_total = |s: f64| if total.median > 0.0 { s / total.median } else { 0.0 };
    let phases: Vec<PhaseTimes> = group
        .phases
        .into_iter()
        .map(|(phase, all)| {
            let seconds = Spread::of(all);
            PhaseTimes { phase, seconds, share: of_total(seconds.median) }
        })
        .collect();
    // Of equal ones the first: `max_by` would take the last.
    let slowest = phases.iter().rev().max_by(|a, b| a.share.total_cmp(&b.share)).map(|p| p.phase);
    PhaseNumbers { profile, model, installs, retried: group.retried, total, slowest, phases }
}

#[cfg(test)]
#[path = "phases_tests.rs"]
mod tests;
