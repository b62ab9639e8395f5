//! What the deployment server does by the clock: collects garbage, and
//! looks which nodes have fallen silent.

use crate::api::deployment::{Desk, upkeep, workload};
use crate::model::Time;
use crate::registry::RegistryError;
use crate::store::EventQuery;
use anyhow::Result;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// After another process collected, or the storage failed.
const AGAIN: Duration = Duration::from_secs(600);
/// Between two looks at who is silent.
const LOOK: Duration = Duration::from_secs(15);

/// Collects garbage every `every`, counted from the last run in the record:
/// a server that is often restarted collects all the same.
///
/// # Errors
/// None: what fails is in the log and the record, and is tried again.
pub async fn collect(desk: Arc<Desk>, every: Duration, stop: CancellationToken) -> Result<()> {
    let mut wait = until_next(&desk, every).await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        // To its end: what a run set aside is whole at every step, but the
        // record should say what it did.
        wait = match upkeep::collect(&desk, "server", false).await {
            Ok(r) => {
                tracing::info!(freed = r.freed, set_aside = r.set_aside, "collected garbage");
                every
            }
            Err(RegistryError::Collecting) => AGAIN.min(every),
            Err(e) => {
                tracing::error!(error = %e, "garbage could not be collected");
                AGAIN.min(every)
            }
        };
    }
}

/// Looks for nodes that were silent for longer than `after`.
///
/// # Errors
/// None: what cannot be written down is tried again.
pub async fn watch(desk: Arc<Desk>, after: Duration, stop: CancellationToken) -> Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK.min(after)) => {}
        }
        if let Err(e) = workload::sweep(&desk, after).await {
            tracing::warn!(error = %e, "silent nodes are not written down yet");
        }
    }
}

async fn until_next(desk: &Desk, every: Duration) -> Duration {
    let q = EventQuery { action: Some("registry.gc".into()), limit: 1, ..EventQuery::default() };
    let last = desk.book.store().query(&q).await.unwrap_or_default().pop();
    last.map_or(Duration::ZERO, |e| {
        let ago = Time::now().duration_since(e.event.at);
        every.saturating_sub(Duration::try_from(ago).unwrap_or_default())
    })
}
