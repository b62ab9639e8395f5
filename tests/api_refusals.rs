//! Who may not and what cannot be, against the build server's API over HTTP:
//! refused with the right status, written down, and nothing done. M44.

mod common;
mod windowd;

use common::desk::name;
use provision::auth::Role;
use provision::store::{State as _, kind};
use reqwest::header::CONTENT_TYPE;
use windowd::Bench;

struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    fn new(b: &Bench, name: &str, role: Role) -> Self {
        let http = reqwest::Client::new();
        Self { http, base: b.base.clone(), token: b.token(name, role) }
    }

    /// Sends bytes as they are, to a path as it is.
    async fn send(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> (u16, String) {
        let url = format!("{}{path}", self.base);
        let r = self.http.request(method.parse().unwrap(), url).bearer_auth(&self.token);
        let r = r.header(CONTENT_TYPE, kind).body(body).send().await.unwrap();
        (r.status().as_u16(), r.text().await.unwrap())
    }

    async fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> (u16, String) {
        self.send("POST", path, "application/json", body.into()).await
    }
}

/// All that a request could have changed.
async fn everything(b: &Bench) -> String {
    let mut all = Vec::new();
    for kind in [kind::NODE, kind::BUILD, kind::OPERATION, kind::TOKEN, kind::SECRET] {
        all.push(b.store.inner.list(kind).await.unwrap());
    }
    format!("{all:?} {:?}", b.ctx.tokens.read().unwrap().len())
}

/// What was written down of refusals, as texts.
async fn refusals(b: &Bench) -> Vec<String> {
    b.events("api.refused").await.iter().map(|e| format!("{:?}", e.event)).collect()
}

