//! One server on one store: who has it, who waits, who is refused.

mod common;

use common::redis::RedisServer;
use provision::app::claim::{have, owner};
use provision::model::{NewEvent, Outcome, Time};
use provision::store::{self, Batch, Claim, Owner, Store, verify_chain};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

fn event() -> Batch {
    Batch::new().event(NewEvent::new(Time::now(), "ada", "power.on", Outcome::Ok))
}

async fn two(url: &str) -> (Arc<dyn Store>, Arc<dyn Store>) {
    (store::open(url).await.unwrap(), store::open(url).await.unwrap())
}

const KEY: &str = "provision:server";

#[tokio::test]
async fn a_second_server_on_one_redis_is_refused_and_told_who_has_it() {
    let server = RedisServer::start();
    let (a, b) = two(&server.url()).await;
    let (first, second) = (Owner::new("alpha", "01", 7), Owner::new("beta", "02", 8));
    have(&*a, &first, |_| panic!("waits for nobody")).await.unwrap();
    // The first one lives: it renews while the second one looks.
    let told = Arc::new(Mutex::new(String::new()));
    let text = told.clone();
    let waits = tokio::spawn(async move {
        let tell = |w| *text.lock().unwrap_or_else(PoisonError::into_inner) = w;
        have(&*b, &second, tell).await.map_err(|e| e.to_string())
    });
    common::desk::until("the second one waits", || !told.lock().unwrap().is_empty()).await;
    assert!(told.lock().unwrap().contains("the build-server on alpha (instance 01), pid 7"));
    // Of 30 s, what was left when the second one looked.
    let within = told.lock().unwrap().split("takes over within ").nth(1).map(str::to_owned);
    let seconds: u64 = within.unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((15..=30).contains(&seconds), "{told:?}");
    server.cli(&["PEXPIRE", KEY, "60000"]);
    let e = waits.await.unwrap().unwrap_err();
    assert!(e.contains("is in use by the build-server on alpha (instance 01), pid 7"), "{e}");
    assert!(e.contains("stop that one first, or give this one another store"), "{e}");
    assert!(!e.contains(":@") && e.starts_with("redis://127.0.0.1:"), "{e}");
    a.commit(event()).await.unwrap();
}

#[tokio::test]
async fn a_dead_server_s_claim_expires_and_its_own_restart_does_not_wait() {
    let server = RedisServer::start();
    let (a, b) = two(&server.url()).await;
    assert_eq!(a.claim(&Owner::new("alpha", "01", 7)).await.unwrap(), Claim::Ours);
    // Killed and started again: another process, the same state directory.
    let again = Owner::new("alpha", "01", 99);
    have(&*b, &again, |_| panic!("waits for itself")).await.unwrap();
    assert!(server.cli(&["GET", KEY]).contains("pid 99"));
    // Another host takes over once the claim has expired.
    let millis: u64 = server.cli(&["PTTL", KEY]).trim().parse().unwrap();
    assert!((1..=30_000).contains(&millis), "{millis}");
    // It must still be held when `c` looks first.
    let c = store::open(&server.url()).await.unwrap();
    server.cli(&["PEXPIRE", KEY, "3000"]);
    let other = Owner::new("beta", "02", 8);
    let mut told = 0;
    have(&*c, &other, |_| told += 1).await.unwrap();
    assert_eq!(told, 1);
    c.commit(event()).await.unwrap();
    // The one that was cut off meanwhile writes nothing any more.
    let e = b.commit(event()).await.unwrap_err().to_string();
    assert!(e.contains("the build-server on beta (instance 02), pid 8 has taken it over"), "{e}");
    assert_eq!(verify_chain(&*c).await.unwrap().events, 1);
    // It gives back nothing that is not its own; the owner does.
    b.release(&again).await.unwrap();
    assert!(server.cli(&["GET", KEY]).contains("beta"));
    c.release(&other).await.unwrap();
    assert_eq!(server.cli(&["EXISTS", KEY]).trim(), "0");
}

#[tokio::test]
async fn a_server_that_has_lost_its_claim_ends_with_the_other_s_name() {
    let server = RedisServer::start();
    let (a, b) = two(&server.url()).await;
    let (first, second) = (Owner::new("alpha", "01", 7), Owner::new("beta", "02", 8));
    a.claim(&first).await.unwrap();
    server.cli(&["DEL", KEY]);
    b.claim(&second).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let e = provision::app::claim::keep(&*a, &first, stop).await.unwrap_err().to_string();
    assert!(e.contains("was taken over by the build-server on beta"), "{e}");
}

#[tokio::test]
async fn a_second_server_on_one_sqlite_file_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("p.db").display());
    let (a, b) = two(&url).await;
    let (first, second) = (Owner::new("alpha", "01", 7), Owner::new("alpha", "02", 8));
    have(&*a, &first, |_| panic!("waits")).await.unwrap();
    have(&*a, &first, |_| panic!("waits")).await.unwrap();
    let e = have(&*b, &second, |_| panic!("waits")).await.unwrap_err().to_string();
    assert!(e.contains("p.db is in use by the build-server on alpha (instance 01), pid 7"), "{e}");
    a.release(&first).await.unwrap();
    have(&*b, &second, |_| panic!("waits")).await.unwrap();
}

#[tokio::test]
async fn a_state_directory_keeps_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (owner(dir.path()).unwrap(), owner(dir.path()).unwrap());
    assert_eq!(a.stays(), b.stays());
    let other = tempfile::tempdir().unwrap();
    assert_ne!(owner(other.path()).unwrap().stays(), a.stays());
    assert!(a.line().ends_with(&format!("pid {}", std::process::id())));
}

#[tokio::test]
async fn while_the_store_is_waited_for_readyz_says_so() {
    let why = Arc::new(Mutex::new("redis belongs to alpha".to_owned()));
    let routes = provision::api::health::waiting(why);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move { axum::serve(listener, routes).await });
    let get = move |path: &'static str| {
        let url = format!("{base}{path}");
        tokio::task::spawn_blocking(move || {
            let agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(Duration::from_secs(10)))
                .build()
                .new_agent();
            let mut r = agent.get(&url).call().unwrap();
            (r.status().as_u16(), r.body_mut().read_to_string().unwrap())
        })
    };
    assert_eq!(get("/healthz").await.unwrap(), (200, "ok\n".to_owned()));
    let (status, body) = get("/readyz").await.unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("redis belongs to alpha"), "{body}");
    assert_eq!(get("/v1/nodes").await.unwrap().0, 503);
    task.abort();
}
