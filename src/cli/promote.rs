//! `provision promote`.

use super::output::Table;
use super::{Fail, Session};
use crate::api::deployment::promote::{PromoteRequest, Promoted};
use std::time::Duration;

/// `provision promote`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision promote staging/app:1.2
  provision promote staging/app:1.2 --to prod/app:1.2
  provision promote staging/app@sha256:… --to app:1.2 --replace

The image keeps its digest. Attestations and signatures go with it.")]
pub struct PromoteArgs {
    /// What: NAME:TAG or NAME@DIGEST
    image: String,
    /// Where to; without it the same name without staging/
    #[arg(long, value_name = "NAME:TAG")]
    to: Option<String>,
    /// Also when the tag is another image already
    #[arg(long)]
    replace: bool,
}

pub(super) async fn run(s: &Session, a: PromoteArgs) -> Result<(), Fail> {
    let r = PromoteRequest { from: a.image, to: a.to, replace: a.replace };
    let most = Duration::from_secs(600);
    let p: Promoted = s.client.post_within("/v1/registry/promote", &r, most).await?;
    s.out.show(&p, |p| {
        let mut t = Table::plain();
        t.row(&["from".into(), p.from.clone()]);
        t.row(&["to".into(), p.to.clone()]);
        t.row(&["digest".into(), p.digest.clone()]);
        if let Some(r) = &p.replaced {
            t.row(&["replaced".into(), r.clone()]);
        }
        t
    })
}
