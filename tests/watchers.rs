//! Five hundred programs follow the events over HTTP while a hundred nodes are
//! installed at once: none misses an event or hears one twice, also not those
//! that break off and come back. The watchers are a process of their own, so
//! that memory and time of the server can be told. M30 M44.

mod common;
mod windowd;

use common::desk::name;
use futures::StreamExt as _;
use provision::auth::Role;
use provision::lifecycle::Input;
use provision::model::plan::{InstalledReport, PhaseReport, VerifiedReport};
use provision::model::{BuildOutcome, ClientKind, Digest, Phase, Time};
use provision::store::{EventLog as _, EventQuery};
use serde_json::json;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use windowd::Bench;

const WATCHERS: usize = 500;
const NODES: u8 = 100;
/// Watchers with one token: no token may ask much more often.
const PER_TOKEN: usize = 50;
const LIMIT: Duration = Duration::from_secs(300);

/// The watchers' process: it is told by its input which event is the last one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below"]
async fn watchers() {
    provision::tls::install_provider();
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let var = |n: &str| std::env::var(n).unwrap();
    let (base, tokens) = (var("WATCH_BASE"), var("WATCH_TOKENS"));
    let (tell, last) = tokio::sync::watch::channel(u64::MAX);
    let all: Vec<_> = tokens
        .split(',')
        .flat_map(|t| std::iter::repeat_n(t.to_owned(), PER_TOKEN))
        .enumerate()
        .map(|(i, t)| {
            tokio::spawn(watch(i, http.clone(), format!("{base}/v1/events"), t, last.clone()))
        })
        .collect();
    println!("watching");
    let mut line = String::new();
    BufReader::new(tokio::io::stdin()).read_line(&mut line).await.unwrap();
    tell.send_replace(line.trim().parse().unwrap());
    let (mut heard, mut again) = (0, 0);
    for w in all {
        let (n, times) = w.await.unwrap();
        heard += n;
        again += times;
    }
    println!("heard {heard} again {again}");
}

/// Follows from the beginning; every third one breaks off now and then.
async fn watch(
    i: usize,
    http: reqwest::Client,
    url: String,
    token: String,
    mut until: tokio::sync::watch::Receiver<u64>,
) -> (u64, u64) {
    let (mut seen, mut again) = (0_u64, 0_u64);
    loop {
        let r = http.get(&url).bearer_auth(&token).header("accept", "text/event-stream");
        let r = r.header("last-event-id", seen).send().await.unwrap();
        assert_eq!(r.status(), 200, "watcher {i}");
        let mut stream = r.bytes_stream();
        let (mut text, mut here) = (String::new(), 0);
        loop {
            if seen >= *until.borrow() {
                return (seen, again);
            }
            let chunk = tokio::select! {
                c = stream.next() => c.unwrap().unwrap(),
                _ = until.changed() => continue,
            };
            text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let Some(id) = event.lines().find_map(|l| l.strip_prefix("id:")) else { continue };
                let id: u64 = id.trim().parse().unwrap();
                assert_eq!(id, seen + 1, "watcher {i}: missed or doubled");
                seen = id;
                here += 1;
            }
            // In the middle of what has come: the rest of it is lost.
            if i.is_multiple_of(3) && here > 150 + i as u64 && again < 4 {
                again += 1;
                break;
            }
        }
    }
}

