//! Real boots: firmware in QEMU, a BMC simulator each, the real agent, real
//! images, both stores. Run by `make test` with `--test-threads=1`.

mod common;

use common::rack::{Rack, copy, image_cache};
use common::redis::RedisServer;
use provision::lab::LabFirmware::{Bios, Uefi};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// M1 M2 M4 M5 M9 M14–M16 M19 M21 M24 M26, store Redis.
#[test]
fn a_bios_node_is_installed_with_docker_twice_alike_and_redis_tells_who_did_what() {
    let redis = RedisServer::start();
    let rack = Rack::up("e2ebios", &[Bios], Some(&redis.local_url()));
    // A machine whose battery has died, at every power-on.
    rack.fault(0, "clock 1970-01-02T00:00:00");
    let first = rack.must_deploy(&rack.install("node01", "docker"));
    assert_eq!(first["inputs"]["baked"], true, "the baked variant is used");
    assert_eq!(rack.boots(0), ["network", "disk"], "one network boot, then the disk");
    assert_eq!(rack.ssh("node01", "hostname").trim(), "node01");
    rack.ssh("node01", "sudo -n true && docker ps && docker version");
    let fresh: f64 = rack.ssh("node01", "date +%s").trim().parse().unwrap();
    let now = provision::model::Time::now().as_second() as f64;
    assert!((fresh - now).abs() < 30.0, "the node's clock is right");
    // Names and time are ours, as DHCP and the plan say.
    for name in ["build-server", "build-server.lab.internal"] {
        let found = rack.ssh("node01", &format!("getent ahostsv4 {name}"));
        assert!(found.starts_with("10.77.0.1 "), "{name}: {found}");
    }
    let reverse = rack.ssh("node01", "getent hosts 10.77.0.1");
    assert!(reverse.contains(".lab.internal"), "{reverse}");
    let asked = "for i in $(seq 60); do timedatectl timesync-status | \
                 grep -q 'Server: 10.77.0.1' && break; sleep 1; done; timedatectl timesync-status";
    let status = rack.ssh("node01", asked);
    assert!(status.contains("Server: 10.77.0.1") && status.contains("Stratum: "), "{status}");

    // Its packages come through us, who are cut off here and say so.
    let said = rack.ssh("node01", "sudo apt-get update 2>&1 || true");
    assert!(said.contains("/apt/debian/dists") && said.contains("502"), "{said}");
    assert!(rack.metric("cache_failed_total") > 0);
    let list = rack.ssh("node01", "cat /etc/apt/sources.list /etc/apt/sources.list.d/* || true");
    assert!(list.contains("http://10.77.0.1:8080/apt/"), "{list}");

    let second = rack.must_deploy(&rack.install("node01", "docker"));
    assert_eq!(first["manifest"], second["manifest"], "same inputs, same manifest");
    assert_eq!(rack.boots(0), ["network", "disk", "network", "disk"]);

    // Heard through the BMC, from the first kernel to the prompt, and the token
    // that the kernel says is not kept.
    let console = rack.ok(&["console", "node01"]);
    for said in ["Linux version", "Welcome to GRUB", "node01 login:"] {
        assert!(console.contains(said), "{said}: {console}");
    }
    assert!(console.contains("provision.token=***"), "{console}");
    assert!(!console.contains('\u{1b}'), "text, not paint");
    let story = rack.ok(&["explain", "node01"]);
    assert!(story.contains("console.line") && story.contains("the kernel begins"), "{story}");

    let stream = redis.cli(&["XRANGE", "provision:events", "-", "+"]);
    for word in ["install.request", "install.deployed", "node01", "root", "outcome"] {
        assert!(stream.contains(word), "{word} is not in the stream");
    }
    rack.ok(&["log", "--verify"]);
    no_secret_anywhere(&rack, &redis);
}

