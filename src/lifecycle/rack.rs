//! The driver of the life cycle. See the module above for its rules.
//!
//! One async mutex, `turn`, orders all changes; readers use the view beside
//! it and never wait for the store. Progress reports move the view at once
//! and are written down with the next change that matters, or after ten
//! seconds: losing the last seconds of a byte count in a crash is harmless,
//! losing a phase is not.

use super::machine::{Effect, Input, step};
use super::rollout::{ROLLOUT, Rollout};
use super::stops::Stops;
use super::{Inventory, LifeError};
use crate::config::Deadlines;
use crate::model::{
    Build, BuildId, BuildOutcome, Event, LifeCycle, NewEvent, Node, NodeName, Operation,
    OperationId, OperationState, Phase, Time,
};
use crate::store::{self, Batch, Doc, Expect, Store, StoreError, Teller, kind};
use async_trait::async_trait;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::{Mutex, Notify, broadcast};

/// How arming ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Armed {
    /// Done; how, readable.
    Done(String),
    /// Not done.
    Failed {
        /// Why.
        reason: String,
        /// Whether trying again may help.
        again: bool,
    },
}

/// A way to set a node's boot device and give it power.
#[async_trait]
pub trait Arm: Send + Sync {
    /// Network for the next boot, read back, then on or cycle. Ends by
    /// itself within its own deadline.
    async fn arm_and_power(&self, node: &Node) -> Armed;
}

/// What readers see.
#[derive(Default)]
pub struct View {
    /// Nodes.
    pub inventory: Inventory,
    /// Running builds, and ended ones by id.
    pub builds: BTreeMap<BuildId, Arc<Build>>,
    /// Operations.
    pub operations: BTreeMap<OperationId, Arc<Operation>>,
    /// Orders for many nodes, by operation.
    pub rollouts: BTreeMap<OperationId, Arc<Rollout>>,
}

/// The driver.
pub struct Rack {
    pub(super) store: Arc<dyn Store>,
    pub(super) view: RwLock<View>,
    pub(super) turn: Mutex<()>,
    teller: Teller,
    pub(super) limits: Deadlines,
    arm: Arc<dyn Arm>,
    pub(super) wake: Notify,
    store_ok: AtomicBool,
    /// Set by a failed write, cleared only by the watcher of deadlines once
    /// it has given everybody time.
    pub(super) was_away: AtomicBool,
    /// The one arming under way for a build.
    arming: std::sync::Mutex<HashMap<BuildId, tokio::task::AbortHandle>>,
    written: std::sync::Mutex<HashMap<BuildId, Time>>,
    /// Orders that were refused since the store did not answer: it may hold
    /// them all the same.
    pub(super) doubtful: std::sync::Mutex<Vec<(Build, Operation)>>,
    /// Cancels operations that have no build.
    pub stops: Stops,
}

impl Rack {
    /// Loads everything from the store; call [`Rack::take_up`] once everything
    /// else stands.
    pub async fn load(
        store: Arc<dyn Store>,
        limits: Deadlines,
        arm: Arc<dyn Arm>,
    ) -> Result<Arc<Self>, LifeError> {
        let mut view = View::default();
        for node in docs::<Node>(&*store, kind::NODE).await? {
            view.inventory.put(node);
        }
        for b in docs::<Build>(&*store, kind::BUILD).await? {
            view.builds.insert(b.id.clone(), Arc::new(b));
        }
        for o in docs::<Operation>(&*store, kind::OPERATION).await? {
            view.operations.insert(o.id.clone(), Arc::new(o));
        }
        for r in docs::<Rollout>(&*store, ROLLOUT).await? {
            view.rollouts.insert(r.operation.clone(), Arc::new(r));
        }
        let teller = Teller::new(&*store).await?;
        let rack = Arc::new(Self {
            teller,
            store,
            view: RwLock::new(view),
            turn: Mutex::new(()),
            limits,
            arm,
            wake: Notify::new(),
            store_ok: AtomicBool::new(true),
            was_away: AtomicBool::new(false),
            arming: Default::default(),
            written: Default::default(),
            doubtful: Default::default(),
            stops: Stops::default(),
        });
        rack.abandon_lost_operations().await?;
        rack.abandon_ghosts().await?;
        Ok(rack)
    }

