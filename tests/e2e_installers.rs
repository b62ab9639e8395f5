//! Debian's own installer on real firmware, nobody typing: half an hour a
//! machine, so not part of `make test` but of `make test-installers`.
//! M11 M13 M14 M15 M16 M19 M21 M41.

mod common;

use common::rack::{Rack, image_cache, seconds, until};
use common::upstream::Upstream;
use provision::lab::LabFirmware::{Bios, Uefi, UefiSecure};
use serde_json::Value;
use std::time::Duration;

/// Emulated, the steps take long; what counts is that the log goes on.
const LONG: &str = "[dhcp]\nallow_other_servers = true\n\n[deadlines]\nattempts = 2\n\
    dhcp = 300\nloader = 300\nkernel = 300\ninstaller = 400\ndisk = 300\nimage = 400\n\
    profile = 1800\nfirst_boot = 900\nverify = 400\n";

const IMAGE: &str = "debian-13-installer";

fn install(rack: &Rack, node: &str, profile: &str, more: &[&str]) -> String {
    let mut args = vec!["install", node, "--profile", profile, "--image", IMAGE, "--no-wait"];
    args.extend(more);
    rack.json(&args)[0]["build"].as_str().unwrap().to_owned()
}

/// Its phases with their seconds, said as well.
fn deployed(rack: &Rack, id: &str) -> Value {
    let b = rack.wait_end(id, 5400);
    assert_eq!(b["outcome"], "deployed", "{}", rack.story(id));
    for p in b["phases"].as_array().unwrap() {
        eprintln!("{} {:<10} {:7.1} s", b["node"], p["phase"].as_str().unwrap(), seconds(p));
    }
    eprintln!("{} {:<10} {:7.1} s", b["node"], "all", took(&b));
    b
}

/// Seconds of all its phases.
fn took(build: &Value) -> f64 {
    build["phases"].as_array().unwrap().iter().map(seconds).sum()
}

/// The image as `make image` keeps images: made once.
fn have_image(rack: &Rack) {
    let known = rack.json(&["images"]);
    let there = known["items"].as_array().unwrap().iter().any(|i| i["name"] == IMAGE);
    if !there {
        eprintln!("{}", rack.ok(&["images", "add", "debian-13"]));
    }
}

fn is_right(rack: &Rack, node: &str, firmware: &str) {
    let check = "sudo -n true && docker version --format '{{.Server.Version}}' && \
                 . /etc/os-release && echo $VERSION_ID && \
                 ([ -d /sys/firmware/efi ] && echo uefi || echo bios)";
    let said = rack.ssh(node, check);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(&lines[1..], ["13", firmware], "{said}");
    // Names, time and packages come from us.
    let said = rack.ssh(node, &format!("getent -s dns hosts {node}.lab.internal"));
    assert!(said.starts_with("10.77.0."), "{said}");
    let said = rack.ssh(node, "chronyc -n -c sources; chronyc -n waitsync 60 0 0 1 > /dev/null");
    let servers: Vec<&str> = said.lines().filter_map(|l| l.split(',').nth(2)).collect();
    assert_eq!(servers, ["10.77.0.1"], "one source of time, ours: {said}");
    let said = rack.ok(&["preseed", node, "--file", "preseed.cfg"]);
    assert!(said.starts_with("#_preseed_V1") && said.contains("provision/token password ***"));
}

/// `apt-get update` on the node, and from where it got what.
fn updates(rack: &Rack, node: &str, from: &str) {
    let said = rack.ssh(node, "sudo apt-get update");
    let lines = said.lines().filter(|l| l.starts_with("Hit:") || l.starts_with("Get:"));
    let hosts: Vec<&str> = lines.filter_map(|l| l.split_whitespace().nth(1)).collect();
    assert!(!hosts.is_empty() && hosts.iter().all(|h| h.starts_with(from)), "{said}");
}

/// From here on no connection of the node's reaches the server's HTTP.
fn refuse(rack: &Rack, address: &str) {
    let rules = format!(
        "table inet lost {{ chain in {{ type filter hook input priority 0; \
         ip saddr {address} tcp dport 8080 tcp flags syn counter reject with tcp reset; }}; }}"
    );
    assert!(rack.lab.command("nft").arg(rules).status().unwrap().success());
}

