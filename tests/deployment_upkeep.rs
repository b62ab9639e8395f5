//! How a deployment server's registry is kept: garbage, rot, promotion,
//! images in files, backups.

mod deployd;

use deployd::{Server, layout, noise};
use provision::registry::Digest;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const QUIET: &str = "gc_hours = 0\n";

/// Makes the one file below `dir` with this name two days old.
fn age(dir: &Path, name: &str) {
    let mut todo = vec![dir.to_owned()];
    while let Some(d) = todo.pop() {
        for e in fs::read_dir(d).unwrap() {
            let p = e.unwrap().path();
            if p.is_dir() {
                todo.push(p);
            } else if p.file_name().unwrap().to_str().unwrap().ends_with(name) {
                let f = fs::File::options().write(true).open(&p).unwrap();
                f.set_modified(SystemTime::now() - Duration::from_secs(48 * 3600)).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_freed_in_steps_and_what_is_named_stays() {
    let dir = tempfile::tempdir().unwrap();
    let s = Server::started(dir.path(), QUIET);
    s.image("team/app", "1", b"kept").await;
    let lost = noise(9, 50_000);
    s.blob("team/app", "a/b", &lost).await;
    let (store, hex) = (s.state().join("registry"), Digest::of(&lost).hex().to_owned());

    let first = s.cli(&["gc", "--dry-run"]).ok();
    assert!(first.contains("named by") && first.contains("written or used"), "{first}");
    for n in 0..3 {
        age(&store, &hex);
        let said = s.json(&["gc", "--dry-run"]);
        let done = s.json(&["gc"]);
        assert_eq!(said["counts"], done["counts"], "run {n}: the dry run said otherwise");
        assert_eq!(done["freed"], if n == 2 { json!(50_000) } else { json!(0) });
    }
    let events = s.events("registry.gc");
    assert_eq!(events.len(), 3, "a dry run changes nothing, and is not in the record");
    assert_eq!(events[2]["detail"]["freed_bytes"], "50000");
    assert_eq!(events[2]["actor"], "root");
    assert!(s.cli(&["verify-store"]).ok().contains("all is well"));
    assert_eq!(s.json(&["catalog"]).as_array().unwrap().len(), 1);
}

#[test]
fn the_server_collects_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = Server::started(dir.path(), "gc_hours = 6\n");
    let until = Instant::now() + Duration::from_secs(20);
    while s.events("registry.gc").is_empty() {
        assert!(Instant::now() < until, "nothing was collected");
    }
    assert_eq!(s.events("registry.gc")[0]["actor"], "server");
    // The next is in six hours, also after a restart.
    s.kill();
    s.start();
    s.cli(&["gc"]).ok();
    assert_eq!(s.events("registry.gc").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_is_named_and_mended_by_another_push() {
    let dir = tempfile::tempdir().unwrap();
    let s = Server::started(dir.path(), QUIET);
    s.image("team/app", "1", b"layer").await;
    let d = Digest::of(b"layer");
    let file = s.state().join("registry/blobs/sha256").join(&d.hex()[..2]).join(d.hex());
    fs::write(&file, b"laXer").unwrap();
    let e = s.cli(&["verify-store"]);
    assert_eq!(e.code, 1, "{}", e.err);
    assert!(e.out.contains(&d.to_string()) && e.out.contains("push it again"), "{}", e.out);
    assert_eq!(s.events("registry.verify")[0]["outcome"], "failed");
    s.blob("team/app", "a/b", b"layer").await;
    s.cli(&["verify-store"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn promotion_is_by_digest_with_attestations_and_by_right() {
    let dir = tempfile::tempdir().unwrap();
    let rules =
        "gc_hours = 0\n[[registry.rules]]\nprefix = \"prod/\"\nrequire = [\"attestation\"]\n";
    let s = Server::started(dir.path(), rules);
    let first = s.image("staging/app", "1.2", b"first").await;
    s.cli(&["promote", "staging/app:1.2", "--to", "prod/app:1.2"]).fails(2, "nothing attests");
    assert_eq!(s.events("image.promote")[0]["outcome"], "refused");
    let attestation = s.attest("staging/app", &first).await;
    let p = s.json(&["promote", "staging/app:1.2", "--to", "prod/app:1.2"]);
    assert_eq!(p["digest"], first.to_string());
    // All of it is there, also when staging is gone.
    let http = s.http();
    let get = |path: String| http.get(format!("http://x/v2/{path}")).send();
    for gone in [attestation.to_string(), first.to_string()] {
        let r = http.delete(format!("http://x/v2/staging/app/manifests/{gone}")).send().await;
        assert_eq!(r.unwrap().status(), 202);
    }
    let r = get(format!("prod/app/referrers/{first}")).await.unwrap();
    let r: serde_json::Value = r.json().await.unwrap();
    assert_eq!(r["manifests"][0]["digest"], attestation.to_string());
    let layer = get(format!("prod/app/blobs/{}", Digest::of(b"first"))).await.unwrap();
    assert_eq!(layer.bytes().await.unwrap(), "first");

    // Another image under the same tag.
    let second = s.image("staging/app", "1.2", b"second").await;
    s.attest("staging/app", &second).await;
    let again = ["promote", "staging/app:1.2", "--to", "prod/app:1.2"];
    s.cli(&again).fails(2, &first.to_string());
    let p = s.json(&[&again[..], &["--replace"]].concat());
    assert_eq!((&p["digest"], &p["replaced"]), (&json!(second), &json!(first)));
    let e = s.events("image.promote").pop().unwrap();
    assert_eq!(e["actor"], "root");
    assert_eq!(e["detail"]["from"], "staging/app:1.2");
    assert_eq!(e["detail"]["to"], "prod/app:1.2");
    assert_eq!(e["detail"]["digest"], second.to_string());
    // Without --to, staging/ is left away; other prefixes have other rules.
    s.cli(&["promote", "staging/app:1.2"]).ok();
    assert_eq!(s.json(&["catalog", "app"])[0]["digest"], second.to_string());
    s.cli(&["promote", "prod/app:1.2"]).fails(2, "--to");
    s.cli(&["promote", "staging/none:1"]).fails(2, "is not here");

    // By right: who may push may not promote.
    s.person("anna", &["*:pull,push"]);
    s.person("bert", &["staging/:pull", "prod/:promote"]);
    let ask = json!({ "from": "staging/app:1.2", "to": "prod/app:3" });
    let as_who = |who: &'static str| {
        let pem = fs::read(s.state().join("tls/ca.pem")).unwrap();
        let ca = reqwest::Certificate::from_pem(&pem).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([ca]).build().unwrap();
        let url = format!("https://{}/v1/registry/promote", s.at);
        http.post(url).basic_auth(who, Some("correct-horse")).json(&ask).send()
    };
    assert_eq!(as_who("anna").await.unwrap().status(), 403);
    assert_eq!(as_who("bert").await.unwrap().status(), 200);
    assert_eq!(s.events("image.promote").pop().unwrap()["actor"], "user:bert");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_may_ask_for_a_passed_check_and_the_latest_word_counts() {
    let dir = tempfile::tempdir().unwrap();
    let rules =
        "gc_hours = 0\n[[registry.rules]]\nprefix = \"prod/\"\nrequire = [\"check:smoke\"]\n";
    let s = Server::started(dir.path(), rules);
    let digest = s.image("staging/app", "1", b"one").await;
    let promote = ["promote", "staging/app:1", "--to", "prod/app:1"];
    s.cli(&promote).fails(2, "asks for the check smoke, of which nothing is known");
    s.cli(&["check", "staging/app:1", "load", "--passed"]).ok();
    s.cli(&promote).fails(2, "asks for the check smoke");
    s.cli(&["check", "staging/app:1", "smoke", "--", "false"]).fails(1, "smoke failed");
    s.cli(&promote).fails(2, "false: exit status: 1");
    s.cli(&["check", "staging/app:1", "smoke", "--", "true"]).ok();
    assert_eq!(s.json(&promote)["digest"], digest.to_string());
    // What was said is signed, went along, and can be read there.
    let all = s.json(&["verify", "prod/app:1"]);
    let results = all["statements"].as_array().unwrap();
    let passed: Vec<_> =
        results.iter().filter(|r| r["check"] == "smoke").map(|r| &r["passed"]).collect();
    assert_eq!((results.len(), passed.len()), (3, 2), "{all}");
    assert!(passed.contains(&&json!(true)) && passed.contains(&&json!(false)));
    let events = s.events("image.check");
    assert_eq!(events.iter().filter(|e| e["outcome"] == "failed").count(), 1);
    s.cli(&["check", "staging/app:1", "Bad Name", "--passed"]).fails(2, "lower-case");
    s.cli(&["check", "staging/app:9", "smoke", "--passed"]).fails(2, "is not here");
    s.cli(&["check", "staging/app:1", "smoke"]).fails(2, "--passed, --failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_moves_with_its_children_and_what_attests_each_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let s = Server::started(dir.path(), QUIET);
    let mut children = Vec::new();
    for layer in [b"amd64", b"arm64"] {
        let d = s.image("staging/app", "", layer).await;
        let a = s.attest("staging/app", &d).await;
        let get = s.http().get(format!("http://x/v2/staging/app/manifests/{d}"));
        let size = get.send().await.unwrap().bytes().await.unwrap().len();
        children.push((d, size, a));
    }
    let all: Vec<_> = children
        .iter()
        .map(|(d, size, _)| json!({ "mediaType": deployd::OCI, "digest": d, "size": size }))
        .collect();
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": all });
    let digest = s.manifest("staging/app", "1", &index).await;
    let p = s.json(&["promote", "staging/app:1"]);
    assert_eq!((&p["digest"], &p["manifests"]), (&json!(digest), &json!(5)));
    for (d, _, a) in &children {
        let r = s.http().get(format!("http://x/v2/app/referrers/{d}")).send().await.unwrap();
        let r: serde_json::Value = r.json().await.unwrap();
        assert_eq!(r["manifests"][0]["digest"], a.to_string());
    }
    // Through a file too, children and all.
    let tar = dir.path().join("app.tar").display().to_string();
    s.cli(&["export", "app:1", &tar]).ok();
    assert_eq!(s.json(&["import", &tar, "copy/app:1"])["digest"], digest.to_string());
    s.cli(&["verify-store"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_through_a_file_and_keeps_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let s = Server::started(&dir.path().join("s"), QUIET);
    let digest = layout(&dir.path().join("in"), 5);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let put = |from: &str, to: &str| s.json(&["import", &path(from), to])["digest"].clone();
    assert_eq!(put("in", "a/one:1"), digest.to_string());
    for (n, file) in ["a.tar", "a"].iter().enumerate() {
        let out = s.json(&["export", "a/one:1", &path(file)]);
        assert_eq!(out["digest"], digest.to_string());
        assert_eq!(put(file, &format!("b/{n}:2")), digest.to_string());
        s.cli(&["export", "a/one:1", &path(file)]).fails(2, "is there already");
    }
    // Others read it, too.
    let listed = deployd::run(
        std::process::Command::new("skopeo")
            .args(["inspect", "--format", "{{.Digest}}"])
            .arg(format!("oci-archive:{}", path("a.tar"))),
        "",
    );
    assert_eq!(listed.ok().trim(), digest.to_string());
    // One byte of a blob is another: nothing is taken under the name.
    let layer = Digest::of(&noise(5, 100_000));
    let file = dir.path().join("a/blobs/sha256").join(layer.hex());
    let mut bytes = fs::read(&file).unwrap();
    bytes[7] ^= 1;
    fs::write(&file, bytes).unwrap();
    let e = s.cli(&["import", &path("a"), "c/new:1"]);
    // Its bytes are here under another name, and are not asked for twice.
    assert_ne!(e.code, 0, "{}", e.out);
    assert!(s.json(&["catalog", "c/"]).as_array().unwrap().is_empty());
    // What is damaged here does not get out.
    let at = s.state().join("registry/blobs/sha256").join(&layer.hex()[..2]).join(layer.hex());
    fs::write(at, noise(6, 100_000)).unwrap();
    s.cli(&["export", "a/one:1", &path("bad.tar")]).fails(1, "is not it");
    assert!(!dir.path().join("bad.tar").exists() && !dir.path().join("bad.tar.part").exists());
}

/// Every tag with its digest, and that the whole store is sound.
fn tags(s: &Server) -> Vec<(String, String)> {
    s.cli(&["verify-store"]).ok();
    let all = s.json(&["catalog"]);
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    all.as_array()
        .unwrap()
        .iter()
        .map(|i| (format!("{}:{}", text(&i["repository"]), text(&i["tag"])), text(&i["digest"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_comes_back_whole_and_the_second_writes_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = Server::started(&dir.path().join("s"), QUIET);
    let to = dir.path().join("backup").display().to_string();
    let one = s.image("team/app", "1", &noise(1, 300_000)).await;
    s.attest("team/app", &one).await;
    let anna = s.person("anna", &["*:pull"]);
    s.daemon(&["backup", &to]).ok();
    s.image("team/app", "2", &noise(2, 200_000)).await;
    let second = s.daemon(&["backup", &to]).ok();
    // The layer; the config is the same.
    assert!(second.contains("new          1 blobs, 200000 bytes"), "{second}");
    let before = tags(&s);
    assert_eq!(before.len(), 2);
    s.daemon(&["restore", &to]).fails(1, "is not empty");
    s.kill();
    fs::remove_dir_all(s.state()).unwrap();
    s.daemon(&["restore", &to]).ok();
    for secret in ["secret.key", "admin.token", "tls/ca.key", "deployment.db"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(s.state().join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    s.start();
    assert_eq!(tags(&s), before);
    assert_eq!(s.json(&["catalog"])[0]["attested"], true);
    // People and the record are back, and the chain holds.
    let plain = s.certs("plain", &[]);
    let e = s.pull(Some(&anna), &plain, "team/none:1");
    assert!(e.err.contains("manifest unknown"), "{}", e.err);
    let server = format!("unix:{}", s.dir.join("api.sock").display());
    let log = s.cli(&["--server", &server, "log", "--verify"]).ok();
    assert!(log.contains("the chain holds"), "{log}");

    // The first one is still there; rot in a backup is said.
    s.kill();
    let mut old: Vec<String> = fs::read_dir(&to)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|n| n != "blobs")
        .collect();
    old.sort();
    fs::remove_dir_all(s.state()).unwrap();
    s.daemon(&["restore", &to, "--backup", &old[0]]).ok();
    s.start();
    assert_eq!(tags(&s), before[..1]);
    s.kill();
    let d = Digest::of(&noise(1, 300_000));
    let rotten = Path::new(&to).join("blobs/sha256").join(&d.hex()[..2]).join(d.hex());
    fs::write(rotten, noise(3, 300_000)).unwrap();
    fs::remove_dir_all(s.state()).unwrap();
    let e = s.daemon(&["restore", &to]);
    assert!(e.code == 1 && e.out.contains(&d.to_string()), "{}{}", e.out, e.err);
}