    /// What readers see; never hold it across an await.
    pub fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store, to read.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// New events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.teller.subscribe()
    }

    /// What was written since the start.
    pub fn store_counts(&self) -> store::Counts {
        self.teller.counts()
    }

    /// Whether the store took the last write.
    pub fn store_ok(&self) -> bool {
        self.store_ok.load(Ordering::Relaxed)
    }

    /// The running build of a node.
    pub fn running_build(&self, node: &NodeName) -> Option<Arc<Build>> {
        let v = self.view();
        let id = v.inventory.get(node)?.status.build.clone()?;
        v.builds.get(&id).filter(|b| b.outcome == BuildOutcome::Running).cloned()
    }

    /// Writes `batch` and tells subscribers.
    pub async fn commit(&self, batch: Batch) -> Result<Vec<Event>, StoreError> {
        let result = self.teller.commit(&*self.store, batch).await;
        match &result {
            Ok(_) => {
                if !self.store_ok.swap(true, Ordering::Relaxed) {
                    tracing::warn!(store = self.store.name(), "the store is back");
                    self.tell_operations(None);
                }
            }
            Err(e @ StoreError::Unavailable { why, .. }) => {
                self.was_away.store(true, Ordering::Relaxed);
                if self.store_ok.swap(false, Ordering::Relaxed) {
                    tracing::error!(store = self.store.name(), %why, "the store cannot be used");
                    self.wake.notify_one();
                }
                self.tell_operations(Some(&e.to_string()));
            }
            Err(_) => {}
        }
        result
    }

    /// Writes events that belong to no change.
    pub async fn log(&self, events: Vec<NewEvent>) -> Result<(), StoreError> {
        self.commit(Batch { events, ..Batch::default() }).await.map(drop)
    }

    /// Gives an input to the running build of `node`; without one, nothing
    /// happens.
    pub async fn observe(self: &Arc<Self>, node: &NodeName, input: Input) -> Result<(), LifeError> {
        match self.running_build(node) {
            Some(b) => self.input(&b.id, input).await,
            None => Ok(()),
        }
    }

    /// Gives an input to a build.
    pub async fn input(self: &Arc<Self>, id: &BuildId, input: Input) -> Result<(), LifeError> {
        let _turn = self.turn.lock().await;
        self.input_in_turn(id, input).await
    }

    /// What the node's agent reports: refused once the build has ended, also
    /// when it ended while the report was on its way, since the agent takes
    /// the answer for leave to go on.
    pub async fn report(self: &Arc<Self>, id: &BuildId, input: Input) -> Result<(), LifeError> {
        let _turn = self.turn.lock().await;
        let runs = self.view().builds.get(id).is_some_and(|b| b.outcome == BuildOutcome::Running);
        if !runs {
            return Err(LifeError::Over(id.clone()));
        }
        self.input_in_turn(id, input).await
    }

    pub(super) async fn input_in_turn(
        self: &Arc<Self>,
        id: &BuildId,
        input: Input,
    ) -> Result<(), LifeError> {
        // Deadlines that pass while the store is away are nobody's fault.
        if input == Input::Tick && self.was_away.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = Time::now();
        let (mut build, mut node) = {
            let v = self.view();
            let Some(b) = v.builds.get(id) else {
                return Err(LifeError::NotFound(format!("build {id}")));
            };
            let Some(n) = v.inventory.get(&b.node) else { return Ok(()) };
            ((**b).clone(), (**n).clone())
        };
        let before = build.clone();
        match &input {
            Input::Installed(r) => node.status.host_keys.clone_from(&r.host_keys),
            Input::Verified(r) if r.ok => {
                node.status.image = Some(build.inputs.image.clone());
                node.status.profile = Some(build.inputs.profile.clone());
                node.status.deployed_at = Some(now);
            }
            _ => {}
        }
        let tick = input == Input::Tick;
        let effects = step(&mut build, input, &self.limits, now);
        if effects.is_empty() && (build == before || tick) {
            return Ok(());
        }
        if !tick {
            node.status.last_seen = Some(now);
        }
        let mut batch = Batch::new();
        let mut arm = false;
        for e in effects.iter().cloned() {
            match e {
                Effect::Log(event) => batch.events.push(event),
                Effect::ArmAndPower => arm = true,
                Effect::SetLife(life, reason) => {
                    node.status.life = life;
                    node.status.reason = reason;
                }
                Effect::Persist => {}
            }
        }
        let operation = operation_of(self.view().operations.get(&build.operation), &build, now);
        if effects.is_empty() && !self.due(id, now) {
            let mut v = self.view_mut();
            v.builds.insert(id.clone(), Arc::new(build));
            if let Some(o) = operation {
                v.operations.insert(o.id.clone(), Arc::new(o));
            }
            return Ok(());
        }
        batch = batch.put(kind::BUILD, id.as_str(), &build, Expect::Any)?;
        batch = batch.put(kind::NODE, node.spec.name.as_str(), &node, Expect::Any)?;
        if let Some(o) = &operation {
            batch = batch.put(kind::OPERATION, o.id.as_str(), o, Expect::Any)?;
        }
        let waits_for_power = build.phase == Phase::Power && build.outcome == BuildOutcome::Running;
        self.commit(batch).await?;
        if !waits_for_power {
            // An arming that goes on would cycle a machine that is past it,
            // or that was given up.
            self.stop_arming(id);
        }
        {
            let mut v = self.view_mut();
            // What `note` wrote while the store was being written stays.
            if let Some(now_is) = v.inventory.get(&node.spec.name) {
                node.status.facts.clone_from(&now_is.status.facts);
                node.status.firmware_seen = now_is.status.firmware_seen;
                node.status.secure_boot = now_is.status.secure_boot;
                node.status.last_seen = node.status.last_seen.max(now_is.status.last_seen);
            }
            v.builds.insert(id.clone(), Arc::new(build));
            v.inventory.put(node.clone());
            if let Some(o) = operation {
                v.operations.insert(o.id.clone(), Arc::new(o));
            }
        }
        self.wake.notify_one();
        if arm {
            self.clone().arm(id.clone(), node);
        }
        Ok(())
    }

    /// Whether the build's progress was last written ten seconds ago.
    fn due(&self, id: &BuildId, now: Time) -> bool {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let last = written.entry(id.clone()).or_insert(now);
        let due = now.duration_since(*last).as_secs() >= 10;
        if due {
            *last = now;
        }
        due
    }

    /// Arms in the background; an earlier arming of the same build ends. The
    /// power driver closes its sessions on tasks of its own, so none is left
    /// open by that.
    pub(super) fn arm(self: Arc<Self>, id: BuildId, node: Node) {
        let (me, key) = (self.clone(), id.clone());
        let task = tokio::spawn(async move {
            let input = match self.arm.arm_and_power(&node).await {
                Armed::Done(how) => Input::Powered(how),
                Armed::Failed { reason, again } => Input::PowerFailed { reason, again },
            };
            // From here on nobody may end this task: it would be itself.
            self.forget_arming(&id);
            self.insist(&id, input).await;
        });
        let mut arming = me.arming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = arming.insert(key, task.abort_handle()) {
            old.abort();
        }
    }

    fn forget_arming(&self, id: &BuildId) {
        self.arming.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn stop_arming(&self, id: &BuildId) {
        let task = self.arming.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(t) = task {
            t.abort();
        }
    }

    /// An input that must not be lost while the store is away.
    async fn insist(self: &Arc<Self>, id: &BuildId, input: Input) {
        loop {
            match self.input(id, input.clone()).await {
                Err(LifeError::Store(StoreError::Unavailable { .. })) => {
                    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                }
                Err(e) => {
                    tracing::error!(build = %id, error = %e, "input lost");
                    return;
                }
                Ok(()) => return,
            }
        }
    }

    /// Writes an operation, with events.
    pub(super) async fn put_operation(
        &self,
        mut o: Operation,
        events: Vec<NewEvent>,
    ) -> Result<(), LifeError> {
        o.updated = Time::now();
        let batch = Batch { events, ..Batch::default() };
        let batch = batch.put(kind::OPERATION, o.id.as_str(), &o, Expect::Any)?;
        self.commit(batch).await?;
        self.view_mut().operations.insert(o.id.clone(), Arc::new(o));
        Ok(())
    }

    /// Changes a node's status outside of builds (seen, firmware), in memory
    /// only: it is written with the node's next change.
    pub fn note(&self, name: &NodeName, change: impl FnOnce(&mut Node)) {
        let mut v = self.view_mut();
        if let Some(n) = v.inventory.get(name) {
            let mut n = (**n).clone();
            change(&mut n);
            v.inventory.put(n);
        }
    }
}

