//! The HTTP API as a program uses it that must not do anything twice: named
//! requests, many nodes in one call, tokens that end, events that come to it.
//! M30 M44.

mod common;
mod windowd;

use axum::http::HeaderMap;
use common::desk::{Gated, deadlines, name, until};
use provision::app::courier;
use provision::auth::Role;
use provision::lifecycle::{Input, Rack};
use provision::model::plan::{FailureReport, VerifiedReport};
use provision::model::{Operation, OperationState, Phase, Secret};
use provision::store::{Batch, Expect, kind};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;
use windowd::Bench;

struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Client {
    fn new(b: &Bench, name: &str, role: Role) -> Self {
        let http = reqwest::Client::new();
        Self { http, base: b.base.clone(), token: b.token(name, role) }
    }

    async fn send(&self, method: &str, path: &str, key: Option<&str>, body: Value) -> Answer {
        let url = format!("{}{path}", self.base);
        let mut r = self.http.request(method.parse().unwrap(), url).bearer_auth(&self.token);
        if let Some(k) = key {
            r = r.header("Idempotency-Key", k);
        }
        if !body.is_null() {
            r = r.json(&body);
        }
        let r = r.send().await.unwrap();
        let (status, headers) = (r.status().as_u16(), r.headers().clone());
        let text = r.text().await.unwrap();
        Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null) }
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, None, body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None, Value::Null).await
    }
}

