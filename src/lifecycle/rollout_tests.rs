use super::*;
use crate::model::BuildId;

fn node(n: usize) -> NodeName {
    format!("node{n:02}").parse().unwrap()
}

fn order(nodes: usize, at_once: usize, stop_after: usize) -> Rollout {
    Rollout {
        operation: OperationId::generate(),
        actor: "telescope".into(),
        nodes: (1..=nodes).map(node).collect(),
        what: What { profile: "docker".into(), image: None, mirror: None },
        at_once,
        stop_after,
        refused: BTreeMap::new(),
        stopped_by: None,
    }
}

fn installs(states: &[(usize, OperationState)]) -> Installs {
    let asker = Asker { name: "telescope".into(), request: None };
    let one = |(n, state): &(usize, OperationState)| {
        let o = new_operation(OperationKind::Install, &asker, Time::now());
        let reason = (*state == OperationState::Failed).then(|| "no DHCP".to_owned());
        let build = Some(BuildId::generate());
        (node(*n), Arc::new(Operation { node: Some(node(*n)), build, state: *state, reason, ..o }))
    };
    states.iter().map(one).collect()
}

use OperationState::{Cancelled, Done, Failed, Running};

#[test]
fn so_many_at_once_and_each_once() {
    let o = order(5, 2, 1);
    assert_eq!(o.next(&installs(&[])), Next::Begin(vec![node(1), node(2)]));
    assert_eq!(o.next(&installs(&[(1, Running)])), Next::Begin(vec![node(2)]));
    assert_eq!(o.next(&installs(&[(1, Running), (2, Running)])), Next::Wait);
    assert_eq!(o.next(&installs(&[(1, Done), (2, Running)])), Next::Begin(vec![node(3)]));
}

#[test]
fn after_so_many_failures_no_other_is_begun_and_what_runs_is_waited_for() {
    let o = order(5, 2, 2);
    let one = installs(&[(1, Failed), (2, Running)]);
    assert_eq!(o.next(&one), Next::Begin(vec![node(3)]));
    assert_eq!(o.next(&installs(&[(1, Failed), (2, Failed), (3, Running)])), Next::Wait);
    let Next::End(end) = o.next(&installs(&[(1, Failed), (2, Cancelled), (3, Done)])) else {
        panic!()
    };
    assert_eq!(end.state, Failed);
    assert_eq!(end.result["deployed"], json!(["node03"]));
    assert_eq!(end.result["failed"]["node01"], "no DHCP");
    assert_eq!(end.result["not_begun"], json!(["node04", "node05"]));
    assert!(end.reason.unwrap().contains("1 of 5 deployed; node01 failed: no DHCP"));
}

#[test]
fn what_could_not_be_begun_counts_as_failed() {
    let mut o = order(2, 1, 2);
    o.refused.insert(node(1), "busy".into());
    assert_eq!(o.next(&installs(&[])), Next::Begin(vec![node(2)]));
    o.stop_after = 1;
    assert!(matches!(o.next(&installs(&[])), Next::End(e) if e.state == Failed));
}

#[test]
fn stopped_it_begins_nothing_and_all_done_is_done() {
    let mut o = order(2, 2, 1);
    let Next::End(end) = o.next(&installs(&[(1, Done), (2, Done)])) else { panic!() };
    assert_eq!((end.state, end.reason), (Done, None));
    o.stopped_by = Some("ada".into());
    assert_eq!(o.next(&installs(&[(1, Running)])), Next::Wait);
    assert!(matches!(o.next(&installs(&[(1, Done)])), Next::End(e) if e.state == Cancelled));
}
