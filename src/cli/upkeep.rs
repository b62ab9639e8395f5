//! `provision gc`, `provision verify-store` and `provision backup`.

use super::output::{Table, bytes};
use super::{Fail, Session};
use crate::api::deployment::upkeep::{GcRequest, ShownGc, ShownVerify};
use std::time::Duration;

/// The server reads its whole store: at some 100 MB/s, 8 TB in this time.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// `provision gc`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision gc --dry-run
  provision gc

What nothing names is set aside first and freed by a later run, a day on: an
image that is being pushed is not hurt.")]
pub struct GcArgs {
    /// Say what would be freed, and why the rest is kept; change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn gc(s: &Session, a: GcArgs) -> Result<(), Fail> {
    let request = GcRequest { dry_run: a.dry_run };
    let r: ShownGc = s.client.post_within("/v1/registry/gc", &request, LONGEST).await?;
    s.out.show(&r, |r| {
        let mut t = Table::new(&["verdict", "what", "repository", "name", "size", "why"]);
        for j in &r.things {
            t.row(&[
                j.verdict.clone(),
                j.what.clone(),
                j.repository.clone(),
                j.name.clone(),
                if j.bytes == 0 { "-".into() } else { bytes(j.bytes) },
                j.why.clone(),
            ]);
        }
        t
    })?;
    if r.more > 0 {
        s.out.say(format!("and {} more", r.more))?;
    }
    let would = if r.dry_run { "would be " } else { "" };
    s.out.say(format!("{} {would}freed, {} {would}set aside", bytes(r.freed), bytes(r.set_aside)))
}

pub(super) async fn verify(s: &Session) -> Result<(), Fail> {
    let r: ShownVerify = s.client.post_within("/v1/registry/verify", &(), LONGEST).await?;
    s.out.show(&r, |r| {
        let mut t = Table::new(&["what", "repository", "name", "problem"]);
        for d in &r.damage {
            t.row(&[d.what.clone(), d.repository.clone(), d.name.clone(), d.problem.clone()]);
        }
        if r.damage.is_empty() { Table::plain() } else { t }
    })?;
    let read = format!(
        "{} blobs ({}), {} manifests and {} tags read",
        r.blobs,
        bytes(r.bytes),
        r.manifests,
        r.tags
    );
    match r.damage.len() as u64 + r.more {
        0 => s.out.say(format!("{read}: all is well")),
        n => Err(Fail::Operation(format!("{read}: {n} things are not as they must be"))),
    }
}

/// It needs keys that only root on that host may read, so no server hands
/// them out.
pub(super) fn backup() -> Result<(), Fail> {
    Err(Fail::Use(
        "on the deployment host, as root: `deployment-server backup DIR`, also while it runs; \
         `deployment-server restore DIR` into an empty state directory"
            .into(),
    ))
}
