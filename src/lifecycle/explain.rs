//! One timeline of a build: power, DHCP, TFTP, HTTP and agent, from the
//! record; while it waits or when it failed, which event should have come next,
//! and what that is known to mean ([`super::symptoms`]).

use super::symptoms::{Symptom, detail, is_system, symptoms};
use super::usual::Usual;
use crate::model::{Build, BuildOutcome, Event, Node, Outcome, Phase, Time};
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
    /// The event that should have come next and has not; absent of a build
    /// that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What is known to look like this: what stops the build first.
    #[serde(default)]
    pub symptoms: Vec<Symptom>,
}

/// A machine that no node has the MAC address of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// When it was last heard.
    pub last_seen: Time,
    /// How it is named to people.
    pub text: String,
}

/// What a build is explained from.
pub struct Scene<'a> {
    /// The build.
    pub build: &'a Build,
    /// Its node, where it is still known.
    pub node: Option<&'a Node>,
    /// The node's events since the build began, in order.
    pub events: &'a [Event],
    /// How long phases usually take.
    pub usual: &'a Usual,
    /// Who asked without being a node.
    pub strangers: &'a [Stranger],
    /// Now.
    pub now: Time,
}

/// Tells the story of a build.
pub fn explain(s: &Scene<'_>) -> Explanation {
    let symptoms = symptoms(s);
    Explanation {
        lines: s.build_events().map(|e| line(s.build, e)).collect(),
        summary: summary(s.build, symptoms.first().filter(|x| x.stops), s.now),
        missing: missing(s),
        symptoms,
        build: s.build.clone(),
    }
}

impl Scene<'_> {
    /// Events from the build's beginning to its end.
    pub(super) fn build_events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        let b = self.build;
        let of =
            move |e: &&Event| e.event.at >= b.started && b.ended.is_none_or(|t| e.event.at <= t);
        self.events.iter().filter(of)
    }

    /// Those of the attempt that runs or was the last.
    pub(super) fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        let b = self.build;
        let first = b.phases.iter().find(|p| p.attempt == b.attempt);
        let since = first.map_or(b.started, |p| p.started);
        self.build_events().filter(move |e| e.event.at >= since)
    }

    pub(super) fn count(&self, action: &str) -> usize {
        self.events().filter(|e| e.event.action == action).count()
    }

    pub(super) fn last(&self, action: &str) -> Option<&Event> {
        self.events().rfind(|e| e.event.action == action)
    }

    /// The last one of the whole build.
    pub(super) fn of_build(&self, action: &str) -> Option<&Event> {
        self.build_events().rfind(|e| e.event.action == action)
    }

    /// How many since the phase began in which the build is.
    pub(super) fn in_phase(&self, action: &str) -> usize {
        let since = self.build.phases.last().map_or(self.build.started, |p| p.started);
        self.events().filter(|e| e.event.action == action && e.event.at >= since).count()
    }

    /// A reason that `phase` gave, in any attempt, with one of these words.
    pub(super) fn said(&self, phase: Phase, words: &[&str]) -> Option<String> {
        let of = self.build.phases.iter().filter(|p| p.phase == phase);
        let mut reasons = of.filter_map(|p| p.reason.as_deref());
        reasons.rfind(|r| words.iter().any(|w| r.contains(w))).map(str::to_owned)
    }

    pub(super) fn node_macs(&self) -> String {
        let all = self.node.map(|n| n.spec.macs.iter().map(ToString::to_string).collect());
        let all: Vec<String> = all.unwrap_or_default();
        if all.is_empty() { "the node".into() } else { all.join(", ") }
    }

    /// Kernel and ramdisk that went out whole, by name.
    pub(super) fn files(&self) -> String {
        let done = |e: &&Event| {
            matches!(e.event.action.as_str(), "http.file" | "tftp.done")
                && e.event.outcome == Outcome::Ok
        };
        let since = self.build.phases.last().map_or(self.build.started, |p| p.started);
        let all = self.events().filter(done).filter(|e| e.event.at >= since);
        let names: Vec<String> = all.map(|e| detail(e, "file")).collect();
        if names.is_empty() { "nothing".into() } else { names.join(", ") }
    }

    /// Whether the agent's facts have come in this attempt.
    pub(super) fn has_facts(&self) -> bool {
        self.count("agent.facts") > 0
    }

    /// How far the kernel came.
    pub(super) fn after_the_kernel(&self) -> String {
        match self.events().rfind(|e| is_system(e)) {
            Some(_) => "the kernel runs and has an address, and the agent does not speak".into(),
            None => {
                "kernel and ramdisk went out, and nothing has asked for an address since".into()
            }
        }
    }
}

/// The next event in the course of things that has not come.
fn missing(s: &Scene<'_>) -> Option<String> {
    let b = s.build;
    if !matches!(b.outcome, BuildOutcome::Running | BuildOutcome::Failed) {
        return None;
    }
    let by_installer = b.inputs.method.is_installer();
    let boot_file = || s.last("dhcp.ack").map(|e| detail(e, "boot_file")).unwrap_or_default();
    Some(match b.phase {
        Phase::Power => "an answer of the BMC to the power command".into(),
        Phase::Dhcp => format!("a DHCPDISCOVER from {}", s.node_macs()),
        Phase::Loader if s.count("dhcp.ack") == 0 => {
            "a DHCPREQUEST for the address that was offered".into()
        }
        Phase::Loader if s.count("tftp.done") + s.count("boot.loader") == 0 => {
            let file = boot_file();
            if s.last("tftp.not-found").is_some_and(|e| detail(e, "file") == file) {
                format!("{file}: this server does not have it")
            } else {
                format!("the firmware's request for {file}")
            }
        }
        Phase::Loader if s.count("tftp.done") == 0 && s.count("boot.loader") > 0 => {
            "the end of the loader's transfer, or the loader's request for its script".into()
        }
        Phase::Loader => "the loader's request for its script".into(),
        Phase::Kernel => format!("kernel and ramdisk sent whole; {} went out", s.files()),
        Phase::Installer if by_installer && s.count("installer.file") == 0 => {
            "the installer's request for its preseed file".into()
        }
        Phase::Installer if by_installer => "the installer at the disk".into(),
        Phase::Installer => "the agent's facts".into(),
        Phase::Disk => "the disk chosen and partitioned".into(),
        Phase::Image if by_installer => "the base system and packages unpacked".into(),
        Phase::Image => "the image written to its end".into(),
        Phase::Profile => "the profile's scripts done".into(),
        Phase::Bootloader => "the boot loader written and the machine restarted".into(),
        Phase::FirstBoot if s.in_phase("dhcp.ack") == 0 => {
            "the new system's request for its address".into()
        }
        Phase::FirstBoot => "the first report of the new system's agent".into(),
        Phase::Verify => "the result of the profile's verify.sh".into(),
    })
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

fn summary(b: &Build, likely: Option<&Symptom>, now: Time) -> String {
    let took = |t: Time| t.duration_since(b.started).as_secs();
    match (b.outcome, b.ended, b.current()) {
        (BuildOutcome::Deployed, Some(t), _) => {
            format!("{} was deployed in {} s, at attempt {}", b.node, took(t), b.attempt)
        }
        (BuildOutcome::Running, _, Some(p)) => {
            let waits = now.duration_since(p.started).as_secs();
            let left = p.deadline.duration_since(now).as_secs().max(0);
            let reason = p.reason.as_deref().unwrap_or("working");
            let hint = likely.map(|x| format!(" {}", x.cause)).unwrap_or_default();
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
