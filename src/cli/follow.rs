//! `provision follow`.

use super::output::{Table, bytes};
use super::{Fail, Session};
use crate::api::deployment::follow::ShownFollow;

pub(super) async fn run(s: &Session) -> Result<(), Fail> {
    let f: ShownFollow = s.client.get("/v1/follow").await?;
    s.out.show(&f, |f| {
        let mut t = Table::plain();
        let mut row = |k: &str, v: String| t.row(&[k.into(), v]);
        row("leader", f.leader.clone());
        let lag = f.lag_seconds.map(|n| format!("{n} s ago"));
        row("all was here", lag.unwrap_or_else(|| "not yet".into()));
        row("looked every", format!("{} s", f.interval_seconds));
        row("certificates", f.certificates.known.to_string());
        if let Some(i) = &f.images {
            row("repositories", f.repositories.join(" "));
            row("tags", i.tags.to_string());
            row("came", bytes(i.fetched_bytes));
            if i.resumed_bytes > 0 {
                row("went on from", bytes(i.resumed_bytes));
            }
            for b in &i.fetching {
                let done = format!("{} of {}", bytes(b.have), bytes(b.size));
                row("coming", format!("{} {} {done}", b.repository, b.digest));
            }
            for b in &i.behind {
                row("behind", format!("{}:{} {}", b.repository, b.tag, b.problem));
            }
        }
        t
    })?;
    match f.problem {
        Some(p) => Err(Fail::Operation(p)),
        None => Ok(()),
    }
}
