//! What nodes tell a deployment server of what runs on them, and what it makes
//! of it: the record, who is lost, the numbers of delivery.

mod deployd;

use deployd::Server;
use provision::client::{Client, Target};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const QUIET: &str = "gc_hours = 0\n";
/// Where a silence is waited for, and nowhere else: a slow test is silent, too.
const STRICT: &str = "gc_hours = 0\n[nodes]\nlost_seconds = 2\n";

/// A node that speaks with its certificate, as the agent does.
struct Node {
    http: reqwest::Client,
    url: String,
    session: String,
    number: u64,
}

impl Node {
    async fn enrolled(s: &Server, name: &str) -> Self {
        let (key, csr) = provision::tls::ca::request(name).unwrap();
        let target = Target {
            server: format!("unix:{}", s.dir.join("api.sock").display()),
            ..Target::default()
        };
        let ask = json!({ "node": name, "csr": csr });
        let signed: Value =
            Client::new(&target).unwrap().post("/v1/certificates", &ask).await.unwrap();
        let pem = format!("{}{key}", signed["certificate"].as_str().unwrap());
        let ca = std::fs::read(s.state().join("tls/ca.pem")).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap())
            .build()
            .unwrap();
        let url = format!("https://{}/v1/workload", s.at);
        Self { http, url, session: "one".into(), number: 0 }
    }

    async fn says(&self, seen: &Value, running: &Value) -> u16 {
        let body = json!({
            "session": self.session, "number": self.number, "seen": seen, "running": running,
        });
        let sent = self.http.post(&self.url).json(&body).send().await.unwrap();
        sent.status().as_u16()
    }

    async fn tells(&mut self, seen: Value, running: Value) {
        self.number += 1;
        assert_eq!(self.says(&seen, &running).await, 204);
    }
}

fn web(digest: &str) -> Value {
    json!({ "name": "web", "image": "r:5000/staging/web:1", "digest": digest })
}

fn seen(what: &str, digest: &str, more: &Value) -> Value {
    let mut v = web(digest);
    v["at"] = json!(jiff::Timestamp::now());
    v["what"] = json!(what);
    for (k, x) in more.as_object().into_iter().flatten() {
        v[k.as_str()] = x.clone();
    }
    v
}

fn restart(s: &mut Server, registry: &str) {
    s.kill();
    s.configure(registry);
    s.start();
}

/// M44 M45 M46.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_on_nodes_is_recorded_once_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = Server::started(dir.path(), QUIET);
    let mut n = Node::enrolled(&s, "node07").await;
    let (d1, d2) = ("sha256:1", "sha256:2");
    n.tells(json!([seen("start", d1, &json!({}))]), json!([web(d1)])).await;
    // The answer was lost: the same again. A kill of the server forgets nothing.
    n.says(&json!([seen("start", d1, &json!({}))]), &json!([web(d1)])).await;
    s.kill();
    s.start();
    n.says(&json!([seen("start", d1, &json!({}))]), &json!([web(d1)])).await;
    assert_eq!(s.events("container.start").len(), 1);

    // A new image, which fails by itself; the old one is taken back.
    let exit = json!({ "code": 0, "asked": true });
    n.tells(json!([seen("exit", d1, &exit), seen("start", d2, &json!({}))]), json!([web(d2)]))
        .await;
    let bad = json!({ "code": 3, "asked": false });
    n.tells(json!([seen("exit", d2, &bad), seen("start", d1, &json!({}))]), json!([web(d1)])).await;
    let ends = s.events("container.exit");
    assert_eq!((&ends[0]["outcome"], &ends[1]["outcome"]), (&json!("ok"), &json!("failed")));
    assert_eq!(ends[1]["detail"]["code"], "3");
    let nodes: Value = {
        let get = s.http().get("http://x/v1/nodes/node07").send().await.unwrap();
        get.json().await.unwrap()
    };
    assert_eq!(nodes["running"][0]["digest"], d1, "{nodes}");
    let all = s.json(&["metrics", "--since", "1h"]);
    let m = &all["software"][0];
    assert_eq!((&m["name"], &m["deployments"]), (&json!("web"), &json!(3)), "{all}");
    assert_eq!((&m["failed_deployments"], &m["down"]), (&json!(1), &json!(0)), "{all}");
    assert!(all["missing"][0].as_str().unwrap().starts_with("machines:"), "{all}");
    s.cli(&["metrics", "--since", "soon"]).fails(2, "span like 2h");

    // It falls silent, and comes back.
    restart(&mut s, STRICT);
    let until = Instant::now() + Duration::from_secs(30);
    while s.events("node.lost").is_empty() {
        assert!(Instant::now() < until, "nobody misses it");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(s.json(&["metrics"])["software"][0]["down"], 1);
    restart(&mut s, QUIET);
    n.tells(json!([]), json!([web(d1)])).await;
    assert_eq!(s.events("node.back").len(), 1);
    assert_eq!(s.json(&["metrics"])["software"][0]["down"], 0);

    // Only nodes tell, and only so much.
    let nobody = s.http().post("http://x/v1/workload").json(&json!({
        "session": "x", "number": 1, "seen": [], "running": [],
    }));
    assert_eq!(nobody.send().await.unwrap().status(), 403);
    n.number += 1;
    let many: Vec<Value> = (0..2000).map(|_| web(d1)).collect();
    assert_eq!(n.says(&json!([]), &json!(many)).await, 400);
    assert_eq!(n.says(&json!([]), &json!([web("a\nb")])).await, 400);

    // A retired node is heard no more, and nothing runs on it any more.
    s.cli(&["certificates", "revoke", "node07", "--reason", "retired"]).ok();
    assert_eq!(n.says(&json!([]), &json!([web(d1)])).await, 401);
    // It is looked at every 15 s.
    let until = Instant::now() + Duration::from_secs(60);
    while s.events("container.exit").len() < 3 {
        assert!(Instant::now() < until, "what ran there is not ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(s.events("container.exit")[2]["detail"]["how"], "node refused");
}
