//! What Secure Boot makes of a build, by table.

use super::super::{Effect, Input, step};
use super::{NextLoader, Started};
use crate::config::Deadlines;
use crate::model::{Build, BuildOutcome, ClientKind, Phase, Time};

const SENT: Input = Input::Started(Started::KernelSent);
const REFUSED: Input = Input::Started(Started::KernelRefused);

fn at(s: i64) -> Time {
    Time::from_second(1_000_000 + s).unwrap()
}

/// A build that waits for its loader's first word.
fn build() -> Build {
    let mut b = Build::example("node01", at(0));
    let dhcp = Input::Dhcp(ClientKind::Pxe, Time::MAX);
    for i in [Input::Start, Input::Powered("on".into()), dhcp, Input::LoaderAsked] {
        take(&mut b, i, 0);
    }
    assert_eq!(b.phase, Phase::Loader);
    b
}

fn take(b: &mut Build, i: Input, s: i64) -> Vec<Effect> {
    step(b, i, &Deadlines::default(), at(s))
}

fn refused(next: NextLoader) -> Input {
    Input::Started(Started::LoaderRefused { loader: "snponly.efi", next })
}

fn reason(b: &Build) -> String {
    b.current().and_then(|p| p.reason.clone()).unwrap_or_default()
}

#[test]
fn a_refused_loader_is_said_and_the_signed_one_gets_the_phase_s_whole_time() {
    let mut b = build();
    let limit = Deadlines::default().of(Phase::Loader).as_secs();
    let out = take(&mut b, refused(NextLoader::Signed), limit - 1);
    assert!(out.iter().any(|e| matches!(e, Effect::Log(e) if e.action == "boot.refused")));
    assert!(reason(&b).contains("Secure Boot is probably on"), "{}", reason(&b));
    take(&mut b, Input::Tick, limit + 1);
    assert_eq!((b.phase, b.attempt), (Phase::Loader, 1), "the signed loader has its time");
    for i in [Input::ScriptAsked, SENT, Input::KernelFetched, Input::FactsSeen] {
        take(&mut b, i, limit + 2);
    }
    assert_eq!(b.phase, Phase::Installer);
    take(&mut b, refused(NextLoader::Signed), limit + 3);
    assert_eq!((b.phase, b.attempt), (Phase::Installer, 1), "too late to matter");
}

#[test]
fn without_a_signed_loader_the_attempt_ends_with_what_to_install() {
    for (next, word) in [
        (NextLoader::Missing, "apt install shim-signed"),
        (NextLoader::Forbidden, "loader=ipxe"),
        (NextLoader::Restart, "started once more"),
    ] {
        let mut b = build();
        let out = take(&mut b, refused(next), 5);
        assert!(out.contains(&Effect::ArmAndPower));
        let said = b.phases.iter().filter_map(|p| p.reason.as_deref());
        assert!(said.into_iter().any(|r| r.contains(word)), "{:?}", b.phases);
    }
}

#[test]
fn a_kernel_that_grub_does_not_start_fails_the_build_at_once_by_its_signature() {
    let mut b = build();
    take(&mut b, Input::ScriptAsked, 1);
    take(&mut b, SENT, 2);
    take(&mut b, REFUSED, 3);
    assert_eq!((b.outcome, b.phase, b.attempt), (BuildOutcome::Failed, Phase::Kernel, 1));
    let why = b.reason.unwrap();
    assert!(why.contains("unsigned kernel is refused") && why.contains("sbverify"), "{why}");
}

#[test]
fn a_kernel_that_was_not_fetched_whole_is_tried_again() {
    let mut b = build();
    take(&mut b, Input::ScriptAsked, 1);
    let out = take(&mut b, REFUSED, 3);
    assert!(out.contains(&Effect::ArmAndPower));
    assert_eq!((b.outcome, b.attempt), (BuildOutcome::Running, 2));
}

#[test]
fn a_kernel_that_never_ran_is_given_up_by_its_deadline_and_the_reason_names_the_signature() {
    let mut b = build();
    let mut now = 0;
    while b.outcome == BuildOutcome::Running {
        for i in [
            Input::Powered("on".into()),
            Input::Dhcp(ClientKind::Pxe, Time::MAX),
            Input::ScriptAsked,
            SENT,
        ] {
            take(&mut b, i, now);
        }
        now += Deadlines::default().of(Phase::Kernel).as_secs();
        take(&mut b, Input::Tick, now);
    }
    let why = b.reason.unwrap();
    assert!(why.contains("it never ran") && why.contains("unsigned kernel"), "{why}");
    // With its ramdisks it is another matter.
    let mut b = build();
    for i in [Input::ScriptAsked, SENT, Input::KernelFetched] {
        take(&mut b, i, 1);
    }
    assert!(!reason(&b).contains("ramdisks"), "{}", reason(&b));
}
