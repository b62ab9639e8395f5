//! Commits one after another, and tells those who follow the log, each event
//! once and in its order.
//!
//! Two commits at once would be told in the order in which they return, which
//! need not be the order of the log; and a commit whose answer was lost is in
//! the log and was told to nobody. Both would be an event that a follower
//! never sees.

use super::{Batch, Counts, EventQuery, Store, StoreError};
use crate::model::Event;
use std::sync::PoisonError;
use std::time::Instant;
use tokio::sync::{Mutex, broadcast};

/// Events that a slow follower may be behind; then it reads the log.
const BEHIND: usize = 4096;
/// Lost ones that are read again at most.
const LOST: usize = 1000;

/// See the module.
pub struct Teller {
    /// Sequence number of the last event that was told.
    told: Mutex<u64>,
    live: broadcast::Sender<Event>,
    counts: std::sync::Mutex<Counts>,
}

impl Teller {
    /// For a log as it is now.
    pub async fn new(store: &dyn Store) -> Result<Self, StoreError> {
        let newest = EventQuery { limit: 1, ..EventQuery::default() };
        let told = store.query(&newest).await?.last().map_or(0, |e| e.seq);
        let counts = std::sync::Mutex::new(Counts::new(told));
        Ok(Self { told: Mutex::new(told), live: broadcast::channel(BEHIND).0, counts })
    }

    /// What was written since then.
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.live.subscribe()
    }

    /// [`Store::commit`], and tells.
    pub async fn commit(&self, store: &dyn Store, batch: Batch) -> Result<Vec<Event>, StoreError> {
        let mut told = self.told.lock().await;
        let began = Instant::now();
        let done = store.commit(batch).await;
        let took = began.elapsed();
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).written(&done, took);
        let events = done?;
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(events) };
        if first.seq > *told + 1 {
            let limit = usize::try_from(first.seq - *told - 1).unwrap_or(LOST).min(LOST);
            let q = EventQuery { after: Some(*told), limit, ..EventQuery::default() };
            for e in store.query(&q).await.unwrap_or_default() {
                if e.seq < first.seq {
                    self.tell(e);
                }
            }
        }
        *told = last.seq;
        events.iter().for_each(|e| self.tell(e.clone()));
        Ok(events)
    }

    fn tell(&self, e: Event) {
        // No follower is no fault.
        let _ = self.live.send(e);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NewEvent, Outcome, Time};
    use crate::store::memory::MemoryStore;

    fn batch(action: &str) -> Batch {
        Batch::new().event(NewEvent::new(Time::now(), "ada", action, Outcome::Ok))
    }

    #[tokio::test]
    async fn what_was_written_without_an_answer_is_told_before_what_comes_after_it() {
        let store = MemoryStore::default();
        store.commit(batch("before")).await.unwrap();
        let teller = Teller::new(&store).await.unwrap();
        let mut live = teller.subscribe();
        teller.commit(&store, batch("one")).await.unwrap();
        // Its answer is lost.
        store.commit(batch("lost")).await.unwrap();
        teller.commit(&store, batch("two")).await.unwrap();
        let mut seen = Vec::new();
        while let Ok(e) = live.try_recv() {
            seen.push(e.event.action);
        }
        assert_eq!(seen, ["one", "lost", "two"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_at_once_are_told_in_the_logs_order() {
        let store = std::sync::Arc::new(MemoryStore::default());
        let teller = std::sync::Arc::new(Teller::new(&*store).await.unwrap());
        let mut live = teller.subscribe();
        let all = (0..200).map(|_| {
            let (s, t) = (store.clone(), teller.clone());
            tokio::spawn(async move { t.commit(&*s, batch("x")).await.map(drop) })
        });
        for task in all.collect::<Vec<_>>() {
            task.await.unwrap().unwrap();
        }
        for seq in 1..=200 {
            assert_eq!(live.try_recv().unwrap().seq, seq);
        }
    }
}
