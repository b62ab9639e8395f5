//! What people ask of the rack: installs, cancelling, power, and changes of
//! the inventory. Each is one commit with its events, or a refusal that
//! changed nothing and is in the log.

use super::machine::{Effect, Input, step};
use super::rack::operation_of;
use super::{LifeError, Rack};
use crate::config::nodes::{self, NodeEntry};
use crate::config::{ConfigError, Network};
use crate::model::plan::InstallPlan;
use crate::model::{
    Asker, Build, BuildId, BuildInputs, LifeCycle, NewEvent, Node, NodeName, NodeSpec, Operation,
    OperationId, OperationKind, OperationState, Outcome, Time,
};
use crate::store::{Batch, Expect, StoreError, kind};
use std::sync::Arc;

/// An install that was checked: image and profile exist and fit.
pub struct InstallOrder {
    /// The node as it was when the plan was made.
    pub node: NodeSpec,
    /// Who asks.
    pub asker: Asker,
    /// The operation that this install is a part of.
    pub parent: Option<OperationId>,
    /// Inputs, for the record.
    pub inputs: BuildInputs,
    /// The plan for a build; kept as it is now, so that a profile edited in
    /// the middle changes nothing.
    pub plan: Box<dyn FnOnce(BuildId) -> InstallPlan + Send>,
}

/// The document kind of install plans, by build.
pub const PLAN: &str = "plan";

impl Rack {
    /// Refuses when the node is busy.
    pub fn must_be_free(&self, node: &NodeName) -> Result<(), LifeError> {
        let running = self.running_build(node).map(|b| b.operation.clone()).or_else(|| {
            let v = self.view();
            let busy = |o: &&Arc<Operation>| o.node.as_ref() == Some(node) && !o.state.is_final();
            v.operations.values().rev().find(busy).map(|o| o.id.clone())
        });
        match running {
            Some(operation) => Err(LifeError::Busy { node: node.clone(), operation }),
            None => Ok(()),
        }
    }

    /// Whether a node can be installed at all.
    pub fn must_be_fit(&self, name: &NodeName) -> Result<(), LifeError> {
        let node = self.view().inventory.find(name.as_str()).cloned()?;
        fit(&node)
    }

    /// Starts an install; the operation answers for it.
    pub async fn install(self: &Arc<Self>, order: InstallOrder) -> Result<Operation, LifeError> {
        let _turn = self.turn.lock().await;
        let name = order.node.name.clone();
        self.must_be_free(&name)?;
        let now = Time::now();
        let mut node = self.view().inventory.find(name.as_str()).map(|n| (**n).clone())?;
        // The plan names the disk that is wiped: it must be the one that the
        // operator names now.
        if node.spec != order.node {
            let m = format!(
                "{name} was changed while its install was prepared; nothing was done, ask again"
            );
            return Err(LifeError::NotNow(m));
        }
        fit(&node)?;
        let operation = Operation {
            node: Some(name.clone()),
            parent: order.parent,
            ..new_operation(OperationKind::Install, &order.asker, now)
        };
        let (by, inputs) = (order.asker.name, order.inputs);
        let mut build = Build::ordered(name, operation.id.clone(), by, inputs, now);
        let operation = Operation { build: Some(build.id.clone()), ..operation };
        let plan = (order.plan)(build.id.clone());
        node.status.build = Some(build.id.clone());
        let asked = NewEvent::new(now, &build.actor, "install.request", Outcome::Ok)
            .node(&build.node)
            .with("build", &build.id)
            .with("image", &build.inputs.image)
            .with("image_digest", build.inputs.image_digest)
            .with("profile", &build.inputs.profile)
            .with("baked", build.inputs.baked);
        // The order and its first step are one commit: a build that stands in
        // the record always has a deadline.
        let mut batch = Batch::new().event(asked);
        for effect in step(&mut build, Input::Start, &self.limits, now) {
            match effect {
                Effect::Log(e) => batch.events.push(e),
                Effect::SetLife(life, reason) => {
                    node.status.life = life;
                    node.status.reason = reason;
                }
                Effect::ArmAndPower | Effect::Persist => {}
            }
        }
        let operation =
            operation_of(Some(&Arc::new(operation.clone())), &build, now).unwrap_or(operation);
        let batch = batch
            .put(PLAN, build.id.as_str(), &plan, Expect::Absent)?
            .put(kind::BUILD, build.id.as_str(), &build, Expect::Absent)?
            .put(kind::OPERATION, operation.id.as_str(), &operation, Expect::Absent)?
            .put(kind::NODE, node.spec.name.as_str(), &node, Expect::Any)?;
        if let Err(e) = self.commit(batch).await {
            if matches!(e, StoreError::Unavailable { .. }) {
                self.doubt(build, operation);
            }
            return Err(e.into());
        }
        let id = build.id.clone();
        {
            let mut v = self.view_mut();
            v.builds.insert(id.clone(), Arc::new(build));
            v.operations.insert(operation.id.clone(), Arc::new(operation.clone()));
            v.inventory.put(node.clone());
        }
        self.wake.notify_one();
        self.clone().arm(id, node);
        Ok(operation)
    }