fn refused(rack: &Rack) -> u64 {
    let out = rack.lab.command("nft").args(["list", "table", "inet", "lost"]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let n = text.split("packets ").nth(1).and_then(|t| t.split_whitespace().next());
    n.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

fn console(rack: &Rack, node: &str) -> String {
    let log = std::fs::read(rack.lab.dir.join(node).join("console.log")).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// Two machines from a cold cache and again from a warm one; then one whose
/// clock says 1970, with the archive gone in the midst of it.
#[test]
fn a_bios_and_a_uefi_machine_are_installed_by_preseed_with_docker_and_again_without_the_archive() {
    let mut rack = Rack::with_uplink("e2epre", &[Bios, Uefi], &image_cache(), LONG);
    rack.kill_server();
    let outside = Upstream::start(&rack);
    rack.start_server();
    have_image(&rack);
    let both = |rack: &Rack| {
        let builds = ["node01", "node02"].map(|n| install(rack, n, "docker", &[]));
        let all: f64 = builds.iter().map(|b| took(&deployed(rack, b))).sum();
        is_right(rack, "node01", "bios");
        is_right(rack, "node02", "uefi");
        ["node01", "node02"].iter().for_each(|n| updates(rack, n, "http://10.77.0.1:8080/apt/"));
        all
    };
    let upstream = |rack: &Rack| rack.metric("cache_upstream_bytes_total");
    let before = upstream(&rack);
    let first = both(&rack);
    let cold = upstream(&rack) - before;
    eprintln!("upstream, both machines from a cold cache: {cold} bytes");

    let (before, asked) = (upstream(&rack), outside.asked());
    let second = both(&rack);
    let (warm, now) = (upstream(&rack) - before, outside.asked());
    let (all, unchanged) = (now.requests - asked.requests, now.unchanged - asked.unchanged);
    eprintln!("upstream, both from a warm one: {warm} bytes; {unchanged} of {all} answers 304");
    eprintln!("both, warm against cold: {second:.0} s to {first:.0} s, {:.2}", second / first);
    assert_eq!((warm, now.bytes), (0, asked.bytes), "what did not change crosses once");
    assert!(unchanged > 0, "{now:?} {asked:?}");

    eprintln!("the image path, for comparison");
    rack.must_deploy(&rack.install("node02", "docker"));

    let before = upstream(&rack);
    rack.fault(0, "clock 1970-01-02T00:00:00");
    let again = install(&rack, "node01", "docker", &[]);
    let in_packages = |id: &str| {
        let log = rack.ok(&["builds", "--build", id, "--log"]);
        // The whole log each time: not too often.
        std::thread::sleep(Duration::from_secs(5));
        log.contains("debootstrap: Unpacking")
    };
    rack.wait_phase_in(&again, "image", 1200);
    until("the base system is being unpacked", 3000, || in_packages(&again));
    drop(outside);
    rack.fault(0, "uplink-cut on");
    deployed(&rack, &again);
    is_right(&rack, "node01", "bios");
    let said = rack.ok(&["explain", "node01"]);
    assert!(said.contains(": clock-wrong ("), "{said}");
    let old = rack.metric("cache_stale_total");
    eprintln!("the archive gone in the midst: {old} files served old");
    assert!(old > 0 && upstream(&rack) == before);
}

/// On node01, at the end of its last steps, waits until the server cannot be
/// reached any more.
const NOBODY_LISTENS: &str = "#!/bin/sh\nset -e\n[ \"$(cat /etc/hostname)\" = node01 ] || exit 0\n\
    echo 'provision-test: nobody listens now' > /dev/console\n\
    while timeout 5 bash -c ': < /dev/tcp/10.77.0.1/8080' 2> /dev/null; do sleep 1; done\n";

/// The profile `docker`, with a last step that waits for the connection to go.
fn add_last_step(rack: &Rack) {
    let dir = rack.dir.path().join("profiles/docker");
    std::fs::write(dir.join("90-last.sh"), NOBODY_LISTENS).unwrap();
    let text = std::fs::read_to_string(dir.join("profile.toml")).unwrap();
    let more = text.replace("[\"10-docker.sh\"]", "[\"10-docker.sh\", \"90-last.sh\"]");
    assert_ne!(more, text);
    std::fs::write(dir.join("profile.toml"), more).unwrap();
}

/// M41: what a closed room needs, the installer's image too, is carried in on
/// one file; nothing leads out.
/// The UEFI machine has Secure Boot on. M19: of the BIOS machine, the
/// installer's last report and the installed system's first ones are lost.
#[test]
fn a_closed_room_is_installed_from_a_mirror_that_was_carried_in() {
    let bag = tempfile::tempdir().unwrap();
    let file = bag.path().join("docker.tar.zst");
    let (outside, inside) = (bag.path().join("outside"), bag.path().join("inside"));
    let mirror = {
        let rack = Rack::with_uplink("e2eout", &[Bios], &outside, LONG);
        have_image(&rack);
        rack.ok(&["mirror", "build", "--image", IMAGE, "--profile", "docker", "--name", "room"]);
        let said = rack.ok(&["mirror", "export", "room", file.to_str().unwrap()]);
        assert!(said.contains("with its image"), "{said}");
        rack.json(&["mirror", "list"])["items"][0].clone()
    };
    let key = mirror["key"].as_str().unwrap();
    let mut rack = Rack::up("e2eroom", &[Bios, UefiSecure], None);
    rack.kill_server();
    rack.configure(&inside, None, LONG);
    rack.start_server();
    add_last_step(&rack);
    let out = rack.lab.command("ip").args(["route", "show", "default"]).output().unwrap();
    assert!(out.stdout.is_empty(), "a closed room");
    assert_eq!(rack.json(&["images"])["items"], serde_json::json!([]), "it has no image yet");
    rack.ok(&["mirror", "import", file.to_str().unwrap(), "--key", key]);
    let images = rack.json(&["images"]);
    let image = &images["items"][0];
    assert_eq!((&image["name"], &image["digest"]), (&mirror["image"], &mirror["image_digest"]));
    let builds = ["node01", "node02"].map(|n| install(&rack, n, "docker", &["--mirror", "room"]));
    reports_are_lost(&rack, &builds[0]);
    for id in &builds {
        let b = deployed(&rack, id);
        assert_eq!(b["inputs"]["mirror"]["name"], "room", "{b}");
    }
    is_right(&rack, "node01", "bios");
    is_right(&rack, "node02", "uefi");
    let state = rack.ssh("node02", "sudo mokutil --sb-state");
    assert_eq!(state.trim(), "SecureBoot enabled");
    ["node01", "node02"]
        .iter()
        .for_each(|n| updates(&rack, n, "http://10.77.0.1:8080/mirror/room"));
    assert_eq!(rack.metric("cache_upstream_bytes_total"), 0);
}

/// Waits for the last step of node01's install, and lets no report through
/// until three of the installed system were lost too.
fn reports_are_lost(rack: &Rack, build: &str) {
    let in_last_step = || {
        let b = rack.build(build);
        assert_eq!(b["outcome"], "running", "{}", rack.story(build));
        console(rack, "node01").contains("nobody listens now")
    };
    until("the last steps run", 7200, in_last_step);
    let address = rack.json(&["nodes", "show", "node01"])["address"].as_str().unwrap().to_owned();
    let boots = rack.boots(0).len();
    refuse(rack, &address);
    until("the machine starts again", 900, || rack.boots(0).len() > boots);
    assert_eq!(rack.boots(0).last().unwrap(), "disk");
    let by_installer = refused(rack);
    until("the agent has tried three times", 900, || refused(rack) >= by_installer + 3);
    assert_eq!(rack.build(build)["outcome"], "running");
    let mut nft = rack.lab.command("nft");
    assert!(nft.args(["delete", "table", "inet", "lost"]).status().unwrap().success());
}

/// M19: a site's own file that names no mirror, so that the installer asks.
#[test]
fn an_installer_that_stops_at_a_question_is_failed_with_the_questions_name() {
    let rack = Rack::with_uplink("e2eask", &[Bios], &image_cache(), LONG);
    have_image(&rack);
    let own = rack.lab.dir.join("state/pxe");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("mirror.cfg"), "d-i mirror/country string manual\n").unwrap();
    let id = install(&rack, "node01", "base", &[]);
    let b = rack.wait_end(&id, 900);
    assert_eq!(b["outcome"], "failed", "{}", rack.story(&id));
    let why = b["reason"].as_str().unwrap();
    assert!(why.contains("stopped at a question that nobody answered: mirror/"), "{why}");
    let said = rack.ok(&["explain", "node01"]);
    assert!(said.contains("install.question"), "{said}");
    // The log is the build's, and has no secret in it.
    let log = rack.ok(&["builds", "--build", &id, "--log"]);
    assert!(log.contains("Menu item 'choose-mirror' selected"), "{log}");
    assert!(log.contains("provision/token ***") && !log.contains(&format!("{id}.")), "a token");
}
