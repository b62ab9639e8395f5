//! The rack with its second host: a node is installed, gets its certificate on
//! the way, and runs an image that only known clients can pull.

mod common;

use common::rack::Rack;
use provision::lab::LabFirmware::Bios;
use provision::registry::Digest;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image of one layer, busybox and 20 MB that do not compress, as an OCI
/// layout; its manifest's digest.
fn layout(dir: &Path) -> Digest {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_path_with_name("/bin/busybox", "bin/busybox").unwrap();
    let mut noise = vec![0u8; 20 << 20];
    let mut x = 88_172_645_463_325_252_u64;
    for b in noise.chunks_mut(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        b.copy_from_slice(&x.to_le_bytes());
    }
    let mut h = tar::Header::new_ustar();
    h.set_size(noise.len() as u64);
    h.set_mode(0o644);
    tar.append_data(&mut h, "noise", noise.as_slice()).unwrap();
    let layer = tar.into_inner().unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Cmd": ["/bin/busybox", "echo", "hello from the registry"] },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] },
    });
    let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let layer = put(&layer, "application/vnd.oci.image.layer.v1.tar");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI, "config": config, "layers": [layer],
    })
    .to_string();
    let mut d = put(manifest.as_bytes(), OCI);
    d["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    let index = json!({ "schemaVersion": 2, "manifests": [d] });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    Digest::of(manifest.as_bytes())
}

fn text(o: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr))
}

