//! The one contract of all stores [M5 M6], run on memory, a SQLite file and a
//! real Redis server.

mod common;

use common::redis::RedisServer;
use provision::model::{NewEvent, Outcome, Time};
use provision::store::{self, Batch, EventQuery, Expect, Store, StoreError, kind, verify_chain};
use serde_json::json;
use std::sync::Arc;

fn event(n: u32) -> NewEvent {
    NewEvent::new(Time::now(), "ada", "power.on", Outcome::Ok)
        .node(&format!("node{}", n % 3).parse().unwrap())
        .with("n", n)
}

async fn contract(s: Arc<dyn Store>) {
    // Versions count from one, and a condition that does not hold changes nothing.
    let put = |v: u32, e| Batch::new().put(kind::NODE, "a", &json!({ "v": v }), e).unwrap();
    s.commit(put(1, Expect::Absent)).await.unwrap();
    s.commit(put(2, Expect::Version(1))).await.unwrap();
    for wrong in [Expect::Absent, Expect::Version(1)] {
        let b = put(9, wrong).event(event(0));
        assert!(matches!(s.commit(b).await, Err(StoreError::Conflict { .. })));
    }
    let doc = s.get(kind::NODE, "a").await.unwrap().unwrap();
    assert_eq!((doc.version, doc.value), (2, json!({ "v": 2 })));
    let all = EventQuery { limit: 10, ..EventQuery::default() };
    assert!(s.query(&all).await.unwrap().is_empty(), "a refused batch leaves no event");

    // Kinds do not mix; lists are sorted; deletion deletes.
    for k in ["c", "b"] {
        s.commit(Batch::new().put(kind::NODE, k, &json!(k), Expect::Any).unwrap()).await.unwrap();
        s.commit(Batch::new().put(kind::BUILD, k, &json!(1), Expect::Any).unwrap()).await.unwrap();
    }
    s.commit(Batch::new().delete(kind::NODE, "c")).await.unwrap();
    let keys: Vec<_> = s.list(kind::NODE).await.unwrap().into_iter().map(|d| d.key).collect();
    assert_eq!(keys, ["a", "b"]);
    assert!(s.get(kind::NODE, "c").await.unwrap().is_none());

    // Of a kind those below a prefix, which is no pattern.
    for k in ["b-1/a", "b-1/z", "b-1/\u{10fffd}", "b-1", "b-10/a", "b-2/a", "*/a", "b-[12]/a"] {
        let b = Batch::new().put(kind::RENDERING, k, &json!(k), Expect::Any).unwrap();
        s.commit(b).await.unwrap();
    }
    for (prefix, keys) in [
        ("b-1/", &["b-1/a", "b-1/z", "b-1/\u{10fffd}"][..]),
        ("*/", &["*/a"]),
        ("b-[12]/", &["b-[12]/a"]),
        ("c", &[]),
    ] {
        let found = s.list_below(kind::RENDERING, prefix).await.unwrap();
        let found: Vec<_> = found.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(found, keys, "{prefix}");
    }
    assert_eq!(s.list_below(kind::RENDERING, "").await.unwrap().len(), 8);

    // Events keep order, also when many commit at once, and can be asked for.
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=60u32 {
        let s = s.clone();
        tasks.spawn(async move { s.commit(Batch::new().event(event(n))).await.unwrap() });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let newest = s.query(&EventQuery { limit: 5, ..EventQuery::default() }).await.unwrap();
    assert_eq!(newest.iter().map(|e| e.seq).collect::<Vec<_>>(), [56, 57, 58, 59, 60]);
    let after = EventQuery { after: Some(10), limit: 3, ..EventQuery::default() };
    let page = s.query(&after).await.unwrap();
    assert_eq!(page.iter().map(|e| e.seq).collect::<Vec<_>>(), [11, 12, 13]);
    let of_node =
        EventQuery { node: Some("node1".parse().unwrap()), limit: 100, ..EventQuery::default() };
    assert_eq!(s.query(&of_node).await.unwrap().len(), 20);
    let future = EventQuery {
        since: Some(Time::now() + jiff::SignedDuration::from_secs(5)),
        limit: 100,
        ..EventQuery::default()
    };
    assert!(s.query(&future).await.unwrap().is_empty());

    let report = verify_chain(&*s).await.unwrap();
    assert_eq!((report.events, report.broken), (60, None));
    s.health().await.unwrap();
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract(store::open("memory:").await.unwrap()).await;
}

#[tokio::test]
async fn sqlite_keeps_the_contract_and_its_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.db");
    let url = format!("sqlite:{}", path.display());
    contract(store::open(&url).await.unwrap()).await;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // What was committed is there for the next one who opens the file.
    let again = store::open(&url).await.unwrap();
    assert_eq!(verify_chain(&*again).await.unwrap().events, 60);
}

#[tokio::test]
async fn redis_keeps_the_contract() {
    let server = RedisServer::start();
    contract(store::open(&server.url()).await.unwrap()).await;
}

#[tokio::test]
async fn a_changed_and_a_missing_event_are_both_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.db");
    let s = store::open(&format!("sqlite:{}", path.display())).await.unwrap();
    for n in 0..10 {
        s.commit(Batch::new().event(event(n))).await.unwrap();
    }
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.execute("UPDATE event SET actor = 'eve' WHERE seq = 7", []).unwrap();
    let report = verify_chain(&*s).await.unwrap();
    assert_eq!(report.broken.as_deref(), Some("event 7 was changed"));
    sql.execute("DELETE FROM event WHERE seq = 4", []).unwrap();
    let report = verify_chain(&*s).await.unwrap();
    assert_eq!(report.broken.as_deref(), Some("event 4 is missing"));
}

#[tokio::test]
async fn redis_that_goes_away_and_returns_loses_nothing_acknowledged() {
    let mut server = RedisServer::start();
    let s = store::open(&server.url()).await.unwrap();
    s.commit(Batch::new().event(event(1))).await.unwrap();
    server.stop();
    let down = s.commit(Batch::new().event(event(2))).await;
    assert!(matches!(down, Err(StoreError::Unavailable { .. })), "{down:?}");
    assert!(s.health().await.is_err());
    server.start_again();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while s.health().await.is_err() {
        assert!(std::time::Instant::now() < deadline, "did not recover by itself");
        tokio::task::yield_now().await;
    }
    s.commit(Batch::new().event(event(3))).await.unwrap();
    let report = verify_chain(&*s).await.unwrap();
    assert_eq!((report.events, report.broken), (2, None));
}
