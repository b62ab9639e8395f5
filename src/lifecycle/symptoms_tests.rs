//! The table of symptoms, each by what the record shows of it. The same ones
//! are made on real machines in `tests/e2e_explain.rs`.

use super::super::explain::{Explanation, Scene, Stranger, explain};
use super::super::usual::Usual;
use crate::model::{
    Build, BuildId, BuildOutcome, Digest, Event, NewEvent, Outcome, Phase, PhaseRecord, Time,
};
use std::sync::Arc;

fn at(s: i64) -> Time {
    Time::from_second(1_000_000 + s).unwrap()
}

/// A build whose phases began each ten seconds after the one before; the last
/// one goes on.
fn build(until: Phase) -> Build {
    let before = Phase::ALL.into_iter().take_while(|p| *p <= until);
    let record = |(i, phase): (i64, Phase)| PhaseRecord {
        phase,
        attempt: 1,
        started: at(10 * i),
        ended: (phase != until).then(|| at(10 * i + 10)),
        deadline: at(10 * i + 600),
        reason: None,
        bytes: 0,
        total: 0,
        sent: false,
    };
    Build {
        phase: until,
        phases: (0..).zip(before).map(record).collect(),
        ..Build::example("node01", at(0))
    }
}

/// Events, one a second from `since` on: `action key=value key=value`, a `!`
/// before those that failed.
fn events(since: i64, all: &[&str]) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    for (i, text) in (0..).zip(all) {
        let mut words = text.trim_start_matches('!').split(' ');
        let outcome = if text.starts_with('!') { Outcome::Failed } else { Outcome::Ok };
        let mut e = NewEvent::new(at(since + i), "node:node01", words.next().unwrap(), outcome);
        for w in words {
            let (k, v) = w.split_once('=').unwrap();
            // Not in a path.
            e = e.with(k, if v.contains('/') { v.to_owned() } else { v.replace('_', " ") });
        }
        let prev = out.last().map_or(Digest::from_raw(Event::GENESIS), |l| l.hash);
        out.push(Event::chain(out.len() as u64 + 1, e, prev));
    }
    out
}

fn told(
    b: &Build,
    events: &[Event],
    strangers: &[Stranger],
    usual: &Usual,
    now: i64,
) -> Explanation {
    explain(&Scene { build: b, node: None, events, usual, strangers, now: at(now) })
}

fn names(e: &Explanation) -> Vec<&str> {
    e.symptoms.iter().map(|s| s.name.as_str()).collect()
}

const OFFER: &str = "dhcp.offer client=PXE_firmware";
const ACK: &str = "dhcp.ack client=PXE_firmware boot_file=snponly.efi";

#[test]
fn each_symptom_is_known_by_what_the_record_shows() {
    use Phase::*;
    let cases: &[(Phase, i64, &[&str], &str, &str)] = &[
        (Dhcp, 10, &[], "no-dhcp", "DHCPDISCOVER"),
        (Loader, 20, &[OFFER, OFFER, OFFER], "offers-not-taken", "DHCPREQUEST"),
        (
            Loader,
            20,
            &[OFFER, "dhcp.other-server reason=it_chose_10.9.9.9"],
            "other-dhcp-server",
            "DHCPREQUEST",
        ),
        (
            Loader,
            20,
            &[OFFER, ACK, "!tftp.not-found file=pxelinux.0"],
            "loader-missing",
            "request for snponly.efi",
        ),
        (
            Loader,
            20,
            &[OFFER, ACK, "!tftp.not-found file=snponly.efi"],
            "loader-missing",
            "snponly.efi: this server does not have it",
        ),
        (
            Loader,
            20,
            &[OFFER, ACK, "boot.loader", "!tftp.timed-out file=snponly.efi bytes=512"],
            "tftp-breaks",
            "transfer",
        ),
        (
            Loader,
            20,
            &[OFFER, ACK, "boot.loader", "tftp.done file=snponly.efi"],
            "loader-silent",
            "its script",
        ),
        (
            Loader,
            20,
            &[OFFER, ACK, "!boot.refused reason=not_started"],
            "loader-refused",
            "snponly.efi",
        ),
        (
            Kernel,
            30,
            &["http.script", "!http.file file=ramdisk bytes=9"],
            "transfer-broken",
            "sent whole",
        ),
        (
            Kernel,
            30,
            &["http.script", "!boot.failed reason=not_signed"],
            "kernel-refused",
            "sent whole",
        ),
        (Kernel, 30, &["http.script"], "kernel-silent", "nothing went out"),
        (Installer, 40, &[], "agent-silent", "agent's facts"),
        (Installer, 40, &["!install.question question=Which?"], "installer-asks", "facts"),
        (FirstBoot, 90, &[], "no-first-boot", "request for its address"),
        (FirstBoot, 90, &["dhcp.ack client=operating_system"], "first-boot-silent", "first report"),
    ];
    for (phase, since, all, name, missing) in cases {
        let mut b = build(*phase);
        b.question = all.iter().find_map(|e| e.split_once("question=")).map(|(_, q)| q.to_owned());
        let e = told(&b, &events(*since, all), &[], &Usual::default(), 200);
        assert_eq!(names(&e), [*name], "{phase} {all:?}");
        assert!(e.symptoms[0].stops && e.missing.as_ref().unwrap().contains(missing), "{e:?}");
        assert!(e.summary.contains(&e.symptoms[0].cause), "{}", e.summary);
    }
}

