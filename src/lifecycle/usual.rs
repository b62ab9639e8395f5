//! How long each phase usually takes: the median over the builds of the same
//! profile, by the same method, that ended in a deployed node.

use crate::model::{Build, BuildOutcome, Method, Name, Phase};
use jiff::SignedDuration;
use std::collections::HashMap;
use std::sync::Arc;

/// Builds of a profile that are looked at: the newest.
const LAST: usize = 50;
/// Fewer than so many say nothing of what is usual.
const FEWEST: usize = 2;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Usual(HashMap<(Name, bool, Phase), SignedDuration>);

fn key(b: &Build, p: Phase) -> (Name, bool, Phase) {
    (b.inputs.profile.clone(), b.inputs.method != Method::Image, p)
}

impl Usual {
    /// From all builds, oldest first.
    pub fn of<'a>(builds: impl DoubleEndedIterator<Item = &'a Arc<Build>>) -> Self {
        let mut seen: HashMap<(Name, bool, Phase), Vec<SignedDuration>> = HashMap::new();
        for b in builds.rev().filter(|b| b.outcome == BuildOutcome::Deployed) {
            // An attempt that was begun again says nothing of the usual.
            for p in b.phases.iter().filter(|p| p.attempt == b.attempt) {
                let Some(end) = p.ended else { continue };
                let all = seen.entry(key(b, p.phase)).or_default();
                if all.len() < LAST {
                    all.push(end.duration_since(p.started));
                }
            }
        }
        let enough = seen.into_iter().filter(|(_, all)| all.len() >= FEWEST);
        Self(enough.map(|(k, all)| (k, median(all))).collect())
    }

    /// What is usual for `phase` of builds like `b`.
    pub fn phase(&self, b: &Build, phase: Phase) -> Option<SignedDuration> {
        self.0.get(&key(b, phase)).copied()
    }

    /// Whether `is` is so much longer that somebody should look: twice the
    /// usual, and half a minute more.
    pub fn is_slow(is: SignedDuration, usual: Option<SignedDuration>) -> bool {
        usual.is_some_and(|u| is > u * 2 && is > u + SignedDuration::from_secs(30))
    }
}

fn median(mut all: Vec<SignedDuration>) -> SignedDuration {
    all.sort_unstable();
    let (below, n) = (all.len() / 2, all.len());
    match n % 2 {
        0 if n > 0 => (all[below - 1] + all[below]) / 2,
        _ => all.get(below).copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one_counts_and_slow_is_twice_and_half_a_minute() {
        let s = SignedDuration::from_secs;
        assert_eq!(median(vec![s(9), s(1), s(5)]), s(5));
        assert_eq!(median(vec![s(1), s(3)]), s(2));
        for (is, usual, slow) in [
            (100, Some(60), false),
            (121, Some(60), true),
            (20, Some(5), false),
            (900, None, false),
        ] {
            assert_eq!(Usual::is_slow(s(is), usual.map(s)), slow, "{is} {usual:?}");
        }
    }
}
