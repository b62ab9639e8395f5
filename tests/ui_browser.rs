//! The operator's window in a real browser: `make test-ui`. The browser, its
//! driver and axe come from the distribution and from npm, and are not
//! installed for the ordinary tests.

mod common;
mod windowd;

use common::desk::until;
use provision::auth::Role;
use provision::lifecycle::Input;
use provision::model::plan::{InstalledReport, PhaseReport, VerifiedReport};
use provision::model::{ClientKind, Digest, Phase, Time};
use std::process::Stdio;
use std::time::Duration;
use windowd::Bench;

/// Longest a run may take.
const LIMIT: Duration = Duration::from_secs(420);

/// Plays the node's part in the install that the browser orders, from when its
/// power is on.
async fn node_plays_along(bench: &Bench) {
    let node = "node09".parse().unwrap();
    let rack = &bench.rack;
    loop {
        if let Some(b) = rack.running_build(&node).filter(|b| b.phase == Phase::Dhcp) {
            let report = |phase, bytes| {
                let message = Some("writing".to_owned());
                Input::Reported(PhaseReport { phase, bytes, total: 1_000_000_000, message })
            };
            let mut steps = vec![
                Input::Dhcp(ClientKind::Pxe, Time::now()),
                Input::LoaderAsked,
                Input::ScriptAsked,
                Input::KernelFetched,
                Input::FactsSeen,
            ];
            steps.extend((0..5).map(|n| report(Phase::Image, n * 200_000_000)));
            steps.push(Input::Installed(InstalledReport {
                manifest: Digest::of(b"all"),
                disk: "/dev/sda".into(),
                firmware: Default::default(),
                host_keys: vec![],
            }));
            steps.push(Input::Booted("6.1".into()));
            steps.push(Input::Verified(VerifiedReport {
                ok: true,
                code: 0,
                output: String::new(),
            }));
            for s in steps {
                rack.input(&b.id, s).await.unwrap();
                // The pace at which somebody can watch it, not synchronisation.
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium, playwright-core and axe-core: make test-ui"]
async fn a_person_logs_in_installs_a_node_watches_it_and_reads_why_another_failed() {
    let modules = std::env::var("UI_MODULES").expect("UI_MODULES: run by make test-ui");
    let bench = Bench::start().await;
    let out = std::env::temp_dir().join("provision-ui");
    let mut browser = tokio::process::Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/windowd/browser.mjs"))
        .env("BASE", &bench.base)
        .env("TOKEN", bench.token("ada", Role::Operate))
        .env("OUT", &out)
        .env("UI_MODULES", modules)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = async {
        tokio::select! {
            s = browser.wait() => return s.unwrap(),
            () = node_plays_along(&bench) => {}
        }
        browser.wait().await.unwrap()
    };
    let status = tokio::time::timeout(LIMIT, ended).await.expect("the browser takes too long");
    assert!(status.success(), "see above; screenshots are in {}", out.display());
    until("the node is deployed", || {
        let v = bench.rack.view();
        v.inventory.find("node09").is_ok_and(|n| n.status.image.is_some())
    })
    .await;
}
