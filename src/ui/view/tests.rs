//! The pages' contents by table.

use super::alerts::{Server, alerts};
use super::confirm::{Choice, install, seen};
use super::rack::{Asked, rack};
use super::records::operation;
use super::text::Mark;
use super::timeline::timeline;
use crate::lifecycle::explain::Explanation;
use crate::lifecycle::rack::View;
use crate::lifecycle::usual::Usual;
use crate::model::node::DiskFacts;
use crate::model::{
    Build, BuildId, BuildOutcome, Facts, LifeCycle, Node, Operation, OperationId, OperationKind,
    OperationState, Phase, PhaseRecord, Time,
};
use std::sync::Arc;

const WELL: Server<'static> = Server { store_ok: true, store: "sqlite", clock: Some(true) };

fn at(s: i64) -> Time {
    Time::from_second(1_000_000 + s).unwrap()
}

/// A build whose phases began at these seconds; the last one goes on until
/// `end`, when there is one.
fn build(node: &str, starts: &[i64], end: Option<i64>, outcome: BuildOutcome) -> Build {
    let ends = starts.iter().skip(1).map(|s| Some(at(*s))).chain([end.map(at)]);
    let phases: Vec<PhaseRecord> = Phase::ALL
        .into_iter()
        .zip(starts.iter().zip(ends))
        .map(|(phase, (start, ended))| PhaseRecord {
            phase,
            attempt: 1,
            started: at(*start),
            ended,
            deadline: at(*start + 600),
            reason: ended.is_none().then(|| format!("waiting in {phase}")),
            bytes: 0,
            total: 0,
            sent: false,
        })
        .collect();
    Build {
        phase: phases.last().unwrap().phase,
        phases,
        outcome,
        ended: end.map(at),
        ..Build::example(node, at(starts[0]))
    }
}

fn node(name: &str, n: u8, life: LifeCycle, build: Option<&Build>) -> Node {
    let spec = serde_json::json!({
        "name": name, "macs": [format!("52:54:00:00:00:{n:02x}")],
        "address": format!("10.1.0.{n}"), "labels": {"row": "b"},
    });
    let mut node = Node::new(serde_json::from_value(spec).unwrap());
    node.status.life = life;
    node.status.build = build.map(|b| b.id.clone());
    node
}

fn view(all: Vec<(Node, Option<Build>)>) -> View {
    let mut v = View::default();
    for (n, b) in all {
        v.inventory.put(n);
        v.builds.extend(b.map(|b| (b.id.clone(), Arc::new(b))));
    }
    v
}

#[test]
fn what_is_the_matter_with_a_build_is_told_by_what_it_does() {
    let running = |starts: &[i64]| build("node01", starts, None, BuildOutcome::Running);
    let usual = |v: &View| Usual::of(v.builds.values());
    let before = || {
        let b = || build("old", &[0, 10, 20, 30], Some(40), BuildOutcome::Deployed);
        vec![
            (node("old", 99, LifeCycle::Deployed, None), Some(b())),
            (node("old2", 98, LifeCycle::Deployed, None), Some(b())),
        ]
    };
    let asks = Build { question: Some("Which?".into()), ..running(&[0, 10]) };
    let mut again = Build { attempt: 2, ..running(&[0, 10]) };
    again.phases[0].reason = Some("the BMC was silent".into());
    again.phases[1].attempt = 2;
    // What is the matter, with the build, at which second.
    for (want, b, now) in [
        (None, running(&[0, 10]), 15),
        (Some(("slow", "the usual 10 s")), running(&[0, 10]), 60),
        // Without a usual, three quarters of the time it has.
        (None, running(&[0, 10, 20, 30, 40]), 400),
        (Some(("stuck", "given up in 1 min 40 s")), running(&[0, 10, 20, 30, 40]), 540),
        (Some(("stuck", "the installer asks")), asks, 12),
        (Some(("again", "attempt 2")), again, 12),
    ] {
        let mut all = before();
        all.push((node("node01", 1, LifeCycle::Installing, Some(&b)), Some(b)));
        let v = view(all);
        let found = alerts(&v, WELL, &usual(&v), at(now));
        let said = found.first().map(|a| (a.mark.word, a.what.clone()));
        match want {
            None => assert_eq!(said, None, "at {now}"),
            Some((mark, text)) => {
                let (word, what) = said.unwrap_or_else(|| panic!("nothing for {text}"));
                assert!(word == mark && what.contains(text), "{word} {what}");
                assert_eq!(found[0].href, "/ui/nodes/node01");
            }
        }
    }
}