const INSTALL: &str = r#"{"type":"base","image":"debian-12"}"#;
const PASSWORD: &str = "in-the-wrong-place";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_wrong_over_or_too_little_does_nothing_and_is_written_down() {
    let b = Bench::start().await;
    let ended = Client::new(&b, "ended", Role::Admin);
    let past = provision::model::Time::now() - jiff::SignedDuration::from_secs(1);
    for t in b.ctx.tokens.write().unwrap().values_mut() {
        t.expires = Some(past);
    }
    let revoked = Client::new(&b, "revoked", Role::Admin);
    b.ctx.tokens.write().unwrap().retain(|_, t| t.name != "revoked");
    let wrong = Client { token: "pv_guessed".into(), ..Client::new(&b, "x", Role::Admin) };
    let reads = Client::new(&b, "reads", Role::Read);
    let operates = Client::new(&b, "operates", Role::Operate);
    let before = everything(&b).await;
    for (c, status, path, body) in [
        (&wrong, 401, "/v1/nodes/node04/install", INSTALL),
        (&ended, 401, "/v1/nodes/node04/install", INSTALL),
        (&revoked, 401, "/v1/nodes/node04/install", INSTALL),
        (&reads, 403, "/v1/nodes/node04/install", INSTALL),
        (&reads, 403, "/v1/nodes/node04/power", r#"{"command":"off"}"#),
        (&operates, 403, "/v1/tokens", r#"{"name":"mine","role":"admin"}"#),
        (&operates, 403, "/v1/nodes", r#"{"name":"x","macs":["52:54:00:00:00:01"]}"#),
        // The host's files are no operator's: an image's are served to machines.
        (&operates, 403, "/v1/images/mine/add", r#"{"release":"debian-13","dir":"/etc"}"#),
    ] {
        let (is, said) = c.post(path, body).await;
        assert_eq!(is, status, "{path}: {said}");
        assert!(said.contains("\"detail\""), "it says why: {said}");
    }
    assert_eq!(everything(&b).await, before, "nothing was done");
    assert!(b.rack.running_build(&name("node04")).is_none());
    let said = refusals(&b).await;
    for word in ["not known here", "is over since", "reads", "operates"] {
        assert!(said.iter().any(|e| e.contains(word)), "{word} is not in {said:#?}");
    }
    assert!(!said.iter().any(|e| e.contains("pv_guessed")), "a token is not written down");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_broken_or_leads_elsewhere_does_nothing_and_is_written_down() {
    let b = Bench::start().await;
    let c = Client::new(&b, "telescope", Role::Admin);
    let before = everything(&b).await;
    let long = format!(r#"{{"command":"{}"}}"#, "x".repeat(3 << 20));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let node = |name: &str| format!(r#"{{"name":"{name}","macs":["52:54:00:00:00:01"]}}"#);
    let power = "/v1/nodes/node04/power";
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        (power, long.into_bytes(), &[413]),
        (power, deep.into_bytes(), &[400, 422]),
        (power, b"{\"command\":".to_vec(), &[400]),
        (power, b"{\"command\":\"o\xff\"}".to_vec(), &[400]),
        (power, b"".to_vec(), &[400]),
        (power, br#"{"command":["off"]}"#.to_vec(), &[422]),
        (power, br#"{"command":"off","command":"off"}"#.to_vec(), &[400, 422]),
        (power, format!(r#"{{"command":{{"bmc":"{PASSWORD}"}}}}"#).into_bytes(), &[422]),
        ("/v1/nodes/..%2f..%2fetc/power", br#"{"command":"off"}"#.to_vec(), &[400, 404]),
        ("/v1/nodes/node04%00/power", br#"{"command":"off"}"#.to_vec(), &[400, 404]),
        ("/v1/nodes/%2e%2e/install", INSTALL.into(), &[400, 404]),
        (
            "/v1/nodes/node04/install",
            br#"{"type":"../../etc","image":"debian-12"}"#.to_vec(),
            &[400, 422],
        ),
        ("/v1/nodes/node04/install", br#"{"type":"base","image":"../x"}"#.to_vec(), &[400, 422]),
        ("/v1/images/..%2fx/build", b"{}".to_vec(), &[400, 404]),
        ("/v1/mirrors/..%2fx/verify", b"{}".to_vec(), &[400, 404]),
        ("/v1/images/mine/add", br#"{"release":"debian-13","dir":"../../etc"}"#.to_vec(), &[422]),
        ("/v1/images/mine/add", br#"{"release":"debian-13","iso":"/etc"}"#.to_vec(), &[422]),
        (
            "/v1/images/mine/add",
            br#"{"release":"debian-13","dir":"/etc","iso":"/etc/hostname"}"#.to_vec(),
            &[422],
        ),
        ("/v1/images/mine/add", br#"{"release":"debian-13","firmware":"x"}"#.to_vec(), &[422]),
        ("/v1/nodes", node("../../root").into_bytes(), &[400, 422]),
        ("/v1/nodes", node("a\\nb").into_bytes(), &[400, 422]),
        ("/v1/nodes", node(&"n".repeat(300)).into_bytes(), &[400, 422]),
        ("/v1/tokens", br#"{"name":"../x","role":"read"}"#.to_vec(), &[400, 422]),
        ("/v1/tokens", br#"{"name":"Server","role":"read"}"#.to_vec(), &[400, 422]),
    ];
    for (path, body, statuses) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let (is, said) = c.post(path, body).await;
        assert!(statuses.contains(&is), "{path} {shown}: {is} {said}");
        assert!(said.len() < 4096, "a short answer to a long request");
    }
    let text = c.send("POST", power, "text/plain", br#"{"command":"off"}"#.to_vec()).await;
    assert_eq!(text.0, 415, "{}", text.1);
    for path in ["/v1/mirrors/..%2f..%2fetc", "/v1/tokens/..%2fx"] {
        let (is, said) = c.send("DELETE", path, "application/json", Vec::new()).await;
        assert!([400, 404].contains(&is), "{path}: {is} {said}");
    }
    assert_eq!(everything(&b).await, before, "nothing was done");
    let said = refusals(&b).await;
    for status in ["400", "404", "413", "415", "422"] {
        assert!(
            said.iter().any(|e| e.contains("telescope") && e.contains(status)),
            "{status} is not in {said:#?}"
        );
    }
    assert!(said.len() < 12, "of many of a kind the first of a minute: {said:#?}");
    let all = b.events("").await;
    assert!(!format!("{all:?}").contains(PASSWORD), "what a request says is not written down");
}
