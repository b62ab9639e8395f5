//! Coming back: after a start of the server, after the store was away, and
//! from one deadline to the next.
//!
//! Nobody is blamed for a silence in which nobody listened: whoever was being
//! waited for gets a minute's grace. What can no longer end by itself is ended
//! with the reason.

use super::machine::Input;
use super::rack::operation_of;
use super::{LifeError, Rack};
use crate::model::{Build, BuildOutcome, NewEvent, Operation, OperationState, Outcome, Time};
use crate::store::{Batch, Expect, kind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Rack {
    /// Goes on with the builds that were running, with a minute's grace,
    /// since nobody was listening to them.
    pub async fn take_up(self: &Arc<Self>) {
        self.clone().returned().await;
    }

    fn running(&self) -> Vec<Arc<Build>> {
        let v = self.view();
        v.builds.values().filter(|b| b.outcome == BuildOutcome::Running).cloned().collect()
    }

    /// Tells every running build that we, or the store, were away.
    async fn returned(self: Arc<Self>) {
        for b in self.running() {
            if let Err(e) = self.input(&b.id, Input::Returned).await {
                tracing::error!(build = %b.id, error = %e, "a build could not be taken up again");
            }
        }
    }

    /// Watches deadlines until `stop`. Sleeps until the next one; with no
    /// build running it wakes for nothing.
    pub async fn watch_deadlines(self: Arc<Self>, stop: tokio_util::sync::CancellationToken) {
        loop {
            let running = self.running();
            let now = Time::now();
            let next = running.iter().filter_map(|b| Some(b.current()?.deadline)).min();
            let wait = next.map(|t| {
                let left = t.duration_since(now);
                std::time::Duration::try_from(left).unwrap_or_default()
            });
            let sleep = async {
                match wait {
                    Some(w) => {
                        tokio::time::sleep(w.max(std::time::Duration::from_millis(50))).await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => continue,
                () = sleep => {}
            }
            if self.was_away.load(Ordering::Relaxed) {
                // Wait for a write that succeeds, then give everybody time; a
                // write that fails meanwhile sets the flag again.
                let e = NewEvent::new(Time::now(), "server", "store.back", Outcome::Ok);
                if self.log(vec![e]).await.is_ok() {
                    self.was_away.store(false, Ordering::Relaxed);
                    self.clone().returned().await;
                } else {
                    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                }
                continue;
            }
            for b in self.running() {
                if let Err(e) = self.input(&b.id, Input::Tick).await {
                    tracing::error!(build = %b.id, error = %e, "deadline could not be judged");
                }
            }
        }
    }

    /// Operations other than installs do not outlive the process that ran
    /// them: those found running were cut off, and say so.
    pub(super) async fn abandon_lost_operations(self: &Arc<Self>) -> Result<(), LifeError> {
        let lost: Vec<Operation> = {
            let v = self.view();
            let is_lost = |o: &&Arc<Operation>| !o.state.is_final() && o.build.is_none();
            v.operations.values().filter(is_lost).map(|o| (**o).clone()).collect()
        };
        for mut o in lost {
            o.state = OperationState::Failed;
            o.reason = Some("the server was restarted in the middle; ask again".into());
            self.put_operation(o, Vec::new()).await?;
        }
        Ok(())
    }

    /// A build that runs but is not its node's: its commit went through and
    /// the answer was lost, so whoever asked was told that nothing was done.
    pub(super) async fn abandon_ghosts(self: &Arc<Self>) -> Result<(), LifeError> {
        let ghosts: Vec<Build> = {
            let v = self.view();
            let own = |b: &Build| {
                v.inventory.get(&b.node).is_some_and(|n| n.status.build.as_ref() == Some(&b.id))
            };
            let running = v.builds.values().filter(|b| b.outcome == BuildOutcome::Running);
            running.filter(|b| !own(b)).map(|b| (**b).clone()).collect()
        };
        for mut b in ghosts {
            b.outcome = BuildOutcome::Failed;
            b.ended = Some(Time::now());
            b.reason = Some("another install of the node took its place".into());
            let old = self.view().operations.get(&b.operation).cloned();
            let operation = operation_of(old.as_ref(), &b, Time::now());
            let mut batch = Batch::new().put(kind::BUILD, b.id.as_str(), &b, Expect::Any)?;
            if let Some(o) = &operation {
                batch = batch.put(kind::OPERATION, o.id.as_str(), o, Expect::Any)?;
            }
            self.commit(batch).await?;
            let mut v = self.view_mut();
            v.builds.insert(b.id.clone(), Arc::new(b));
            if let Some(o) = operation {
                v.operations.insert(o.id.clone(), Arc::new(o));
            }
        }
        Ok(())
    }
}
