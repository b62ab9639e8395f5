//! How BMCs do: each call of a [`PowerControl`] counted, by what it was and how
//! it ended, with the time it took. Not by BMC: a rack has hundreds.

use super::{BootDevice, BootOverride, PowerControl, PowerError, PowerState};
use crate::model::tally::CALLS;
use crate::model::{Firmware, Times};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What may be called.
const COMMANDS: [&str; 6] = ["status", "on", "off", "cycle", "set-boot", "get-boot"];
/// How a call may end.
const OUTCOMES: [&str; 8] = [
    "ok",
    "unreachable",
    "credentials",
    "sessions-full",
    "privilege",
    "protocol",
    "deadline",
    "not-kept",
];

fn word(e: &PowerError) -> &'static str {
    match e {
        PowerError::Unreachable { .. } => "unreachable",
        PowerError::WrongCredentials { .. } => "credentials",
        PowerError::SessionsFull { .. } => "sessions-full",
        PowerError::InsufficientPrivilege { .. } => "privilege",
        PowerError::Protocol { .. } => "protocol",
        PowerError::Deadline { .. } => "deadline",
        PowerError::NotKept { .. } => "not-kept",
        // Not counted: see `console` below.
        PowerError::NoConsole { .. } => "protocol",
    }
}

/// Calls so far, of all BMCs.
#[derive(Debug)]
pub struct Counts {
    ended: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    took: Mutex<BTreeMap<&'static str, Times>>,
}

impl Default for Counts {
    /// None yet, and each kind is there.
    fn default() -> Self {
        let all = COMMANDS.into_iter().flat_map(|c| OUTCOMES.map(|o| ((c, o), 0)));
        let took = COMMANDS.map(|c| (c, Times::new(CALLS)));
        Self { ended: Mutex::new(all.collect()), took: Mutex::new(took.into()) }
    }
}

impl Counts {
    /// Calls by command and outcome.
    pub fn ended(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long they took, by command, failed ones too.
    pub fn took(&self) -> BTreeMap<&'static str, Times> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn call<T>(
        &self,
        command: &'static str,
        call: impl Future<Output = Result<T, PowerError>> + Send,
    ) -> Result<T, PowerError> {
        let began = Instant::now();
        let done = call.await;
        let outcome = done.as_ref().err().map_or("ok", word);
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = took.get_mut(command) {
            times.took(began.elapsed());
        }
        drop(took);
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended.entry((command, outcome)).or_default() += 1;
        done
    }
}

/// A BMC whose calls are counted.
pub struct Counted {
    inner: Arc<dyn PowerControl>,
    counts: Arc<Counts>,
}

impl Counted {
    /// In front of `inner`.
    pub fn new(inner: Arc<dyn PowerControl>, counts: Arc<Counts>) -> Self {
        Self { inner, counts }
    }
}

#[async_trait]
impl PowerControl for Counted {
    fn bmc(&self) -> SocketAddr {
        self.inner.bmc()
    }

    async fn status(&self) -> Result<PowerState, PowerError> {
        self.counts.call("status", self.inner.status()).await
    }

    async fn on(&self) -> Result<(), PowerError> {
        self.counts.call("on", self.inner.on()).await
    }

    async fn off(&self) -> Result<(), PowerError> {
        self.counts.call("off", self.inner.off()).await
    }

    async fn cycle(&self) -> Result<(), PowerError> {
        self.counts.call("cycle", self.inner.cycle()).await
    }

    async fn set_boot_once(
        &self,
        device: BootDevice,
        firmware: Firmware,
    ) -> Result<(), PowerError> {
        self.counts.call("set-boot", self.inner.set_boot_once(device, firmware)).await
    }

    async fn boot_override(&self) -> Result<BootOverride, PowerError> {
        self.counts.call("get-boot", self.inner.boot_override()).await
    }

    /// Not counted: it lasts as long as an install, and says nothing of how
    /// fast the BMC is.
    async fn console(
        &self,
        to: mpsc::Sender<Vec<u8>>,
        stop: CancellationToken,
    ) -> Result<(), PowerError> {
        self.inner.console(to, stop).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power::Fake;

    #[tokio::test]
    async fn calls_are_passed_on_and_counted_by_how_they_end() {
        let fake = Arc::new(Fake::default());
        let counts = Arc::new(Counts::default());
        let bmc = Counted::new(fake.clone(), counts.clone());
        bmc.on().await.unwrap();
        let away = PowerError::Unreachable { bmc: bmc.bmc(), why: "unplugged".into() };
        fake.fail_next(away);
        assert!(bmc.status().await.is_err());
        assert_eq!(bmc.status().await.unwrap(), PowerState::On);
        bmc.set_boot_once(BootDevice::Network, Firmware::Uefi).await.unwrap();
        assert_eq!(fake.calls(), ["on", "status", "status", "boot network uefi"]);
        let ended = counts.ended();
        assert_eq!(ended.len(), COMMANDS.len() * OUTCOMES.len(), "all kinds from the start");
        let more: Vec<_> = ended.into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(
            more,
            [
                (("on", "ok"), 1),
                (("set-boot", "ok"), 1),
                (("status", "ok"), 1),
                (("status", "unreachable"), 1),
            ]
        );
        assert_eq!(counts.took()["status"].count(), 2);
    }
}