#[test]
fn what_a_reason_says_is_a_symptom_too_also_of_a_build_that_failed() {
    for (phase, reason, name) in [
        (Phase::Power, "BMC 10.2.0.7:623 does not answer: no answer", "bmc-silent"),
        (Phase::Power, "BMC x refuses user \"a\": wrong user name or password", "bmc-refuses"),
        (Phase::Dhcp, "the BMC did not honour the network boot", "override-ignored"),
    ] {
        let mut b = build(phase);
        b.phases.last_mut().unwrap().reason = Some(reason.into());
        b.outcome = BuildOutcome::Failed;
        b.ended = Some(at(99));
        let e = told(&b, &[], &[], &Usual::default(), 100_000);
        assert_eq!((names(&e), e.symptoms[0].seen.as_str()), (vec![name], reason));
        b.outcome = BuildOutcome::Cancelled;
        assert!(told(&b, &[], &[], &Usual::default(), 200).symptoms.is_empty());
    }
}

#[test]
fn what_is_over_is_no_cause_of_what_is_now() {
    use Phase::*;
    // A BMC that did not listen at first, and then a loader that says nothing.
    let mut b = build(Loader);
    b.phases.insert(2, b.phases[1].clone());
    b.phases[1].reason = Some("the BMC did not honour the network boot".into());
    b.phases[2..].iter_mut().for_each(|p| p.attempt = 2);
    b.attempt = 2;
    let all = [OFFER, ACK, "boot.loader", "tftp.done file=snponly.efi"];
    let e = told(&b, &events(20, &all), &[], &Usual::default(), 200);
    assert_eq!(names(&e), ["loader-silent"]);
    // Files that shim and GRUB do without, and one that was had after all.
    let all = [
        OFFER,
        ACK,
        "!tftp.not-found file=pxelinux.0",
        "boot.loader",
        "tftp.done file=shimx64.efi",
        "!tftp.not-found file=revocations.efi",
        "!tftp.not-found file=/grub/x86_64-efi/command.lst",
    ];
    let e = told(&build(Loader), &events(20, &all), &[], &Usual::default(), 200);
    assert_eq!(names(&e), ["loader-silent"]);
    // A question that somebody answered.
    let asked = events(60, &["!install.question question=Which?"]);
    let e = told(&build(Image), &asked, &[], &Usual::default(), 200);
    assert!(!names(&e).contains(&"installer-asks"), "{e:?}");
}

#[test]
fn a_machine_that_nobody_knows_is_named_only_while_the_node_is_silent() {
    let heard = |s| [Stranger { last_seen: at(s), text: "52:54:00:00:00:99".into() }];
    let b = build(Phase::Dhcp);
    let e = told(&b, &[], &heard(12), &Usual::default(), 30);
    assert_eq!(names(&e), ["wrong-mac"]);
    assert!(e.symptoms[0].seen.contains(":99"));
    let before = told(&b, &[], &heard(9), &Usual::default(), 30);
    assert_eq!(names(&before), ["no-dhcp"], "it was there before the power-on");
}

#[test]
fn what_is_worth_knowing_is_told_also_of_a_node_that_came_up() {
    let mut b = build(Phase::Verify);
    b.outcome = BuildOutcome::Deployed;
    b.ended = Some(at(120));
    let story = [
        "dhcp.offer client=iPXE secs=15",
        "dhcp.offer client=operating_system secs=40",
        "!agent.clock off_seconds=-1792540800",
        "!install.restarted reason=the_machine_restarted",
    ];
    let e = told(&b, &events(20, &story), &[], &Usual::default(), 200);
    assert_eq!(names(&e), ["clock-wrong", "slow-port", "restarted-by-itself"]);
    assert!(e.symptoms.iter().all(|s| !s.stops) && e.missing.is_none());
    assert!(e.symptoms[1].seen.contains("15 s"));
    let quick =
        told(&b, &events(20, &["dhcp.offer client=iPXE secs=4"]), &[], &Usual::default(), 200);
    assert!(quick.symptoms.is_empty(), "a packet that was lost once");
}

#[test]
fn slower_than_usual_is_against_the_same_profile() {
    let mut before = build(Phase::Verify);
    before.outcome = BuildOutcome::Deployed;
    before.phases.last_mut().unwrap().ended = Some(at(110));
    let other = Build { id: BuildId::generate(), ..before.clone() };
    let usual = Usual::of([Arc::new(before), Arc::new(other)].iter());
    let b = build(Phase::Image);
    assert!(told(&b, &[], &[], &usual, 60 + 35).symptoms.is_empty());
    let e = told(&b, &[], &[], &usual, 60 + 45);
    assert_eq!(
        (names(&e), e.symptoms[0].seen.as_str()),
        (vec!["image-slow"], "phase image: 45 s, usually 10 s")
    );
    let mut b = build(Phase::FirstBoot);
    b.phases[4].started = at(-60);
    let e = told(&b, &events(91, &["dhcp.ack client=operating_system"]), &[], &usual, 100);
    assert_eq!(names(&e), ["first-boot-silent", "slow-phase"]);
}

#[test]
fn what_the_console_said_last_is_told_of_a_build_that_stands() {
    let said = [
        "console.line line=Welcome_to_GRUB means=GRUB_begins",
        "!console.line line=Kernel_panic means=it_gave_up",
    ];
    for (running, want) in [(true, true), (false, false)] {
        let mut b = build(Phase::Installer);
        if !running {
            b.outcome = BuildOutcome::Deployed;
        }
        let e = told(&b, &events(42, &said), &[], &Usual::default(), 50);
        let console = e.symptoms.iter().find(|s| s.name == "console-says");
        assert_eq!(console.is_some(), want);
        if let Some(c) = console {
            assert!(c.seen.contains("Kernel panic") && !c.stops, "{c:?}");
        }
        assert!(e.lines.iter().any(|l| l.source == "console"), "on the line of time");
    }
}
