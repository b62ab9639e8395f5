//! One deployment server follows another: real processes, real clients, and
//! the leader killed at the worst moments.

mod deployd;

use deployd::tap::Tap;
use deployd::{Ended, Server, layout, noise, run};
use provision::client::{Client, Target};
use provision::registry::Digest;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const QUIET: &str = "gc_hours = 0\n";

/// What a follower has behind its `[registry]`.
fn follow(leader: &str, token: &Path, more: &str) -> String {
    format!(
        "{QUIET}[follow]\nleader = \"https://{leader}\"\ntoken_file = {token:?}\n\
         interval_seconds = 1\n{more}"
    )
}

/// A leader, and a follower that is not started yet.
fn pair(dir: &Path, more: &str) -> (Server, Server) {
    let one = Server::started(&dir.join("one"), QUIET);
    let token = dir.join("token");
    one.token("follower", "read", &token);
    let two = Server::beside(&one, &dir.join("two"), &follow(&one.at, &token, more));
    (one, two)
}

fn followed(s: &Server) -> Value {
    let said = s.cli(&["--output", "json", "follow"]);
    serde_json::from_str(&said.out).unwrap_or_default()
}

fn all_is_here(s: &Server) {
    let before = followed(s)["images"]["passes"].as_u64().unwrap_or(0);
    // A pass that began before now may not have seen all.
    s.until("all is here", |s| followed(s)["images"]["passes"].as_u64() > Some(before + 1));
}

/// A certificate of the node, as its build gets it; where skopeo finds it.
async fn certificate(s: &Server, node: &str) -> (String, String) {
    let (key, csr) = provision::tls::ca::request(node).unwrap();
    let server = format!("unix:{}", s.dir.join("api.sock").display());
    let client = Client::new(&Target { server, ..Target::default() }).unwrap();
    let ask = json!({ "node": node, "csr": csr });
    let signed: Value = client.post("/v1/certificates", &ask).await.unwrap();
    (signed["certificate"].as_str().unwrap().to_owned(), key)
}

fn pull_as_node(s: &Server, certs: &Path, image: &str, to: &Path) -> Ended {
    let mut c = Command::new("skopeo");
    c.args(["copy", "--src-no-creds", "--src-cert-dir"]).arg(certs).arg(s.url(image));
    run(c.arg(format!("oci:{}:got", to.display())), "")
}

