//! Installs of many nodes as one operation: some at a time, and no more once
//! too many have failed. What is next is a function of the order and of how
//! its installs stand; a server that was restarted goes on from there, and no
//! node is begun twice, since each install names the operation it is a part
//! of in the commit that begins it.

use super::orders::new_operation;
use super::{LifeError, Rack};
use crate::model::{
    Asker, NewEvent, NodeName, Operation, OperationId, OperationKind, OperationState, Outcome, Time,
};
use crate::store::{Batch, Expect, kind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The document kind of these orders, by operation.
pub const ROLLOUT: &str = "rollout";

/// What is put on each node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// Profile.
    pub profile: String,
    /// Image; the configured one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
}

/// Such an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The operation that answers for it.
    pub operation: OperationId,
    /// Who asked.
    pub actor: String,
    /// The nodes, in the order they are begun in.
    pub nodes: Vec<NodeName>,
    /// What they get.
    pub what: What,
    /// How many at once, from 1.
    pub at_once: usize,
    /// After how many that failed no other is begun, from 1.
    pub stop_after: usize,
    /// Nodes whose install could not be begun, and why.
    #[serde(default)]
    pub refused: BTreeMap<NodeName, String>,
    /// Who stopped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<String>,
}

/// How the installs of an order stand, by node.
pub type Installs = BTreeMap<NodeName, Arc<Operation>>;

/// What is to be done now.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Begin these.
    Begin(Vec<NodeName>),
    /// Nothing until an install ends.
    Wait,
    /// It is over.
    End(End),
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// State of the operation.
    pub state: OperationState,
    /// Why not all are deployed.
    pub reason: Option<String>,
    /// `deployed`, `failed` with reasons, `not_begun`.
    pub result: Value,
}

impl Rollout {
    fn count(&self, installs: &Installs, is: impl Fn(OperationState) -> bool) -> usize {
        self.nodes.iter().filter(|n| installs.get(*n).is_some_and(|o| is(o.state))).count()
    }

    fn failed(&self, installs: &Installs) -> usize {
        let bad = |s| matches!(s, OperationState::Failed | OperationState::Cancelled);
        self.count(installs, bad) + self.refused.len()
    }

    fn left<'a>(&'a self, installs: &'a Installs) -> impl Iterator<Item = &'a NodeName> {
        self.nodes.iter().filter(|n| !installs.contains_key(*n) && !self.refused.contains_key(*n))
    }

    /// What is next.
    pub fn next(&self, installs: &Installs) -> Next {
        let running = self.count(installs, |s| s == OperationState::Running);
        let stops = self.stopped_by.is_some() || self.failed(installs) >= self.stop_after;
        let room = self.at_once.max(1).saturating_sub(running);
        let next: Vec<NodeName> = match stops {
            true => Vec::new(),
            false => self.left(installs).take(room).cloned().collect(),
        };
        if !next.is_empty() {
            Next::Begin(next)
        } else if running > 0 {
            Next::Wait
        } else {
            Next::End(self.end(installs))
        }
    }

    /// Nodes that are yet to be begun.
    pub fn waiting(&self, installs: &Installs) -> usize {
        let stops = self.stopped_by.is_some() || self.failed(installs) >= self.stop_after;
        if stops { 0 } else { self.left(installs).count() }
    }

    /// In a line, for people.
    pub fn progress(&self, installs: &Installs) -> (String, u64, u64) {
        let done = self.count(installs, |s| s == OperationState::Done);
        let running = self.count(installs, |s| s == OperationState::Running);
        let (failed, all) = (self.failed(installs), self.nodes.len());
        let text = format!("{done} of {all} deployed, {running} being installed, {failed} failed");
        let ended = u64::try_from(done + failed).unwrap_or(u64::MAX);
        (text, ended, u64::try_from(all).unwrap_or(u64::MAX))
    }

    fn end(&self, installs: &Installs) -> End {
        let mut failed: BTreeMap<&NodeName, String> =
            self.refused.iter().map(|(n, why)| (n, why.clone())).collect();
        let mut deployed = Vec::new();
        for (n, o) in self.nodes.iter().filter_map(|n| Some((n, installs.get(n)?))) {
            match o.state {
                OperationState::Done => deployed.push(n),
                _ => drop(failed.insert(n, o.reason.clone().unwrap_or_default())),
            }
        }
        let left: Vec<&NodeName> = self.left(installs).collect();
        let state = match (&self.stopped_by, failed.is_empty() && left.is_empty()) {
            (_, true) => OperationState::Done,
            (Some(_), false) => OperationState::Cancelled,
            (None, false) => OperationState::Failed,
        };
        let reason = (state != OperationState::Done).then(|| {
            let all = self.nodes.len();
            let mut text = match &self.stopped_by {
                Some(who) => format!("stopped by {who}: "),
                None => String::new(),
            };
            text.push_str(&format!("{} of {all} deployed", deployed.len()));
            for (n, why) in failed.iter().take(3) {
                text.push_str(&format!("; {n} failed: {why}"));
            }
            if failed.len() > 3 {
                text.push_str(&format!("; {} more failed", failed.len() - 3));
            }
            if !left.is_empty() {
                text.push_str(&format!("; {} not begun", left.len()));
            }
            text
        });
        let result = json!({ "deployed": deployed, "failed": failed, "not_begun": left });
        End { state, reason, result }
    }
}

