//! Installs whose numbers are worked out by hand.

use super::*;
use crate::metrics::exposition::Exposition;
use crate::metrics::installs::InstallTotals;
use crate::model::{BuildId, BuildInputs, Digest, OperationId, PhaseRecord, Time};

/// Seconds after the start of the window, of ten hours.
fn at(seconds: i64) -> Time {
    Time::from_second(1_800_000_000 + seconds).unwrap()
}

fn window() -> Window {
    Window { since: at(0), until: at(36_000) }
}

/// A phase, the attempt it belongs to, its seconds, and whether it went well.
type Step = (Phase, u32, i64, bool);

/// Begun at `began`, of these phases one after another.
fn build(profile: &str, began: i64, outcome: BuildOutcome, steps: &[Step]) -> Build {
    let mut now = began;
    let mut phases = Vec::new();
    for &(phase, attempt, seconds, well) in steps {
        phases.push(PhaseRecord {
            phase,
            attempt,
            started: at(now),
            ended: Some(at(now + seconds)),
            deadline: at(now + 600),
            reason: (!well).then(|| "it did not".to_owned()),
            bytes: 0,
            total: 0,
            sent: false,
        });
        now += seconds;
    }
    Build {
        id: BuildId::generate(),
        node: "node01".parse().unwrap(),
        operation: OperationId::generate(),
        actor: "ada".into(),
        inputs: BuildInputs {
            image: "debian-12".parse().unwrap(),
            method: Default::default(),
            image_digest: Digest::of(b"image"),
            profile: profile.parse().unwrap(),
            profile_digest: Digest::of(b"profile"),
            baked: true,
            mirror: None,
            config_commit: None,
            templates: Default::default(),
            version: "0".into(),
        },
        phase: steps.last().map_or(Phase::Power, |s| s.0),
        attempt: steps.last().map_or(1, |s| s.1),
        phases,
        outcome,
        reason: None,
        question: None,
        started: at(began),
        ended: Some(at(now)),
        manifest: None,
        disk: None,
    }
}

/// Deployed, of power, image and verify.
fn good(profile: &str, began: i64, seconds: [i64; 3]) -> Build {
    let phases = [Phase::Power, Phase::Image, Phase::Verify];
    let steps: Vec<Step> = phases.into_iter().zip(seconds).map(|(p, s)| (p, 1, s, true)).collect();
    build(profile, began, BuildOutcome::Deployed, &steps)
}

fn read(all: &[(Build, Option<&str>)]) -> Vec<PhaseNumbers> {
    let mut fold = Phases::new(window());
    all.iter().for_each(|(b, model)| fold.take(b, *model));
    fold.numbers()
}

fn of<'a>(all: &'a [PhaseNumbers], profile: Option<&str>, model: Option<&str>) -> &'a PhaseNumbers {
    let is = |n: &&PhaseNumbers| n.profile.as_deref() == profile && n.model.as_deref() == model;
    all.iter().find(is).unwrap_or_else(|| panic!("no {profile:?} on {model:?} in {all:#?}"))
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}

/// M47: three machines of two models, two profiles.
#[test]
fn each_phase_by_profile_and_by_model_with_the_bottleneck_named() {
    let all = read(&[
        (good("web", 0, [10, 100, 20]), Some("Dell R430")),
        (good("web", 500, [12, 80, 30]), Some("Dell R430")),
        (good("web", 1000, [50, 60, 40]), Some("HP DL360")),
        (good("db", 1500, [20, 200, 400]), Some("HP DL360")),
    ]);
    let groups: Vec<_> =
        all.iter().map(|n| (n.profile.as_deref(), n.model.as_deref(), n.installs)).collect();
    assert_eq!(
        groups,
        [
            (Some("db"), None, 1),
            (Some("web"), None, 3),
            (None, Some("Dell R430"), 2),
            (None, Some("HP DL360"), 2),
            (Some("db"), Some("HP DL360"), 1),
            (Some("web"), Some("Dell R430"), 2),
            (Some("web"), Some("HP DL360"), 1),
        ]
    );
    let web = of(&all, Some("web"), None);
    // 130, 122, 150 seconds.
    assert_eq!((web.total.count, web.total.median, web.total.p99), (3, 130.0, 150.0));
    close(web.total.mean, 134.0);
    let named: Vec<_> = web.phases.iter().map(|p| (p.phase, p.seconds.median)).collect();
    assert_eq!(named, [(Phase::Power, 12.0), (Phase::Image, 80.0), (Phase::Verify, 30.0)]);
    assert_eq!(web.slowest, Some(Phase::Image));
    let image = web.bottleneck().unwrap();
    close(image.share, 80.0 / 130.0);
    assert_eq!((image.seconds.p95, image.seconds.longest), (100.0, 100.0));
    // Another profile, another bottleneck; on the same model, both.
    assert_eq!(of(&all, Some("db"), None).slowest, Some(Phase::Verify));
    let hp = of(&all, None, Some("HP DL360"));
    // Lower middles of 50 and 20, 60 and 200, 40 and 400; of 150 and 620.
    assert_eq!(hp.phases.iter().map(|p| p.seconds.median).collect::<Vec<_>>(), [20.0, 60.0, 40.0]);
    close(hp.bottleneck().unwrap().share, 0.4);
}