    /// The operation that a request was answered with before.
    pub fn by_request(&self, actor: &str, key: &str) -> Option<Arc<Operation>> {
        let v = self.view();
        let is = |o: &&Arc<Operation>| {
            o.actor == actor && o.request.as_ref().is_some_and(|r| r.key == key)
        };
        v.operations.values().rev().find(is).cloned()
    }

    /// Gives up a running build. The machine is left as it is. Of an install
    /// of many nodes, no other is begun. Work without a node ends soon.
    pub async fn cancel(self: &Arc<Self>, id: &OperationId, actor: &str) -> Result<(), LifeError> {
        let op = self.view().operations.get(id).cloned();
        let op = op.ok_or_else(|| LifeError::NotFound(format!("operation {id}")))?;
        if op.kind == OperationKind::InstallMany && !op.state.is_final() {
            return self.stop_rollout(id, actor).await;
        }
        match (&op.build, op.state) {
            (Some(b), OperationState::Running) => {
                self.input(b, Input::Cancel(actor.to_owned())).await
            }
            (_, s) if s.is_final() => {
                Err(LifeError::NotNow(format!("operation {id} has ended already")))
            }
            _ if self.stops.stop(id, actor) => Ok(()),
            _ => Err(LifeError::NotNow(format!(
                "operation {id} cannot be cancelled; it ends by itself"
            ))),
        }
    }

    /// Begins an operation that is not a build: `event` is written with it.
    pub async fn begin(
        &self,
        kind: OperationKind,
        node: Option<&NodeName>,
        asker: &Asker,
        event: NewEvent,
    ) -> Result<Operation, LifeError> {
        let _turn = self.turn.lock().await;
        if let Some(n) = node {
            self.must_be_free(n)?;
        }
        let o = Operation { node: node.cloned(), ..new_operation(kind, asker, Time::now()) };
        self.put_operation(o.clone(), vec![event]).await?;
        Ok(o)
    }

    /// Progress of such an operation; not written down.
    pub fn progress(&self, id: &OperationId, reason: &str, bytes: u64, total: u64) {
        let mut v = self.view_mut();
        if let Some(o) = v.operations.get(id) {
            let o = Operation {
                reason: Some(reason.to_owned()),
                bytes,
                total,
                updated: Time::now(),
                ..(**o).clone()
            };
            v.operations.insert(id.clone(), Arc::new(o));
        }
    }

    /// Ends such an operation.
    pub async fn end(
        &self,
        id: &OperationId,
        result: Result<serde_json::Value, String>,
        event: NewEvent,
    ) -> Result<(), LifeError> {
        let stopped = self.stops.reason(id).is_some();
        let end = match result {
            Ok(v) => (OperationState::Done, None, Some(v)),
            Err(why) if stopped => (OperationState::Cancelled, Some(why), None),
            Err(why) => (OperationState::Failed, Some(why), None),
        };
        let ended = self.end_as(id, end, event).await;
        self.stops.remove(id);
        ended
    }

    pub(super) async fn end_as(
        &self,
        id: &OperationId,
        (state, reason, result): (OperationState, Option<String>, Option<serde_json::Value>),
        event: NewEvent,
    ) -> Result<(), LifeError> {
        let old = self.view().operations.get(id).cloned();
        let old = old.ok_or_else(|| LifeError::NotFound(format!("operation {id}")))?;
        let o = Operation { state, reason, result, ..(*old).clone() };
        // An operation that never ends would keep its node busy for ever.
        loop {
            match self.put_operation(o.clone(), vec![event.clone()]).await {
                Err(LifeError::Store(StoreError::Unavailable { .. })) => {
                    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                }
                other => return other,
            }
        }
    }

    /// Adds the nodes of an inventory file: all or none.
    pub async fn import(
        &self,
        mut entries: Vec<NodeEntry>,
        file: &str,
        net: &Network,
        actor: &str,
        secrets: Batch,
    ) -> Result<Vec<NodeSpec>, LifeError> {
        let _turn = self.turn.lock().await;
        let taken = self.view().inventory.taken(None);
        nodes::admit_all(&mut entries, file, net, taken)?;
        let now = Time::now();
        let mut batch = secrets;
        for e in &entries {
            let node = Node::new(e.spec.clone());
            for m in &e.spec.macs {
                batch = batch.delete(kind::DISCOVERED, &m.to_string());
            }
            batch = batch
                .put(kind::NODE, e.spec.name.as_str(), &node, Expect::Absent)?
                .event(added(now, actor, &e.spec));
        }
        self.commit(batch).await?;
        let mut v = self.view_mut();
        entries.iter().for_each(|e| v.inventory.put(Node::new(e.spec.clone())));
        Ok(entries.into_iter().map(|e| e.spec).collect())
    }

