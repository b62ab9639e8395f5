//! The machine by table and by property.

use super::*;
use crate::model::Digest;
use proptest::prelude::*;

fn at(s: i64) -> Time {
    Time::from_second(1_000_000 + s).unwrap()
}

fn build() -> Build {
    Build::example("node01", at(0))
}

fn limits() -> Deadlines {
    Deadlines::default()
}

fn run(b: &mut Build, inputs: &[Input]) -> Vec<Effect> {
    let mut out = vec![];
    for (i, input) in inputs.iter().enumerate() {
        out.extend(step(b, input.clone(), &limits(), at(i as i64)));
    }
    out
}

/// A packet that is told as it is seen.
fn dhcp(kind: ClientKind) -> Input {
    Input::Dhcp(kind, Time::MAX)
}

fn report(phase: Phase) -> Input {
    Input::Reported(PhaseReport { phase, bytes: 0, total: 0, message: None })
}

fn installed() -> Input {
    Input::Installed(InstalledReport {
        manifest: Digest::of(b"m"),
        disk: "vda".into(),
        firmware: Default::default(),
        host_keys: vec![],
    })
}

fn verified(ok: bool) -> Input {
    Input::Verified(VerifiedReport { ok, code: i32::from(!ok), output: "x\nno engine\n".into() })
}

#[test]
fn a_good_install_passes_every_phase_in_order_and_ends_deployed() {
    let mut b = build();
    let out = run(
        &mut b,
        &[
            Input::Start,
            Input::Powered("cycled".into()),
            dhcp(ClientKind::Pxe),
            Input::LoaderAsked,
            dhcp(ClientKind::Ipxe),
            Input::ScriptAsked,
            Input::KernelFetched,
            Input::FactsSeen,
            report(Phase::Disk),
            report(Phase::Image),
            report(Phase::Profile),
            report(Phase::Bootloader),
            installed(),
            dhcp(ClientKind::Os),
            Input::Booted("6.1".into()),
            verified(true),
        ],
    );
    assert_eq!(b.outcome, BuildOutcome::Deployed);
    assert_eq!(b.phases.iter().map(|p| p.phase).collect::<Vec<_>>(), Phase::ALL);
    assert!(b.phases.iter().all(|p| p.ended.is_some()));
    assert!(out.contains(&Effect::SetLife(LifeCycle::Deployed, None)));
    assert_eq!(out.iter().filter(|e| **e == Effect::ArmAndPower).count(), 1);
}

#[test]
fn no_dhcp_packet_means_a_new_boot_and_after_the_last_attempt_failure() {
    let mut b = build();
    let mut now = 0;
    let mut arms = 0;
    let mut take = |b: &mut Build, i: Input, now: i64| {
        let out = step(b, i, &limits(), at(now));
        arms += out.iter().filter(|e| **e == Effect::ArmAndPower).count();
    };
    take(&mut b, Input::Start, now);
    while b.outcome == BuildOutcome::Running {
        take(&mut b, Input::Powered("on".into()), now);
        now += 599;
        take(&mut b, Input::Tick, now);
        assert_eq!(b.phase, Phase::Dhcp, "not given up before its deadline");
        now += 1;
        take(&mut b, Input::Tick, now);
    }
    assert_eq!(arms, 3);
    let reason = b.reason.unwrap();
    assert!(reason.contains("first DHCP packet") && reason.contains("3 times"), "{reason}");
}

#[test]
fn a_disk_boot_instead_of_a_network_boot_is_noticed_at_once() {
    let mut b = build();
    let out = run(&mut b, &[Input::Start, Input::Powered("".into()), dhcp(ClientKind::Os)]);
    assert_eq!((b.phase, b.attempt), (Phase::Power, 2));
    assert_eq!(out.iter().filter(|e| **e == Effect::ArmAndPower).count(), 2);
    assert!(b.phases[1].reason.as_ref().unwrap().contains("did not honour"));
}

#[test]
fn a_wrong_password_is_not_tried_again() {
    let mut b = build();
    run(
        &mut b,
        &[Input::Start, Input::PowerFailed { reason: "wrong password".into(), again: false }],
    );
    assert_eq!((b.outcome, b.attempt), (BuildOutcome::Failed, 1));
    assert_eq!(b.reason.as_deref(), Some("wrong password"));
}

#[test]
fn nothing_is_retried_once_the_disk_is_being_written() {
    let mut b = build();
    run(&mut b, &[Input::Start, Input::Powered("".into()), report(Phase::Image)]);
    step(&mut b, Input::Tick, &limits(), at(10_000));
    assert_eq!((b.outcome, b.phase), (BuildOutcome::Failed, Phase::Image));
}