#[test]
fn a_hundred_installs_have_their_percentiles_by_nearest_rank() {
    let all: Vec<_> = (1..=100).map(|n| (good("web", n, [1, n, 0]), None)).collect();
    let all = read(&all);
    let image = of(&all, Some("web"), None).bottleneck().unwrap().seconds;
    assert_eq!((image.median, image.p95, image.p99, image.longest), (50.0, 95.0, 99.0, 100.0));
    assert_eq!(all[1].model.as_deref(), Some(UNKNOWN_MODEL));
}

#[test]
fn only_verified_installs_of_the_window_count_and_each_phase_as_it_went_last() {
    use Phase::{Dhcp, Image, Loader, Power};
    let restarted = build(
        "web",
        100,
        BuildOutcome::Deployed,
        &[
            (Power, 1, 5, true),
            (Dhcp, 1, 40, true),
            (Loader, 1, 3, true),
            (Image, 1, 70, false),
            (Loader, 2, 4, true),
            (Image, 2, 30, true),
        ],
    );
    let failed = build("web", 0, BuildOutcome::Failed, &[(Power, 1, 500, true)]);
    let early = good("web", -1000, [1, 999, 0]);
    let late = good("web", 35_000, [1, 999, 0]);
    let all = read(&[(restarted, None), (failed, None), (early, None), (late, None)]);
    let web = of(&all, Some("web"), None);
    // The early one ended at 0, which is in; the late one at 36,000, which is not.
    assert_eq!((web.installs, web.retried), (2, 1));
    let dhcp = web.phases.iter().find(|p| p.phase == Dhcp).unwrap();
    assert_eq!((dhcp.seconds.count, dhcp.seconds.median), (1, 40.0));
    let image = web.phases.iter().find(|p| p.phase == Image).unwrap();
    assert_eq!(
        (image.seconds.count, image.seconds.median, image.seconds.longest),
        (2, 30.0, 999.0)
    );
    // 5 + 40 + 4 + 30, and 1000.
    assert_eq!((web.total.median, web.total.longest), (79.0, 1000.0));
    assert_eq!(web.slowest, Some(Dhcp));
    assert_eq!(read(&[]), []);
}

#[test]
fn phases_of_no_time_have_no_share_and_the_first_is_named() {
    let all = read(&[(good("web", 0, [0, 0, 0]), Some(""))]);
    let web = of(&all, Some("web"), None);
    assert_eq!((web.slowest, web.phases[0].share), (Some(Phase::Power), 0.0));
}

/// The same records as counters and histograms.
#[test]
fn the_totals_for_prometheus_are_those_of_the_records() {
    let mut failed = build(
        "web",
        2000,
        BuildOutcome::Failed,
        &[(Phase::Power, 1, 300, false), (Phase::Power, 2, 7, true), (Phase::Dhcp, 2, 90, true)],
    );
    failed.node = "node02".parse().unwrap();
    let mut mended = good("db", 3000, [1, 2, 3]);
    mended.node = failed.node.clone();
    let builds = [good("web", 0, [10, 100, 20]), failed, mended];
    let mut totals = InstallTotals::default();
    builds.iter().for_each(|b| totals.add(b));
    let mut e = Exposition::new();
    totals.write(&mut e);
    let text = e.text();
    for line in [
        "provision_installs_total{profile=\"web\",outcome=\"deployed\"} 1",
        "provision_installs_total{profile=\"web\",outcome=\"failed\"} 1",
        "provision_installs_total{profile=\"db\",outcome=\"failed\"} 0",
        "provision_install_retries_total{profile=\"web\"} 1",
        "provision_install_duration_seconds_sum{profile=\"web\"} 130",
        // Ten seconds and seven; the first try of the other failed.
        "provision_install_phase_duration_seconds_bucket{phase=\"power\",profile=\"web\",le=\"5\"} 0",
        "provision_install_phase_duration_seconds_bucket{phase=\"power\",profile=\"web\",le=\"10\"} 2",
        "provision_install_phase_duration_seconds_sum{phase=\"power\",profile=\"web\"} 17",
        "provision_install_phase_failures_total{phase=\"power\",profile=\"web\"} 1",
        "provision_install_phase_failures_total{phase=\"dhcp\",profile=\"web\"} 1",
        // From 2397 to 3006, for the profile that failed.
        "provision_install_recovery_seconds_sum{profile=\"web\"} 609",
        "provision_install_recovery_seconds_count{profile=\"web\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn profiles_beyond_the_bound_are_counted_together() {
    let mut totals = InstallTotals::default();
    for n in 0..200 {
        totals.add(&good(&format!("p{n:03}"), n, [1, 1, 1]));
    }
    let mut e = Exposition::new();
    totals.write(&mut e);
    let text = e.text();
    assert!(text.contains("provision_installs_total{profile=\"other\",outcome=\"deployed\"} 136"));
    assert!(text.contains("{profile=\"p063\",") && !text.contains("{profile=\"p064\","), "{text}");
}
