//! What a distribution's own installer asks: its preseed or autoinstall file,
//! by its address; our scripts and the agent, by the build's token.
//!
//! Every text is rendered when it is asked for, from the plan that was fixed
//! when the install was ordered and the templates as they now are, and is
//! kept with the build, token and password hash left out.

use super::node_reports::Running;
use super::{Ctx, Problem};
use crate::agent::node::{NodeConfig, UNIT};
use crate::lifecycle::machine::boots_its_disk;
use crate::lifecycle::{Input, orders};
use crate::model::plan::{InstallPlan, PhaseReport};
use crate::model::{Build, Firmware, Mac, Method, NewEvent, Outcome, Phase, Rendering, Time};
use crate::preseed::{Around, File, Release, Values, without_token};
use crate::store::{Batch, Expect, StoreError, kind};
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long an installer is kept waiting while the store is away: it takes an
/// error for an answer, and stops.
const STORE: Duration = Duration::from_secs(90);
/// Where the agent's log goes on is not known before the installer has ended:
/// at the end of what there is by then.
const AT_THE_END: u64 = 1 << 40;

pub(super) async fn boot_file(
    State(ctx): State<Arc<Ctx>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(mac): Path<String>,
    file: &'static str,
) -> Result<Response, Problem> {
    let build = at(&ctx, &mac, peer.ip())
        .ok_or_else(|| Problem::not_found("no install of this node wants this file"))?;
    let plan = plan(&ctx, &build).await?;
    let which = match (build.inputs.method, file) {
        (Method::Preseed, "preseed.cfg") => {
            let release = plan.installer.as_ref().map_or("", |i| i.release.as_str());
            File::Preseed(release.parse::<Release>().map_err(|e| Problem::internal(e.to_string()))?)
        }
        (Method::Autoinstall, "user-data") => File::UserData,
        (Method::Autoinstall, "meta-data") => File::MetaData,
        // cloud-init asks for it and waits for an answer; there is none.
        (Method::Autoinstall, "vendor-data") => return Ok(text(String::new())),
        _ => return Err(Problem::not_found("the installer of this node has no such file")),
    };
    render(&ctx, &build, &plan, which, file).await
}

/// The running install of the node with this MAC, if the asker has its
/// address: the file holds the build's token.
fn at(ctx: &Ctx, mac: &str, peer: IpAddr) -> Option<Arc<Build>> {
    let mac: Mac = mac.parse().ok()?;
    let node = ctx.rack.view().inventory.by_mac(mac).cloned()?;
    let build = ctx.rack.running_build(&node.spec.name)?;
    let right = IpAddr::V4(node.spec.address) == peer && !boots_its_disk(&build);
    right.then_some(build)
}

pub(super) async fn early(
    Running(build): Running,
    State(ctx): State<Arc<Ctx>>,
) -> Result<Response, Problem> {
    let plan = plan(&ctx, &build).await?;
    render(&ctx, &build, &plan, File::Early, "early.sh").await
}

pub(super) async fn late(
    Running(build): Running,
    State(ctx): State<Arc<Ctx>>,
) -> Result<Response, Problem> {
    let plan = plan(&ctx, &build).await?;
    let answer = render(&ctx, &build, &plan, File::Late, "late.sh").await?;
    // From here on the disk boots: the node is not to begin anew.
    let report = PhaseReport { phase: Phase::Profile, bytes: 0, total: 0, message: None };
    ctx.rack.report(&build.id, Input::Reported(report)).await?;
    Ok(answer)
}