#[test]
fn as_long_as_bytes_move_the_image_is_not_overdue() {
    let mut b = build();
    run(&mut b, &[Input::Start, report(Phase::Image)]);
    for i in 1..50u64 {
        let r = PhaseReport { phase: Phase::Image, bytes: i, total: 100, message: None };
        step(&mut b, Input::Reported(r), &limits(), at(200 * i as i64));
        step(&mut b, Input::Tick, &limits(), at(200 * i as i64 + 199));
    }
    assert_eq!(b.outcome, BuildOutcome::Running);
}

#[test]
fn a_power_cut_in_the_middle_of_the_image_starts_a_new_attempt() {
    for kind in [ClientKind::Pxe, ClientKind::HttpBoot, ClientKind::Ipxe] {
        let mut b = build();
        run(&mut b, &[Input::Start, report(Phase::Image), dhcp(kind)]);
        assert_eq!((b.phase, b.attempt, b.outcome), (Phase::Loader, 2, BuildOutcome::Running));
    }
}

#[test]
fn a_packet_that_is_told_late_is_no_restart_and_no_disk_boot() {
    let mut b = build();
    let seen_in_second = |s, kind| Input::Dhcp(kind, at(s));
    run(&mut b, &[Input::Start, Input::Powered("".into())]);
    // An installed system's renewal from before the machine was cycled.
    step(&mut b, seen_in_second(0, ClientKind::Os), &limits(), at(5));
    assert_eq!((b.phase, b.attempt), (Phase::Dhcp, 1));
    step(&mut b, dhcp(ClientKind::Pxe), &limits(), at(6));
    step(&mut b, report(Phase::Image), &limits(), at(60));
    // The firmware's first packet, handed in once the store was back.
    step(&mut b, seen_in_second(6, ClientKind::Pxe), &limits(), at(90));
    assert_eq!((b.phase, b.attempt), (Phase::Image, 1));
    step(&mut b, seen_in_second(91, ClientKind::Pxe), &limits(), at(92));
    assert_eq!((b.phase, b.attempt), (Phase::Loader, 2), "a real restart still is one");
}

#[test]
fn a_server_that_was_away_gives_time_and_powers_again_only_in_phase_power() {
    let mut b = build();
    run(&mut b, &[Input::Start]);
    let out = step(&mut b, Input::Returned, &limits(), at(5000));
    assert_eq!(out, [Effect::ArmAndPower]);
    step(&mut b, Input::Tick, &limits(), at(5059));
    assert_eq!(b.attempt, 1, "within the grace");
    step(&mut b, Input::Powered("".into()), &limits(), at(5059));
    assert!(step(&mut b, Input::Returned, &limits(), at(5060)).is_empty());
}

#[test]
fn a_failed_check_fails_the_build_with_its_last_lines() {
    let mut b = build();
    run(&mut b, &[Input::Start, installed(), Input::Booted("".into()), verified(false)]);
    assert_eq!(b.reason.as_deref(), Some("verify.sh ended with exit code 1: x / no engine"));
}

fn any_input() -> impl Strategy<Value = Input> {
    let phase = (0usize..11).prop_map(|i| Phase::ALL[i]);
    prop_oneof![
        Just(Input::Powered("x".into())),
        any::<bool>().prop_map(|again| Input::PowerFailed { reason: "r".into(), again }),
        prop_oneof![
            Just(ClientKind::Pxe),
            Just(ClientKind::HttpBoot),
            Just(ClientKind::Ipxe),
            Just(ClientKind::Os)
        ]
        .prop_map(dhcp),
        Just(Input::LoaderAsked),
        Just(Input::ScriptAsked),
        Just(Input::KernelFetched),
        Just(Input::FactsSeen),
        (phase.clone(), 0u64..5).prop_map(|(phase, bytes)| Input::Reported(PhaseReport {
            phase,
            bytes,
            total: 5,
            message: None
        })),
        phase.prop_map(|phase| Input::AgentFailed(FailureReport { phase, reason: "f".into() })),
        Just(installed()),
        Just(Input::Booted("k".into())),
        any::<bool>().prop_map(verified),
        Just(Input::Returned),
        Just(Input::Tick),
    ]
}

