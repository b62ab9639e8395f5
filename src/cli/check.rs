//! `provision check`.

use super::{Fail, Session};
use crate::api::deployment::checks::CheckRequest;
use crate::cli::output::Table;
use crate::ingest::check::Checked;
use std::process::Command;

/// `provision check`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision check staging/app:1.2 smoke --passed
  provision check staging/app:1.2 load --failed --note \"p99 at 2 s\"
  provision check staging/app:1.2 smoke -- ./smoke.sh staging/app:1.2

With a command, it is run here and its exit code decides. The latest word on a
check counts; `[[registry.rules]]` may ask for it before promotion.")]
pub struct CheckArgs {
    /// Image: NAME:TAG or NAME@DIGEST
    image: String,
    /// Name of the check
    check: String,
    /// It passed
    #[arg(long, conflicts_with_all = ["failed", "command"])]
    passed: bool,
    /// It failed
    #[arg(long, conflicts_with = "command")]
    failed: bool,
    /// What was done, or why it failed
    #[arg(long, default_value = "")]
    note: String,
    /// Run this and record how it ends
    #[arg(last = true)]
    command: Vec<String>,
}

pub(super) async fn run(s: &Session, a: CheckArgs) -> Result<(), Fail> {
    let (mut passed, mut note, ran) = (a.passed, a.note, !a.command.is_empty());
    if let Some((program, args)) = a.command.split_first() {
        let status = Command::new(program)
            .args(args)
            .status()
            .map_err(|e| Fail::Use(format!("{program}: {e}")))?;
        passed = status.success();
        if note.is_empty() {
            note = format!("{program}: {status}");
        }
    } else if !a.passed && !a.failed {
        let m = "say how it ended: --passed, --failed, or a command after --";
        return Err(Fail::Use(m.into()));
    }
    let r = CheckRequest { image: a.image, check: a.check, passed, note };
    let c: Checked = s.client.post("/v1/registry/checks", &r).await?;
    s.out.show(&c, |c| {
        let mut t = Table::plain();
        t.row(&["digest".into(), c.digest.to_string()]);
        t.row(&["check".into(), c.check.clone()]);
        t.row(&["result".into(), if c.passed { "passed" } else { "failed" }.into()]);
        t.row(&["by".into(), c.by.clone()]);
        t
    })?;
    // With --failed the failure is what was asked to be written down.
    if ran && !c.passed { Err(Fail::Operation(format!("{} failed", c.check))) } else { Ok(()) }
}
