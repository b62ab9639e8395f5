//! Who may do what on a deployment server: people by password, nodes by
//! certificate, through skopeo as through any client.

mod deployd;

use deployd::{Server, layout, run};
use provision::client::{Client, Target};
use serde_json::json;
use std::process::Command;

const QUIET: &str = "gc_hours = 0\n";

#[test]
fn people_log_in_and_their_rights_hold_by_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let digest = layout(&dir.path().join("in"), 1);
    let s = Server::started(dir.path(), QUIET);
    let anna = s.person("anna", &["team/:pull,push"]);
    let bert = s.person("bert", &["team/app:pull"]);
    let plain = s.certs("plain", &[]);
    let from = dir.path().join("in");
    s.push(&anna, &from, "team/app:1").ok();
    assert_eq!(s.pull(Some(&bert), &plain, "team/app:1").ok().trim(), digest.to_string());
    let denied = |e: deployd::Ended| {
        assert_ne!(e.code, 0);
        let said = ["denied", "may not", "403"].iter().any(|w| e.err.contains(w));
        assert!(said, "{}", e.err);
    };
    denied(s.push(&anna, &from, "other/app:1"));
    denied(s.push(&bert, &from, "team/app:2"));
    denied(s.pull(Some(&bert), &plain, "team/apple:1"));
    // Nobody, and a wrong password.
    for creds in [None, Some("anna:wrong-horse")] {
        let e = s.pull(creds, &plain, "team/app:1");
        assert!(e.code != 0 && e.err.contains("unauthorized"), "{}", e.err);
    }
    assert_eq!(s.events("login.refused").len(), 1);

    // Listed without what is secret; taken away at once.
    let list = s.cli(&["users"]).ok();
    assert!(list.contains("team/:pull,push") && !list.contains("horse"), "{list}");
    s.cli(&["users", "rm", "anna"]).ok();
    assert_ne!(s.pull(Some(&anna), &plain, "team/app:1").code, 0);
    s.cli(&["users", "rm", "anna"]).fails(2, "no user named \"anna\"");
    s.cli_with(&["users", "add", "carl"], "short\n").fails(2, "10 to 128");
    s.cli_with(&["users", "add", "carl"], "").fails(2, "standard input");
    s.cli_with(&["users", "add", "carl", "--grant", "team:fly"], "x").fails(2, "team/:pull,push");
}

