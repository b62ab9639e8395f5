//! Installs as Prometheus reads them: totals over all builds that have ended,
//! as counters and histograms by profile.
//!
//! They are made from the records, which are kept for ever, so they go on
//! where they were after a restart. A phase counts when it went well; one that
//! failed, and was perhaps tried again, is counted apart: how long it took is
//! how long its deadline is.

use super::ended::Ends;
use super::exposition::{Exposition, Kind};
use crate::model::tally::{OUTAGES, WORK};
use crate::model::{Build, BuildId, BuildOutcome, NodeName, Phase, PhaseRecord, Time, Times};
use std::collections::{BTreeMap, BTreeSet};

/// Profiles that are told apart; those that come later are `other`.
const PROFILES: usize = 64;
/// What these are called.
const OTHER: &str = "other";

impl Ends for Build {
    type Key = BuildId;

    fn key(&self) -> &BuildId {
        &self.id
    }

    fn has_ended(&self) -> bool {
        self.outcome != BuildOutcome::Running
    }
}

/// Seconds from one instant to another, at least none.
pub(super) fn seconds(from: Time, to: Time) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

/// How long a phase of `build` took, when it went well.
pub(super) fn went_well(build: &Build, p: &PhaseRecord) -> Option<f64> {
    let last = build.phases.last().is_some_and(|l| std::ptr::eq(l, p));
    let failed = last && build.outcome != BuildOutcome::Deployed;
    match p.ended {
        Some(end) if p.reason.is_none() && !failed => Some(seconds(p.started, end)),
        _ => None,
    }
}

/// The totals; see the module.
#[derive(Debug, Clone, Default)]
pub struct InstallTotals {
    profiles: BTreeSet<String>,
    phases: BTreeMap<(Phase, String), Times>,
    failed: BTreeMap<(Phase, String), u64>,
    ended: BTreeMap<(String, &'static str), u64>,
    retries: BTreeMap<String, u64>,
    took: BTreeMap<String, Times>,
    recovered: BTreeMap<String, Times>,
    /// Failed since, with which profile.
    down: BTreeMap<NodeName, (Time, String)>,
}

impl InstallTotals {
    fn profile(&mut self, name: &str) -> String {
        let known = self.profiles.contains(name);
        if !known && self.profiles.len() >= PROFILES {
            return OTHER.to_owned();
        }
        if !known {
            self.profiles.insert(name.to_owned());
        }
        name.to_owned()
    }

    /// Adds a build that has ended.
    pub fn add(&mut self, b: &Build) {
        let profile = self.profile(b.inputs.profile.as_str());
        for p in &b.phases {
            let key = (p.phase, profile.clone());
            match went_well(b, p) {
                Some(s) => self.phases.entry(key).or_insert_with(|| Times::new(WORK)).add(s),
                None => *self.failed.entry(key).or_default() += 1,
            }
        }
        let end = b.ended.unwrap_or(b.started);
        let outcome = match b.outcome {
            BuildOutcome::Running => return,
            BuildOutcome::Deployed => "deployed",
            BuildOutcome::Failed => "failed",
            BuildOutcome::Cancelled => "cancelled",
        };
        // Each outcome is there from the first install on: a rate of what
        // never was is none, and not nothing.
        for o in ["deployed", "failed", "cancelled"] {
            *self.ended.entry((profile.clone(), o)).or_default() += u64::from(o == outcome);
        }
        *self.retries.entry(profile.clone()).or_default() += u64::from(b.attempt.saturating_sub(1));
        match b.outcome {
            BuildOutcome::Deployed => {
                let of = |all: &mut BTreeMap<String, Times>, profile: String, bounds, s| {
                    all.entry(profile).or_insert_with(|| Times::new(bounds)).add(s);
                };
                if let Some((since, profile)) = self.down.remove(&b.node) {
                    of(&mut self.recovered, profile, OUTAGES, seconds(since, end));
                }
                of(&mut self.took, profile, WORK, seconds(b.started, end));
            }
            // A second failure does not make the node well in between.
            BuildOutcome::Failed => {
                self.down.entry(b.node.clone()).or_insert((end, profile));
            }
            BuildOutcome::Cancelled | BuildOutcome::Running => {}
        }
    }

    /// Writes them.
    pub fn write(&self, e: &mut Exposition) {
        let mut f = e.family(
            "provision_installs_total",
            Kind::Counter,
            "Installs that have ended, by profile and outcome.",
        );
        for ((profile, outcome), n) in &self.ended {
            f.is(&[("profile", profile), ("outcome", outcome)], *n);
        }
        let mut f = e.family(
            "provision_install_retries_total",
            Kind::Counter,
            "Times that an install was begun again by itself.",
        );
        for (profile, n) in &self.retries {
            f.is(&[("profile", profile)], *n);
        }
        let mut f = e.family(
            "provision_install_duration_seconds",
            Kind::Histogram,
            "From the order to the verified node.",
        );
        for (profile, times) in &self.took {
            f.took(&[("profile", profile)], times);
        }
        let mut f = e.family(
            "provision_install_phase_duration_seconds",
            Kind::Histogram,
            "Phases of installs that went well.",
        );
        for ((phase, profile), times) in &self.phases {
            f.took(&[("phase", phase.as_str()), ("profile", profile)], times);
        }
        let mut f = e.family(
            "provision_install_phase_failures_total",
            Kind::Counter,
            "Phases of installs that failed, were begun again or given up.",
        );
        for ((phase, profile), n) in &self.failed {
            f.is(&[("phase", phase.as_str()), ("profile", profile)], *n);
        }
        let mut f = e.family(
            "provision_install_recovery_seconds",
            Kind::Histogram,
            "From a failed install to the next verified one of that node, by the profile that failed.",
        );
        for (profile, times) in &self.recovered {
            f.took(&[("profile", profile)], times);
        }
    }
}

/// Installs under way, by phase.
pub fn write_running<'a>(builds: impl Iterator<Item = &'a Build>, e: &mut Exposition) {
    let mut phases: BTreeMap<Phase, u64> = Phase::ALL.into_iter().map(|p| (p, 0)).collect();
    let mut asking = 0u64;
    for b in builds {
        *phases.entry(b.phase).or_default() += 1;
        asking += u64::from(b.question.is_some());
    }
    let mut f =
        e.family("provision_installs_running", Kind::Gauge, "Installs under way, by phase.");
    for (phase, n) in phases {
        f.is(&[("phase", phase.as_str())], n);
    }
    e.gauge("provision_installs_asking", "Installers that have stopped to ask something.", asking);
}
