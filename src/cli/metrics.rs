//! `provision metrics`.

use super::output::{Table, segment};
use super::{Fail, Session};
use crate::api::delivery::Numbers;
use crate::client::ClientError;
use crate::metrics::{ProfileNumbers, SoftwareNumbers, Spread};
use crate::model::Time;
use serde::Serialize;

/// `provision metrics`
#[derive(clap::Args)]
#[command(after_help = "\
Lead times are medians, of software from its commit to its first start on a
node, of machines from the order to the verified node. A failed change is a
deployment after which the software failed, or an install that failed.

Examples:
  provision metrics
  provision metrics --since 7d --name web
  provision metrics --since 2026-10-01T00:00:00Z --until 2026-11-01T00:00:00Z
  provision --output json metrics --profile docker")]
pub struct MetricsArgs {
    /// Since when: a time, or how long ago
    #[arg(long, default_value = "30d")]
    since: String,
    /// Until when; now, if not given
    #[arg(long)]
    until: Option<String>,
    /// Only software of this name
    #[arg(long)]
    name: Option<String>,
    /// Only machines with this profile
    #[arg(long)]
    profile: Option<String>,
}

#[derive(Serialize)]
struct Both {
    since: Time,
    until: Time,
    profiles: Vec<ProfileNumbers>,
    software: Vec<SoftwareNumbers>,
    /// A server that did not answer, and why.
    missing: Vec<String>,
}

pub(super) async fn run(s: &Session, a: MetricsArgs) -> Result<(), Fail> {
    let mut query = format!("since={}", segment(&a.since));
    if let Some(u) = &a.until {
        query.push_str(&format!("&until={}", segment(u)));
    }
    let profiles: Result<Numbers<ProfileNumbers>, _> =
        s.client.get(&format!("/v1/metrics/profiles?{query}")).await;
    let software: Result<Numbers<SoftwareNumbers>, _> =
        s.deployment.get(&format!("/v1/metrics/software?{query}")).await;
    // Either server may be elsewhere; without both there is nothing to say.
    let (since, until) = match (&profiles, &software) {
        (Ok(n), _) => (n.since, n.until),
        (_, Ok(n)) => (n.since, n.until),
        // A server that answered knows better what is wrong.
        (Err(ClientError::Unreachable { .. }), Err(_)) => {
            return software.map(drop).map_err(Into::into);
        }
        (Err(_), Err(_)) => return profiles.map(drop).map_err(Into::into),
    };
    let mut missing = Vec::new();
    let mut profiles = profiles.map(|n| n.items).unwrap_or_else(|e| {
        missing.push(format!("machines: {e}"));
        Vec::new()
    });
    let mut software = software.map(|n| n.items).unwrap_or_else(|e| {
        missing.push(format!("software: {e}"));
        Vec::new()
    });
    profiles.retain(|p| a.profile.as_ref().is_none_or(|w| *w == p.profile));
    software.retain(|n| a.name.as_ref().is_none_or(|w| *w == n.name));
    for m in &missing {
        eprintln!("not shown: {m}");
    }
    let both = Both { since, until, profiles, software, missing };
    s.out.show(&both, table)
}

fn table(all: &Both) -> Table {
    let mut t = Table::new(&[
        "of",
        "name",
        "deployed",
        "a day",
        "commit to image",
        "lead time",
        "failed",
        "failure rate",
        "recovery",
        "down",
    ]);
    for p in &all.profiles {
        t.row(&[
            "profile".into(),
            p.profile.clone(),
            p.deployments.to_string(),
            format!("{:.2}", p.deployments_per_day),
            "-".into(),
            median(&p.lead_time),
            p.failed.to_string(),
            format!("{:.0} %", p.change_failure_rate * 100.0),
            mean(&p.time_to_recover),
            p.down.to_string(),
        ]);
    }
    for n in &all.software {
        t.row(&[
            "software".into(),
            n.name.clone(),
            n.deployments.to_string(),
            format!("{:.2}", n.deployments_per_day),
            median(&n.commit_to_image),
            median(&n.commit_to_running),
            n.failed_deployments.to_string(),
            format!("{:.0} %", n.change_failure_rate * 100.0),
            mean(&n.time_to_recover),
            n.down.to_string(),
        ]);
    }
    t
}

fn median(s: &Spread) -> String {
    if s.count == 0 { "-".into() } else { span(s.median) }
}

fn mean(s: &Spread) -> String {
    if s.count == 0 { "-".into() } else { span(s.mean) }
}

/// `41 s`, `12 min`, `3.5 h`, `2.0 d`.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_enough_to_read() {
        let all: Vec<_> = [41.2, 119.6, 720.0, 12_600.0, 172_800.0].map(span).into();
        assert_eq!(all, ["41 s", "120 s", "12 min", "3.5 h", "2.0 d"]);
    }
}