/// The BMC's password and the build's tokens: not in Redis, logs, arguments
/// or answers.
fn no_secret_anywhere(rack: &Rack, redis: &RedisServer) {
    let mut seen = redis.dump();
    for file in ["build-server.log", "node01/supervisor.log"] {
        seen += &std::fs::read_to_string(rack.lab.dir.join(file)).unwrap_or_default();
    }
    for verb in [["nodes", "show", "node01"], ["log", "--limit", "5000"]] {
        let mut args = vec!["--output", "json"];
        args.extend(verb);
        seen += &rack.ok(&args);
    }
    seen += &rack.ok(&["preseed", "node01"]);
    seen += &rack.ok(&["console", "node01"]);
    for p in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        seen +=
            &String::from_utf8_lossy(&std::fs::read(p.path().join("cmdline")).unwrap_or_default());
    }
    assert!(!seen.contains(provision::lab::node::BMC_PASSWORD), "the BMC's password leaked");
    let token = regex_like_token(&seen);
    assert_eq!(token, None, "a build's token leaked");
}

/// `b-<26>.<32 hex>` anywhere in a text.
fn regex_like_token(text: &str) -> Option<String> {
    text.match_indices("b-").find_map(|(i, _)| {
        let t = text.get(i..i + 61)?;
        let (id, tag) = t.split_once('.')?;
        let hex = tag.len() == 32 && tag.bytes().all(|b| b.is_ascii_hexdigit());
        (id.len() == 28 && hex).then(|| t.to_owned())
    })
}

