//! Deployment servers on a bucket: what the configuration says, two of them on
//! one bucket with one killed, and the bucket gone.

mod deployd;
#[path = "registryd/moto.rs"]
mod moto;

use deployd::tap::Tap;
use deployd::{OCI, Server, layout, noise};
use provision::registry::{Digest, UploadId};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// `[registry]` on a bucket, with the keys in a file.
fn on_bucket(dir: &Path, endpoint: &str, prefix: &str) -> String {
    let keys = dir.join("keys");
    fs::write(&keys, "aws_access_key_id = AKIDTEST\naws_secret_access_key = very-secret\n")
        .unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    format!(
        "gc_hours = 0\n[registry.s3]\nbucket = \"{}\"\nendpoint = \"{endpoint}\"\n\
         prefix = \"{prefix}\"\ncredentials_file = {keys:?}\n",
        moto::BUCKET
    )
}

fn fresh() -> String {
    UploadId::new().to_string()
}

/// Pushes an image over TLS to the first of `servers` that takes it, as a
/// client with two addresses does; goes on with the other in the middle.
async fn push(servers: &[(String, reqwest::Client)], auth: &str, n: u64) -> (String, Digest) {
    let (repo, layer) = (format!("load/r{}", n % 3), noise(n + 1, 300_000));
    let (config, blob) = (Digest::of(b"{}"), Digest::of(&layer));
    let m = json!({
        "schemaVersion": 2, "mediaType": OCI,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob, "size": layer.len() }],
    })
    .to_string();
    let steps: [(reqwest::Method, String, Vec<u8>); 3] = [
        (reqwest::Method::POST, format!("blobs/uploads/?digest={config}"), b"{}".to_vec()),
        (reqwest::Method::POST, format!("blobs/uploads/?digest={blob}"), layer),
        (reqwest::Method::PUT, format!("manifests/t{n}"), m.clone().into_bytes()),
    ];
    let until = Instant::now() + Duration::from_secs(60);
    for (method, path, body) in steps {
        let mut tried = n as usize;
        loop {
            let (at, http) = &servers[tried % servers.len()];
            let r = http
                .request(method.clone(), format!("https://{at}/v2/{repo}/{path}"))
                .header("authorization", auth)
                .header("content-type", OCI)
                .body(body.clone())
                .send()
                .await;
            let why = match r {
                Ok(r) if r.status() == 201 => break,
                Ok(r) => format!("{}: {}", r.status(), r.text().await.unwrap_or_default()),
                // Killed: the next one.
                Err(e) => e.to_string(),
            };
            assert!(Instant::now() < until, "{path}: {why}");
            tried += 1;
        }
    }
    (repo, Digest::of(m.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_share_a_bucket_and_clients_outlive_one() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = fresh();
    let registry = on_bucket(dir.path(), moto::endpoint(), &prefix);
    let mut one = Server::started(&dir.path().join("one"), &registry);
    let token = dir.path().join("token");
    one.token("other", "read", &token);
    // The same images by the bucket; the certificates by following.
    let more = format!(
        "{registry}[follow]\nleader = \"https://{}\"\ntoken_file = {token:?}\nimages = false\n\
         interval_seconds = 1\n",
        one.at
    );
    let mut two = Server::beside(&one, &dir.path().join("two"), &more);
    two.start();
    let anna = one.person("anna", &["*:pull,push"]);
    assert_eq!(two.person("anna", &["*:pull,push"]), anna);
    let digest = layout(&dir.path().join("in"), 7);
    one.push(&anna, &dir.path().join("in"), "team/app:1").ok();
    let plain = two.certs("plain", &[]);
    assert_eq!(two.pull(Some(&anna), &plain, "team/app:1").ok().trim(), digest.to_string());

    use base64::Engine as _;
    let auth = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(&anna));
    let servers = Arc::new(vec![(one.at.clone(), one.https()), (two.at.clone(), two.https())]);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for c in 0..4u64 {
        let (servers, auth, stop, done) =
            (servers.clone(), auth.clone(), stop.clone(), done.clone());
        clients.spawn(async move {
            let mut pushed = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let n = c * 1000 + pushed.len() as u64;
                pushed.push((push(&servers, &auth, n).await, n));
                done.fetch_add(1, Ordering::SeqCst);
            }
            pushed
        });
    }
    let at_least = async |n: u64| {
        let until = Instant::now() + Duration::from_secs(120);
        while done.load(Ordering::SeqCst) < n {
            assert!(Instant::now() < until, "{} of {n} pushes", done.load(Ordering::SeqCst));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    at_least(12).await;
    // An upload begun at the one that is about to die.
    let begun = one.http().post("http://x/v2/load/r0/blobs/uploads/").send().await.unwrap();
    let at = begun.headers()["location"].to_str().unwrap().to_owned();
    let r = one.http().patch(format!("http://x{at}")).body("begun, ").send().await.unwrap();
    assert_eq!(r.status(), 202);
    one.kill();
    let so_far = done.load(Ordering::SeqCst);
    at_least(so_far + 12).await;
    stop.store(true, Ordering::SeqCst);
    let pushed: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    println!("{} images pushed, {so_far} of them before the kill", pushed.len());
    for ((repo, digest), n) in &pushed {
        let url = format!("http://x/v2/{repo}/manifests/t{n}");
        let text = two.http().get(url).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(Digest::of(&text), *digest, "{repo}:t{n}");
    }
    let whole = Digest::of(b"begun, ended");
    let r = two.http().put(format!("http://x{at}?digest={whole}")).body("ended").send().await;
    assert_eq!(r.unwrap().status(), 201);
    assert!(two.cli(&["gc"]).ok().contains("freed"));
    assert!(two.cli(&["verify-store"]).ok().contains("all is well"));
    two.cli(&["follow"]).fails(1, "cannot be reached");
}

#[test]
fn the_configuration_says_which_bucket_and_the_keys_are_seen_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let registry = on_bucket(dir.path(), moto::endpoint(), &fresh());
    let mut s = Server::new(dir.path(), &registry);
    s.daemon(&["init"]).ok();
    let said = s.daemon(&["check"]).ok();
    assert!(said.contains(&format!("s3://{}/", moto::BUCKET)), "{said}");
    assert!(said.contains("bucket keys  from") && !said.contains("AKIDTEST"), "{said}");
    let keys = dir.path().join("keys");
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o640)).unwrap();
    s.daemon(&["check"]).fails(1, "chmod 0600");
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    s.configure(&registry.replace("endpoint", "endpont"));
    s.daemon(&["check"]).fails(2, "did you mean `endpoint`");
    s.configure(&format!("storage = \"here\"\n{registry}"));
    s.daemon(&["check"]).fails(2, "one of the two");
    // A bucket that is not there, and one that nobody serves.
    s.configure(&registry.replace("bucket = \"registry\"", "bucket = \"nowhere\""));
    s.daemon(&[]).fails(1, "NoSuchBucket");
    s.configure(&on_bucket(dir.path(), "http://127.0.0.1:9", "x"));
    s.daemon(&[]).fails(1, "refused");
    s.configure(&registry);
    s.start();
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(!log.contains("very-secret") && !log.contains("AKIDTEST"), "{log}");
    assert!(!dir.path().join("state/registry").exists(), "nothing is kept on the disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_does_not_answer_is_said_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = moto::endpoint().trim_start_matches("http://");
    let tap = Tap::start(endpoint.parse().unwrap(), u64::MAX / 2);
    let registry = on_bucket(dir.path(), &format!("http://{}", tap.address), &fresh());
    let s = Server::started(dir.path(), &registry);
    s.image("team/app", "1", b"layer").await;
    let ready = async |s: &Server| {
        let r = s.http().get("http://x/readyz").send().await.unwrap();
        (r.status().as_u16(), r.text().await.unwrap())
    };
    assert_eq!(ready(&s).await, (200, "ready\n".to_owned()));
    tap.close();
    let (status, why) = ready(&s).await;
    assert_eq!(status, 503);
    assert!(why.contains("where images are kept cannot be used"), "{why}");
    let r = s.http().get("http://x/v2/team/app/manifests/1").send().await.unwrap();
    assert_eq!(r.status(), 503);
    assert!(r.headers().contains_key("retry-after"));
    assert!(r.text().await.unwrap().contains("/readyz says why"));
    let metrics = s.http().get("http://x/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("provision_registry_storage_up 0"), "{metrics}");
    tap.reopen();
    s.until("the bucket is back", |s| s.cli(&["verify-store"]).code == 0);
    assert_eq!(ready(&s).await.0, 200);
    s.image("team/app", "2", b"another").await;
}

/// A file system that is not mounted any more looks like an empty directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_is_said_too() {
    let dir = tempfile::tempdir().unwrap();
    let s = Server::started(dir.path(), "gc_hours = 0\n");
    let (there, away) = (s.state().join("registry"), s.state().join("away"));
    fs::rename(&there, &away).unwrap();
    let r = s.http().get("http://x/readyz").send().await.unwrap();
    assert_eq!(r.status(), 503);
    assert!(r.text().await.unwrap().contains("its directory is not there"));
    fs::rename(&away, &there).unwrap();
    assert_eq!(s.http().get("http://x/readyz").send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_from_one_bucket_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let s = Server::started(
        &dir.path().join("one"),
        &on_bucket(dir.path(), moto::endpoint(), &fresh()),
    );
    let layer = noise(3, 9 << 20);
    let digest = s.image("team/app", "1", &layer).await;
    let to = dir.path().join("backup");
    s.daemon(&["backup", to.to_str().unwrap()]).ok();
    // The lease is given back: nothing waits an hour for it.
    s.cli(&["gc"]).ok();
    let again = s.daemon(&["backup", to.to_str().unwrap()]).ok();
    assert!(again.contains("new          0 blobs"), "{again}");
    let registry = on_bucket(dir.path(), moto::endpoint(), &fresh());
    let mut two = Server::new(&dir.path().join("two"), &registry);
    two.daemon(&["restore", to.to_str().unwrap()]).ok();
    two.start();
    assert_eq!(two.json(&["catalog"])[0]["digest"], json!(digest));
    let url = format!("http://x/v2/team/app/blobs/{}", Digest::of(&layer));
    assert_eq!(two.http().get(url).send().await.unwrap().bytes().await.unwrap(), layer);
    let three = Server::new(&dir.path().join("three"), &registry);
    three.daemon(&["restore", to.to_str().unwrap()]).fails(1, "is not empty");
}
