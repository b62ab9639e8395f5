//! Who is built when: pure, no clocks, no tasks. The pipeline asks it and does
//! what it says.
//!
//! So many at once, one at a time per name, in the order they came; what waits
//! for its name does not hold up others behind it. The queue is bounded.

use super::run::RunId;
use std::collections::VecDeque;

/// Why something cannot be queued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Full.
    #[error("{0} builds wait already, which is the limit: try again when some are done")]
    Full(usize),
}

/// What [`Queue::cancel`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It waited, and is out of the queue now.
    Waiting,
    /// It runs: stop it, then say [`Queue::ended`].
    Running,
    /// Neither.
    Nothing,
}

/// The queue.
#[derive(Debug, Clone)]
pub struct Queue {
    waiting: VecDeque<Item>,
    running: Vec<Item>,
    at_once: usize,
    most: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    id: RunId,
    name: String,
}

impl Queue {
    /// `at_once` run, at most `most` wait. Zero counts as one.
    pub fn new(at_once: usize, most: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: Vec::new(),
            at_once: at_once.max(1),
            most: most.max(1),
        }
    }

    /// Whether one more may wait.
    pub fn room(&self) -> Result<(), QueueError> {
        if self.waiting.len() < self.most { Ok(()) } else { Err(QueueError::Full(self.most)) }
    }

    /// Puts one at the end. `name` is what it will write to.
    pub fn offer(&mut self, id: RunId, name: &str) -> Result<(), QueueError> {
        self.room()?;
        self.waiting.push_back(Item { id, name: name.to_owned() });
        Ok(())
    }

    /// The next that may start; it counts as running from now on.
    pub fn start_next(&mut self) -> Option<RunId> {
        if self.running.len() >= self.at_once {
            return None;
        }
        let free = |i: &Item| self.running.iter().all(|r| r.name != i.name);
        let item = self.waiting.iter().position(free).and_then(|n| self.waiting.remove(n))?;
        let id = item.id.clone();
        self.running.push(item);
        Some(id)
    }

    /// A running one is over.
    pub fn ended(&mut self, id: &RunId) {
        self.running.retain(|r| r.id != *id);
    }

    /// Takes a waiting one out.
    pub fn cancel(&mut self, id: &RunId) -> Found {
        let before = self.waiting.len();
        self.waiting.retain(|w| w.id != *id);
        if self.waiting.len() < before {
            Found::Waiting
        } else if self.running.iter().any(|r| r.id == *id) {
            Found::Running
        } else {
            Found::Nothing
        }
    }

    /// Why each waiting one waits, in order.
    pub fn reasons(&self) -> Vec<(RunId, String)> {
        let mut out = Vec::new();
        for (n, w) in self.waiting.iter().enumerate() {
            let same = |i: &&Item| i.name == w.name;
            let reason = if let Some(r) = self.running.iter().find(same) {
                format!("waits for {}, which builds {} now", r.id, w.name)
            } else if let Some(r) = self.waiting.iter().take(n).find(same) {
                format!("waits for {}, which comes first for {}", r.id, w.name)
            } else {
                let (ahead, run) = (n, self.running.len());
                format!("waits: {run} of at most {} run, {ahead} before it", self.at_once)
            };
            out.push((w.id.clone(), reason));
        }
        out
    }

    /// How many wait and run.
    pub fn lengths(&self) -> (usize, usize) {
        (self.waiting.len(), self.running.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn one_name_is_built_one_after_another_and_holds_up_nobody_else() {
        let mut q = Queue::new(2, 10);
        let ids: Vec<RunId> = (0..3).map(|_| RunId::generate()).collect();
        for (id, name) in ids.iter().zip(["web", "web", "db"]) {
            q.offer(id.clone(), name).unwrap();
        }
        assert_eq!(q.start_next().as_ref(), Some(&ids[0]));
        assert_eq!(q.start_next().as_ref(), Some(&ids[2]));
        assert_eq!(q.start_next(), None);
        let why = &q.reasons()[0];
        assert_eq!(why.0, ids[1]);
        assert!(why.1.contains(ids[0].as_str()) && why.1.contains("builds web"), "{}", why.1);
        q.ended(&ids[0]);
        assert_eq!(q.start_next().as_ref(), Some(&ids[1]));
    }

    #[test]
    fn a_full_queue_says_so_and_cancelling_makes_room() {
        let mut q = Queue::new(1, 2);
        let ids: Vec<RunId> = (0..4).map(|_| RunId::generate()).collect();
        q.offer(ids[0].clone(), "a").unwrap();
        assert!(q.start_next().is_some());
        q.offer(ids[1].clone(), "b").unwrap();
        q.offer(ids[2].clone(), "c").unwrap();
        assert_eq!(q.offer(ids[3].clone(), "d"), Err(QueueError::Full(2)));
        assert!(q.reasons()[1].1.contains("1 of at most 1 run, 1 before it"));
        assert_eq!(q.cancel(&ids[1]), Found::Waiting);
        assert_eq!(q.cancel(&ids[1]), Found::Nothing);
        assert_eq!(q.cancel(&ids[0]), Found::Running);
        assert_eq!(q.offer(ids[3].clone(), "d"), Ok(()));
    }

    proptest! {
        /// Whatever happens: bounds hold, no name runs twice, all get their turn.
        #[test]
        fn bounds_hold_and_nothing_is_lost(steps in proptest::collection::vec((0u8..4, 0usize..4), 0..200)) {
            let mut q = Queue::new(2, 5);
            let mut names: HashMap<RunId, usize> = HashMap::new();
            let (mut running, mut open) = (Vec::new(), 0usize);
            for (what, n) in steps {
                match what {
                    0 | 1 => {
                        let id = RunId::generate();
                        if q.offer(id.clone(), &n.to_string()).is_ok() { names.insert(id, n); open += 1; }
                    }
                    2 => running.extend(q.start_next()),
                    _ => if !running.is_empty() {
                        let id = running.remove(n % running.len());
                        q.ended(&id);
                        open -= 1;
                    }
                }
                let mut now: Vec<usize> = running.iter().map(|i| names[i]).collect();
                now.sort_unstable();
                now.dedup();
                prop_assert_eq!(now.len(), running.len());
                prop_assert!(running.len() <= 2 && q.lengths().0 <= 5);
                prop_assert_eq!(q.lengths().0 + q.lengths().1, open);
            }
            while q.lengths() != (0, 0) {
                running.extend(q.start_next());
                let id = running.pop().unwrap();
                q.ended(&id);
            }
        }
    }
}