proptest! {
    /// Whatever comes in whatever order: attempts stay within the limit, time
    /// never stands open, every end has a reason or is `deployed`, and an
    /// ended build never moves again.
    #[test]
    fn no_order_of_inputs_breaks_the_rules(
        inputs in prop::collection::vec((any_input(), 0i64..400), 1..120)
    ) {
        let mut b = build();
        let mut now = 0;
        step(&mut b, Input::Start, &limits(), at(now));
        for (input, dt) in inputs {
            now += dt;
            let before = b.clone();
            let out = step(&mut b, input, &limits(), at(now));
            prop_assert!(b.attempt <= limits().attempts);
            if before.outcome != BuildOutcome::Running {
                prop_assert!(out.is_empty());
                prop_assert_eq!(&before, &b);
            }
            prop_assert!(b.phase >= before.phase || b.attempt > before.attempt);
            let open = b.phases.iter().filter(|p| p.ended.is_none()).count();
            prop_assert_eq!(open, usize::from(b.outcome == BuildOutcome::Running));
            prop_assert_eq!(b.outcome == BuildOutcome::Failed, b.reason.is_some());
            prop_assert!(b.phases.windows(2).all(|w| w[0].started <= w[1].started));
        }
        // Left alone, it ends.
        for _ in 0..40 {
            now += 2000;
            step(&mut b, Input::Tick, &limits(), at(now));
            step(&mut b, Input::Powered("x".into()), &limits(), at(now));
        }
        prop_assert!(b.outcome != BuildOutcome::Running);
    }
}

/// A build by the Debian installer, as far as `phase`.
fn by_installer(phase: Phase) -> Build {
    let mut b = build();
    b.inputs.method = Method::Preseed;
    let powered = Input::Powered("ipmi".into());
    run(&mut b, &[Input::Start, powered, dhcp(ClientKind::Pxe), Input::KernelFetched]);
    if phase > Phase::Installer {
        run(&mut b, &[report(phase)]);
    }
    assert_eq!(b.phase, phase);
    b
}

#[test]
fn an_installer_may_take_its_time_as_long_as_its_log_goes_on() {
    let mut b = by_installer(Phase::Image);
    let limit = limits().of(Phase::Image).as_secs();
    for n in 1..20 {
        step(&mut b, Input::Progress(Some("base system".into())), &limits(), at(n * (limit - 1)));
        step(&mut b, Input::Tick, &limits(), at(n * (limit - 1) + 1));
        assert_eq!((b.outcome, b.phase), (BuildOutcome::Running, Phase::Image));
    }
    step(&mut b, Input::Tick, &limits(), at(20 * limit));
    assert_eq!(b.outcome, BuildOutcome::Failed, "silence");
    assert!(b.reason.unwrap().contains("the base system and packages to be installed"));
}

#[test]
fn a_question_nobody_answers_ends_the_build_with_its_text() {
    let mut b = by_installer(Phase::Installer);
    let asked = Input::Asked("mirror/http/hostname".into());
    step(&mut b, asked.clone(), &limits(), at(10));
    step(&mut b, Input::Tick, &limits(), at(69));
    assert_eq!(b.outcome, BuildOutcome::Running, "somebody may be at the console");
    step(&mut b, Input::Progress(None), &limits(), at(69));
    step(&mut b, Input::Tick, &limits(), at(80));
    assert_eq!(b.outcome, BuildOutcome::Running, "and was");
    step(&mut b, asked, &limits(), at(100));
    step(&mut b, Input::Tick, &limits(), at(161));
    assert_eq!((b.outcome, b.attempt), (BuildOutcome::Failed, 1), "it would be asked again");
    assert!(b.reason.unwrap().ends_with("nobody answered: mirror/http/hostname"));
}

#[test]
fn a_lost_last_report_is_not_a_lost_install() {
    let mut b = by_installer(Phase::Profile);
    assert!(boots_its_disk(&b));
    // The machine restarts, and nobody said that it was to.
    run(&mut b, &[dhcp(ClientKind::Pxe)]);
    assert_eq!((b.phase, b.attempt), (Phase::FirstBoot, 1));
    // The installed system says both.
    run(&mut b, &[installed(), Input::Booted("6".into()), verified(true)]);
    assert_eq!(b.outcome, BuildOutcome::Deployed);
    assert_eq!(b.manifest, Some(Digest::of(b"m")));
    // Earlier, the disk may hold anything: the installer begins anew.
    let mut b = by_installer(Phase::Image);
    assert!(!boots_its_disk(&b));
    run(&mut b, &[dhcp(ClientKind::Pxe)]);
    assert_eq!((b.phase, b.attempt), (Phase::Loader, 2));
}