pub(super) async fn agent(
    Running(_): Running,
    State(ctx): State<Arc<Ctx>>,
) -> Result<Response, Problem> {
    let path = &ctx.config.install.agent;
    let gone = |e: std::io::Error| Problem::internal(format!("{}: {e}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(gone)?;
    let length = file.metadata().await.map_err(gone)?.len();
    let body = Body::from_stream(tokio_util::io::ReaderStream::with_capacity(file, 256 << 10));
    Ok(([(header::CONTENT_LENGTH, length)], body).into_response())
}

/// Asks the store until it answers, or until the installer's patience ends.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, Problem>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let until = tokio::time::Instant::now() + STORE;
    loop {
        match ask().await {
            Err(StoreError::Unavailable { .. }) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => return Ok(other?),
        }
    }
}

async fn plan(ctx: &Ctx, build: &Build) -> Result<InstallPlan, Problem> {
    let doc = patiently(|| ctx.rack.store().get(orders::PLAN, build.id.as_str())).await?;
    let plan = doc.and_then(|d| serde_json::from_value::<InstallPlan>(d.value).ok());
    let plan = plan.filter(|p| p.installer.is_some());
    let mut plan =
        plan.ok_or_else(|| Problem::not_found("this node is not made by an installer"))?;
    plan.now = Time::now();
    Ok(plan)
}

async fn render(
    ctx: &Arc<Ctx>,
    build: &Build,
    plan: &InstallPlan,
    which: File,
    name: &str,
) -> Result<Response, Problem> {
    let token = ctx.key.build_token(&build.id);
    let config = NodeConfig {
        server: ctx.scripts.server().base(),
        token: Some(token.expose().to_owned()),
        build: build.id.clone(),
        verify: Some(plan.profile.verify.clone()),
        verify_seconds: plan.profile.verify_seconds,
        log_offset: AT_THE_END,
        done: false,
    };
    let agent_config =
        serde_json::to_string_pretty(&config).map_err(|e| Problem::internal(e.to_string()))?;
    let uefi = {
        let v = ctx.rack.view();
        let node = v.inventory.get(&build.node);
        node.is_some_and(|n| match n.status.firmware_seen {
            Firmware::Auto => n.spec.firmware == Firmware::Uefi,
            seen => seen == Firmware::Uefi,
        })
    };
    let around = Around {
        server: ctx.scripts.server().base(),
        token: token.clone(),
        uefi,
        password_hash: ctx.config.install.password_hash.clone(),
        agent_config,
        agent_unit: UNIT.to_owned(),
    };
    let refused = |e: crate::preseed::PreseedError| Problem::internal(e.to_string());
    let values = Values::of(plan, around).map_err(|e| refused(e.into()))?;
    let (preseeds, build_id) = (ctx.preseeds.clone(), build.id.clone());
    // Reads templates from the disk.
    let done = tokio::task::spawn_blocking(move || preseeds.render(which, &values)).await;
    let rendered = done.map_err(|e| Problem::internal(e.to_string()))?;
    let rendered = match rendered {
        Ok(r) => r,
        Err(e) => {
            // The installer would show nothing of it: the build says it.
            let reason = format!("{name} cannot be rendered: {e}");
            let report = crate::model::plan::FailureReport { phase: Phase::Installer, reason };
            ctx.rack.report(&build_id, Input::AgentFailed(report)).await?;
            return Err(refused(e));
        }
    };
    let now = Time::now();
    let mut kept = without_token(&rendered.text, &token);
    if let Some(hash) = &ctx.config.install.password_hash {
        kept = kept.replace(hash.as_str(), "***");
    }
    let templates = rendered.files.iter().map(|(f, d)| (f.clone(), *d)).collect();
    let event = NewEvent::new(now, &format!("node:{}", build.node), "installer.file", Outcome::Ok)
        .node(&build.node)
        .with("build", &build.id)
        .with("file", name);
    let value = Rendering { at: now, file: name.to_owned(), text: kept, templates };
    let key = format!("{}/{now}/{name}", build.id);
    let batch = Batch::new().put(kind::RENDERING, &key, &value, Expect::Any)?.event(event);
    patiently(|| ctx.rack.commit(batch.clone())).await?;
    ctx.rack.report(&build.id, Input::Progress(Some(format!("fetched {name}")))).await?;
    Ok(text(rendered.text))
}

fn text(text: String) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
