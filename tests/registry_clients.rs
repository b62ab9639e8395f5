//! Real clients: skopeo and buildah, over plain HTTP on loopback, with content
//! made here. What comes out again must have the digest that went in.

mod registryd;

use provision::registry::Digest;
use registryd::{INDEX, OCI, descriptor, noise, on};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| {
        panic!("{program}: {e}; scripts/deps.sh installs it");
    });
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}\n{text}{err}");
    text
}

async fn client(program: &'static str, args: Vec<String>) -> String {
    tokio::task::spawn_blocking(move || {
        run(program, &args.iter().map(String::as_str).collect::<Vec<_>>())
    })
    .await
    .unwrap()
}

macro_rules! client {
    ($program:literal, $($arg:expr),+ $(,)?) => {
        client($program, vec![$(format!("{}", $arg)),+]).await
    };
}

fn put(dir: &Path, bytes: &[u8]) {
    let to = dir.join("blobs/sha256");
    fs::create_dir_all(&to).unwrap();
    fs::write(to.join(Digest::of(bytes).hex()), bytes).unwrap();
}

/// An OCI layout of one image with two layers; its manifest's digest.
fn layout(dir: &Path) -> Digest {
    let layers = [tar(1, 3_000_000), tar(2, 700)];
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|l| Digest::of(l)).collect::<Vec<_>>() },
    })
    .to_string();
    put(dir, config.as_bytes());
    layers.iter().for_each(|l| put(dir, l));
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let m = json!({
        "schemaVersion": 2, "mediaType": OCI,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": layers.iter().map(|l| descriptor(kind, l)).collect::<Vec<_>>(),
    })
    .to_string();
    put(dir, m.as_bytes());
    let mut d = descriptor(OCI, m.as_bytes());
    d["annotations"] = json!({ "org.opencontainers.image.ref.name": "one" });
    d["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [d] });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    Digest::of(m.as_bytes())
}

/// A tar archive with one file of noise.
fn tar(seed: u64, size: usize) -> Vec<u8> {
    let mut b = tar::Builder::new(Vec::new());
    let mut h = tar::Header::new_ustar();
    h.set_size(size as u64);
    h.set_mode(0o644);
    b.append_data(&mut h, format!("file{seed}"), noise(seed, size).as_slice()).unwrap();
    b.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_in_and_out_with_the_same_digest() {
    let dir = tempfile::tempdir().unwrap();
    let (store, from, to) =
        (dir.path().join("store"), dir.path().join("in"), dir.path().join("out"));
    fs::create_dir_all(&from).unwrap();
    let digest = layout(&from);
    let s = on(&store).await;
    let image = format!("docker://{}/team/app:v1", s.at);
    client!(
        "skopeo",
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        format!("oci:{}:one", from.display()),
        image
    );
    let inspected = client!("skopeo", "inspect", "--tls-verify=false", image);
    let v: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(v["Digest"], digest.to_string());
    assert_eq!(v["RepoTags"], json!(["v1"]));
    client!(
        "skopeo",
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
        image,
        format!("oci:{}:one", to.display())
    );
    let index: Value = serde_json::from_slice(&fs::read(to.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], digest.to_string());
    for e in fs::read_dir(from.join("blobs/sha256")).unwrap() {
        let name = e.unwrap().file_name();
        assert!(to.join("blobs/sha256").join(&name).exists(), "{name:?} did not come back");
    }
    // To another repository: the layers are mounted, not sent.
    let before = s.registry.counts().bytes_in;
    let other = format!("docker://{}/team/other:v2", s.at);
    client!(
        "skopeo",
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        image,
        other
    );
    let sent = s.registry.counts().bytes_in - before;
    assert!(sent < 10_000, "{sent} bytes were sent again");
    client!("skopeo", "delete", "--tls-verify=false", image);
    let r = s.get("/v2/team/app/manifests/v1").await;
    assert_eq!(r.status(), 404);
    client!("skopeo", "inspect", "--tls-verify=false", other);
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_converts_to_docker_and_copies_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("in");
    fs::create_dir_all(&from).unwrap();
    let digest = layout(&from);
    let s = on(&dir.path().join("store")).await;
    let docker = format!("docker://{}/docker:latest", s.at);
    client!(
        "skopeo",
        "copy",
        "--format=v2s2",
        "--dest-tls-verify=false",
        format!("oci:{}:one", from.display()),
        docker
    );
    let raw = client!("skopeo", "inspect", "--raw", "--tls-verify=false", docker);
    assert!(raw.contains(registryd::DOCKER), "{raw}");
    // An index over the same image, all of it, in and out.
    let inner = fs::read(from.join("index.json")).unwrap();
    let mut v: Value = serde_json::from_slice(&inner).unwrap();
    v["manifests"][0].as_object_mut().unwrap().remove("annotations");
    let inner = v.to_string();
    put(&from, inner.as_bytes());
    let mut d = descriptor(INDEX, inner.as_bytes());
    d["annotations"] = json!({ "org.opencontainers.image.ref.name": "all" });
    let outer = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [d] });
    fs::write(from.join("index.json"), outer.to_string()).unwrap();
    let all = format!("docker://{}/multi:all", s.at);
    client!(
        "skopeo",
        "copy",
        "--all",
        "--preserve-digests",
        "--dest-tls-verify=false",
        format!("oci:{}:all", from.display()),
        all
    );
    let back = client!("skopeo", "inspect", "--raw", "--tls-verify=false", all);
    assert_eq!(Digest::of(back.trim_end().as_bytes()), Digest::of(inner.as_bytes()));
    assert_eq!(s.get(&format!("/v2/multi/manifests/{digest}")).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn buildah_builds_pushes_and_pulls() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(&dir.path().join("store")).await;
    let (root, run) = (dir.path().join("root"), dir.path().join("run"));
    let base = [
        format!("--root={}", root.display()),
        format!("--runroot={}", run.display()),
        "--storage-driver=vfs".to_owned(),
    ];
    let buildah = |args: &[&str]| {
        let all: Vec<String> =
            base.iter().cloned().chain(args.iter().map(|a| (*a).to_owned())).collect();
        client("buildah", all)
    };
    let file = dir.path().join("content");
    fs::write(&file, noise(7, 2_000_000)).unwrap();
    let container = buildah(&["from", "scratch"]).await.trim().to_owned();
    buildah(&["copy", &container, file.to_str().unwrap(), "/content"]).await;
    buildah(&["commit", &container, "built"]).await;
    let image = format!("docker://{}/built:1", s.at);
    let digest_file = dir.path().join("digest");
    let to = format!("--digestfile={}", digest_file.display());
    buildah(&["push", "--tls-verify=false", &to, "built", &image]).await;
    let pushed = fs::read_to_string(&digest_file).unwrap();
    let r = s.get("/v2/built/manifests/1").await;
    assert_eq!(registryd::header(&r, "docker-content-digest"), pushed.trim());
    buildah(&["rm", "-a"]).await;
    buildah(&["rmi", "-a", "-f"]).await;
    let name = format!("{}/built:1", s.at);
    buildah(&["pull", "--tls-verify=false", &name]).await;
    let container = buildah(&["from", "--pull-never", &name]).await.trim().to_owned();
    let mounted = buildah(&["mount", &container]).await.trim().to_owned();
    assert_eq!(fs::read(format!("{mounted}/content")).unwrap(), noise(7, 2_000_000));
    buildah(&["rm", "-a"]).await;
}
