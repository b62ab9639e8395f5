//! What was written since the start, for those who watch the store.

use super::StoreError;
use crate::model::tally::MOMENTS;
use crate::model::{Event, Outcome, Times};
use std::collections::BTreeMap;
use std::time::Duration;

/// Kinds of events that are told apart. All are named in this program; should
/// one be made of what comes from outside, there are still no more.
const KINDS: usize = 512;

/// The counts; see the module.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Batches that were written.
    pub commits: u64,
    /// Batches that were not, since the store did not answer.
    pub unavailable: u64,
    /// Batches that were not, for another reason.
    pub refused: u64,
    /// How long those took that were written.
    pub times: Times,
    /// Events by action and outcome.
    pub events: BTreeMap<(String, Outcome), u64>,
    /// Sequence number of the last event: how many there are in all.
    pub last: u64,
}

impl Counts {
    pub(super) fn new(last: u64) -> Self {
        let times = Times::new(MOMENTS);
        let (commits, unavailable, refused, events) = Default::default();
        Self { commits, unavailable, refused, times, events, last }
    }

    pub(super) fn written(&mut self, result: &Result<Vec<Event>, StoreError>, took: Duration) {
        match result {
            Ok(events) => {
                self.commits += 1;
                self.times.took(took);
                events.iter().for_each(|e| self.told(e));
            }
            Err(StoreError::Unavailable { .. }) => self.unavailable += 1,
            Err(_) => self.refused += 1,
        }
    }

    fn told(&mut self, e: &Event) {
        self.last = self.last.max(e.seq);
        let mut key = (e.event.action.clone(), e.event.outcome);
        if !self.events.contains_key(&key) && self.events.len() >= KINDS {
            key.0 = "other".to_owned();
        }
        *self.events.entry(key).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, NewEvent, Time};

    #[test]
    fn kinds_of_events_are_bounded_and_none_is_lost() {
        let mut counts = Counts::new(7);
        for seq in 8..=1007 {
            let e = NewEvent::new(Time::UNIX_EPOCH, "ada", &format!("a.{seq}"), Outcome::Ok);
            counts.told(&Event::chain(seq, e, Digest::from_raw(Event::GENESIS)));
        }
        assert_eq!((counts.events.len(), counts.last), (KINDS + 1, 1007));
        assert_eq!(counts.events.values().sum::<u64>(), 1000);
        let away = StoreError::Unavailable { what: "x".into(), why: "y".into() };
        counts.written(&Err(away), Duration::ZERO);
        assert_eq!((counts.unavailable, counts.times.count()), (1, 0));
    }
}