/// M1 M11 M33: EDK2's own PXE client, TFTP carries the loader; two at once;
/// a stranger. Store SQLite.
#[test]
fn a_bios_and_a_uefi_node_install_at_once_while_a_stranger_gets_nothing() {
    let rack = Rack::up("e2etwo", &[Bios, Uefi, Bios], None);
    // node03 is on the wire and not in the inventory.
    rack.ok(&["nodes", "rm", "node03"]);
    rack.lab.tell(2, "boot set pxe").unwrap();
    rack.lab.tell(2, "power set 1").unwrap();
    let found = |r: &Rack| r.ok(&["nodes", "discovered"]).contains("52:54:00:77:00:0d");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !found(&rack) {
        assert!(std::time::Instant::now() < end, "the stranger is not listed");
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    rack.lab.tell(2, "power set 0").unwrap();
    let events = rack.ok(&["log", "--limit", "1000"]);
    assert!(!events.contains("address=10.77.0.13 client"), "a stranger got an offer");

    let builds = [rack.install("node01", "base"), rack.install("node02", "base")];
    for b in &builds {
        rack.must_deploy(b);
    }
    let tftp = rack.ok(&["log", "--node", "node02", "--action", "tftp.done"]);
    assert!(tftp.contains("snponly.efi"), "TFTP carried the loader: {tftp}");
    assert_eq!(rack.ssh("node02", "hostname").trim(), "node02");
    rack.ok(&["log", "--verify"]);
}

/// The server killed in three phases; then a BMC that forgets.
#[test]
fn a_killed_server_loses_nothing_and_a_bmc_that_forgets_is_armed_again() {
    let mut rack = Rack::up("e2ekill", &[Bios], None);
    let id = rack.install("node01", "base");
    for phase in ["installer", "image", "first-boot"] {
        rack.wait_phase(&id, phase);
        rack.kill_server();
        rack.start_server();
    }
    rack.must_deploy(&id);
    assert_eq!(rack.boots(0), ["network", "disk"], "no second install");
    rack.ok(&["log", "--verify"]);

    // The mistake is seen when the system on the disk asks for an address:
    // long enough for that on a busy machine.
    let file = rack.lab.dir.join("build-server.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("\ndhcp = 90\n", "\ndhcp = 110\n");
    std::fs::write(&file, text).unwrap();
    rack.kill_server();
    rack.start_server();
    rack.fault(0, "bmc-forgets on");
    let id = rack.install("node01", "base");
    let seen = |b: &Value| b["attempt"] == 2;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !seen(&rack.build(&id)) {
        assert!(std::time::Instant::now() < end, "{}", rack.story(&id));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    rack.fault(0, "bmc-forgets off");
    // The second attempt may have been armed before the fault was gone: then
    // the third boot is the good one.
    let b = rack.must_deploy(&id);
    assert!(b["phases"].to_string().contains("did not honour"), "{b}");
}

/// Six ways to fail, each with its reason, within its deadline.
#[test]
fn every_failure_ends_with_its_reason() {
    let mut rack = Rack::hasty("e2efail", &[Bios]);
    let sh = |rest: &str| format!("#!/bin/sh\nset -eu\n{rest}\n");
    rack.add_profile("broken", &sh("echo no such package >&2\nexit 1"), &sh("true"));
    rack.add_profile("unwell", &sh("true"), &sh("echo engine is down\nexit 3"));
    let fails = |rack: &Rack, profile: &str, phase: &str, words: &[&str], limit: u64| {
        let id = rack.install("node01", profile);
        let b = rack.wait_end(&id, limit);
        let reason = b["reason"].as_str().unwrap_or_default().to_owned();
        eprintln!("{phase}: {reason}");
        assert_eq!(
            (b["outcome"].as_str(), b["phase"].as_str()),
            (Some("failed"), Some(phase)),
            "{}",
            rack.story(&id)
        );
        for w in words {
            assert!(reason.contains(w), "{reason:?} does not say {w:?}");
        }
        let n = rack.json(&["nodes", "show", "node01"]);
        assert_eq!(n["status"]["life"], "failed");
    };

    rack.fault(0, "bmc-silent on");
    fails(&rack, "base", "power", &["10.77.1.11:623", "does not answer"], 60);
    rack.fault(0, "bmc-silent off");

    rack.fault(0, "cable-cut on");
    fails(&rack, "base", "dhcp", &["first DHCP packet", "2 times"], 120);
    rack.fault(0, "cable-cut off");

    rack.fault(0, "second-disk on");
    fails(&rack, "base", "disk", &["NODE01-d0", "NODE01-d1"], 120);
    rack.fault(0, "second-disk off");

    fails(&rack, "broken", "profile", &["10-it.sh", "no such package"], 200);

    // A wrong bit in the image. The catalogue is another one, so that the
    // shared one stays whole.
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
    let images = rack.dir.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let good = format!("{home}/.cache/provision/images/debian-12");
    copy(good.as_ref(), &images.join("debian-12"));
    let data = images.join("debian-12/rootfs.zst");
    let mut bytes = std::fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    rack.kill_server();
    rack.configure(&images, None, common::rack::PATIENT);
    rack.start_server();
    fails(&rack, "base", "image", &["sha256"], 120);
    copy(format!("{good}/rootfs.zst").as_ref(), &data);

    fails(&rack, "unwell", "verify", &["exit code 3", "engine is down"], 300);
    rack.ok(&["log", "--verify"]);

    // M3 M27: wrong words are refused before anything is touched.
    let boots = rack.boots(0).len();
    for (args, word) in [
        (&["install", "node01", "--profile", "dokcer"][..], "docker"),
        (&["install", "node01", "--profile", "base", "--image", "debian-99"], "debian-12"),
        (&["install", "node77", "--profile", "base"], "node77"),
        (&["power", "node01", "restart"], "on, off, cycle"),
    ] {
        let out = rack.run(args);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {err}");
        assert!(err.contains(word), "{args:?}: {err}");
    }
    assert_eq!(rack.boots(0).len(), boots);
    let out = Command::new(env!("CARGO_BIN_EXE_provision"))
        .args(["--server", "unix:/nonexistent/api.sock", "nodes"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(3));
}

/// M8 M11 M12: who may ask for what, over TLS and the boot network; paths
/// lead nowhere else; a file with one wrong node adds none.
#[test]
fn the_api_and_the_boot_network_give_nothing_to_who_may_not_have_it() {
    let rack = Rack::up("e2eapi", &[Bios], None);
    let curl = |args: &[&str]| {
        let out = rack
            .lab
            .command("curl")
            .args(["-sk", "--path-as-is", "-o", "-", "-w", "\n%{http_code}"])
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.to_owned(), body.to_owned())
    };
    let api = "https://10.77.0.1:8443/v1/nodes";
    assert_eq!(curl(&[api]).0, "401");
    assert_eq!(curl(&["-H", "Authorization: Bearer wrong", api]).0, "401");
    let token = |name: &str, role: &str| {
        let t = rack.ok(&["tokens", "add", name, "--role", role]);
        format!("Authorization: Bearer {}", t.trim())
    };
    let (read, operate) = (token("eyes", "read"), token("hands", "operate"));
    assert_eq!(curl(&["-H", &read, api]).0, "200");
    let post = |h: &str, path: &str, body: &str| {
        curl(&[
            "-H",
            h,
            "-H",
            "Content-Type: application/json",
            "-d",
            body,
            &format!("{api}{path}"),
        ])
    };
    assert_eq!(post(&read, "/node01/power", r#"{"command":"on"}"#).0, "403");
    assert_eq!(post(&operate, "/node01/power", r#"{"command":"restart"}"#).0, "400");
    assert_eq!(post(&operate, "/node01/install", r#"{"type":"ceph"}"#).0, "404");
    assert_eq!(post(&operate, "", r#"{"name":"x","macs":["52:54:00:00:00:01"]}"#).0, "403");
    assert_eq!(post(&operate, "/node01/power", r#"{"command":"on","x":1}"#).0, "422");
    let huge = format!("{{\"command\":\"{}\"}}", "x".repeat(100_000));
    assert_eq!(post(&operate, "/node01/power", &huge).0, "400");
    let (code, op) = post(&operate, "/10.77.0.11/power", r#"{"command":"on"}"#);
    assert_eq!(code, "202", "by address as well: {op}");
    rack.ok(&["tokens", "revoke", "hands"]);
    assert_eq!(curl(&["-H", &operate, api]).0, "401", "revoked at once");
    let log = rack.ok(&["log", "--action", "api.refused"]);
    assert!(log.contains("eyes"), "refusals are in the log: {log}");

    // The boot network: nothing but what is served, and a build's files only
    // to its node.
    let boot = "http://10.77.0.1:8080";
    for path in [
        "/boot/loader/../../../etc/passwd",
        "/boot/loader/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/images/debian-12/../../../etc/passwd",
        "/images/..%2f..%2fetc/passwd",
        "/images/debian-12/baked/..%2f../image.toml",
        "/images/debian-12/image.toml%00",
        "/boot/52-54-00-77-00-0b/script.ipxe",
        "/node/plan",
        "/v1/nodes",
    ] {
        let (code, body) = curl(&[&format!("{boot}{path}")]);
        assert!(["400", "401", "404"].contains(&code.as_str()), "{path}: {code}");
        assert!(!body.contains("root:"), "{path}");
    }
    let rootfs = format!("{boot}/images/debian-12/packages.txt");
    let whole = curl(&[&rootfs]).1;
    let part = curl(&["-r", "10-19", &rootfs]);
    assert_eq!((part.0.as_str(), part.1.as_str()), ("206", &whole[10..20]));
    assert_eq!(curl(&["-r", "999999999-", &rootfs]).0, "416");

    // More nodes than addresses: all or none, with the line that is too much.
    let many: String = (0..1000)
        .map(|i| {
            format!(
                "[[node]]\nname = \"m{i}\"\nmac = \"02:00:00:00:{:02x}:{:02x}\"\n",
                i / 256,
                i % 256
            )
        })
        .collect();
    let file = rack.dir.path().join("many.toml");
    std::fs::write(&file, &many).unwrap();
    let out = rack.run(&["nodes", "import", file.to_str().unwrap()]);
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(err.contains("many.toml:") && err.contains("widen network.range"), "{err}");
    assert_eq!(rack.json(&["nodes"]).as_array().unwrap().len(), 1);
}

/// M5: Redis goes away under a running server.
#[test]
fn without_redis_commands_are_refused_and_boots_go_on_until_it_is_back() {
    let mut redis = RedisServer::start();
    let rack = Rack::up("e2eredis", &[Bios], Some(&redis.local_url()));
    let ready = || {
        let out = rack
            .lab
            .command("curl")
            .args(["-sk", "https://10.77.0.1:8443/readyz"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(ready(), "ready\n");
    redis.stop();
    assert!(ready().contains("cannot be used now"), "{}", ready());
    let out = rack.run(&["power", "node01", "on"]);
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(3), "{err}");
    assert!(err.contains("nothing was done"), "{err}");
    assert!(rack.boots(0).is_empty(), "the machine was not touched");
    let log = std::fs::read_to_string(rack.lab.dir.join("build-server.log")).unwrap();
    assert!(log.contains("the store cannot be used"), "{log}");

    // A known node still gets its address and is told to boot its disk.
    rack.lab.tell(0, "boot set pxe").unwrap();
    rack.lab.tell(0, "power set 1").unwrap();
    let console = rack.lab.node_dir(0).join("console.log");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let told = || {
        let bytes = std::fs::read(&console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains("node01 starts from its disk")
    };
    while !told() {
        assert!(std::time::Instant::now() < end, "the boot was not served");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }

    redis.start_again();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while ready() != "ready\n" {
        assert!(std::time::Instant::now() < end, "did not recover: {}", ready());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    rack.ok(&["power", "node01", "off"]);
    rack.ok(&["log", "--verify"]);
}

/// The lab of a user who is not root: firmware, BMC, DHCP and an installed
/// node all the same, and nothing left behind.
#[test]
fn a_rack_without_root_installs_a_node_and_leaves_nothing() {
    // Below /var/tmp: the user cannot enter root's home, nor perhaps ours.
    let dir = tempfile::Builder::new().prefix("pvuser").tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| dir.path().join(name);
    for exe in [
        env!("CARGO_BIN_EXE_provision"),
        env!("CARGO_BIN_EXE_build-server"),
        env!("CARGO_BIN_EXE_deployment-server"),
    ] {
        std::fs::copy(exe, at(exe.rsplit('/').next().unwrap())).unwrap();
    }
    std::fs::copy(std::env::var("PROVISION_AGENT").unwrap(), at("provision-agent")).unwrap();
    copy(Path::new("profiles"), &at("profiles"));
    copy(&image_cache().join("debian-12"), &at("images/debian-12"));
    let owner = std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY));
    owner.unwrap();

    let user = |args: &[&str]| {
        let mut c = Command::new("setpriv");
        c.args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string(), "--clear-groups"]);
        c.arg(at("provision")).args(args).current_dir(dir.path());
        c.env("HOME", dir.path()).env_remove("PROVISION_LAB_DIR").env_remove("PROVISION_EXE");
        c.env("PROVISION_AGENT", at("provision-agent"));
        c.output().unwrap()
    };
    let ok = |args: &[&str]| {
        let out = user(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{args:?}: {said}");
        String::from_utf8(out.stdout).unwrap()
    };
    let (images, profiles) = (at("images"), at("profiles"));
    let (images, profiles) = (images.to_str().unwrap(), profiles.to_str().unwrap());
    let up = ["lab", "up", "--name", "e2euser", "--images", images, "--profiles", profiles];
    ok(&up);
    let url = ok(&["lab", "url", "--name", "e2euser"]);
    let ran = user(&["--server", url.trim(), "install", "node01", "--profile", "docker"]);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    let story = ok(&["--server", url.trim(), "explain", "node01", "--log"]);
    let status = ok(&["lab", "status", "--name", "e2euser"]);
    ok(&["lab", "down", "--name", "e2euser"]);
    assert!(ran.status.success(), "{said}{story}");
    let line = status.lines().find(|l| l.starts_with("node01")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["node01", "bios", "on", "none", "2"], "network once, then disk: {story}");
    assert!(!dir.path().join(".local/state/provision-lab/e2euser").exists());
    let left: Vec<String> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| std::fs::read_link(e.unwrap().path().join("exe")).ok())
        .filter(|exe| exe.starts_with(dir.path()))
        .map(|exe| exe.display().to_string())
        .collect();
    assert!(left.is_empty(), "{left:?} still run");
}

/// A user who may nothing.
const NOBODY: u32 = 65534;