async fn docs<T: DeserializeOwned>(
    store: &dyn Store,
    kind: &'static str,
) -> Result<Vec<T>, StoreError> {
    let read = |d: Doc| {
        serde_json::from_value(d.value)
            .map_err(|e| StoreError::Corrupt(format!("{kind} {}: {e}", d.key)))
    };
    store.list(kind).await?.into_iter().map(read).collect()
}

/// The operation that answers for a build, as the build now is.
pub(super) fn operation_of(
    old: Option<&Arc<Operation>>,
    b: &Build,
    now: Time,
) -> Option<Operation> {
    let mut o = (**old?).clone();
    o.state = match b.outcome {
        BuildOutcome::Running => OperationState::Running,
        BuildOutcome::Deployed => OperationState::Done,
        BuildOutcome::Failed => OperationState::Failed,
        BuildOutcome::Cancelled => OperationState::Cancelled,
    };
    o.phase = Some(b.phase);
    let current = b.current();
    o.reason = b.reason.clone().or_else(|| current.and_then(|p| p.reason.clone()));
    o.bytes = current.map_or(0, |p| p.bytes);
    o.total = current.map_or(0, |p| p.total);
    o.deadline = current.filter(|p| p.ended.is_none()).map(|p| p.deadline);
    o.updated = now;
    if b.outcome == BuildOutcome::Deployed {
        let seconds = b.ended.map(|e| e.duration_since(b.started).as_secs());
        o.result = Some(serde_json::json!({ "life": LifeCycle::Deployed, "seconds": seconds }));
    }
    Some(o)
}
