//! Orders as seen from outside of the life cycle: what stands in the record
//! when the store, the person or the machine does something at a bad moment.

mod common;

use common::desk::{Fault, Flaky, Gated, name, order, rack, spec, stocked, until};
use provision::lifecycle::{Input, LifeError, Rack};
use provision::model::plan::PhaseReport;
use provision::model::{
    Build, BuildOutcome, LifeCycle, Node, Operation, OperationState, Phase, Time,
};
use provision::store::{Batch, Expect, State, Store, StoreError, kind};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

async fn all<T: DeserializeOwned>(store: &Flaky, kind: &'static str) -> Vec<T> {
    let docs = store.inner.list(kind).await.unwrap();
    docs.into_iter().map(|d| serde_json::from_value(d.value).unwrap()).collect()
}

fn report() -> Input {
    Input::Reported(PhaseReport { phase: Phase::Disk, bytes: 0, total: 0, message: None })
}

#[tokio::test]
async fn no_power_command_follows_a_cancel_in_the_middle_of_the_arming() {
    let (store, arm) = (stocked().await, Gated::new(0));
    let rack = rack(&store, &arm, "").await;
    let o = rack.install(order(1)).await.unwrap();
    arm.waits.notified().await;
    rack.cancel(&o.id, "ada").await.unwrap();
    arm.gate.add_permits(1);
    arm.over.notified().await;
    assert_eq!(arm.calls(), ["boot device"], "the machine was cycled after the cancel");
    let v = rack.view();
    assert_eq!(v.operations[&o.id].state, OperationState::Cancelled);
    let reason = v.inventory.get(&name("node01")).unwrap().status.reason.clone().unwrap();
    assert!(reason.contains("cancelled by ada"), "{reason}");
}

#[tokio::test]
async fn a_report_that_waits_while_its_build_is_cancelled_is_refused() {
    let (store, arm) = (stocked().await, Gated::new(0));
    let rack = rack(&store, &arm, "").await;
    let o = rack.install(order(1)).await.unwrap();
    let build = o.build.clone().unwrap();
    rack.report(&build, report()).await.unwrap();
    let gate = store.hold();
    let (rack2, id) = (rack.clone(), o.id.clone());
    let cancel = tokio::spawn(async move { rack2.cancel(&id, "ada").await });
    store.at_gate.notified().await;
    let mut waiting = Box::pin(rack.report(&build, report()));
    assert!(futures::poll!(&mut waiting).is_pending());
    gate.add_permits(10);
    cancel.await.unwrap().unwrap();
    // Leave to partition must not be given now.
    let answer = waiting.await;
    assert!(matches!(answer, Err(LifeError::Over(_))), "{answer:?}");
}

/// What must hold of any record, whenever the server is started from it.
async fn is_whole(store: &Flaky) {
    let builds: Vec<Build> = all(store, kind::BUILD).await;
    let operations: Vec<Operation> = all(store, kind::OPERATION).await;
    for n in all::<Node>(store, kind::NODE).await {
        let runs =
            builds.iter().find(|b| b.node == n.spec.name && b.outcome == BuildOutcome::Running);
        assert_eq!(n.status.life == LifeCycle::Installing, runs.is_some(), "{n:?}");
        if let Some(b) = runs {
            assert_eq!(n.status.build.as_ref(), Some(&b.id));
            assert!(b.current().is_some_and(|p| p.ended.is_none()), "without deadline: {b:?}");
            let o = operations.iter().find(|o| o.id == b.operation).expect("an operation");
            assert_eq!(o.state, OperationState::Running);
        }
    }
    for o in operations {
        let b = builds.iter().find(|b| Some(&b.id) == o.build.as_ref()).expect("a build");
        assert_eq!(o.state.is_final(), b.outcome != BuildOutcome::Running, "{o:?}");
    }
}

async fn at_dhcp(rack: &Arc<Rack>) {
    until("the machine is powered", || {
        rack.running_build(&name("node01")).is_some_and(|b| b.phase == Phase::Dhcp)
    })
    .await;
}

#[tokio::test]
async fn an_order_is_in_the_record_whole_or_not_at_all_whichever_commit_fails() {
    for how in [Fault::Refused, Fault::AnswerLost] {
        for n in 1..=4 {
            let (store, arm) = (stocked().await, Gated::new(9));
            let rack = rack(&store, &arm, "").await;
            store.fail_nth(n, how);
            let ordered = rack.install(order(1)).await;
            is_whole(&store).await;
            let refused = match &ordered {
                Ok(_) => false,
                Err(LifeError::Store(e @ StoreError::Unavailable { .. })) => {
                    assert!(e.to_string().contains("cannot be used now: unplugged"), "{e}");
                    let v = rack.view();
                    assert!(v.operations.is_empty() && v.builds.is_empty(), "seen though refused");
                    assert_eq!(
                        v.inventory.get(&name("node01")).unwrap().status.life,
                        LifeCycle::Ready
                    );
                    true
                }
                Err(e) => panic!("commit {n}, {how:?}: {e}"),
            };
            assert_eq!(refused, n == 1, "commit {n}, {how:?}: an order is one commit");
            if refused {
                // Refused, and asked again: one install runs.
                assert!(arm.calls().is_empty(), "powered though refused");
                rack.install(order(1)).await.unwrap();
            }
            at_dhcp(&rack).await;
            // A second commit (`Powered`) that fails is tried again.
            assert!(store.commits() >= 2);

            // And from the record alone, by a server that starts anew.
            let again = common::desk::rack(&store, &arm, "").await;
            is_whole(&store).await;
            assert_eq!(again.running_build(&name("node01")).unwrap().phase, Phase::Dhcp);
        }
    }
}

