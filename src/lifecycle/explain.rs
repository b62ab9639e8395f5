//! One timeline of a build: power, DHCP, TFTP, HTTP and agent, from the
//! record; and, while it waits, what the missing next event is.

use crate::model::{Build, BuildOutcome, Event, Phase, Time};
use serde::{Deserialize, Serialize};

/// A line of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Line {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// Seconds since the build began.
    pub seconds: f64,
    /// Where from: `power`, `dhcp`, `tftp`, `http`, `agent`, `install`.
    pub source: String,
    /// What happened.
    pub text: String,
}

/// The whole story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Explanation {
    /// The build.
    pub build: Build,
    /// What happened, in order.
    pub lines: Vec<Line>,
    /// In a sentence: how it ended, or what it waits for and until when.
    pub summary: String,
}

/// Tells the story of `build` from its events.
pub fn explain(build: Build, events: &[Event], now: Time) -> Explanation {
    let lines = events
        .iter()
        .filter(|e| e.event.at >= build.started && build.ended.is_none_or(|t| e.event.at <= t))
        .map(|e| line(&build, e))
        .collect();
    Explanation { summary: summary(&build, events, now), lines, build }
}

fn line(build: &Build, e: &Event) -> Line {
    let source = e.event.action.split('.').next().unwrap_or_default().to_owned();
    let facts: Vec<String> = e
        .event
        .detail
        .iter()
        .filter(|(k, _)| !matches!(k.as_str(), "build" | "attempt" | "image_digest"))
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    Line {
        at: e.event.at,
        seconds: e.event.at.duration_since(build.started).as_secs_f64(),
        source,
        text: format!("{} {} {}", e.event.action, e.event.outcome, facts.join(" ")),
    }
}

fn summary(b: &Build, events: &[Event], now: Time) -> String {
    let took = |t: Time| t.duration_since(b.started).as_secs();
    match (b.outcome, b.ended, b.current()) {
        (BuildOutcome::Deployed, Some(t), _) => {
            format!("{} was deployed in {} s, at attempt {}", b.node, took(t), b.attempt)
        }
        (BuildOutcome::Running, _, Some(p)) => {
            let waits = now.duration_since(p.started).as_secs();
            let left = p.deadline.duration_since(now).as_secs().max(0);
            let reason = p.reason.as_deref().unwrap_or("working");
            let hint = hint(b, events).map(|h| format!(" {h}")).unwrap_or_default();
            format!(
                "{} is in phase {} since {waits} s: {reason}. It is given up in {left} s.{hint}",
                b.node, b.phase
            )
        }
        (BuildOutcome::Cancelled, Some(t), _) => format!(
            "{} was given up in phase {} after {} s: {}",
            b.node,
            b.phase,
            took(t),
            b.reason.as_deref().unwrap_or("cancelled")
        ),
        (_, Some(t), _) => format!(
            "{} failed in phase {} after {} s, at attempt {}: {}",
            b.node,
            b.phase,
            took(t),
            b.attempt,
            b.reason.as_deref().unwrap_or("no reason was recorded")
        ),
        _ => format!("{} has not begun", b.node),
    }
}

/// Why firmware that boots by HTTP is told no loader.
pub const NO_HTTP: &str = "the signed GRUB here has no HTTP built in";

fn is_without_http(e: &Event) -> bool {
    e.event.detail.get("reason").is_some_and(|r| r == NO_HTTP)
}

/// The likely cause, where the events allow one.
fn hint(b: &Build, events: &[Event]) -> Option<&'static str> {
    let p = b.current()?;
    let since = events.iter().filter(|e| e.event.at >= p.started);
    let count = |action: &str| since.clone().filter(|e| e.event.action == action).count();
    match b.phase {
        Phase::Loader if count("dhcp.offer") >= 3 && count("dhcp.ack") == 0 => Some(
            "Offers were sent and none was taken: look for another DHCP server, or a switch that \
             drops broadcasts.",
        ),
        Phase::Loader if since.clone().any(is_without_http) => Some(
            "The firmware boots by HTTP and is to get the signed GRUB, and the one here has no HTTP: \
             put Debian 13's into loaders_dir, or let it boot by PXE.",
        ),
        Phase::Loader if count("boot.refused") > 0 => Some(
            "The firmware did not run the unsigned loader: Secure Boot is probably on, and the \
             node is offered the signed shim and GRUB now.",
        ),
        Phase::Loader if count("tftp.done") > 0 => Some(
            "The loader was fetched and has not asked for its script: it may not run on this \
             firmware (Secure Boot?), or lost the link.",
        ),
        Phase::Kernel if count("http.file") + count("tftp.done") > 0 => Some(
            "Look at the console for what the loader says; under Secure Boot GRUB refuses a kernel \
             that is not signed.",
        ),
        // It runs, and says itself what it does.
        Phase::Installer if count("installer.file") > 0 => None,
        Phase::Installer => Some(
            "Kernel and ramdisk were fetched: look at the console for a kernel panic or a missing \
             network driver.",
        ),
        Phase::Dhcp => Some(
            "No packet has come: the machine may still be in its self test, boot from another \
             card, or sit behind a switch port that takes long to forward.",
        ),
        _ => None,
    }
}
