//! Watching operations: a bar a node on a terminal, a line a phase elsewhere.
//! Ctrl-C leaves the operation running and says how to come back.

use super::output::{duration, segment};
use super::{Fail, Session};
use crate::client::{Client, ClientError};
use crate::model::{Build, BuildOutcome, Operation, OperationKind, OperationState, Phase, Time};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::SignedDuration;
use serde::Deserialize;
use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

/// `provision watch`
#[derive(clap::Args)]
pub struct WatchArgs {
    /// Operations, as `install --no-wait` prints them
    #[arg(required = true)]
    operations: Vec<String>,
}

/// `provision cancel`
#[derive(clap::Args)]
pub struct CancelArgs {
    /// Operation
    operation: String,
}

/// A page of things.
#[derive(Debug, Deserialize, serde::Serialize)]
pub struct List<T> {
    /// The things.
    pub items: Vec<T>,
}

pub(super) async fn run(s: &Session, a: WatchArgs) -> Result<(), Fail> {
    let mut ops = Vec::new();
    for id in &a.operations {
        ops.push(s.client.get(&format!("/v1/operations/{}", segment(id))).await?);
    }
    watch(s, ops).await.map(drop)
}

pub(super) async fn cancel(s: &Session, a: CancelArgs) -> Result<(), Fail> {
    let path = format!("/v1/operations/{}", segment(&a.operation));
    let op: Operation = s.client.get(&path).await?;
    s.client.delete(&path).await?;
    let what = match op.kind {
        OperationKind::InstallMany => {
            "no other node is begun; those that are being installed go on: `provision builds` has \
             them, `provision cancel` ends each"
        }
        OperationKind::ImageBuild | OperationKind::Mirror => "it ends soon, nothing of it is kept",
        _ => "it is given up; the machine is left as it is",
    };
    s.out.say(format!("{}: {what}", a.operation))
}

/// Median seconds of each phase of good installs of the same kind.
#[derive(Default)]
struct Usual(HashMap<Phase, SignedDuration>);

impl Usual {
    async fn of(client: &Client, build: &Build) -> Self {
        let all: Result<List<Build>, _> = client.get("/v1/builds?limit=200").await;
        let mut seen: HashMap<Phase, Vec<SignedDuration>> = HashMap::new();
        for b in all.map(|l| l.items).unwrap_or_default() {
            let same = b.inputs.image == build.inputs.image
                && b.inputs.profile == build.inputs.profile
                && b.inputs.baked == build.inputs.baked;
            if b.outcome != BuildOutcome::Deployed || !same {
                continue;
            }
            for p in &b.phases {
                if let Some(end) = p.ended {
                    seen.entry(p.phase).or_default().push(end.duration_since(p.started));
                }
            }
        }
        let median = |mut v: Vec<SignedDuration>| {
            v.sort();
            v[v.len() / 2]
        };
        Self(seen.into_iter().map(|(p, v)| (p, median(v))).collect())
    }

    fn text(&self, p: Phase) -> String {
        self.0.get(&p).map(|d| format!(" (usually {})", duration(*d))).unwrap_or_default()
    }
}

struct Shown {
    op: Operation,
    label: String,
    bar: Option<ProgressBar>,
    phase: Option<Phase>,
    step: Option<String>,
    phase_began: Time,
    phase_bytes: u64,
    usual: Usual,
}

/// Watches until all have ended, and says whether they have: not after Ctrl-C.
///
/// # Errors
/// One has not ended well.
pub async fn watch(s: &Session, ops: Vec<Operation>) -> Result<bool, Fail> {
    let bars = s.out.is_terminal().then(MultiProgress::new);
    let mut shown = Vec::new();
    for op in ops {
        let what = match op.kind {
            OperationKind::Mirror => "mirror",
            OperationKind::InstallMany => "installs",
            _ => "image",
        };
        let label = op.node.as_ref().map_or_else(|| what.to_owned(), ToString::to_string);
        let usual = match &op.build {
            Some(b) => match s.client.get::<Build>(&format!("/v1/builds/{b}")).await {
                Ok(b) => Usual::of(&s.client, &b).await,
                Err(_) => Usual::default(),
            },
            None => Usual::default(),
        };
        let bar = bars.as_ref().map(|m| {
            let b = m.add(ProgressBar::new(0));
            b.enable_steady_tick(Duration::from_millis(200));
            b
        });
        let phase_began = op.started;
        shown.push(Shown {
            op,
            label,
            bar,
            phase: None,
            step: None,
            phase_began,
            phase_bytes: 0,
            usual,
        });
    }
    let ids: Vec<String> = shown.iter().map(|x| x.op.id.to_string()).collect();
    tokio::select! {
        r = follow(s, &mut shown) => r?,
        _ = tokio::signal::ctrl_c() => {
            shown.iter().filter_map(|x| x.bar.as_ref()).for_each(ProgressBar::abandon);
            eprintln!("\nit goes on without you; come back with: provision watch {}", ids.join(" "));
            return Ok(false);
        }
    }
    if s.out.is_json() {
        let ops: Vec<&Operation> = shown.iter().map(|x| &x.op).collect();
        s.out.show(&ops, |_| super::output::Table::plain())?;
    }
    let failed: Vec<String> = shown
        .iter()
        .filter(|x| x.op.state != OperationState::Done)
        .map(|x| {
            let why = x.op.reason.as_deref().unwrap_or("no reason was given");
            let at = x.op.phase.map(|p| format!(" in phase {p}")).unwrap_or_default();
            let more = match &x.op.build {
                Some(_) => format!("\n  the whole story: provision explain {}", x.label),
                None => String::new(),
            };
            format!("{} failed{at}: {why}{more}", x.label)
        })
        .collect();
    if failed.is_empty() { Ok(true) } else { Err(Fail::Operation(failed.join("\n"))) }
}