impl Rack {
    /// The order behind an operation.
    pub fn rollout(&self, id: &OperationId) -> Option<Arc<Rollout>> {
        self.view().rollouts.get(id).cloned()
    }

    /// Orders that are not over.
    pub fn running_rollouts(&self) -> Vec<OperationId> {
        let v = self.view();
        let runs = |id: &&OperationId| v.operations.get(*id).is_some_and(|o| !o.state.is_final());
        v.rollouts.keys().filter(runs).cloned().collect()
    }

    /// The installs of an order, the newest of each node.
    pub fn installs_of(&self, id: &OperationId) -> Installs {
        let v = self.view();
        let own = v.operations.values().filter(|o| o.parent.as_ref() == Some(id));
        own.filter_map(|o| Some((o.node.clone()?, o.clone()))).collect()
    }

    /// Begins one. Its nodes were looked at by the caller.
    pub async fn begin_rollout(
        &self,
        asker: &Asker,
        make: impl FnOnce(OperationId) -> Rollout,
    ) -> Result<Operation, LifeError> {
        let _turn = self.turn.lock().await;
        let o = new_operation(OperationKind::InstallMany, asker, Time::now());
        let order = make(o.id.clone());
        let names: Vec<&str> = order.nodes.iter().map(NodeName::as_str).collect();
        let event = NewEvent::new(o.started, &asker.name, "install.many", Outcome::Info)
            .with("operation", &o.id)
            .with("nodes", names.join(" "))
            .with("profile", &order.what.profile);
        let batch = Batch::new()
            .put(kind::OPERATION, o.id.as_str(), &o, Expect::Absent)?
            .put(ROLLOUT, o.id.as_str(), &order, Expect::Absent)?
            .event(event);
        self.commit(batch).await?;
        let mut v = self.view_mut();
        v.operations.insert(o.id.clone(), Arc::new(o.clone()));
        v.rollouts.insert(o.id.clone(), Arc::new(order));
        Ok(o)
    }

    /// Changes an order that runs, with the event that says why.
    async fn change_rollout(
        &self,
        id: &OperationId,
        event: NewEvent,
        change: impl FnOnce(&mut Rollout),
    ) -> Result<(), LifeError> {
        let _turn = self.turn.lock().await;
        let old = self.rollout(id);
        let mut order =
            (*old.ok_or_else(|| LifeError::NotFound(format!("operation {id}")))?).clone();
        change(&mut order);
        let batch = Batch::new().put(ROLLOUT, id.as_str(), &order, Expect::Any)?.event(event);
        self.commit(batch).await?;
        self.view_mut().rollouts.insert(id.clone(), Arc::new(order));
        Ok(())
    }

    /// No other node is begun; what runs goes on, since a disk may be half
    /// written.
    pub(super) async fn stop_rollout(&self, id: &OperationId, by: &str) -> Result<(), LifeError> {
        let event = NewEvent::new(Time::now(), by, "install.many.stop", Outcome::Ok);
        self.change_rollout(id, event.with("operation", id), |o| o.stopped_by = Some(by.to_owned()))
            .await
    }

    /// A node's install could not be begun.
    pub async fn refuse_in_rollout(
        &self,
        id: &OperationId,
        node: &NodeName,
        why: &str,
    ) -> Result<(), LifeError> {
        let actor = self.rollout(id).map_or_else(|| "server".to_owned(), |o| o.actor.clone());
        let event = NewEvent::new(Time::now(), &actor, "install.request", Outcome::Refused)
            .node(node)
            .with("operation", id)
            .with("reason", why);
        self.change_rollout(id, event, |o| drop(o.refused.insert(node.clone(), why.to_owned())))
            .await
    }

    /// Ends one.
    pub async fn end_rollout(&self, id: &OperationId, end: End) -> Result<(), LifeError> {
        let actor = self.rollout(id).map_or_else(|| "server".to_owned(), |o| o.actor.clone());
        let outcome = if end.state == OperationState::Done { Outcome::Ok } else { Outcome::Failed };
        let mut event =
            NewEvent::new(Time::now(), &actor, "install.many", outcome).with("operation", id);
        if let Some(why) = &end.reason {
            event = event.with("reason", why);
        }
        self.end_as(id, (end.state, end.reason, Some(end.result)), event).await
    }
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