#[test]
fn the_server_comes_first_then_what_failed_then_what_waits() {
    let mut failed = build("node02", &[0, 10], Some(70), BuildOutcome::Failed);
    failed.reason = Some("no packet came".into());
    let slow = build("node01", &[0, 10, 20, 30, 40], None, BuildOutcome::Running);
    let work = Operation {
        id: OperationId::generate(),
        kind: OperationKind::ImageBuild,
        node: None,
        build: None,
        parent: None,
        request: None,
        state: OperationState::Failed,
        phase: None,
        reason: Some("no room".into()),
        bytes: 0,
        total: 0,
        deadline: None,
        actor: "ada".into(),
        result: None,
        started: at(0),
        updated: at(50),
    };
    let mut v = view(vec![
        (node("node01", 1, LifeCycle::Installing, Some(&slow)), Some(slow)),
        (node("node02", 2, LifeCycle::Failed, Some(&failed)), Some(failed)),
        (node("node03", 3, LifeCycle::Ready, None), None),
    ]);
    v.operations.insert(work.id.clone(), Arc::new(work));
    let ill = Server { store_ok: false, store: "redis", clock: Some(false) };
    let all = alerts(&v, ill, &Usual::default(), at(600));
    let about: Vec<(&str, &str)> = all.iter().map(|a| (a.about.as_str(), a.mark.word)).collect();
    assert_eq!(
        about,
        [
            ("this server", "stuck"),
            ("this server", "stuck"),
            ("node02", "failed"),
            ("node01", "stuck"),
            ("image build", "failed"),
        ]
    );
    assert_eq!((all[2].why.as_str(), all[2].long.as_str()), ("no packet came", "8 min 50 s"));
    // Half a day later the failed work is history, the failed node is not.
    let later = alerts(&v, WELL, &Usual::default(), at(86_400));
    assert!(later.iter().all(|a| a.about != "image build") && later[0].about == "node02");
}

#[test]
fn nodes_are_found_by_state_name_address_mac_and_label() {
    let v = view(vec![
        (node("node01", 1, LifeCycle::Deployed, None), None),
        (node("node02", 2, LifeCycle::Failed, None), None),
    ]);
    for (state, q, want) in [
        ("", "", 2),
        ("failed", "", 1),
        ("", "10.1.0.2", 1),
        ("", "52:54:00:00:00:01", 1),
        ("", "ROW=B", 2),
        ("deployed", "node02", 0),
        ("nonsense", "", 0),
    ] {
        let asked = Asked { state: state.into(), q: q.into() };
        let page = rack(&v, &[], WELL, asked, at(0));
        assert_eq!(page.rows.len(), want, "{state:?} {q:?}");
        assert_eq!(page.total, 2);
    }
}

fn told(build: Build) -> Explanation {
    Explanation { build, lines: vec![], summary: "s".into(), missing: None, symptoms: vec![] }
}