#[test]
fn everybody_pulls_where_the_configuration_says_so_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let digest = layout(&dir.path().join("in"), 2);
    let s = Server::started(dir.path(), "gc_hours = 0\nanonymous = [\"public/:pull\"]\n");
    let anna = s.person("anna", &["*:pull,push"]);
    let plain = s.certs("plain", &[]);
    for image in ["public/app:1", "team/app:1"] {
        s.push(&anna, &dir.path().join("in"), image).ok();
    }
    assert_eq!(s.pull(None, &plain, "public/app:1").ok().trim(), digest.to_string());
    assert_ne!(s.pull(None, &plain, "team/app:1").code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_pulls_with_its_certificate_until_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let s = Server::started(dir.path(), QUIET);
    let digest = s.image("team/app", "1", b"layer").await;
    let (key, csr) = provision::tls::ca::request("node07").unwrap();
    let target = Target {
        server: format!("unix:{}", dir.path().join("api.sock").display()),
        ..Target::default()
    };
    let client = Client::new(&target).unwrap();
    let ask = json!({ "node": "node07", "csr": csr });
    let signed: serde_json::Value = client.post("/v1/certificates", &ask).await.unwrap();
    let pem = signed["certificate"].as_str().unwrap();
    let certs = s.certs("node07", &[("client.cert", pem), ("client.key", &key)]);

    // `skopeo inspect` would read the config, which is no image's here.
    let raw = || {
        let mut c = Command::new("skopeo");
        c.args(["inspect", "--raw", "--no-creds", "--cert-dir"]).arg(&certs);
        run(c.arg(s.url("team/app:1")), "")
    };
    let manifest = raw().ok();
    assert_eq!(provision::registry::Digest::of(manifest.as_bytes()), digest);
    let list = s.cli(&["certificates", "--node", "node07"]).ok();
    assert!(list.contains("node07") && list.contains("good"), "{list}");
    assert_eq!(s.cli(&["certificates", "--node", "node08"]).ok(), "none\n");

    s.cli(&["certificates", "revoke", "node07", "--reason", "disk was sent back"]).ok();
    let e = raw();
    assert_ne!(e.code, 0);
    assert!(s.cli(&["certificates"]).ok().contains("disk was sent back"));
    let revoked = s.events("certificate.revoke");
    assert_eq!(revoked[0]["detail"]["reason"], "disk was sent back");
    assert_eq!(revoked[0]["actor"], "root");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_says_what_is_there_who_pushed_it_and_whether_it_is_attested() {
    let dir = tempfile::tempdir().unwrap();
    let digest = layout(&dir.path().join("in"), 3);
    let s = Server::started(dir.path(), QUIET);
    let anna = s.person("anna", &["*:pull,push"]);
    s.push(&anna, &dir.path().join("in"), "team/app:1").ok();
    s.image("staging/app", "2", b"other").await;
    s.attest("team/app", &digest).await;
    // The record is written behind the answer.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while s.events("image.tag").len() < 2 {
        assert!(std::time::Instant::now() < until, "the pushes are not in the record");
    }
    let all = s.json(&["catalog"]);
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 2);
    let (staging, team) = (&all[0], &all[1]);
    assert_eq!((&team["repository"], &team["tag"]), (&json!("team/app"), &json!("1")));
    assert_eq!(team["digest"], digest.to_string());
    assert_eq!((&team["by"], &team["attested"]), (&json!("user:anna"), &json!(true)));
    assert_eq!((&staging["by"], &staging["attested"]), (&json!("root"), &json!(false)));
    // Config, layer and manifest.
    assert!(team["bytes"].as_u64().unwrap() > 100_000);
    assert_eq!(s.json(&["catalog", "staging/"]).as_array().unwrap().len(), 1);
    assert!(s.cli(&["catalog"]).ok().contains("user:anna"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_field_at_fault() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_owned();
    let rule =
        "gc_hours = 0\n[[registry.rules]]\nprefix = \"prod/\"\nrequire = [\"attestation\"]\n";
    let s = tokio::task::spawn_blocking(move || Server::started(&at, rule)).await.unwrap();
    s.image("staging/prod/app", "1", b"x").await;
    let git = "/v1/ingest?git=https://git.test/a.git";
    let none = json!({});
    for (path, body, field) in [
        (format!("{git}&tag=a/b"), none.clone(), "tag"),
        (format!("{git}&name=A"), none.clone(), "name"),
        (format!("{git}&reference=-x"), none.clone(), "reference"),
        (format!("{git}&dockerfile=../x"), none.clone(), "dockerfile"),
        (format!("{git}&network=true"), none.clone(), "network"),
        ("/v1/ingest?git=ftp://git.test/a".into(), none.clone(), "git"),
        (git.into(), json!({ "arguments": { "a=b": "c" } }), "/arguments"),
        ("/v1/bases".into(), json!({ "image": "plan9:4" }), "/image"),
        ("/v1/bases/import?from=../x".into(), none.clone(), "from"),
        ("/v1/registry/promote".into(), json!({ "from": "staging/prod/app:1" }), "/from"),
        ("/v1/registry/promote".into(), json!({ "from": "other/app:1" }), "/to"),
        (
            "/v1/tokens".into(),
            json!({ "name": "t", "role": "read", "expires": "soon" }),
            "/expires",
        ),
    ] {
        let r = s.http().post(format!("http://x{path}")).json(&body).send().await.unwrap();
        let status = r.status().as_u16();
        let p: serde_json::Value = r.json().await.unwrap();
        assert!((400..500).contains(&status), "{path}: {p}");
        assert_eq!(p["field"], field, "{path}: {p}");
    }
}
