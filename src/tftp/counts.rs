//! How many transfers came to which end, since the start.

use super::SightingKind;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The counts; see the module.
#[derive(Debug, Default)]
pub struct Counts {
    ended: Mutex<BTreeMap<&'static str, u64>>,
    sent: AtomicU64,
    active: AtomicU64,
}

impl SightingKind {
    /// A short word for logs and metrics; `bytes` is what the client has
    /// confirmed.
    pub fn as_str(&self, bytes: u64) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::NotFound => "not-found",
            Self::Refused(_) => "refused",
            // EDK2 asks for the size and ends that transfer with an error.
            Self::ClientError(_) if bytes == 0 => "size-asked",
            Self::ClientError(_) => "client-error",
            Self::TimedOut => "timed-out",
            Self::Dropped => "dropped",
            Self::Failed(_) => "failed",
        }
    }
}

impl Counts {
    /// Transfers by how they ended.
    pub fn ended(&self) -> BTreeMap<&'static str, u64> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes that clients have confirmed, of transfers that have ended.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Transfers under way.
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    pub(super) fn begins(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// One that had begun is over.
    pub(super) fn ends(&self, kind: &SightingKind, bytes: u64) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.add(kind, bytes);
    }

    /// A request that was refused before anything began, too.
    pub(super) fn add(&self, kind: &SightingKind, bytes: u64) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended.entry(kind.as_str(bytes)).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_for_the_size_is_no_failure() {
        let c = Counts::default();
        c.begins();
        c.begins();
        c.ends(&SightingKind::ClientError("abort".into()), 0);
        assert_eq!((c.active(), c.sent_bytes()), (1, 0));
        c.ends(&SightingKind::Done, 900);
        c.add(&SightingKind::Refused("write".into()), 0);
        let want = BTreeMap::from([("size-asked", 1), ("done", 1), ("refused", 1)]);
        assert_eq!((c.ended(), c.active(), c.sent_bytes()), (want, 0, 900));
    }
}