#[test]
fn a_timeline_marks_where_it_failed_and_says_what_is_to_come() {
    let mut failed = build("node01", &[0, 10, 20], Some(90), BuildOutcome::Failed);
    failed.reason = Some("no loader asked".into());
    let t = timeline(told(failed), &Usual::default(), at(100));
    let marks: Vec<&str> = t.rows.iter().map(|r| r.mark.word).collect();
    assert_eq!(marks, ["done", "done", "failed"]);
    assert_eq!(
        (t.rows[2].what.as_str(), t.rows[2].took.as_str()),
        ("no loader asked", "1 min 10 s")
    );
    assert!(t.to_come.is_empty() && t.took == "1 min 30 s");
    // The longest phase fills the scale.
    assert_eq!((t.rows[2].bar.full, t.rows[0].bar.full), (1000, 142));

    let running = build("node01", &[0, 10], None, BuildOutcome::Running);
    let t = timeline(told(running), &Usual::default(), at(30));
    assert_eq!(t.rows[1].what, "waiting in dhcp; given up in 9 min 40 s");
    assert_eq!(t.to_come.first(), Some(&"loader"));
}

#[test]
fn a_confirmation_names_machine_and_disk_and_notices_when_they_change() {
    let disk = |name: &str, serial: &str| DiskFacts {
        name: name.into(),
        bytes: 480_103_981_056,
        serial: serial.into(),
        ..DiskFacts::default()
    };
    let mut n = node("node01", 1, LifeCycle::Deployed, None);
    let choice = Choice { profile: "docker".into(), image: "debian-12".into(), mirror: "".into() };
    let said = |n: &Node, what: &str| {
        let c = install(n, &choice, at(0));
        c.facts.into_iter().find(|(w, _)| *w == what).map(|(_, v)| v).unwrap_or_default()
    };
    assert!(said(&n, "Disk to be wiped").contains("never reported"), "{:?}", said(&n, "Disk"));
    n.status.facts = Some(Facts {
        serial: "7XKQ012".into(),
        disks: vec![disk("sda", "ONE"), disk("sdb", "TWO")],
        ..Facts::default()
    });
    assert!(said(&n, "Disk to be wiped").starts_with("none, by what it last reported: more than"));
    let before = seen(&n);
    n.spec.disk.serial = Some("TWO".into());
    assert!(said(&n, "Disk to be wiped").starts_with("/dev/sdb 480.1 GB serial TWO"));
    assert_eq!(said(&n, "Serial"), "7XKQ012");
    assert_ne!(seen(&n), before, "another disk is another confirmation");
    n.status.image = Some("debian-12".parse().unwrap());
    n.status.profile = Some("base".parse().unwrap());
    let c = install(&n, &choice, at(0));
    assert!(c.warnings[0].contains("debian-12 / base"), "{:?}", c.warnings);
    let same = seen(&n);
    n.status.last_seen = Some(at(9));
    assert_eq!(seen(&n), same, "a packet from it changes nothing that was confirmed");
}

#[test]
fn only_a_running_install_can_be_given_up() {
    let mut o = Operation {
        id: OperationId::generate(),
        kind: OperationKind::Install,
        node: None,
        build: Some(BuildId::generate()),
        parent: None,
        request: None,
        state: OperationState::Running,
        phase: Some(Phase::Image),
        reason: None,
        bytes: 25,
        total: 100,
        deadline: Some(at(90)),
        actor: "ada".into(),
        result: None,
        started: at(0),
        updated: at(0),
    };
    let row = operation(&o, at(30));
    assert!(row.cancels && row.bar.is_some_and(|b| b.full == 250));
    assert_eq!(row.what, "phase image; 25 % of 100 B; given up in 1 min 00 s");
    o.state = OperationState::Done;
    assert!(!operation(&o, at(30)).cancels);
    o.state = OperationState::Running;
    o.kind = OperationKind::Power;
    assert!(!operation(&o, at(30)).cancels, "the BMC has it");
    (o.kind, o.bytes, o.total, o.phase, o.deadline) =
        (OperationKind::InstallMany, 3, 40, None, None);
    let row = operation(&o, at(30));
    assert!(row.cancels && row.what == "3 of 40 nodes", "{}", row.what);
    assert_eq!(row.mark, Mark::RUNNING);
}
