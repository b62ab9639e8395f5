//! `provision log`.

use super::output::{Table, segment};
use super::watch::List;
use super::{Fail, Session};
use crate::model::Event;
use crate::store::ChainReport;
use std::io::Write;

/// `provision log`
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  provision log --node node07 --since 2h\n  provision log --follow\n  provision log --verify"
)]
pub struct LogArgs {
    /// Only about this node
    #[arg(long)]
    node: Option<String>,
    /// Only since this time (2026-11-21T09:00:00Z) or so long ago (90s, 2h, 7d)
    #[arg(long)]
    since: Option<String>,
    /// Only actions that start so, such as power or install.failed
    #[arg(long)]
    action: Option<String>,
    /// At most so many, the newest
    #[arg(long, default_value_t = 200)]
    limit: usize,
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Check that no event was changed or removed
    #[arg(long)]
    verify: bool,
}

fn line(e: &Event) -> String {
    let node = e.event.node.as_ref().map(ToString::to_string).unwrap_or_else(|| "-".into());
    let detail: Vec<String> = e.event.detail.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let line = format!(
        "{:>6}  {:.19}  {:<12} {:<18} {:<8} {:<8} {}",
        e.seq,
        e.event.at,
        e.event.actor,
        e.event.action,
        node,
        e.event.outcome,
        detail.join(" ")
    );
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

pub(super) async fn run(s: &Session, a: LogArgs) -> Result<(), Fail> {
    if a.verify {
        let r: ChainReport = s.client.get("/v1/events/verify").await?;
        s.out.show(&r, |r| {
            let mut t = Table::plain();
            t.row(&[
                format!("{} events", r.events),
                r.broken.clone().unwrap_or_else(|| "the chain holds".into()),
            ]);
            t
        })?;
        return match r.broken {
            None => Ok(()),
            Some(b) => Err(Fail::Operation(format!("the log was tampered with: {b}"))),
        };
    }
    let mut q = vec![format!("limit={}", a.limit)];
    q.extend(a.node.map(|n| format!("node={}", segment(&n))));
    q.extend(a.since.map(|t| format!("since={}", segment(&t))));
    q.extend(a.action.map(|t| format!("action={}", segment(&t))));
    let path = format!("/v1/events?{}", q.join("&"));
    if a.follow {
        let json = s.out.is_json();
        let print = |data: &str| {
            let mut out = std::io::stdout().lock();
            // A closed pipe ends us at the next event; nothing to report.
            let _ = match serde_json::from_str::<Event>(data) {
                Ok(e) if !json => writeln!(out, "{}", line(&e)),
                _ => writeln!(out, "{data}"),
            };
        };
        return Ok(s.client.follow(&path, print).await?);
    }
    let l: List<Event> = s.client.get(&path).await?;
    if s.out.is_json() {
        return s.out.show(&l.items, |_| Table::plain());
    }
    let mut out = std::io::stdout().lock();
    for e in &l.items {
        writeln!(out, "{}", line(e))?;
    }
    Ok(())
}
