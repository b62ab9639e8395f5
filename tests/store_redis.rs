//! What only Redis can do to us: an answer that is lost on the wire.

mod common;

use common::redis::RedisServer;
use common::relay::{Lose, Relay};
use provision::model::{NewEvent, Outcome, Time};
use provision::store::{self, Batch, Expect, Store, StoreError, kind, verify_chain};
use std::sync::Arc;

fn batch(n: u32) -> Batch {
    let e = NewEvent::new(Time::now(), "ada", "power.on", Outcome::Ok).with("n", n);
    Batch::new().put(kind::NODE, &format!("n{n}"), &n, Expect::Absent).unwrap().event(e)
}

/// A commit through a relay that loses `what` of it; another server commits
/// right before the cut where `between` says so.
async fn commit_with_loss(
    server: &RedisServer,
    what: Lose,
    between: bool,
) -> (Result<u64, StoreError>, Arc<dyn Store>) {
    // The script's name is known to Redis after the first commit, so that the
    // commit under test is one request.
    let direct = store::open(&server.url()).await.unwrap();
    direct.commit(batch(1)).await.unwrap();
    let relay = Relay::start(server.address(), b"EVALSHA");
    let s = store::open(&format!("redis://{}", relay.address)).await.unwrap();
    let (at_hand, cut) = relay.lose_next(what);
    let task = tokio::spawn(async move { s.commit(batch(2)).await });
    tokio::task::spawn_blocking(move || at_hand.recv().unwrap()).await.unwrap();
    if between {
        direct.commit(batch(3)).await.unwrap();
    }
    cut.send(()).unwrap();
    (task.await.unwrap().map(|events| events[0].seq), direct)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_recognised_and_not_done_twice() {
    for between in [false, true] {
        let server = RedisServer::start();
        let (done, direct) = commit_with_loss(&server, Lose::Answer, between).await;
        assert_eq!(done.unwrap(), 2, "another wrote behind it: {between}");
        let report = verify_chain(&*direct).await.unwrap();
        assert_eq!((report.events, report.broken), (2 + u64::from(between), None));
        assert_eq!(direct.get(kind::NODE, "n2").await.unwrap().unwrap().version, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_is_refused_and_another_s_event_is_not_taken_for_it() {
    for between in [false, true] {
        let server = RedisServer::start();
        let (done, direct) = commit_with_loss(&server, Lose::Request, between).await;
        assert!(matches!(done, Err(StoreError::Unavailable { .. })), "{done:?}");
        assert!(direct.get(kind::NODE, "n2").await.unwrap().is_none());
        let report = verify_chain(&*direct).await.unwrap();
        assert_eq!((report.events, report.broken), (1 + u64::from(between), None));
    }
}
