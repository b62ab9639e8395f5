//! Totals over records that are kept for ever and are many: what has ended is
//! added once and never looked at again, so that reading the totals costs what
//! is new, and they go on where they were after a restart.
//!
//! Records are in the order of their keys, and new ones come at the end. What
//! has ended up to the first one that has not is behind a mark. Should a record
//! come before the mark after all (a clock that was set back) the count of
//! records no longer fits, and all are added anew.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// A record that ends.
pub trait Ends {
    /// What it is ordered by.
    type Key: Ord + Clone;
    /// Its own.
    fn key(&self) -> &Self::Key;
    /// Whether it will not change any more.
    fn has_ended(&self) -> bool;
}

/// Records to be added, from the mark on.
pub struct Tail<R> {
    records: Vec<Arc<R>>,
    anew: bool,
}

impl<R: Ends> Tail<R> {
    /// Those that have not ended.
    pub fn running(&self) -> impl Iterator<Item = &Arc<R>> {
        self.records.iter().filter(|r| !r.has_ended())
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Ended<K, T> {
    mark: Option<K>,
    behind: usize,
    totals: T,
}

impl<K, T: Default> Default for Ended<K, T> {
    fn default() -> Self {
        Self { mark: None, behind: 0, totals: T::default() }
    }
}

impl<K: Ord + Clone, T: Clone + Default> Ended<K, T> {
    /// What is to be added of `all`: cheap, to be called where `all` is locked.
    pub fn tail<R: Ends<Key = K>>(&self, all: &BTreeMap<K, Arc<R>>) -> Tail<R> {
        let from = self.mark.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let records: Vec<_> = all.range((from, Bound::Unbounded)).map(|(_, r)| r.clone()).collect();
        if self.behind + records.len() == all.len() {
            return Tail { records, anew: false };
        }
        Tail { records: all.values().cloned().collect(), anew: true }
    }

    /// Adds what has ended; the totals of all that have.
    pub fn totals<R: Ends<Key = K>>(&mut self, tail: &Tail<R>, add: impl Fn(&mut T, &R)) -> T {
        if tail.anew {
            *self = Self::default();
        }
        // Two may read at once: what the other has added is behind the mark.
        let old = self.mark.clone();
        let new = |r: &&Arc<R>| old.as_ref().is_none_or(|m| r.key() > m);
        let mut rest = tail.records.iter().filter(new).peekable();
        while let Some(r) = rest.next_if(|r| r.has_ended()) {
            add(&mut self.totals, r);
            self.mark = Some(r.key().clone());
            self.behind += 1;
        }
        let mut totals = self.totals.clone();
        rest.filter(|r| r.has_ended()).for_each(|r| add(&mut totals, r));
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct One(u8, bool);

    impl Ends for One {
        type Key = u8;
        fn key(&self) -> &u8 {
            &self.0
        }
        fn has_ended(&self) -> bool {
            self.1
        }
    }

    /// The keys of what has ended, and how many were looked at for it.
    fn read(e: &mut Ended<u8, Vec<u8>>, all: &BTreeMap<u8, Arc<One>>) -> (Vec<u8>, usize) {
        let looked = AtomicUsize::new(0);
        let tail = e.tail(all);
        let mut keys = e.totals(&tail, |t: &mut Vec<u8>, r: &One| {
            looked.fetch_add(1, Ordering::Relaxed);
            t.push(r.0);
        });
        keys.sort_unstable();
        (keys, looked.into_inner())
    }

    #[test]
    fn each_record_is_added_once_also_when_one_before_it_is_late() {
        let mut all: BTreeMap<u8, Arc<One>> = BTreeMap::new();
        let put = |all: &mut BTreeMap<u8, Arc<One>>, k, ended| {
            all.insert(k, Arc::new(One(k, ended)));
        };
        let mut e = Ended::default();
        for k in 10..15 {
            put(&mut all, k, k != 13);
        }
        assert_eq!(read(&mut e, &all), (vec![10, 11, 12, 14], 4));
        assert_eq!(read(&mut e, &all), (vec![10, 11, 12, 14], 1), "10 to 12 are behind the mark");
        assert_eq!(e.tail(&all).running().map(|r| r.0).collect::<Vec<_>>(), [13]);
        put(&mut all, 13, true);
        assert_eq!(read(&mut e, &all), ((10..15).collect(), 2));
        assert_eq!(read(&mut e, &all), ((10..15).collect(), 0));
        // The clock was set back; then a record was taken away.
        put(&mut all, 7, true);
        assert_eq!(read(&mut e, &all).0, [7, 10, 11, 12, 13, 14]);
        all.remove(&12);
        assert_eq!(read(&mut e, &all).0, [7, 10, 11, 13, 14]);
    }

    #[test]
    fn two_who_read_at_once_add_nothing_twice() {
        let all: BTreeMap<u8, Arc<One>> = (1..4).map(|k| (k, Arc::new(One(k, true)))).collect();
        let mut e: Ended<u8, Vec<u8>> = Ended::default();
        let (one, two) = (e.tail(&all), e.tail(&all));
        let add = |t: &mut Vec<u8>, r: &One| t.push(r.0);
        assert_eq!(e.totals(&one, add), [1, 2, 3]);
        assert_eq!(e.totals(&two, add), [1, 2, 3]);
    }
}
