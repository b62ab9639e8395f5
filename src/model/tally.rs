//! How often, and how long each time: what is counted for those who watch.
//! Plain values, to be kept behind whatever lock its owner has.

use std::time::Duration;

/// Bounds for what takes a moment: a write, an answer. Seconds.
pub const MOMENTS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds for a call to a machine that is in no hurry, such as a BMC. Seconds.
pub const CALLS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];
/// Bounds for work: a phase, an operation, a build. Seconds.
pub const WORK: &[f64] = &[
    1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0,
];
/// Bounds for what may take until somebody looks: one minute to a week.
/// Seconds.
pub const OUTAGES: &[f64] = &[
    60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 86_400.0, 259_200.0, 604_800.0,
];

/// How many took at most so long.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    bounds: &'static [f64],
    /// One for each bound, of those that fit it and no lower one.
    within: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Times {
    /// None yet. `bounds` are in seconds and rise.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, within: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    /// One more. Less than nothing, as after a clock was set back, is nothing.
    pub fn add(&mut self, seconds: f64) {
        let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
        let first = self.bounds.partition_point(|b| *b < seconds);
        if let Some(n) = self.within.get_mut(first) {
            *n += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }

    /// One more, measured.
    pub fn took(&mut self, time: Duration) {
        self.add(time.as_secs_f64());
    }

    /// How many in all.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All their seconds.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Each bound, and how many took at most so long.
    pub fn at_most(&self) -> impl Iterator<Item = (f64, u64)> {
        let so_far = |n: &mut u64, (bound, within): (&f64, &u64)| {
            *n += within;
            Some((*bound, *n))
        };
        self.bounds.iter().zip(&self.within).scan(0, so_far)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_long_as_a_bound_is_within_it_and_what_is_longer_than_all_is_only_counted() {
        let mut t = Times::new(&[1.0, 5.0]);
        for s in [0.2, 1.0, 1.1, 5.0, 5.1, -3.0, f64::NAN] {
            t.add(s);
        }
        assert_eq!(t.at_most().collect::<Vec<_>>(), [(1.0, 4), (5.0, 6)]);
        assert_eq!((t.count(), t.sum()), (7, 0.2 + 1.0 + 1.1 + 5.0 + 5.1));
    }

    #[test]
    fn the_bounds_rise() {
        for all in [MOMENTS, CALLS, WORK, OUTAGES] {
            assert!(all.windows(2).all(|w| w[0] < w[1]), "{all:?}");
        }
    }
}
