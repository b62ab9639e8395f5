//! `provision metrics`.

use super::output::{Table, segment};
use super::{Fail, Session};
use crate::api::delivery::Numbers;
use crate::client::ClientError;
use crate::metrics::{PhaseNumbers, ProfileNumbers, SoftwareNumbers, Spread};
use crate::model::Time;
use serde::Serialize;

/// `provision metrics`
#[derive(clap::Args)]
#[command(after_help = "\
Lead times are medians, of software from its commit to its first start on a
node, of machines from the order to the verified node. A failed change is a
deployment after which the software failed, or an install that failed.

The second table has the time of installs by profile and by hardware model, and
the slowest phase: the one with the largest share of the median total. --phases
has a row for each phase. Percentiles are by nearest rank.

Examples:
  provision metrics
  provision metrics --since 7d --name web
  provision metrics --phases --profile docker
  provision metrics --phases --model r430 --since 24h
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
    /// Only machines whose hardware model has this in its name
    #[arg(long)]
    model: Option<String>,
    /// Show every phase of installs
    #[arg(long)]
    phases: bool,
}

#[derive(Serialize)]
struct Both {
    since: Time,
    until: Time,
    profiles: Vec<ProfileNumbers>,
    software: Vec<SoftwareNumbers>,
    /// By profile, by hardware model, and by both.
    phases: Vec<PhaseNumbers>,
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
    let phases: Result<Numbers<PhaseNumbers>, _> =
        s.client.get(&format!("/v1/metrics/phases?{query}")).await;
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
    // A server that does not answer is told of once.
    let answers = profiles.is_ok();
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
    let phases = phases.map(|n| n.items).unwrap_or_else(|e| {
        if answers {
            missing.push(format!("phases: {e}"));
        }
        Vec::new()
    });
    let phases = wanted(phases, a.profile.as_deref(), a.model.as_deref());
    for m in &missing {
        eprintln!("not shown: {m}");
    }
    let both = Both { since, until, profiles, software, phases, missing };
    s.out.show(&both, table)?;
    if both.phases.is_empty() {
        return Ok(());
    }
    s.out.say("")?;
    let times = if a.phases { every_phase(&both.phases) } else { slowest(&both.phases) };
    s.out.say(times.text().trim_end())
}

/// Groups of this profile, of models with this in their name.
fn wanted(
    mut all: Vec<PhaseNumbers>,
    profile: Option<&str>,
    model: Option<&str>,
) -> Vec<PhaseNumbers> {
    let model = model.map(str::to_lowercase);
    all.retain(|n| {
        let fits = |m: &String| model.as_ref().is_none_or(|w| m.to_lowercase().contains(w));
        profile.is_none_or(|w| n.profile.as_deref() == Some(w))
            && (model.is_none() || n.model.as_ref().is_some_and(fits))
    });
    all
}

fn group(n: &PhaseNumbers) -> [String; 2] {
    let name = |s: &Option<String>| s.clone().unwrap_or_else(|| "all".into());
    [name(&n.profile), name(&n.model)]
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A row for each group: how long its installs take, and what of.
fn slowest(all: &[PhaseNumbers]) -> Table {
    let mut t = Table::new(&[
        "profile", "model", "installs", "retried", "p50", "p95", "p99", "slowest", "p50", "p95",
        "p99", "share",
    ]);
    for n in all {
        let mut row = group(n).to_vec();
        row.extend([n.installs.to_string(), n.retried.to_string()]);
        row.extend(times(&n.total));
        if let Some(p) = n.bottleneck() {
            row.push(p.phase.to_string());
            row.extend(times(&p.seconds));
            row.push(percent(p.share));
        }
        t.row(&row);
    }
    t
}

/// A row for each phase of each group.
fn every_phase(all: &[PhaseNumbers]) -> Table {
    let mut t = Table::new(&[
        "profile", "model", "phase", "installs", "p50", "p95", "p99", "longest", "share", "",
    ]);
    for n in all {
        for p in &n.phases {
            let mut row = group(n).to_vec();
            row.extend([p.phase.to_string(), p.seconds.count.to_string()]);
            row.extend(times(&p.seconds));
            row.extend([span(p.seconds.longest), percent(p.share)]);
            let mark = if n.slowest == Some(p.phase) { "slowest" } else { "" };
            row.push(mark.into());
            t.row(&row);
        }
        let mut row = group(n).to_vec();
        row.extend(["total".into(), n.installs.to_string()]);
        row.extend(times(&n.total));
        row.push(span(n.total.longest));
        t.row(&row);
    }
    t
}

fn times(s: &Spread) -> [String; 3] {
    if s.count == 0 { ["-", "-", "-"].map(Into::into) } else { [s.median, s.p95, s.p99].map(span) }
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
    use crate::metrics::PhaseTimes;
    use crate::model::Phase;

    fn some() -> Vec<PhaseNumbers> {
        let of = |all: &[f64]| Spread::of(all.to_vec());
        let groups = [
            (Some("docker"), None),
            (None, Some("Dell R430")),
            (Some("docker"), Some("Dell R430")),
        ];
        let group = |(profile, model): (Option<&str>, Option<&str>)| PhaseNumbers {
            profile: profile.map(Into::into),
            model: model.map(Into::into),
            installs: 2,
            retried: 1,
            total: of(&[100.0, 300.0]),
            slowest: Some(Phase::Image),
            phases: vec![
                PhaseTimes { phase: Phase::Power, seconds: of(&[5.0]), share: 0.05 },
                PhaseTimes { phase: Phase::Image, seconds: of(&[80.0, 280.0]), share: 0.8 },
            ],
        };
        groups.map(group).into()
    }

    #[test]
    fn the_slowest_phase_is_named_with_its_share() {
        let text = slowest(&some()).text();
        let row: Vec<_> = text.lines().nth(1).unwrap().split("  ").map(str::trim).collect();
        let row: Vec<_> = row.into_iter().filter(|c| !c.is_empty()).collect();
        let want = "docker|all|2|1|100 s|5 min|5 min|image|80 s|5 min|5 min|80 %";
        assert_eq!(row.join("|"), want);
        let text = every_phase(&some()).text();
        let marked: Vec<_> = text.lines().filter(|l| l.ends_with("slowest")).collect();
        assert_eq!((text.lines().count(), marked.len()), (10, 3), "{text}");
        assert!(marked.iter().all(|l| l.contains("image")), "{text}");
    }

    #[test]
    fn groups_are_chosen_by_profile_and_part_of_the_models_name() {
        let count = |profile, model| wanted(some(), profile, model).len();
        assert_eq!(count(None, None), 3);
        assert_eq!(count(Some("docker"), None), 2);
        assert_eq!(count(None, Some("r430")), 2);
        assert_eq!(count(Some("docker"), Some("DELL")), 1);
        assert_eq!(count(Some("web"), None) + count(None, Some("HP")), 0);
    }

    #[test]
    fn spans_are_short_enough_to_read() {
        let all: Vec<_> = [41.2, 119.6, 720.0, 12_600.0, 172_800.0].map(span).into();
        assert_eq!(all, ["41 s", "120 s", "12 min", "3.5 h", "2.0 d"]);
    }
}
