//! Outages of the store and of the server: nobody is blamed for a silence in
//! which nobody listened, and whoever looks can read what is waited for.

mod common;

use common::desk::{Flaky, Gated, ada, name, order, rack, stocked, until};
use provision::lifecycle::{Input, Rack};
use provision::model::{Build, NewEvent, OperationKind, OperationState, Outcome, Phase, Time};
use provision::store::{Batch, Expect, State, Store, kind};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const SHORT: &str = "dhcp = 1\nattempts = 3";

fn build(rack: &Rack) -> Arc<Build> {
    rack.running_build(&name("node01")).unwrap()
}

async fn waiting_for_dhcp(store: &Arc<Flaky>, limits: &str) -> (Arc<Gated>, Arc<Rack>) {
    let arm = Gated::new(9);
    let rack = rack(store, &arm, limits).await;
    rack.install(order(1)).await.unwrap();
    until("the machine is powered", || build(&rack).phase == Phase::Dhcp).await;
    (arm, rack)
}

/// The build has not moved, and has most of a minute left.
fn has_grace(b: &Build) {
    assert_eq!((b.phase, b.attempt), (Phase::Dhcp, 1));
    let left = b.current().unwrap().deadline.duration_since(Time::now()).as_secs();
    assert!((50..=60).contains(&left), "{left} s left");
}

async fn overdue(rack: &Rack) {
    let deadline = build(rack).current().unwrap().deadline;
    until("the deadline has passed", || Time::now() > deadline).await;
}

#[tokio::test]
async fn a_deadline_that_passed_while_the_store_was_away_gets_a_minute() {
    let store = stocked().await;
    let (_arm, rack) = waiting_for_dhcp(&store, SHORT).await;
    store.set_down(true);
    rack.log(vec![]).await.unwrap_err();
    overdue(&rack).await;
    let stop = CancellationToken::new();
    let mut events = rack.subscribe();
    let watch = tokio::spawn(rack.clone().watch_deadlines(stop.clone()));
    store.set_down(false);
    let back = async { while events.recv().await.unwrap().event.action != "store.back" {} };
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, back).await.expect("the store's return is in the record");
    until("time was given", || build(&rack).current().unwrap().deadline > Time::now()).await;
    has_grace(&build(&rack));
    stop.cancel();
    watch.await.unwrap();
    assert!(!store.actions().await.contains(&"install.retry".to_owned()));
}

#[tokio::test]
async fn another_writer_that_comes_first_after_the_outage_takes_nobody_s_grace() {
    let store = stocked().await;
    let (_arm, rack) = waiting_for_dhcp(&store, SHORT).await;
    store.set_down(true);
    rack.log(vec![]).await.unwrap_err();
    overdue(&rack).await;
    store.set_down(false);
    // The recorder, or somebody at the API.
    let e = NewEvent::new(Time::now(), "bob", "power.on", Outcome::Ok);
    rack.log(vec![e]).await.unwrap();
    assert!(rack.store_ok());
    let id = build(&rack).id.clone();
    rack.input(&id, Input::Tick).await.unwrap();
    assert_eq!((build(&rack).phase, build(&rack).attempt), (Phase::Dhcp, 1), "blamed at once");
    let stop = CancellationToken::new();
    let watch = tokio::spawn(rack.clone().watch_deadlines(stop.clone()));
    until("time was given", || build(&rack).current().unwrap().deadline > Time::now()).await;
    has_grace(&build(&rack));
    // From now on deadlines hold again.
    stop.cancel();
    watch.await.unwrap();
    let mut late: Build = (*build(&rack)).clone();
    late.phases.last_mut().unwrap().deadline = Time::now();
    drop(rack);
    let arm = Gated::new(0);
    let b = Batch::new().put(kind::BUILD, late.id.as_str(), &late, Expect::Any).unwrap();
    store.inner.commit(b).await.unwrap();
    let rack = common::desk::rack(&store, &arm, SHORT).await;
    rack.input(&id, Input::Tick).await.unwrap();
    assert_eq!((build(&rack).phase, build(&rack).attempt), (Phase::Power, 2));
}

#[tokio::test]
async fn a_deadline_that_passed_while_the_server_was_away_gets_a_minute() {
    let store = stocked().await;
    let (_arm, first) = waiting_for_dhcp(&store, SHORT).await;
    overdue(&first).await;
    drop(first);
    let arm = Gated::new(0);
    let rack = rack(&store, &arm, SHORT).await;
    rack.take_up().await;
    let stop = CancellationToken::new();
    let watch = tokio::spawn(rack.clone().watch_deadlines(stop.clone()));
    let id = build(&rack).id.clone();
    rack.input(&id, Input::Tick).await.unwrap();
    has_grace(&build(&rack));
    stop.cancel();
    watch.await.unwrap();
    assert!(arm.calls().is_empty(), "a machine that was powered is not powered again");
}

#[tokio::test]
async fn an_outage_can_be_read_in_every_running_operation_and_goes_away() {
    let store = stocked().await;
    let (_arm, rack) = waiting_for_dhcp(&store, "").await;
    let install = build(&rack).operation.clone();
    let begun = NewEvent::new(Time::now(), "ada", "power.off", Outcome::Info);
    let power = rack
        .begin(OperationKind::Power, Some(&name("node02")), &ada(), begun.clone())
        .await
        .unwrap()
        .id;
    store.set_down(true);
    let (rack2, id) = (rack.clone(), power.clone());
    let ending =
        tokio::spawn(async move { rack2.end(&id, Ok(serde_json::json!("off")), begun).await });
    let says = |id: &provision::model::OperationId, word: &str| {
        rack.view().operations[id].reason.as_ref().is_some_and(|r| r.contains(word))
    };
    for id in [&power, &install] {
        until("the outage shows", || says(id, "flaky) cannot be used now")).await;
        assert!(says(id, "goes on when the store is back"));
    }
    store.set_down(false);
    ending.await.unwrap().unwrap();
    assert_eq!(rack.view().operations[&power].state, OperationState::Done);
    assert!(says(&install, "waiting for the firmware's first DHCP packet"));
    let doc = store.get(kind::OPERATION, power.as_str()).await.unwrap().unwrap();
    assert_eq!(doc.value["state"], "done");
    store.health().await.unwrap();
}
