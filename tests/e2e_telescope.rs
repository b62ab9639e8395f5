//! The telescope's master controller: a program on a host of its own installs
//! four nodes in one call. It is killed in the midst, and the server is: each
//! node is installed once, and no event is missed or heard twice.
//! `make test-telescope`. M30 M44.

mod common;

use common::host::Host;
use common::rack::{Rack, seconds, until};
use provision::lab::LabFirmware::Bios;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const NODES: [&str; 4] = ["node01", "node02", "node03", "node04"];

/// The controller's own computer.
struct Telescope {
    host: Host,
    token: PathBuf,
    journal: PathBuf,
    log: PathBuf,
}

impl Telescope {
    fn start(&self, rack: &Rack) -> Child {
        let mut c = self.host.command(rack, "python3");
        c.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/telescope/night.py"));
        c.arg("https://10.77.0.1:8443").arg(rack.lab.dir.join("state/tls/server.pem"));
        c.args([&self.token, &self.journal]).args(NODES);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        c.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
        c.spawn().unwrap()
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn heard(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.journal).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

/// Installs of the call, by node.
fn builds(rack: &Rack) -> BTreeMap<String, Vec<Value>> {
    let all = rack.json(&["builds"]);
    let mut by: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for b in all["items"].as_array().or(all.as_array()).unwrap() {
        by.entry(b["node"].as_str().unwrap().to_owned()).or_default().push(b.clone());
    }
    by
}

fn kill(mut c: Child) {
    c.kill().unwrap();
    c.wait().unwrap();
}

#[test]
fn four_nodes_in_one_call_are_each_installed_once_though_both_sides_are_killed() {
    let mut rack = Rack::up("e2escope", &[Bios; 4], None);
    let token = rack.dir.path().join("token");
    std::fs::write(&token, rack.ok(&["tokens", "add", "telescope", "--role", "controller"]))
        .unwrap();
    let scope = Telescope {
        host: Host::plug_in(&rack, "scope", "10.77.0.240"),
        token,
        journal: rack.dir.path().join("journal"),
        log: rack.dir.path().join("said"),
    };
    let in_image = |n: usize| {
        let all = builds(&rack);
        all.len() >= n && all.values().flatten().any(|b| b["phase"] == "image")
    };
    let first = scope.start(&rack);
    until("the first two are being written", 120, || in_image(1));
    kill(first);
    assert!(builds(&rack).len() <= 2, "two at once was asked for");

    let second = scope.start(&rack);
    until("the first ones are done", 300, || builds(&rack).len() > 2);
    until("others are being written", 120, || in_image(3));
    rack.kill_server();
    rack.start_server();
    let mut second = second;
    let end = Instant::now() + Duration::from_secs(600);
    let status = loop {
        if let Some(s) = second.try_wait().unwrap() {
            break s;
        }
        if Instant::now() > end {
            kill(second);
            panic!("{}\n{}", scope.said(), rack.ok(&["builds"]));
        }
        std::thread::sleep(Duration::from_millis(300));
    };
    let said = scope.said();
    eprintln!("{said}");
    assert!(status.success(), "{said}");

    // The same operation both times, the second answer a replay.
    let answers: Vec<&str> = said.lines().filter(|l| l.starts_with("202 ")).collect();
    assert_eq!(answers.len(), 2, "{said}");
    let id = |l: &str| l.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(id(answers[0]), id(answers[1]));
    assert!(answers[0].ends_with("=false") && answers[1].ends_with("=true"), "{said}");
    // A connection over TLS is in it, on a machine that emulates two others.
    let took: u64 =
        answers[0].split(" in ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    eprintln!("answered after {took} ms");

    // Each node once.
    let all = builds(&rack);
    assert_eq!(all.keys().map(String::as_str).collect::<Vec<_>>(), NODES);
    for (i, (node, builds)) in all.iter().enumerate() {
        assert_eq!(builds.len(), 1, "{node}");
        assert_eq!((&builds[0]["outcome"], &builds[0]["attempt"]), (&"deployed".into(), &1.into()));
        assert_eq!(rack.boots(i), ["network", "disk"], "{node}");
        let all: f64 = builds[0]["phases"].as_array().unwrap().iter().map(seconds).sum();
        eprintln!("{node} in {all:.0} s");
    }
    nothing_missed(&rack, &scope.heard());
}

/// What was heard is the record, up to where it was listened.
fn nothing_missed(rack: &Rack, heard: &[Value]) {
    let seq = |e: &Value| e["seq"].as_u64().unwrap();
    let last = seq(heard.last().unwrap());
    let all: Vec<u64> = (1..=last).collect();
    assert_eq!(heard.iter().map(seq).collect::<Vec<_>>(), all);
    let record = rack.json(&["log", "--limit", "10000"]);
    let record = record["items"].as_array().or(record.as_array()).unwrap().clone();
    for e in heard {
        assert!(record.contains(e), "{e}");
    }
    eprintln!("{last} events heard, each once");
    rack.ok(&["log", "--verify"]);
}