fn base() -> Value {
    json!({ "type": "base", "image": "debian-12" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_finds_what_it_began_also_after_a_restart() {
    let b = Bench::start().await;
    let c = Client::new(&b, "telescope", Role::Controller);
    let path = "/v1/nodes/node04/install";
    let first = c.send("POST", path, Some("night-7"), base()).await;
    assert_eq!(first.status, 202, "{}", first.body);
    let again = c.send("POST", path, Some("night-7"), base()).await;
    assert_eq!((again.status, &again.body["id"]), (202, &first.body["id"]));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(b.events("install.request").await.len(), 2, "one, and the one of the stock");

    // The key of another request, and no key at all: nothing is begun.
    let other = c.send("POST", path, Some("night-7"), json!({ "type": "docker" })).await;
    assert_eq!((other.status, &other.body["operation"]), (422, &first.body["id"]));
    let other = c.send("POST", "/v1/nodes/node05/install", Some("night-7"), base()).await;
    assert_eq!(other.status, 422, "the same key for another node: {}", other.body);
    let busy = c.post(path, base()).await;
    assert_eq!((busy.status, &busy.body["operation"]), (409, &first.body["id"]));
    for bad in ["", "a b", &"x".repeat(129)] {
        assert_eq!(c.send("POST", path, Some(bad), base()).await.status, 400, "{bad:?}");
    }

    let restarted = Rack::load(b.store.clone(), deadlines(""), Gated::new(9)).await.unwrap();
    let found = restarted.by_request("telescope", "night-7").unwrap();
    assert_eq!(found.id.to_string(), first.body["id"]);
    assert!(restarted.by_request("ada", "night-7").is_none(), "a key is its sender's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rendered_for_a_build_is_read_also_as_it_was_kept_before() {
    let b = Bench::start().await;
    let c = Client::new(&b, "ada", Role::Read);
    let all = c.get("/v1/builds?node=node01&limit=1").await.body;
    let build = all["items"][0]["id"].as_str().unwrap();
    // Boot scripts were kept without the digests of their templates.
    let at = "2026-11-20T03:00:00Z";
    let kept = json!({ "at": at, "file": "script.ipxe", "text": "#!ipxe\n" });
    let key = format!("{build}/{at}/script.ipxe");
    let batch = Batch::new().put(kind::RENDERING, &key, &kept, Expect::Any).unwrap();
    b.rack.commit(batch).await.unwrap();
    let read = c.get(&format!("/v1/builds/{build}/files")).await;
    assert_eq!((read.status, &read.body["items"][0]["text"]), (200, &kept["text"]));
    assert_eq!(read.body["items"][0]["templates"], json!({}));
}

async fn deployed(b: &Bench, node: &str) {
    let ok = VerifiedReport { ok: true, code: 0, output: String::new() };
    b.rack.observe(&name(node), Input::Verified(ok)).await.unwrap();
}

fn operation(b: &Bench, id: &Value) -> Arc<Operation> {
    let id = id.as_str().unwrap().parse().unwrap();
    b.rack.view().operations[&id].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_in_one_call_are_installed_so_many_at_a_time_and_each_once() {
    let b = Bench::start().await;
    let c = Client::new(&b, "telescope", Role::Controller);
    let order = json!({
        "nodes": ["node04", "10.1.0.15", "node09"], "type": "base", "image": "debian-12",
        "at_once": 2
    });
    let o = c.send("POST", "/v1/installs", Some("night-8"), order.clone()).await;
    assert_eq!((o.status, &o.body["kind"]), (202, &json!("install-many")), "{}", o.body);
    let again = c.send("POST", "/v1/installs", Some("night-8"), order).await;
    assert_eq!(again.body["id"], o.body["id"]);
    let runs = |n: &str| b.rack.running_build(&name(n)).is_some();
    until("two are begun", || runs("node04") && runs("node05")).await;
    assert!(!runs("node09"), "a third at once");

    // A server that starts now goes on where this one is.
    let restarted = Rack::load(b.store.clone(), deadlines(""), Gated::new(9)).await.unwrap();
    let id = operation(&b, &o.body["id"]).id.clone();
    assert_eq!(restarted.running_rollouts(), std::slice::from_ref(&id));
    assert_eq!(restarted.installs_of(&id).len(), 2);

    deployed(&b, "node05").await;
    until("the third is begun", || runs("node09")).await;
    deployed(&b, "node09").await;
    deployed(&b, "node04").await;
    until("all are done", || operation(&b, &o.body["id"]).state == OperationState::Done).await;
    let result = operation(&b, &o.body["id"]).result.clone().unwrap();
    assert_eq!(result["deployed"], json!(["node04", "node05", "node09"]));
    let begun = b.events("install.start").await.len();
    assert_eq!(begun, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_failures_stop_the_rest_and_so_does_a_person() {
    let b = Bench::start().await;
    let c = Client::new(&b, "telescope", Role::Controller);
    let order = json!({
        "nodes": ["node04", "node05"], "type": "base", "image": "debian-12", "at_once": 1,
        "stop_after": 1
    });
    let o = c.post("/v1/installs", order.clone()).await;
    let runs = |n: &str| b.rack.running_build(&name(n)).is_some();
    until("the first is begun", || runs("node04")).await;
    let failed = FailureReport { phase: Phase::Disk, reason: "no disk fits".into() };
    b.rack.observe(&name("node04"), Input::AgentFailed(failed)).await.unwrap();
    until("it is over", || operation(&b, &o.body["id"]).state.is_final()).await;
    let end = operation(&b, &o.body["id"]);
    assert_eq!(end.state, OperationState::Failed);
    let why = end.reason.clone().unwrap();
    assert!(why.contains("node04 failed: no disk fits; 1 not begun"), "{why}");
    assert!(!runs("node05"));

    let o = c.post("/v1/installs", order).await;
    until("the first is begun again", || runs("node04")).await;
    let path = format!("/v1/operations/{}", o.body["id"].as_str().unwrap());
    assert_eq!(c.send("DELETE", &path, None, Value::Null).await.status, 202);
    assert!(runs("node04"), "what runs goes on");
    deployed(&b, "node04").await;
    let over = || operation(&b, &o.body["id"]).state == OperationState::Cancelled;
    until("it is stopped", over).await;
    assert!(!runs("node05"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_being_made_can_be_given_up() {
    let b = Bench::start().await;
    let c = Client::new(&b, "ada", Role::Operate);
    let o = c.post("/v1/images/debian-13/build", json!({})).await;
    assert_eq!(o.status, 202, "{}", o.body);
    let path = format!("/v1/operations/{}", o.body["id"].as_str().unwrap());
    let telescope = Client::new(&b, "telescope", Role::Controller);
    assert_eq!(telescope.send("DELETE", &path, None, Value::Null).await.status, 403);
    assert!(!operation(&b, &o.body["id"]).state.is_final());
    assert_eq!(c.send("DELETE", &path, None, Value::Null).await.status, 202);
    until("it is given up", || operation(&b, &o.body["id"]).state.is_final()).await;
    let end = operation(&b, &o.body["id"]);
    assert_eq!(end.state, OperationState::Cancelled);
    assert_eq!(end.reason.as_deref(), Some("cancelled by ada"));
    assert_eq!(c.send("DELETE", &path, None, Value::Null).await.status, 409, "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_events_ends_with_its_token() {
    use futures::StreamExt as _;
    let b = Bench::start().await;
    let c = Client::new(&b, "watches", Role::Read);
    let url = format!("{}/v1/events?after=0", b.base);
    let asked = reqwest::Client::new().get(url).bearer_auth(&c.token);
    let answer = asked.header("accept", "text/event-stream").send().await.unwrap();
    let mut told = answer.bytes_stream();
    let long = std::time::Duration::from_secs(30);
    c.post("/v1/nodes/node04/power", json!({ "command": "off" })).await;
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("api.refused") {
        let more = tokio::time::timeout(long, told.next()).await.expect("it is told");
        text.extend_from_slice(&more.expect("it goes on").unwrap());
    }
    b.ctx.tokens.write().unwrap().retain(|_, t| t.name != "watches");
    let other = Client::new(&b, "ada", Role::Admin);
    other.post("/v1/nodes/node04/power", json!({ "command": ["off"] })).await;
    let rest = async {
        let mut all = Vec::new();
        while let Some(Ok(some)) = told.next().await {
            all.extend_from_slice(&some);
        }
        String::from_utf8_lossy(&all).into_owned()
    };
    let rest = tokio::time::timeout(long, rest).await.expect("it ends");
    assert!(!rest.contains("Unprocessable"), "{rest}");
    assert!(format!("{:?}", b.events("api.refused").await).contains("Unprocessable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_call_for_many_is_named_and_nothing_is_begun() {
    let b = Bench::start().await;
    let c = Client::new(&b, "telescope", Role::Controller);
    let with = |nodes: Value| json!({ "nodes": nodes, "type": "base", "image": "debian-12" });
    for (body, status, field) in [
        (with(json!(["node04", "node99"])), 404, "/nodes/1"),
        (with(json!(["node04", "10.1.0.14"])), 422, "/nodes/1"),
        (with(json!(["node04", "node02"])), 409, "/nodes/1"),
        // In reserve and retired.
        (with(json!(["node08"])), 409, "/nodes/0"),
        (with(json!([])), 422, "/nodes"),
    ] {
        let a = c.post("/v1/installs", body).await;
        assert_eq!((a.status, &a.body["field"]), (status, &json!(field)), "{}", a.body);
    }
    let mut unknown = with(json!(["node04"]));
    unknown["type"] = "bass".into();
    assert_eq!(c.post("/v1/installs", unknown).await.status, 404);
    assert!(b.rack.running_build(&name("node04")).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_and_each_role_may_what_it_may() {
    let b = Bench::start().await;
    let admin = Client::new(&b, "root2", Role::Admin);
    let new = |name: &str, expires: &str| json!({ "name": name, "role": "controller", "expires": expires });
    let made = admin.post("/v1/tokens", new("telescope", "30d")).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(made.body["expires"].is_string());
    for bad in ["yesterday", "2020-01-01T00:00:00Z"] {
        assert_eq!(admin.post("/v1/tokens", new("x", bad)).await.status, 422, "{bad}");
    }
    let token = made.body["token"].as_str().unwrap().to_owned();
    let c = Client { token, ..Client::new(&b, "other", Role::Read) };
    assert_eq!(c.get("/v1/nodes").await.status, 200);
    assert_eq!(c.post("/v1/tokens", new("y", "1d")).await.status, 403);
    assert_eq!(c.post("/v1/images/debian-12/build", json!({})).await.status, 403);
    let eve = Client::new(&b, "eve", Role::Read);
    assert_eq!(eve.post("/v1/nodes/node04/install", base()).await.status, 403);

    // Its time is over.
    let past = provision::model::Time::now() - jiff::SignedDuration::from_secs(1);
    for t in b.ctx.tokens.write().unwrap().values_mut().filter(|t| t.name == "telescope") {
        t.expires = Some(past);
    }
    let over = c.get("/v1/nodes").await;
    assert_eq!(over.status, 401);
    assert!(over.body["detail"].as_str().unwrap().contains("is over since"), "{}", over.body);
    let refused = b.events("api.refused").await;
    let said: Vec<String> = refused.iter().map(|e| format!("{:?}", e.event)).collect();
    assert!(said.iter().any(|e| e.contains("is over since")), "{said:?}");
    assert!(said.iter().any(|e| e.contains("eve") && e.contains("installing")), "{said:?}");
}

type Received = Arc<Mutex<Vec<(HeaderMap, Vec<u8>)>>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_in_order_signed_and_again_when_it_did_not_listen() {
    let b = Bench::start().await;
    let got: Received = Arc::default();
    let seen = got.clone();
    // The first call of all is refused.
    let take = move |headers: HeaderMap, body: axum::body::Bytes| {
        let seen = seen.clone();
        async move {
            let mut all = seen.lock().unwrap();
            all.push((headers, body.to_vec()));
            if all.len() == 1 { 503.try_into().unwrap() } else { axum::http::StatusCode::OK }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/take", listener.local_addr().unwrap());
    let routes = axum::Router::new().route("/take", axum::routing::post(take));
    let receiver = tokio::spawn(async move { axum::serve(listener, routes).await });
    let stop = CancellationToken::new();
    let courier = tokio::spawn(courier::run(b.ctx.clone(), stop.clone()));

    let admin = Client::new(&b, "root2", Role::Admin);
    let hook = json!({ "name": "telescope", "url": url, "actions": ["power."] });
    let made = admin.post("/v1/webhooks", hook).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let secret = Secret::new(made.body["secret"].as_str().unwrap());
    let bad = json!({ "name": "x", "url": "https://ada:pw@host/", "actions": [] });
    assert_eq!(admin.post("/v1/webhooks", bad).await.body["field"], "/url");

    let c = Client::new(&b, "telescope", Role::Controller);
    let on = json!({ "command": "on" });
    assert_eq!(c.post("/v1/nodes/node04/power", on).await.status, 202);
    until("both events came", || got.lock().unwrap().len() >= 3).await;
    let all = got.lock().unwrap().clone();
    let seq = |n: usize| all[n].0["provision-event"].to_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(seq(0), seq(1), "tried again");
    assert!(seq(2) > seq(1), "in their order");
    for (headers, body) in &all {
        let said = headers["provision-signature"].to_str().unwrap();
        let seconds = said[2..].split(',').next().unwrap().parse().unwrap();
        assert_eq!(said, courier::signature(&secret, seconds, body));
        let event: Value = serde_json::from_slice(body).unwrap();
        assert!(event["action"].as_str().unwrap().starts_with("power."), "{event}");
    }
    let shown = || async { admin.get("/v1/webhooks").await.body["items"][0].clone() };
    assert_eq!(shown().await["url"], url.as_str());
    assert!(shown().await["secret"].is_null());
    assert_eq!(admin.send("DELETE", "/v1/webhooks/telescope", None, Value::Null).await.status, 204);
    stop.cancel();
    courier.await.unwrap();
    receiver.abort();
}
