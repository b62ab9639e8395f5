//! One server on one store. At the start: have the store for ourselves, or
//! wait until one that was killed has lost its claim, or say who has it.
//! While running: keep the claim, and end when another one has it.

use crate::store::{Claim, Owner, Store};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How often a claim is renewed; it expires after three times as long.
const RENEW: Duration = Duration::from_secs(10);
/// How often a claim that is held is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// This server's name: the host's, the process's, and that of the state
/// directory, which is made once and kept in the file `instance`. The
/// directory is locked, so that who has the same name is dead.
pub fn owner(state_dir: &Path) -> Result<Owner> {
    let path = state_dir.join("instance");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let mut instance = kept.trim().to_owned();
    if instance.len() != 16 || !instance.bytes().all(|b| b.is_ascii_hexdigit()) {
        instance = hex::encode(crate::auth::seal::random::<8>()?);
        std::fs::write(&path, format!("{instance}\n"))
            .with_context(|| path.display().to_string())?;
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(Owner::new(host.trim(), &instance, std::process::id()))
}

/// Waits until the store is ours. One that is not renewed is free after its
/// expiry; one that is renewed, or does not expire, belongs to a server that
/// lives. `tell` is given what is waited for.
pub async fn have(store: &dyn Store, owner: &Owner, mut tell: impl FnMut(String)) -> Result<()> {
    let mut end: Option<Instant> = None;
    loop {
        let (by, left) = match store.claim(owner).await? {
            Claim::Ours => return Ok(()),
            Claim::Held { by, left } => (by, left),
        };
        let expires = left.map(|l| Instant::now() + l);
        // A second for the two clocks and the way.
        let renewed = end.zip(expires).is_some_and(|(was, is)| is > was + Duration::from_secs(1));
        let Some(left) = left.filter(|_| !renewed) else {
            bail!(
                "{} is in use by {by}; stop that one first, or give this one another store",
                store.name()
            );
        };
        if end.is_none() {
            let seconds = left.as_millis().div_ceil(1000);
            tracing::warn!(store = store.name(), %by, seconds, "waiting for another server's claim");
            tell(format!(
                "{} belongs to {by}; if that one is dead this one takes over within {seconds} s",
                store.name()
            ));
        }
        end = end.or(expires);
        sleep(LOOK.min(left + Duration::from_millis(10))).await;
    }
}

/// Renews the claim until `stop`, then gives it back. An error when another
/// server has it. While the store is away nothing is written, and nothing is
/// lost by asking again.
pub async fn keep(store: &dyn Store, owner: &Owner, stop: CancellationToken) -> Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(RENEW) => {}
        }
        if let Ok(Claim::Held { by, .. }) = store.claim(owner).await {
            bail!("{} was taken over by {by}", store.name());
        }
    }
}
