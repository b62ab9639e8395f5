//! What both daemons do at their start and end.

use anyhow::Result;
use std::path::Path;

/// Two servers on one state would each believe itself alone.
pub fn lock(dir: &Path) -> Result<std::fs::File> {
    let path = dir.join("lock");
    let f = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    rustix::fs::flock(&f, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| anyhow::anyhow!("{} is in use by another server", dir.display()))?;
    Ok(f)
}

/// Returns at SIGTERM or SIGINT.
pub async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// A password's check takes 19 MiB for a moment: without this the C library
/// would come to keep such pieces for ever (mallopt(3), M_MMAP_THRESHOLD).
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: called before other threads are there; touches only malloc.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}