/// What the other host's server has in its record.
fn record(rack: &Rack) -> Value {
    let out = Command::new(env!("CARGO_BIN_EXE_provision"))
        .args(["--server", &rack.lab.deployment_url(), "--output", "json", "log"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", text(&out));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Asks until `good`, or gives up.
fn until<T>(what: &str, seconds: u64, mut ask: impl FnMut() -> T, good: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let got = ask();
        if good(&got) {
            return got;
        }
        assert!(Instant::now() < end, "{what}: not within {seconds} s");
        // Not synchronisation: the pace of asking.
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn has(record: &Value, action: &str, outcome: &str, container: &str) -> bool {
    record.as_array().unwrap().iter().any(|e| {
        e["action"] == action && e["outcome"] == outcome && e["detail"]["container"] == container
    })
}

/// M44 M45 M46: a service on the node, one that fails, a node that dies.
fn what_runs_is_in_the_record(rack: &Rack, image: &str, digest: &Digest) {
    let provision = |args: &[&str]| -> Value {
        let out = Command::new(env!("CARGO_BIN_EXE_provision"))
            .args(["--server", &rack.lab.server_url()])
            .args(["--deployment", &rack.lab.deployment_url(), "--output", "json"])
            .args(args)
            .output()
            .unwrap();
        assert!(out.status.success(), "{args:?}: {}", text(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let running = |name: &str| {
        let node = provision(&["nodes", "show", "node01"]);
        let all = node["running"].as_array().unwrap().clone();
        all.into_iter().find(|c| c["name"] == name)
    };
    let restarts = "docker run -d --restart=always --name web";
    rack.ssh("node01", &format!("{restarts} {image} /bin/busybox sleep 100000"));
    let told = until("the node tells what runs", 60, || running("web"), Option::is_some);
    assert_eq!(told.unwrap()["digest"], digest.to_string());

    rack.ssh_output("node01", &format!("docker run --name bad {image} /bin/busybox false"));
    let failed = |r: &Value| has(r, "container.exit", "failed", "bad");
    until("a failure is told", 60, || record(rack), failed);

    // Its power is cut: nothing is said any more.
    rack.ok(&["power", "node01", "off"]);
    let lost = |r: &Value| r.as_array().unwrap().iter().any(|e| e["action"] == "node.lost");
    until("silence is noticed", 120, || record(rack), lost);
    rack.ok(&["power", "node01", "on"]);
    let back =
        |r: &Value| has(r, "container.start", "ok", "web") && r.to_string().contains("node.back");
    until("it is back, and runs what it ran", 240, || record(rack), back);

    let all = provision(&["metrics", "--since", "1h"]);
    let hello = &all["software"][0];
    assert_eq!((&hello["name"], &hello["deployments"]), (&json!("apps/hello"), &json!(1)), "{all}");
    assert_eq!(hello["failed_deployments"], 1, "{all}");
    let docker = &all["profiles"][0];
    assert_eq!((&docker["profile"], &docker["deployments"]), (&json!("docker"), &json!(1)));
}

/// M33 M34 M35 M44 M45 M46 M51.
#[test]
fn a_node_runs_what_only_known_clients_can_pull_and_a_retired_one_is_refused() {
    let rack = Rack::with_deployment("e2edep", &[Bios]);
    let image = format!("{}/apps/hello:1", rack.lab.registry());
    let state = rack.lab.second_dir().join("state");

    // The image comes in from the second host's own side of the link.
    let dir = rack.dir.path().join("layout");
    let digest = layout(&dir);
    let certs = rack.dir.path().join("certs");
    fs::create_dir_all(&certs).unwrap();
    fs::copy(state.join("tls/ca.pem"), certs.join("ca.crt")).unwrap();
    let token = fs::read_to_string(state.join("admin.token")).unwrap();
    let auth = rack.dir.path().join("auth.json");
    let pushed = |login: bool| {
        let mut c = rack.lab.second_command("skopeo");
        c.args(["copy", "--preserve-digests", "--dest-cert-dir"]).arg(&certs);
        if login {
            let mut l = rack.lab.second_command("skopeo");
            l.args(["login", "--username", "x", "--password-stdin", "--authfile"]).arg(&auth);
            l.arg("--cert-dir").arg(&certs).arg(rack.lab.registry());
            let file = fs::File::open(state.join("admin.token")).unwrap();
            let out = l.stdin(file).output().unwrap();
            assert!(out.status.success(), "{}", text(&out));
            c.arg("--dest-authfile").arg(&auth);
        }
        c.arg(format!("oci:{}:1", dir.display())).arg(format!("docker://{image}"));
        c.output().unwrap()
    };
    let out = pushed(false);
    assert!(!out.status.success(), "a push without login must be refused");
    assert!(text(&out).contains("authentication required"), "{}", text(&out));
    let out = pushed(true);
    assert!(out.status.success(), "{}", text(&out));

    rack.must_deploy(&rack.install("node01", "docker"));
    let (before, _) = rack.lab.second_bytes().unwrap();
    let build_before = rack.lab.build_server_bytes().unwrap();
    let said = rack.ssh("node01", &format!("docker run --rm {image}"));
    assert_eq!(said.trim(), "hello from the registry");
    let (after, _) = rack.lab.second_bytes().unwrap();
    assert!(
        after - before > 20 << 20,
        "the layer crossed the second host's link: {}",
        after - before
    );
    let build_after = rack.lab.build_server_bytes().unwrap();
    let crossed = build_after.0 + build_after.1 - build_before.0 - build_before.1;
    assert!(crossed < 1 << 20, "the layer did not cross the build server's: {crossed}");
    what_runs_is_in_the_record(&rack, &image, &digest);
    let ids = rack.ssh("node01", "docker image ls --no-trunc --digests --format '{{.Digest}}'");
    assert!(ids.contains(&digest.to_string()), "{ids}");
    let modes = rack.ssh("node01", "sudo stat -c '%a %n' /etc/docker/certs.d/*/client.key");
    assert!(modes.starts_with("600 "), "{modes}");

    // The key was made on the node: nobody else has it.
    let key = rack.ssh("node01", "sudo cat /etc/docker/certs.d/*/client.key");
    let body = key.lines().nth(1).unwrap().to_owned();
    let mut search = Command::new("grep");
    search.args(["-rlF", &body, "--exclude=*.raw"]).arg(&rack.lab.dir);
    let found = search.output().unwrap();
    assert_eq!(found.status.code(), Some(1), "the node's key is on a server: {}", text(&found));
    // Renewed by showing it, and good.
    rack.ssh("node01", "sudo /usr/lib/provision/provision-agent renew --now");
    rack.ssh("node01", &format!("docker pull {image}"));
    // A node pulls; it does not push.
    let out = rack.ssh_output("node01", &format!("docker push {image}"));
    assert!(text(&out).contains("node:node01 may not push to apps/hello"), "{}", text(&out));

    rack.ok(&["nodes", "set", "node01", "--retire"]);
    let revoked = |r: &Value| {
        r.as_array()
            .unwrap()
            .iter()
            .any(|e| e["action"] == "certificate.revoke" && e["node"] == "node01")
    };
    until("the deployment server is told", 30, || record(&rack), revoked);
    let out = rack.ssh_output("node01", &format!("docker pull {image}"));
    assert!(!out.status.success(), "a retired node is refused");

    let record = record(&rack);
    let has = |action: &str, actor: &str| {
        record.as_array().unwrap().iter().any(|e| e["action"] == action && e["actor"] == actor)
    };
    assert!(has("image.push", "admin") && has("image.pull", "node:node01"), "{record}");
    assert!(!record.to_string().contains(token.trim()));
    let log = fs::read_to_string(rack.lab.second_dir().join("deployment-server.log")).unwrap();
    assert!(!log.contains(token.trim()));
}