/// Plays a node that is installed.
async fn node(bench: &Bench, n: u8) {
    let node = name(&format!("sim{n:03}"));
    let rack = &bench.rack;
    let running = loop {
        match rack.running_build(&node) {
            Some(b) if b.phase >= Phase::Dhcp => break b,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let report =
        |phase, bytes| Input::Reported(PhaseReport { phase, bytes, total: 10, message: None });
    let written = InstalledReport {
        manifest: Digest::of(&[n]),
        disk: "/dev/sda".into(),
        firmware: Default::default(),
        host_keys: vec![],
    };
    for s in [
        Input::Dhcp(ClientKind::Pxe, Time::now()),
        Input::LoaderAsked,
        Input::ScriptAsked,
        Input::KernelFetched,
        Input::FactsSeen,
        report(Phase::Disk, 0),
        report(Phase::Image, 5),
        report(Phase::Image, 10),
        report(Phase::Profile, 0),
        report(Phase::Bootloader, 0),
        Input::Installed(written),
        Input::Booted("6.1".into()),
        Input::Verified(VerifiedReport { ok: true, code: 0, output: String::new() }),
    ] {
        rack.input(&running.id, s).await.unwrap();
        // The pace of a node, not synchronisation.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Resident memory in MiB and processor time in seconds, of this process.
fn spent() -> (u64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = kib.split_whitespace().next().unwrap().parse().unwrap();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let ticks = after.split_whitespace().skip(11).take(2).map(|t| t.parse::<f64>().unwrap());
    (kib / 1024, ticks.sum::<f64>() / 100.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_watchers_hear_every_event_of_a_hundred_installs_once() {
    let bench = Bench::start().await;
    let http = reqwest::Client::new();
    for n in 0..NODES {
        let macs = [format!("52:54:00:01:00:{n:02x}")];
        let spec = json!({ "name": format!("sim{n:03}"), "macs": macs,
            "bmc": { "address": format!("192.0.3.{n}"), "user": "ops" }, "bmc_password": "x" });
        let r = http.post(format!("{}/v1/nodes", bench.local)).json(&spec).send().await.unwrap();
        assert!(r.status().is_success(), "{}", r.text().await.unwrap());
    }
    let tokens: Vec<String> =
        (0..WATCHERS / PER_TOKEN).map(|i| bench.token(&format!("eyes{i}"), Role::Read)).collect();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["watchers", "--exact", "--ignored", "--nocapture"])
        .env("WATCH_BASE", &bench.base)
        .env("WATCH_TOKENS", tokens.join(","))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    while said.next_line().await.unwrap().expect("the watchers ended").trim() != "watching" {}
    let before = spent();
    let begun = Instant::now();

    let nodes: Vec<String> = (0..NODES).map(|n| format!("sim{n:03}")).collect();
    let order = json!({ "nodes": nodes, "type": "base", "image": "debian-12", "at_once": NODES });
    let r = http.post(format!("{}/v1/installs", bench.local)).json(&order).send().await.unwrap();
    assert_eq!(r.status(), 202);
    let all = futures::future::join_all((0..NODES).map(|n| node(&bench, n)));
    if tokio::time::timeout(LIMIT, all).await.is_err() {
        let v = bench.rack.view();
        let stands =
            |b: &&std::sync::Arc<provision::model::Build>| b.node.as_str().starts_with("sim");
        let all: Vec<String> = v
            .builds
            .values()
            .filter(stands)
            .map(|b| format!("{} {} {:?}", b.node, b.phase, b.outcome))
            .collect();
        panic!("the nodes take too long after {:.0} s: {all:?}", spent().1);
    }
    for n in 0..NODES {
        let v = bench.rack.view();
        let node = v.inventory.find(&format!("sim{n:03}")).unwrap();
        let b = &v.builds[node.status.build.as_ref().unwrap()];
        assert_eq!(b.outcome, BuildOutcome::Deployed, "sim{n:03}");
    }
    common::desk::until("the order is done", || bench.rack.running_rollouts().is_empty()).await;
    let newest = EventQuery { limit: 1, ..EventQuery::default() };
    let last = bench.store.inner.query(&newest).await.unwrap()[0].seq;
    child.stdin.take().unwrap().write_all(format!("{last}\n").as_bytes()).await.unwrap();
    let told = async {
        loop {
            let line = said.next_line().await.unwrap().expect("a watcher failed: see above");
            if let Some(rest) = line.split("heard ").nth(1) {
                return rest.to_owned();
            }
        }
    };
    let told = tokio::time::timeout(LIMIT, told).await.expect("the watchers take too long");
    let after = spent();
    let (heard, again) = told.split_once(" again ").unwrap();
    assert_eq!(heard.parse::<u64>().unwrap(), last * WATCHERS as u64);
    assert!(again.trim().parse::<u64>().unwrap() > 100, "some break off and come back: {again}");
    assert!(child.wait().await.unwrap().success());
    eprintln!(
        "{last} events to {WATCHERS} watchers ({again} came back) in {:.1} s; server: {} MiB before, \
         {} MiB after, {:.1} s of processor time",
        begun.elapsed().as_secs_f64(),
        before.0,
        after.0,
        after.1 - before.1
    );
}
