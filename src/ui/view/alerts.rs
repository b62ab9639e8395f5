//! What needs somebody, and why: the first thing the rack's page shows.

use super::text::{At, Mark, took};
use crate::lifecycle::rack::View;
use crate::lifecycle::usual::Usual;
use crate::model::{
    Build, BuildOutcome, LifeCycle, Operation, OperationKind, OperationState, Phase, Time,
};
use jiff::SignedDuration;
use std::sync::Arc;

/// How long a failed piece of work of the server itself is shown.
const FRESH: SignedDuration = SignedDuration::from_hours(12);

/// One thing that needs somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// How bad.
    pub mark: Mark,
    /// What it is about.
    pub about: String,
    /// The page about it.
    pub href: String,
    /// What is the matter.
    pub what: String,
    /// Why, in the words of whoever found out.
    pub why: String,
    /// Since when.
    pub since: Option<At>,
    /// For how long.
    pub long: String,
}

/// What the server says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// Whether the store took the last write.
    pub store_ok: bool,
    /// What the store is called.
    pub store: &'a str,
    /// Whether something outside keeps this host's clock.
    pub clock: Option<bool>,
}

/// All that needs somebody: the server, what failed, what waits, what is slow;
/// of each the longest first.
pub fn alerts(v: &View, server: Server, usual: &Usual, now: Time) -> Vec<Alert> {
    let mut out = of_server(server);
    let mut stuck: Vec<(u8, Time, Alert)> = Vec::new();
    for n in v.inventory.all() {
        let build = n.status.build.as_ref().and_then(|b| v.builds.get(b));
        if let Some((order, since, (mark, what, why))) = match (n.status.life, build) {
            (LifeCycle::Failed, b) => Some(failed(b, n.status.reason.as_deref(), now)),
            (_, Some(b)) if b.outcome == BuildOutcome::Running => {
                running(b, usual, now).map(|(since, a)| {
                    // What waits for somebody is before what is only slow.
                    (if a.0 == Mark::STUCK { 1 } else { 2 }, since, a)
                })
            }
            _ => None,
        } {
            stuck.push((
                order,
                since,
                Alert {
                    mark,
                    about: n.spec.name.to_string(),
                    href: format!("/ui/nodes/{}", n.spec.name),
                    what,
                    why,
                    since: Some(At::new(since, now)),
                    long: took(now.duration_since(since)),
                },
            ));
        }
    }
    stuck.sort_by_key(|(order, since, _)| (*order, *since));
    out.extend(stuck.into_iter().map(|(_, _, a)| a));
    out.extend(v.operations.values().rev().filter(|o| is_fresh(o, now)).map(|o| of_work(o, now)));
    out
}

fn of_server(s: Server) -> Vec<Alert> {
    let alert = |what: &str, why: String| Alert {
        mark: Mark::STUCK,
        about: "this server".to_owned(),
        href: "/ui/events?action=store".to_owned(),
        what: what.to_owned(),
        why,
        since: None,
        long: String::new(),
    };
    let mut out = Vec::new();
    if !s.store_ok {
        let why = format!(
            "{} does not answer: boots go on, new commands are refused, and what is shown here may \
             be old",
            s.store
        );
        out.push(alert("the store cannot be used", why));
    }
    if s.clock == Some(false) {
        let why = "nodes get the time from here: see `chronyc tracking` on this host";
        out.push(alert("nothing outside keeps its clock", why.to_owned()));
    }
    out
}

type Told = (Mark, String, String);

fn failed(b: Option<&Arc<Build>>, reason: Option<&str>, now: Time) -> (u8, Time, Told) {
    let why = b.and_then(|b| b.reason.as_deref()).or(reason);
    let what = b.map_or_else(
        || "the last build failed".to_owned(),
        |b| format!("failed in phase {}, at attempt {}", b.phase, b.attempt),
    );
    let since = b.and_then(|b| b.ended).unwrap_or(now);
    (0, since, (Mark::FAILED, what, why.unwrap_or("no reason was recorded").to_owned()))
}

/// What is the matter with a running build, if anything.
fn running(b: &Build, usual: &Usual, now: Time) -> Option<(Time, Told)> {
    let p = b.current()?;
    let is = now.duration_since(p.started);
    let left = p.deadline.duration_since(now);
    let why = p.reason.clone().unwrap_or_else(|| "working".to_owned());
    let given_up = match left.as_secs() {
        ..=0 => "it is given up now".to_owned(),
        _ => format!("it is given up in {}", took(left)),
    };
    let usually = usual.phase(b, p.phase);
    if let Some(question) = &b.question {
        let why = format!("it asks: {question}");
        let what = format!("the installer asks and waits in phase {}; {given_up}", p.phase);
        return Some((p.started, (Mark::STUCK, what, why)));
    }
    if Usual::is_slow(is, usually) {
        let usually = usually.map(took).unwrap_or_default();
        let what = format!("phase {} takes longer than the usual {usually}; {given_up}", p.phase);
        return Some((p.started, (Mark::SLOW, what, why)));
    }
    // Nothing has come for three quarters of the time it has.
    if is > p.deadline.duration_since(p.started) * 3 / 4 {
        let what = format!("nothing new in phase {}; {given_up}", p.phase);
        return Some((p.started, (Mark::STUCK, what, why)));
    }
    let begun_again = b.attempt > 1 && p.phase < Phase::Image;
    begun_again.then(|| {
        let before = b.phases.iter().rev().find(|r| r.attempt < b.attempt);
        let why = before.and_then(|r| r.reason.clone()).unwrap_or(why);
        (p.started, (Mark::AGAIN, format!("attempt {}, phase {}", b.attempt, p.phase), why))
    })
}

/// Work of the server itself that failed and was not done since.
fn is_fresh(o: &Operation, now: Time) -> bool {
    o.node.is_none() && o.state == OperationState::Failed && now.duration_since(o.updated) < FRESH
}

fn of_work(o: &Operation, now: Time) -> Alert {
    Alert {
        mark: Mark::FAILED,
        about: kind(&o.kind).to_owned(),
        href: format!("/ui/operations#{}", o.id),
        what: "failed".to_owned(),
        why: o.reason.clone().unwrap_or_else(|| "no reason was recorded".to_owned()),
        since: Some(At::new(o.updated, now)),
        long: took(now.duration_since(o.updated)),
    }
}

/// A kind of operation, in words.
pub fn kind(k: &OperationKind) -> &'static str {
    match k {
        OperationKind::Install => "install",
        OperationKind::Power => "power",
        OperationKind::ImageBuild => "image build",
        OperationKind::Mirror => "mirror",
        OperationKind::InstallMany => "install of many nodes",
    }
}