fn page(s: &Server, path: &str) -> String {
    let url = format!("https://{}{path}", s.at);
    let ca: PathBuf = s.state().join("tls/ca.pem");
    run(Command::new("curl").arg("-sS").arg("--cacert").arg(ca).arg(url), "").ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_go_on_from_the_follower_when_the_leader_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let digest = layout(&dir.path().join("in"), 1);
    let (mut one, mut two) = pair(dir.path(), "");
    let anna = one.person("anna", &["*:pull,push"]);
    one.push(&anna, &dir.path().join("in"), "team/app:1").ok();
    one.push(&anna, &dir.path().join("in"), "team/app:old").ok();
    one.image("only/here", "x", b"to be gone").await;
    one.attest("team/app", &digest).await;
    let (pem, key) = certificate(&one, "node07").await;
    let (bad, bad_key) = certificate(&one, "node08").await;
    two.start();
    all_is_here(&two);

    // The image, its tags and what attests it; the same certificate is good.
    let certs = two.certs("node07", &[("client.cert", &pem), ("client.key", &key)]);
    let others = two.certs("node08", &[("client.cert", &bad), ("client.key", &bad_key)]);
    pull_as_node(&two, &certs, "team/app:1", &dir.path().join("a")).ok();
    pull_as_node(&two, &others, "team/app:1", &dir.path().join("b")).ok();
    let catalog = two.json(&["catalog"]);
    let app = catalog.as_array().unwrap().iter().find(|i| i["tag"] == "1").unwrap();
    assert_eq!((&app["digest"], &app["attested"]), (&json!(digest), &json!(true)));
    assert_eq!(app["by"], "follow");

    // It is the leader's: nobody else changes it here, root neither.
    let bert = two.person("bert", &["*:pull,push,promote"]);
    let e = two.push(&bert, &dir.path().join("in"), "team/app:2");
    assert!(e.code != 0 && e.err.contains(&format!("follows https://{}", one.at)), "{}", e.err);
    two.cli(&["promote", "team/app:1", "--to", "prod/app:1"]).fails(3, "change it there");
    let url = format!("http://x/v2/team/app/manifests/{digest}");
    assert_eq!(two.http().delete(url).send().await.unwrap().status(), 403);

    // What is taken away, moved, added or refused there is so here.
    let tags = |t: &str| one.http().delete(format!("http://x/v2/{t}"));
    assert_eq!(tags("team/app/manifests/old").send().await.unwrap().status(), 202);
    let gone = one.json(&["catalog", "only/"])[0]["digest"].as_str().unwrap().to_owned();
    let r = tags(&format!("only/here/manifests/{gone}")).send().await.unwrap();
    assert_eq!(r.status(), 202);
    let moved = one.image("team/app", "moving", b"first").await;
    all_is_here(&two);
    assert_eq!(two.json(&["catalog", "only/"]), json!([]));
    let r = two.http().get(format!("http://x/v2/only/here/manifests/{gone}")).send().await.unwrap();
    assert_eq!(r.status(), 404, "what the leader deleted by digest goes, too");
    let second = one.image("team/app", "moving", b"second").await;
    assert_ne!(moved, second);
    one.cli(&["certificates", "revoke", "node08", "--reason", "stolen"]).ok();
    all_is_here(&two);
    let all = two.json(&["catalog", "team/"]);
    let tags: Vec<&str> =
        all.as_array().unwrap().iter().map(|i| i["tag"].as_str().unwrap()).collect();
    assert_eq!(tags, ["1", "moving"]);
    assert_eq!(all[1]["digest"], json!(second));
    let e = pull_as_node(&two, &others, "team/app:1", &dir.path().join("c"));
    assert_ne!(e.code, 0, "what is refused there is refused here");
    assert!(page(&two, "/readyz").starts_with("ready\nfollows https://"));

    one.kill();
    two.until("the follower sees that the leader is gone", |s| !followed(s)["problem"].is_null());
    pull_as_node(&two, &certs, "team/app:1", &dir.path().join("d")).ok();
    let url = format!("https://{}/v2/team/app/manifests/moving", two.at);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "--cacert"]).arg(certs.join("ca.crt")).arg("--cert");
    curl.arg(certs.join("client.cert")).arg("--key").arg(certs.join("client.key"));
    assert_eq!(Digest::of(run(curl.arg(url), "").ok().as_bytes()), second);
    assert_ne!(pull_as_node(&two, &others, "team/app:1", &dir.path().join("f")).code, 0);
    two.cli(&["follow"]).fails(1, "cannot be reached");
    let ready = page(&two, "/readyz");
    assert!(ready.starts_with("ready\n") && ready.contains("cannot be reached"), "{ready}");
    let metrics = page(&two, "/metrics");
    assert!(metrics.contains("provision_follow_up 0"), "{metrics}");
    assert!(metrics.contains("provision_follow_lag_seconds "), "{metrics}");
    assert_eq!(two.events("follow.ok").len(), 1);
    assert_eq!(two.events("follow.failing").len(), 1);
    assert!(two.cli(&["verify-store"]).ok().contains("all is well"));

    // Promoted: without [follow] it is a leader.
    two.kill();
    two.configure(QUIET);
    two.start();
    two.push(&bert, &dir.path().join("in"), "team/app:2").ok();
    pull_as_node(&two, &certs, "team/app:2", &dir.path().join("g")).ok();
    two.cli(&["follow"]).fails(2, "follows nobody");
}

