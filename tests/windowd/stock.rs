//! A rack in the middle of its life: nodes in every state, builds behind them,
//! texts that try to be more than text.

use crate::common::desk::{Flaky, inputs, spec};
use provision::api::Discovered;
use provision::image::pack::pack;
use provision::model::node::{DiskFacts, NicFacts};
use provision::model::{
    Build, BuildOutcome, ClientArch, Digest, Facts, LifeCycle, Mac, NewEvent, Node, Operation,
    OperationKind, OperationState, Outcome, Phase, PhaseRecord, Time,
};
use provision::store::{Batch, Expect, Store as _, kind};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock};

/// A label, a reason and a line of a log that must stay text.
pub const HOSTILE: &str = "\"'><script>alert(1)</script>\u{202e}txt";

fn ago(seconds: i64) -> Time {
    Time::now() - jiff::SignedDuration::from_secs(seconds)
}

/// An id as one made then would be: lists are in that order.
fn id(prefix: &str, seconds: i64) -> String {
    let at = u64::try_from(ago(seconds).as_millisecond()).unwrap();
    format!("{prefix}{}", ulid::Ulid::from_parts(at, rand())).to_lowercase()
}

fn rand() -> u128 {
    u128::from_be_bytes(provision::auth::seal::random::<16>().unwrap())
}

/// A build that began `began` seconds ago and is in `phase`, every phase
/// having taken `each` seconds.
pub fn build(n: u8, outcome: BuildOutcome, began: i64, each: i64, phase: Phase) -> Build {
    let running = outcome == BuildOutcome::Running;
    let (mut at, mut phases) = (ago(began), Vec::new());
    for p in Phase::ALL.into_iter().filter(|p| *p <= phase) {
        let ended = at + jiff::SignedDuration::from_secs(each);
        let open = running && p == phase;
        phases.push(PhaseRecord {
            phase: p,
            attempt: 1,
            started: at,
            ended: (!open).then_some(ended),
            deadline: if open { ago(-300) } else { ended },
            reason: open.then(|| "waiting for the image to be written".to_owned()),
            bytes: if open && p == Phase::Image { 430_000_000 } else { 0 },
            total: if open && p == Phase::Image { 1_000_000_000 } else { 0 },
            sent: false,
        });
        at = ended;
    }
    Build {
        id: id("b-", began).parse().unwrap(),
        node: spec(n).name,
        operation: id("op-", began).parse().unwrap(),
        actor: "ada".into(),
        inputs: inputs(),
        phase,
        attempt: 1,
        phases,
        outcome,
        reason: None,
        question: None,
        started: ago(began),
        ended: (!running).then_some(at),
        manifest: None,
        disk: Some("/dev/sda 480.1 GB".into()),
    }
}

fn operation(b: &Build) -> Operation {
    Operation {
        id: b.operation.clone(),
        kind: OperationKind::Install,
        node: Some(b.node.clone()),
        build: Some(b.id.clone()),
        parent: None,
        request: None,
        state: match b.outcome {
            BuildOutcome::Running => OperationState::Running,
            BuildOutcome::Deployed => OperationState::Done,
            BuildOutcome::Failed => OperationState::Failed,
            BuildOutcome::Cancelled => OperationState::Cancelled,
        },
        phase: Some(b.phase),
        reason: b.reason.clone(),
        bytes: 0,
        total: 0,
        deadline: None,
        actor: b.actor.clone(),
        result: None,
        started: b.started,
        updated: b.ended.unwrap_or_else(Time::now),
    }
}

fn facts(n: u8) -> Facts {
    let disk = |name: &str, bytes, removable| DiskFacts {
        name: name.into(),
        bytes,
        model: "INTEL SSDSC2KB480G8".into(),
        serial: format!("PHYF0420{n:02}"),
        removable,
        ..DiskFacts::default()
    };
    Facts {
        cpu: "Intel Xeon E5-2630 v3".into(),
        cpus: 32,
        memory: 128 << 30,
        disks: vec![disk("sda", 480_103_981_056, false), disk("sdb", 16_000_000_000, true)],
        nics: vec![NicFacts {
            name: "eno1".into(),
            mac: spec(n).macs[0],
            driver: "igb".into(),
            link: true,
        }],
        hardware: "Dell Inc. PowerEdge R430".into(),
        serial: format!("7XKQ{n:02}2"),
        bios_version: "2.15.0".into(),
        ..Facts::default()
    }
}

