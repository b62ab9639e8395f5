//! A build's phases on one scale: when each began, how long it took against
//! the usual, and why it waits or failed.

use super::text::{At, Bar, Mark, bytes, took};
use crate::lifecycle::explain::Explanation;
use crate::lifecycle::symptoms::Symptom;
use crate::lifecycle::usual::Usual;
use crate::model::{Build, BuildOutcome, Phase, PhaseRecord, Time};

/// A phase.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which.
    pub phase: &'static str,
    /// Attempt, where there was more than one.
    pub attempt: Option<u32>,
    /// How it stands.
    pub mark: Mark,
    /// When it began.
    pub started: At,
    /// How long it took, or has taken.
    pub took: String,
    /// How long it usually takes.
    pub usual: String,
    /// Both on the build's scale.
    pub bar: Bar,
    /// How far, why it waits, or why it ended badly.
    pub what: String,
}

/// A build's story.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Its id.
    pub id: String,
    /// Its node.
    pub node: String,
    /// How it stands.
    pub mark: Mark,
    /// Whether it goes on.
    pub running: bool,
    /// The operation that answers for it.
    pub operation: String,
    /// Image and profile.
    pub what: String,
    /// Who asked.
    pub actor: String,
    /// When it began.
    pub started: At,
    /// How long it took, or has taken.
    pub took: String,
    /// In a sentence: how it ended, or what it waits for.
    pub summary: String,
    /// The event that should have come next.
    pub missing: Option<String>,
    /// What is known to look like this.
    pub symptoms: Vec<Symptom>,
    /// Phases that were entered, in order.
    pub rows: Vec<Row>,
    /// Phases that are still to come.
    pub to_come: Vec<&'static str>,
}

/// Shows what was told of a build.
pub fn timeline(told: Explanation, usual: &Usual, now: Time) -> Timeline {
    let b = &told.build;
    let seconds = |p: &PhaseRecord| p.ended.unwrap_or(now).duration_since(p.started).as_secs_f64();
    let usually = |p: &PhaseRecord| usual.phase(b, p.phase).map(|d| d.as_secs_f64());
    let longest = b.phases.iter().map(|p| seconds(p).max(usually(p).unwrap_or(0.0)));
    let whole = longest.fold(1.0, f64::max);
    let again = b.phases.last().is_some_and(|p| p.attempt > 1);
    let last = b.phases.len().saturating_sub(1);
    let running = b.outcome == BuildOutcome::Running;
    let rows = b.phases.iter().enumerate().map(|(i, p)| {
        let is = p.ended.unwrap_or(now).duration_since(p.started);
        let usually_is = usual.phase(b, p.phase);
        let mark = state(b, p, i == last, Usual::is_slow(is, usually_is));
        Row {
            phase: p.phase.as_str(),
            attempt: again.then_some(p.attempt),
            mark,
            started: At::new(p.started, now),
            took: took(is),
            usual: usually_is.map(took).unwrap_or_default(),
            bar: Bar::of(seconds(p), whole, mark.tone).with_usual(usually(p), whole),
            what: said(b, p, i == last, now),
        }
    });
    let rows = rows.collect();
    let to_come = Phase::ALL.into_iter().filter(|p| running && *p > b.phase);
    Timeline {
        id: b.id.to_string(),
        node: b.node.to_string(),
        mark: Mark::of_build(b.outcome),
        running,
        operation: b.operation.to_string(),
        what: format!("{} / {}", b.inputs.image, b.inputs.profile),
        actor: b.actor.clone(),
        started: At::new(b.started, now),
        took: took(b.ended.unwrap_or(now).duration_since(b.started)),
        summary: told.summary,
        missing: told.missing,
        symptoms: told.symptoms,
        rows,
        to_come: to_come.map(Phase::as_str).collect(),
    }
}

fn state(b: &Build, p: &PhaseRecord, is_last: bool, slow: bool) -> Mark {
    match (p.ended, b.outcome) {
        (None, BuildOutcome::Running) if b.question.is_some() => Mark::STUCK,
        (None, BuildOutcome::Running) if slow => Mark::SLOW,
        (None, BuildOutcome::Running) => Mark::RUNNING,
        (_, BuildOutcome::Failed) if is_last => Mark::FAILED,
        (_, BuildOutcome::Cancelled) if is_last => Mark::of_build(BuildOutcome::Cancelled),
        // An attempt that was given up ends with its reason.
        (_, _) if p.attempt < b.attempt && p.reason.is_some() => Mark::AGAIN,
        _ => Mark::DONE,
    }
}

fn said(b: &Build, p: &PhaseRecord, is_last: bool, now: Time) -> String {
    let mut parts = Vec::new();
    if p.total > 0 && p.ended.is_none() {
        let percent = p.bytes.min(p.total) as f64 * 100.0 / p.total as f64;
        parts.push(format!("{percent:.0} % of {}", bytes(p.total)));
    } else if p.total > 0 {
        parts.push(bytes(p.bytes.max(p.total)));
    }
    let reason = p.reason.as_deref().or(b.reason.as_deref().filter(|_| is_last));
    parts.extend(reason.map(str::to_owned));
    if p.ended.is_none() && b.outcome == BuildOutcome::Running {
        let left = p.deadline.duration_since(now);
        parts.push(match left.as_secs() {
            ..=0 => "given up now".to_owned(),
            _ => format!("given up in {}", took(left)),
        });
    }
    parts.join("; ")
}