#[tokio::test]
async fn an_order_that_was_refused_and_written_all_the_same_is_not_carried_out_later() {
    let (store, arm) = (stocked().await, Gated::new(9));
    let rack = rack(&store, &arm, "").await;
    let stop = CancellationToken::new();
    let watch = tokio::spawn(rack.clone().watch_deadlines(stop.clone()));
    store.fail_nth(1, Fault::AnswerLost);
    rack.install(order(1)).await.unwrap_err();
    until("the doubt is settled", || !rack.view().builds.is_empty()).await;
    {
        let v = rack.view();
        let o = v.operations.values().next().unwrap();
        assert_eq!(o.state, OperationState::Failed);
        assert!(o.reason.as_ref().unwrap().contains("so it was refused"), "{o:?}");
    }
    is_whole(&store).await;
    assert!(
        all::<Node>(&store, kind::NODE).await.iter().all(|n| n.status.life == LifeCycle::Ready)
    );
    stop.cancel();
    watch.await.unwrap();
    drop(rack);
    let again = common::desk::rack(&store, &arm, "").await;
    again.take_up().await;
    assert!(again.running_build(&name("node01")).is_none());
    assert!(arm.calls().is_empty(), "wiped after a refusal");
}

#[tokio::test]
async fn what_is_left_over_without_an_owner_ends_failed_with_the_reason() {
    let (store, arm) = (stocked().await, Gated::new(0));
    let first = rack(&store, &arm, "").await;
    let kept = first.install(order(1)).await.unwrap();
    // A build of node01 that runs beside the node's own, with its operation;
    // an operation without a build; one whose build is not there.
    let mut b: Build = all::<Build>(&store, kind::BUILD).await.remove(0);
    let mut o: Operation = all::<Operation>(&store, kind::OPERATION).await.remove(0);
    (b.id, o.id) = ("b-00000000000000000000000001".parse().unwrap(), op(1));
    (b.operation, o.build) = (o.id.clone(), Some(b.id.clone()));
    let alone = Operation { id: op(2), build: None, ..o.clone() };
    let orphan = Operation {
        id: op(3),
        build: Some("b-00000000000000000000000009".parse().unwrap()),
        ..o.clone()
    };
    let mut batch = Batch::new().put(kind::BUILD, b.id.as_str(), &b, Expect::Absent).unwrap();
    for x in [&o, &alone, &orphan] {
        batch = batch.put(kind::OPERATION, x.id.as_str(), x, Expect::Absent).unwrap();
    }
    store.inner.commit(batch).await.unwrap();
    drop(first);

    let again = rack(&store, &arm, "").await;
    {
        let v = again.view();
        for (id, word) in [(1, "took its place"), (2, "restarted in the middle"), (3, "restarted")]
        {
            let o = &v.operations[&op(id)];
            assert_eq!(o.state, OperationState::Failed, "{o:?}");
            assert!(o.reason.as_ref().unwrap().contains(word), "{o:?}");
        }
        assert_eq!(v.builds[&b.id].outcome, BuildOutcome::Failed);
        assert!(v.builds[&b.id].ended.is_some());
        assert_eq!(v.operations[&kept.id].state, OperationState::Running, "the node's own goes on");
    }
    is_whole_but_for_orphans(&store).await;
}

fn op(n: u8) -> provision::model::OperationId {
    format!("op-{n:026}").parse().unwrap()
}

/// In the store too, not only in the view.
async fn is_whole_but_for_orphans(store: &Flaky) {
    for o in all::<Operation>(store, kind::OPERATION).await {
        assert_eq!(o.state.is_final(), o.id <= op(9), "{o:?}");
    }
}

#[tokio::test]
async fn a_node_that_was_changed_while_its_plan_was_made_is_not_installed() {
    let (store, arm) = (stocked().await, Gated::new(0));
    let rack = rack(&store, &arm, "").await;
    let net = provision::config::parse(
        "[network]\ninterface='e'\naddress='10.1.0.1'\nsubnet='10.1.0.0/24'\n\
         range=['10.1.0.10','10.1.0.99']\n",
        "desk",
        std::path::Path::new("/"),
    )
    .unwrap()
    .network;
    let made_before = order(1);
    let other_disk = |n: &mut Node| {
        n.spec.disk.serial = Some("S2".into());
        Ok(vec!["disk".into()])
    };
    rack.set_node(&name("node01"), &net, "bob", Batch::new(), other_disk).await.unwrap();
    let e = rack.install(made_before).await.unwrap_err();
    assert!(matches!(e, LifeError::NotNow(_)), "{e:?}");
    assert!(e.to_string().contains("node01 was changed while its install was prepared"), "{e}");
    assert_eq!(provision::api::Problem::from(e).status, 409);
    assert!(arm.calls().is_empty() && rack.view().builds.is_empty());
    // What was seen meanwhile is no change of the specification.
    rack.note(&name("node02"), |n| n.status.last_seen = Some(Time::now()));
    assert_eq!(rack.view().inventory.get(&name("node02")).unwrap().spec, spec(2));
    rack.install(order(2)).await.unwrap();
}
