//! `/node/…`: what a node's agent asks and reports, with the build's token.
//! Every report may come twice. A build that has ended answers 410, and the
//! agent then leaves the machine alone.

use super::caller::bearer;
use super::problem::Json;
use super::{Ctx, Problem};
use crate::lifecycle::{Input, LifeError, orders};
use crate::model::plan::{
    BootedReport, CertificateRequest, FailureReport, InstallPlan, InstalledReport, PhaseReport,
    SignedCertificate, VerifiedReport,
};
use crate::model::{Build, BuildOutcome, Facts, Firmware, NewEvent, Outcome, Time};
use axum::Json as Out;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::Deserialize;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

/// Bytes of log kept of one build.
pub const LOG_LIMIT: u64 = 32 << 20;

/// Seconds that a machine's clock may be off without being worth a word.
const CLOCK_OFF: i64 = 60;

/// A running build, by its token.
pub(super) struct Running(pub(super) Arc<Build>);

impl FromRequestParts<Arc<Ctx>> for Running {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Arc<Ctx>) -> Result<Self, Problem> {
        let wrong = || Problem::new(StatusCode::UNAUTHORIZED, "this is no build's token");
        let id =
            bearer(&parts.headers).and_then(|t| ctx.key.build_of_token(t)).ok_or_else(wrong)?;
        let build = ctx.rack.view().builds.get(&id).cloned().ok_or_else(wrong)?;
        if build.outcome != BuildOutcome::Running {
            return Err(LifeError::Over(id).into());
        }
        Ok(Self(build))
    }
}

type Taken = Result<StatusCode, Problem>;

async fn give(ctx: &Arc<Ctx>, build: &Build, input: Input) -> Taken {
    ctx.rack.report(&build.id, input).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn plan(
    Running(build): Running,
    State(ctx): State<Arc<Ctx>>,
) -> Result<Out<InstallPlan>, Problem> {
    let doc = ctx.rack.store().get(orders::PLAN, build.id.as_str()).await?;
    let plan = doc.and_then(|d| serde_json::from_value::<InstallPlan>(d.value).ok());
    let mut plan =
        plan.ok_or_else(|| Problem::internal(format!("the plan of {} is lost", build.id)))?;
    plan.now = Time::now();
    for u in &mut plan.users {
        u.password_hash.clone_from(&ctx.config.install.password_hash);
    }
    Ok(Out(plan))
}

pub(super) async fn facts(
    Running(build): Running,
    State(ctx): State<Arc<Ctx>>,
    Json(facts): Json<Facts>,
) -> Taken {
    let now = Time::now();
    let mut events = vec![
        said(&build, now, "agent.facts", Outcome::Ok)
            .with("hardware", &facts.hardware)
            .with("serial", &facts.serial)
            .with("memory", facts.memory)
            .with("disks", facts.disks.len()),
    ];
    let off = facts.clock.map(|c| c.duration_since(now).as_secs());
    events.extend(off.and_then(|off| wrong_clock(&build, now, off)));
    ctx.rack.log(events).await?;
    ctx.rack.note(&build.node, |n| {
        if facts.firmware != Firmware::Auto {
            n.status.firmware_seen = facts.firmware;
        }
        n.status.secure_boot = facts.secure_boot.or(n.status.secure_boot);
        n.status.facts = Some(facts);
    });
    give(&ctx, &build, Input::FactsSeen).await
}

/// An event that a node tells of itself.
fn said(build: &Build, now: Time, action: &str, outcome: Outcome) -> NewEvent {
    NewEvent::new(now, &format!("node:{}", build.node), action, outcome)
        .node(&build.node)
        .with("build", &build.id)
}

/// Certificates and file times would be wrong: who finds it sets it at once.
fn wrong_clock(build: &Build, now: Time, off: i64) -> Option<NewEvent> {
    (off.saturating_abs() > CLOCK_OFF)
        .then(|| said(build, now, "agent.clock", Outcome::Failed).with("off_seconds", off))
}

/// A phase, and by how much the clock was off, if an installer had to set it.
#[derive(serde::Deserialize)]
pub(super) struct Begun {
    #[serde(flatten)]
    report: PhaseReport,
    /// Seconds; less than nothing for a clock that was behind.
    clock_off: Option<i64>,
}

pub(super) async fn phase(
    Running(build): Running,
    State(ctx): State<Arc<Ctx>>,
    Json(Begun { report: mut r, clock_off }): Json<Begun>,
) -> Taken {
    if let Some(event) = clock_off.and_then(|off| wrong_clock(&build, Time::now(), off)) {
        ctx.rack.log(vec![event]).await?;
    }
    r.message = r.message.map(|m| m.chars().take(500).collect());
    give(&ctx, &build, Input::Reported(r)).await
}

pub(super) async fn failed(
    Running(build): Running,
    State(ctx): State<Arc<Ctx>>,
    Json(mut r): Json<FailureReport>,
) -> Taken {
    r.reason = r.reason.chars().take(2000).collect();
    give(&ctx, &build, Input::AgentFailed(r)).await
}

pub(super) async fn installed(
    Running(build): Running,
    State(ctx): State<Arc<Ctx>>,
    Json(r): Json<InstalledReport>,
) -> Taken {
    if r.host_keys.len() > 8 || r.host_keys.iter().any(|k| k.len() > 2048 || k.contains('\n')) {
        let m = "host_keys: at most 8 lines of at most 2048 characters";
        return Err(Problem::bad(m).at("/host_keys"));
    }
    give(&ctx, &build, Input::Installed(r)).await
}

pub(super) async fn booted(
    Running(build): Running,
    State(ctx): State<Arc<Ctx>>,
    Json(r): Json<BootedReport>,
) -> Taken {
    give(&ctx, &build, Input::Booted(r.kernel.chars().take(100).collect())).await
}

/// Signed by the deployment server, asked with our token: a node's own token
/// is good here only.
pub(super) async fn certificate(
    Running(build): Running,
    State(ctx): State<Arc<Ctx>>,
    Json(r): Json<CertificateRequest>,
) -> Result<Out<SignedCertificate>, Problem> {
    let Some(certifier) = &ctx.certifier else {
        return Err(Problem::not_found("no deployment server is configured here"));
    };
    let signed = certifier.sign(&build.node, &build.id, r.csr).await;
    // 503: the agent asks again until its deadline.
    signed.map(Out).map_err(|why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why))
}

pub(super) async fn verified(
    Running(build): Running,
    State(ctx): State<Arc<Ctx>>,
    Json(r): Json<VerifiedReport>,
) -> Taken {
    give(&ctx, &build, Input::Verified(r)).await
}

#[derive(Deserialize)]
pub(super) struct At {
    #[serde(default)]
    offset: u64,
}

pub(super) async fn log(
    Running(build): Running,
    State(ctx): State<Arc<Ctx>>,
    Query(at): Query<At>,
    text: Bytes,
) -> Taken {
    let path = ctx.logs.join(format!("{}.log", build.id));
    let write = move || -> std::io::Result<()> {
        let mut f =
            std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        // Text sent again lands on itself; a gap (the log of a server that
        // lost its disk) is closed up rather than left as zeros.
        let start = at.offset.min(f.metadata()?.len());
        if start + text.len() as u64 > LOG_LIMIT {
            return Ok(());
        }
        f.seek(SeekFrom::Start(start))?;
        f.write_all(&text)
    };
    let done = tokio::task::spawn_blocking(write).await;
    match done {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT),
        Ok(Err(e)) => Err(Problem::internal(format!("the log of {}: {e}", build.id))),
        Err(e) => Err(Problem::internal(e.to_string())),
    }
}