/// Fills the store, and writes an image and a log beside.
pub async fn fill(store: &Flaky, dir: &Path) {
    use BuildOutcome as O;
    let mut builds = Vec::new();
    for n in 1..=8 {
        builds.push(build(n, O::Deployed, 86_400 * i64::from(n), 12 + i64::from(n), Phase::Verify));
    }
    let mut failed = build(3, O::Failed, 900, 20, Phase::Loader);
    failed.reason = Some(format!("waited 60 s for the loader and it never came; {HOSTILE}"));
    let running = build(2, O::Running, 170, 20, Phase::Image);
    let mut asks = build(6, O::Running, 400, 20, Phase::Installer);
    asks.question = Some("Which mirror?".into());
    let slow = build(7, O::Running, 700, 15, Phase::FirstBoot);
    std::fs::write(dir.join(format!("{}.log", running.id)), log()).unwrap();
    let console = format!(
        "      0.3  iPXE initialising devices...ok\n      6.6  [    0.000000] Linux version 6.12.48\n      9.1  {HOSTILE}\n"
    );
    std::fs::write(dir.join(format!("{}.console", running.id)), console).unwrap();
    let latest = [failed, running, asks, slow];
    builds.extend(latest.clone());
    let mut batch = Batch::new();
    for b in &builds {
        batch = batch.put(kind::BUILD, b.id.as_str(), b, Expect::Any).unwrap();
        let o = operation(b);
        batch = batch.put(kind::OPERATION, o.id.as_str(), &o, Expect::Any).unwrap();
    }
    for n in 1..=9 {
        let mut node = Node::new(spec(n));
        let s = &mut node.status;
        let last = latest.iter().find(|b| b.node == node.spec.name);
        let before = builds.iter().find(|b| b.node == node.spec.name);
        s.build = last.or(before).map(|b| b.id.clone());
        s.life = match last.map(|b| b.outcome) {
            Some(O::Failed) => LifeCycle::Failed,
            Some(O::Running) => LifeCycle::Installing,
            _ if n == 8 => LifeCycle::Retired,
            _ if before.is_some() => LifeCycle::Deployed,
            _ => LifeCycle::Ready,
        };
        s.reason = last.and_then(|b| b.reason.clone());
        if before.is_some() {
            s.image = Some("debian-12".parse().unwrap());
            s.profile = Some("base".parse().unwrap());
            s.deployed_at = before.and_then(|b| b.ended);
            s.facts = Some(facts(n));
            s.last_seen = Some(ago(40 * i64::from(n)));
        }
        let label = if n == 1 { HOSTILE.to_owned() } else { format!("A-{n:04}") };
        node.spec.labels.insert("asset".into(), label);
        node.spec.spare = n == 8;
        batch = batch.put(kind::NODE, node.spec.name.as_str(), &node, Expect::Any).unwrap();
    }
    for (action, outcome) in [
        ("install.request", Outcome::Ok),
        ("dhcp.offer", Outcome::Ok),
        ("dhcp.offer", Outcome::Ok),
        ("install.failed", Outcome::Failed),
    ] {
        let e = NewEvent::new(ago(880), "ada", action, outcome).node(&spec(3).name);
        batch = batch.event(e.with("client", HOSTILE));
    }
    store.inner.commit(batch).await.unwrap();
    image(dir);
}

fn log() -> String {
    let mut text: String =
        (1..400).map(|n| format!("agent: block {n} of 1000 written\n")).collect();
    text.push_str(&format!("agent: {HOSTILE}\n"));
    text
}

/// What the protocols have counted.
pub fn counters() -> BTreeMap<String, u64> {
    let dhcp = [("dhcp_offer", 412), ("dhcp_ack", 400), ("dhcp_unknown_client", 12)];
    let tftp = [("tftp_done", 96), ("tftp_size_asked", 96), ("tftp_timed_out", 1)];
    let cache = provision::cache::Counts::default().all().into_keys().zip(1000..);
    let more = [("tftp_sent_bytes", 99_000_000), ("tftp_active", 1), ("cache_bytes", 1 << 30)];
    let lost = [("sightings_lost", 0), ("syslog_lost", 0)];
    let all = [dhcp, tftp, more].concat().into_iter().chain(lost);
    all.map(|(name, n)| (name.to_owned(), n)).chain(cache).collect()
}

/// Machines nobody knows.
pub fn strangers() -> Arc<RwLock<BTreeMap<Mac, Discovered>>> {
    let mac: Mac = "b0:83:fe:00:00:99".parse().unwrap();
    let d = Discovered {
        mac,
        vendor: "Dell".into(),
        vendor_class: Some(HOSTILE.into()),
        arch: Some(ClientArch::UefiX64),
        first_seen: ago(4000),
        last_seen: ago(30),
        packets: 12,
    };
    Arc::new(RwLock::new(BTreeMap::from([(mac, d)])))
}

/// The image `debian-12`, of a mebibyte, and one that cannot be read.
fn image(root: &Path) {
    let dir = root.join("images/debian-12");
    std::fs::create_dir_all(&dir).unwrap();
    let raw = root.join("raw");
    std::fs::write(&raw, vec![7; 1 << 20]).unwrap();
    let index = pack(&raw, &dir.join("rootfs.zst"), |_, _| true).unwrap();
    std::fs::write(dir.join("rootfs.idx"), index.to_text()).unwrap();
    let mut text = format!(
        "format = 1\nname = \"debian-12\"\nos = \"debian\"\nrelease = \"12\"\nversion = \"12.0\"\n\
         arch = \"x86_64\"\nmethod = \"image\"\nkernel_args = \"\"\nkernel = \"6.1\"\n[rootfs]\n\
         bytes = {}\ndata = {}\n[provenance]\nsource_date_epoch = 0\nsuite = \"bookworm\"\n\
         components = []\npackages = \"{}\"\npackage_count = 412\nbuilder = \"0\"\n",
        index.bytes,
        index.data_bytes(),
        Digest::of(b"")
    );
    for f in ["rootfs.zst", "rootfs.idx"] {
        let bytes = std::fs::read(dir.join(f)).unwrap();
        let (digest, size) = (Digest::of(&bytes), bytes.len());
        text += &format!("[files.\"{f}\"]\nsha256 = \"{digest}\"\nsize = {size}\n");
    }
    std::fs::write(dir.join("image.toml"), text).unwrap();
    std::fs::create_dir_all(root.join("images/broken")).unwrap();
    std::fs::write(root.join("images/broken/image.toml"), "format = \"<b>\"").unwrap();
}
