//! Coming back: after a start of the server, after the store was away, and
//! from one deadline to the next.
//!
//! Nobody is blamed for a silence in which nobody listened: whoever was being
//! waited for gets a minute's grace. What can no longer end by itself is ended
//! with the reason.

use super::machine::Input;
use super::rack::{View, operation_of};
use super::{LifeError, Rack};
use crate::model::{Build, BuildOutcome, NewEvent, Operation, OperationState, Outcome, Time};
use crate::store::{Batch, Expect, kind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long to wait between two looks for a store that is away.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

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
                Duration::try_from(left).unwrap_or_default().max(Duration::from_millis(50))
            });
            let away = self.was_away.load(Ordering::Relaxed);
            let wait = if away { Some(LOOK_AGAIN) } else { wait };
            let sleep = async {
                match wait {
                    Some(w) => tokio::time::sleep(w).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => continue,
                () = sleep => {}
            }
            if away {
                self.look_for_store().await;
                continue;
            }
            for b in self.running() {
                if let Err(e) = self.input(&b.id, Input::Tick).await {
                    tracing::error!(build = %b.id, error = %e, "deadline could not be judged");
                }
            }
        }
    }

    /// Asks for a write that succeeds, then gives everybody time; a write
    /// that fails meanwhile sets the flag again.
    async fn look_for_store(self: &Arc<Self>) {
        let e = NewEvent::new(Time::now(), "server", "store.back", Outcome::Ok);
        if self.log(vec![e]).await.is_err() {
            return;
        }
        self.was_away.store(false, Ordering::Relaxed);
        if let Err(e) = self.settle_doubts().await {
            tracing::error!(error = %e, "whether refused installs were written is not known yet");
        }
        self.clone().returned().await;
    }

    /// Says in every running operation that the store is away (`None`: that
    /// it is back), since nothing can end before it returns.
    pub(super) fn tell_operations(&self, why: Option<&str>) {
        let mut v = self.view_mut();
        let View { builds, operations, .. } = &mut *v;
        for o in operations.values_mut().filter(|o| !o.state.is_final()) {
            let build = o.build.as_ref().and_then(|b| builds.get(b));
            let usual = || Some(build?.current()?.reason.clone()).flatten();
            let reason = match why {
                Some(w) => Some(format!("{w}; it goes on when the store is back")),
                None => usual(),
            };
            if o.reason != reason {
                *o = Arc::new(Operation { reason, ..(**o).clone() });
            }
        }
    }

    /// Keeps in mind an order that was refused since the store did not answer.
    pub(super) fn doubt(&self, build: Build, operation: Operation) {
        let mut doubtful = self.doubtful.lock().unwrap_or_else(PoisonError::into_inner);
        doubtful.push((build, operation));
    }

    /// Ends refused orders that the store took all the same: whoever asked was
    /// told that nothing was done, and must not find the node wiped later.
    async fn settle_doubts(self: &Arc<Self>) -> Result<(), LifeError> {
        let _turn = self.turn.lock().await;
        loop {
            let first = {
                let doubtful = self.doubtful.lock().unwrap_or_else(PoisonError::into_inner);
                doubtful.first().cloned()
            };
            let Some((build, operation)) = first else { return Ok(()) };
            if self.store.get(kind::BUILD, build.id.as_str()).await?.is_some() {
                let why = "the store did not answer when this was ordered, so it was refused";
                self.end_unowned(build, Some(operation), why).await?;
            }
            self.doubtful.lock().unwrap_or_else(PoisonError::into_inner).remove(0);
        }
    }

    /// Ends a build that is not its node's: build, operation and the node as
    /// it is known here, in one commit.
    async fn end_unowned(
        self: &Arc<Self>,
        mut b: Build,
        operation: Option<Operation>,
        why: &str,
    ) -> Result<(), LifeError> {
        let now = Time::now();
        b.outcome = BuildOutcome::Failed;
        b.ended = Some(now);
        b.reason = Some(why.to_owned());
        if let Some(p) = b.phases.last_mut() {
            p.ended = Some(now);
        }
        let operation = operation.map(Arc::new);
        let operation = operation_of(operation.as_ref(), &b, now);
        let event = NewEvent::new(now, "server", "install.failed", Outcome::Failed)
            .node(&b.node)
            .with("build", &b.id)
            .with("reason", why);
        let mut batch =
            Batch::new().event(event).put(kind::BUILD, b.id.as_str(), &b, Expect::Any)?;
        if let Some(o) = &operation {
            batch = batch.put(kind::OPERATION, o.id.as_str(), o, Expect::Any)?;
        }
        let node = self.view().inventory.get(&b.node).cloned();
        if let Some(n) = node {
            batch = batch.put(kind::NODE, n.spec.name.as_str(), &*n, Expect::Any)?;
        }
        self.commit(batch).await?;
        let mut v = self.view_mut();
        v.builds.insert(b.id.clone(), Arc::new(b));
        if let Some(o) = operation {
            v.operations.insert(o.id.clone(), Arc::new(o));
        }
        Ok(())
    }

    /// Operations other than builds do not outlive the process that ran them:
    /// those found running were cut off, and say so.
    pub(super) async fn abandon_lost_operations(self: &Arc<Self>) -> Result<(), LifeError> {
        let lost: Vec<Operation> = {
            let v = self.view();
            let has_build =
                |o: &Operation| o.build.as_ref().is_some_and(|b| v.builds.contains_key(b));
            // Orders for many nodes go on.
            let is_lost = |o: &&Arc<Operation>| {
                !o.state.is_final() && !has_build(o) && !v.rollouts.contains_key(&o.id)
            };
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
        for b in ghosts {
            let old = self.view().operations.get(&b.operation).map(|o| (**o).clone());
            self.end_unowned(b, old, "another install of the node took its place").await?;
        }
        Ok(())
    }
}
