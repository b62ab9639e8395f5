//! `provision builds`, `provision explain`, `provision preseed`.

use super::output::{Table, duration, segment};
use super::watch::List;
use super::{Fail, Session};
use crate::lifecycle::explain::Explanation;
use crate::model::{Build, BuildOutcome, Node, Time};
use serde_json::Value;
use std::io::Write;

/// `provision builds`
#[derive(clap::Args)]
pub struct BuildsArgs {
    /// Only of this node
    node: Option<String>,
    /// At most so many, the newest
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// One build with its phases
    #[arg(long)]
    build: Option<String>,
    /// The whole log of that build
    #[arg(long, requires = "build")]
    log: bool,
}

/// `provision explain`
#[derive(clap::Args)]
pub struct ExplainArgs {
    /// Node by name or address
    node: String,
    /// With the agent's log
    #[arg(long)]
    log: bool,
}

/// `provision preseed`
#[derive(clap::Args)]
pub struct PreseedArgs {
    /// Node by name or address
    node: String,
    /// As it was at this time; else the newest
    #[arg(long)]
    at: Option<Time>,
    /// Which file, such as late.sh; else the preseed or autoinstall file where
    /// there is one, or the boot script
    #[arg(long)]
    file: Option<String>,
}

fn outcome(o: BuildOutcome) -> &'static str {
    match o {
        BuildOutcome::Running => "running",
        BuildOutcome::Deployed => "deployed",
        BuildOutcome::Failed => "failed",
        BuildOutcome::Cancelled => "cancelled",
    }
}

pub(super) async fn run(s: &Session, a: BuildsArgs) -> Result<(), Fail> {
    if let Some(id) = a.build {
        let id = segment(&id);
        if a.log {
            let text = s.client.text(&format!("/v1/builds/{id}/log")).await?;
            return Ok(std::io::stdout().lock().write_all(text.as_bytes())?);
        }
        let b: Build = s.client.get(&format!("/v1/builds/{id}")).await?;
        return s.out.show(&b, phases);
    }
    let node = a.node.map(|n| format!("&node={}", segment(&n))).unwrap_or_default();
    let l: List<Build> = s.client.get(&format!("/v1/builds?limit={}{node}", a.limit)).await?;
    s.out.show(&l.items, |all| {
        let mut t = Table::new(&[
            "build", "node", "started", "outcome", "took", "image", "profile", "by", "why",
        ]);
        for b in all {
            let took = duration(b.ended.unwrap_or_else(Time::now).duration_since(b.started));
            t.row(&[
                b.id.to_string(),
                b.node.to_string(),
                format!("{:.19}", b.started.to_string()),
                outcome(b.outcome).into(),
                took,
                b.inputs.image.to_string(),
                format!("{}{}", b.inputs.profile, if b.inputs.baked { " (baked)" } else { "" }),
                b.actor.clone(),
                b.reason.clone().unwrap_or_default(),
            ]);
        }
        t
    })
}

fn phases(b: &Build) -> Table {
    let mut t = Table::new(&["phase", "attempt", "took", "bytes", "why"]);
    for p in &b.phases {
        let took = duration(p.ended.unwrap_or_else(Time::now).duration_since(p.started));
        let bytes = if p.bytes > 0 { super::output::bytes(p.bytes) } else { String::new() };
        t.row(&[
            p.phase.to_string(),
            p.attempt.to_string(),
            took,
            bytes,
            p.reason.clone().unwrap_or_default(),
        ]);
    }
    t
}

pub(super) async fn explain(s: &Session, a: ExplainArgs) -> Result<(), Fail> {
    let e: Explanation = s.client.get(&format!("/v1/nodes/{}/explain", segment(&a.node))).await?;
    s.out.show(&e, |e| {
        let mut t = Table::plain();
        for l in &e.lines {
            t.row(&[format!("{:>8.1} s", l.seconds), l.source.clone(), l.text.clone()]);
        }
        t
    })?;
    s.out.say("")?;
    if !s.out.is_json() {
        print!("{}", phases(&e.build).text());
    }
    if a.log {
        let text = s.client.text(&format!("/v1/builds/{}/log", e.build.id)).await?;
        s.out.say(format!("\n{text}"))?;
    }
    s.out.say(format!("\n{}", e.summary))?;
    if s.out.is_json() {
        return Ok(());
    }
    if let Some(m) = &e.missing {
        s.out.say(format!("Missing: {m}."))?;
    }
    for x in &e.symptoms {
        let word = if x.stops { "Likely" } else { "Noticed" };
        s.out.say(format!("{word}: {} ({}).", x.name, x.seen))?;
        s.out.say(format!("  {}\n  To do: {}", x.cause, x.advice))?;
    }
    Ok(())
}

pub(super) async fn preseed(s: &Session, a: PreseedArgs) -> Result<(), Fail> {
    let n: Node = s.client.get(&format!("/v1/nodes/{}", segment(&a.node))).await?;
    let builds: List<Build> =
        s.client.get(&format!("/v1/builds?limit=1000&node={}", n.spec.name)).await?;
    let at = a.at.unwrap_or_else(Time::now);
    // Newest first: the first that began by then.
    let Some(b) = builds.items.into_iter().find(|b| b.started <= at) else {
        return Err(Fail::Use(format!("{} had no install at {at}", n.spec.name)));
    };
    let files: List<Value> = s.client.get(&format!("/v1/builds/{}/files", b.id)).await?;
    let text = |v: &Value, k: &str| v.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
    let seen = |v: &&Value| text(v, "at").parse::<Time>().is_ok_and(|t| t <= at);
    let named = |name: &str| files.items.iter().filter(seen).rfind(|v| text(v, "file") == name);
    let last = match &a.file {
        Some(name) => named(name),
        None => named("preseed.cfg")
            .or_else(|| named("user-data"))
            .or_else(|| files.items.iter().rfind(seen)),
    };
    let Some(f) = last else {
        let mut known: Vec<String> =
            files.items.iter().filter(seen).map(|v| text(v, "file")).collect();
        known.dedup();
        let what = a.file.as_deref().unwrap_or("nothing");
        return Err(Fail::Use(match known.as_slice() {
            [] => format!("nothing had been rendered for {} by {at}", n.spec.name),
            all => format!(
                "no {what} had been rendered for {} by {at}; there are {}",
                n.spec.name,
                all.join(", ")
            ),
        }));
    };
    if s.out.is_json() {
        return s.out.show(f, |_| Table::plain());
    }
    Ok(std::io::stdout().lock().write_all(text(f, "text").as_bytes())?)
}