/// The leader dies in the middle of a big layer, then the follower does: each
/// time it goes on from the bytes that are here, and the digest is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_broke_off_goes_on_from_its_bytes() {
    const SIZE: u64 = 64 << 20;
    const FIRST: u64 = 20 << 20;
    let dir = tempfile::tempdir().unwrap();
    let (mut one, mut two) = pair(dir.path(), "");
    let tap = Tap::start(one.at.parse().unwrap(), FIRST);
    let token = dir.path().join("token");
    two.configure(&follow(&tap.address.to_string(), &token, "repositories = [\"big\"]\n"));
    let layer = noise(5, SIZE as usize);
    let digest = one.image("big/app", "1", &layer).await;
    one.image("other/app", "1", b"not followed").await;
    two.start();
    let have = |s: &Server| followed(s)["images"]["fetching"][0]["have"].as_u64().unwrap_or(0);
    two.until("the layer is on its way", |s| have(s) > FIRST / 2);
    let at = two.http().get("http://x/v2/big/app/manifests/1").send().await.unwrap();
    assert_eq!(at.status(), 404, "no half image is seen");

    one.kill();
    tap.cut();
    two.until("the follower sees it", |s| !followed(s)["problem"].is_null());
    let why = followed(&two)["problem"].as_str().unwrap().to_owned();
    assert!(!why.is_empty());
    one.start();
    tap.let_pass(FIRST);
    two.until("it goes on", |s| have(s) > FIRST + FIRST / 2);
    let status = followed(&two);
    let resumed = status["images"]["resumed_bytes"].as_u64().unwrap();
    assert!(resumed > FIRST / 2, "{status}");

    // Now the follower itself, as at a power cut.
    two.kill();
    tap.cut();
    let before = tap.passed();
    tap.let_pass(u64::MAX / 2);
    two.start();
    all_is_here(&two);
    let status = followed(&two);
    assert!(status["images"]["resumed_bytes"].as_u64() > Some(FIRST), "{status}");
    assert!(tap.passed() - before < SIZE - FIRST, "{} came again", tap.passed() - before);
    let url = format!("http://x/v2/big/app/blobs/{}", Digest::of(&layer));
    let got = two.http().get(url).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(Digest::of(&got), Digest::of(&layer));
    let all = two.json(&["catalog"]);
    assert_eq!(all.as_array().unwrap().len(), 1, "other/app is not followed: {all}");
    assert_eq!(all[0]["digest"], json!(digest));
    let left = fs::read_dir(two.state().join("registry/data")).unwrap().count();
    assert_eq!(left, 0, "no upload is left over");
    assert!(two.cli(&["verify-store"]).ok().contains("all is well"));
    // Beside what is followed it is a registry of its own.
    two.image("other/app", "2", b"of its own").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_said_and_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let (mut one, mut two) = pair(dir.path(), "");
    one.image("team/app", "1", b"layer").await;
    two.start();
    all_is_here(&two);
    // A leader that lost everything takes nothing with it.
    one.kill();
    fs::rename(one.state().join("registry"), one.state().join("lost")).unwrap();
    one.start();
    two.until("it says so", |s| s.cli(&["follow"]).err.contains("shows no image at all"));
    assert_eq!(two.json(&["catalog"]).as_array().unwrap().len(), 1);
    one.kill();
    fs::remove_dir_all(one.state().join("registry")).unwrap();
    fs::rename(one.state().join("lost"), one.state().join("registry")).unwrap();
    one.start();
    all_is_here(&two);
    // A blob that is gone here comes again at the next start.
    two.kill();
    let hex = Digest::of(b"layer").hex().to_owned();
    let blob = two.state().join("registry/blobs/sha256").join(&hex[..2]).join(&hex);
    fs::remove_file(&blob).unwrap();
    two.start();
    all_is_here(&two);
    assert_eq!(fs::read(&blob).unwrap(), b"layer");
    // A token that is over.
    let server = format!("unix:{}", one.dir.join("api.sock").display());
    one.cli(&["--server", &server, "tokens", "revoke", "follower"]).ok();
    two.until("it says so", |s| s.cli(&["follow"]).err.contains("token"));
    // Another authority.
    two.kill();
    one.token("again", "read", &dir.path().join("token"));
    let ca = dir.path().join("one.pem");
    fs::copy(one.state().join("tls/ca.pem"), &ca).unwrap();
    fs::remove_dir_all(two.state().join("tls")).unwrap();
    let token = dir.path().join("token");
    two.configure(&follow(&one.at, &token, &format!("ca_file = {ca:?}\n")));
    two.start();
    two.until("it says so", |s| s.cli(&["follow"]).err.contains("another authority"));
    // Files.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    two.daemon(&["check"]).fails(1, "chmod 0600");
}