async fn follow(s: &Session, shown: &mut [Shown]) -> Result<(), Fail> {
    let mut away: Option<std::time::Instant> = None;
    loop {
        let mut running = false;
        for x in shown.iter_mut().filter(|x| !x.op.state.is_final() || x.phase.is_none()) {
            match s.client.operation(&x.op.id).await {
                Ok(op) => {
                    away = None;
                    running |= !op.state.is_final();
                    draw(s, x, op)?;
                    // An operation without phases is drawn once at its end.
                    if x.op.state.is_final() && x.phase.is_none() {
                        x.phase = Some(Phase::Power);
                    }
                }
                // The server may be restarted under us; the operation goes on.
                Err(ClientError::Unreachable { why, server }) => {
                    running = true;
                    let since = away.get_or_insert_with(std::time::Instant::now);
                    if since.elapsed() > Duration::from_secs(120) {
                        return Err(ClientError::Unreachable { why, server }.into());
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        if !running {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn draw(s: &Session, x: &mut Shown, op: Operation) -> Result<(), Fail> {
    let now = Time::now();
    if op.phase != x.phase {
        if let Some(old) = x.phase {
            let took = now.duration_since(x.phase_began);
            let moved = match x.phase_bytes {
                0 => String::new(),
                n => {
                    let rate = n as f64 / took.as_secs_f64().max(0.1) / 1e6;
                    format!("  {} at {rate:.0} MB/s", super::output::bytes(n))
                }
            };
            let usual = x.usual.text(old);
            line(s, x, &format!("{:<9} {:<11} {:>8}{usual}{moved}", x.label, old, duration(took)))?;
        }
        x.phase = op.phase;
        x.phase_began = now;
        x.phase_bytes = 0;
    }
    if op.phase.is_none() && op.reason != x.step {
        if let (None, Some(step)) = (&x.bar, &op.reason) {
            line(s, x, &format!("{:<9} {step}", x.label))?;
        }
        x.step.clone_from(&op.reason);
    }
    x.phase_bytes = x.phase_bytes.max(op.bytes);
    if let Some(b) = &x.bar {
        let template = if op.total > 0 && op.kind == OperationKind::InstallMany {
            "{prefix:9} {spinner} {msg} {wide_bar:.green} {pos} of {len} nodes [{elapsed}]"
        } else if op.total > 0 {
            "{prefix:9} {spinner} {msg} {wide_bar:.green} {bytes}/{total_bytes} {bytes_per_sec} [{elapsed}]"
        } else {
            "{prefix:9} {spinner} {msg} [{elapsed}]"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            b.set_style(style);
        }
        b.set_prefix(x.label.clone());
        b.set_length(op.total);
        b.set_position(op.bytes);
        let phase = op.phase.map(|p| format!("{p:<11}")).unwrap_or_default();
        let usual = op.phase.map(|p| x.usual.text(p)).unwrap_or_default();
        let why = op.reason.clone().unwrap_or_default();
        b.set_message(format!(
            "{phase} {}{usual}: {why}",
            duration(now.duration_since(x.phase_began))
        ));
    }
    if op.state.is_final() {
        let took = duration(op.updated.duration_since(op.started));
        let end = match op.state {
            OperationState::Done => format!("{:<9} done in {took}", x.label),
            OperationState::Cancelled => format!("{:<9} cancelled after {took}", x.label),
            _ => format!("{:<9} failed after {took}", x.label),
        };
        if let Some(b) = x.bar.take() {
            b.finish_and_clear();
        }
        x.op = op;
        return line(s, x, &end);
    }
    x.op = op;
    Ok(())
}

fn line(s: &Session, x: &Shown, text: &str) -> Result<(), Fail> {
    match &x.bar {
        Some(b) => b.println(text),
        None if !s.out.is_json() => writeln!(std::io::stdout().lock(), "{text}")?,
        None => {}
    }
    Ok(())
}