    /// Adds one node.
    pub async fn add_node(
        &self,
        mut spec: NodeSpec,
        net: &Network,
        actor: &str,
        secrets: Batch,
    ) -> Result<Node, LifeError> {
        let _turn = self.turn.lock().await;
        let taken = self.view().inventory.taken(None);
        nodes::admit(&mut spec, net, &taken)?;
        let node = Node::new(spec);
        // A machine that was seen is no longer a stranger.
        let mut batch = secrets;
        for m in &node.spec.macs {
            batch = batch.delete(kind::DISCOVERED, &m.to_string());
        }
        let batch = batch
            .put(kind::NODE, node.spec.name.as_str(), &node, Expect::Absent)?
            .event(added(Time::now(), actor, &node.spec));
        self.commit(batch).await?;
        self.view_mut().inventory.put(node.clone());
        Ok(node)
    }

    /// Changes one node and nothing else.
    pub async fn set_node(
        &self,
        name: &NodeName,
        net: &Network,
        actor: &str,
        secrets: Batch,
        change: impl FnOnce(&mut Node) -> Result<Vec<String>, String>,
    ) -> Result<Node, LifeError> {
        let _turn = self.turn.lock().await;
        self.must_be_free(name)?;
        let mut node = self.view().inventory.find(name.as_str()).map(|n| (**n).clone())?;
        let what = change(&mut node).map_err(LifeError::Refused)?;
        let taken = self.view().inventory.taken(Some(name));
        nodes::admit(&mut node.spec, net, &taken)?;
        let event = NewEvent::new(Time::now(), actor, "node.set", Outcome::Ok)
            .node(name)
            .with("changed", what.join(", "));
        let batch = secrets.put(kind::NODE, name.as_str(), &node, Expect::Any)?.event(event);
        self.commit(batch).await?;
        self.view_mut().inventory.put(node.clone());
        Ok(node)
    }

    /// Takes a node out of the inventory; its builds and events stay.
    pub async fn remove_node(
        &self,
        name: &NodeName,
        actor: &str,
        also: Batch,
    ) -> Result<(), LifeError> {
        let _turn = self.turn.lock().await;
        self.must_be_free(name)?;
        self.view().inventory.find(name.as_str())?;
        let event = NewEvent::new(Time::now(), actor, "node.remove", Outcome::Ok).node(name);
        let batch = also
            .delete(kind::NODE, name.as_str())
            .delete(kind::SECRET, &format!("bmc/{name}"))
            .event(event);
        self.commit(batch).await?;
        self.view_mut().inventory.remove(name);
        Ok(())
    }

    /// Reads the syntax of an inventory file.
    pub fn read_import(text: &str, file: &str) -> Result<Vec<NodeEntry>, ConfigError> {
        nodes::parse(text, file)
    }
}

fn added(now: Time, actor: &str, spec: &NodeSpec) -> NewEvent {
    let macs: Vec<String> = spec.macs.iter().map(ToString::to_string).collect();
    NewEvent::new(now, actor, "node.add", Outcome::Ok)
        .node(&spec.name)
        .with("macs", macs.join(" "))
        .with("address", spec.address)
}

pub(super) fn new_operation(kind: OperationKind, asker: &Asker, now: Time) -> Operation {
    Operation {
        id: OperationId::generate(),
        kind,
        node: None,
        build: None,
        parent: None,
        request: asker.request.clone(),
        state: OperationState::Running,
        phase: None,
        reason: None,
        bytes: 0,
        total: 0,
        deadline: None,
        actor: asker.name.clone(),
        result: None,
        started: now,
        updated: now,
    }
}

/// In service, and with power that can be switched.
fn fit(node: &Node) -> Result<(), LifeError> {
    let name = &node.spec.name;
    let not_now = |m: String| Err(LifeError::NotNow(m));
    if node.status.life == LifeCycle::Retired {
        return not_now(format!(
            "{name} is retired; bring it back with `provision nodes set {name} --in-service`"
        ));
    }
    if node.spec.bmc.is_none() {
        return not_now(format!(
            "{name} has no BMC to power it with; set one with `provision nodes set {name} --bmc \
             ADDRESS --bmc-user USER`"
        ));
    }
    Ok(())
}
