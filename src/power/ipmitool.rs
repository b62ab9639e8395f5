//! The program `ipmitool`, for BMCs that our own client does not get on with.
//!
//! The password goes through the environment (`-E`), where only root and the
//! same user can read it, never through the arguments, which everybody can.

use super::{
    BootDevice, BootOverride, Limits, Lock, PowerControl, PowerError, PowerState, lock_of,
};
use crate::model::{BmcSpec, Firmware, Secret};
use async_trait::async_trait;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::process::Command;

/// Tried in this order: HMAC-SHA256 first, SHA1 for what is old.
const SUITES: [u8; 2] = [17, 3];

/// A BMC through `ipmitool`.
#[derive(Debug)]
pub struct Ipmitool {
    bmc: SocketAddr,
    user: String,
    password: Secret,
    limits: Limits,
    lock: Lock,
    /// The suite that worked last, or 0.
    suite: AtomicU8,
}

impl Ipmitool {
    /// A handle; nothing is run yet.
    pub fn new(bmc: &BmcSpec, password: Secret, limits: Limits) -> Self {
        let address = SocketAddr::new(bmc.address, bmc.port);
        Self {
            bmc: address,
            user: bmc.user.clone(),
            password,
            limits,
            lock: lock_of(address),
            suite: AtomicU8::new(0),
        }
    }

    async fn call(&self, words: &[&str]) -> Result<String, PowerError> {
        let _one_at_a_time = self.lock.lock().await;
        let within = self.limits.deadline;
        match tokio::time::timeout(within, self.try_suites(words)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(PowerError::Deadline { bmc: self.bmc, within }),
        }
    }

    async fn try_suites(&self, words: &[&str]) -> Result<String, PowerError> {
        let known = self.suite.load(Ordering::Relaxed);
        let suites: &[u8] = if known == 0 { &SUITES } else { &[known] };
        let mut last = None;
        for &suite in suites {
            let (ok, out, complaint) = self.run(suite, words).await?;
            if ok {
                self.suite.store(suite, Ordering::Relaxed);
                return Ok(out);
            }
            if !complaint.contains("cipher suite")
                && !complaint.contains("invalid authentication algorithm")
            {
                return Err(self.explain(&complaint));
            }
            last = Some(complaint);
        }
        Err(self.explain(&last.unwrap_or_default()))
    }

    async fn run(&self, suite: u8, words: &[&str]) -> Result<(bool, String, String), PowerError> {
        let output = Command::new("ipmitool")
            .args(["-v", "-I", "lanplus", "-L", "OPERATOR", "-E", "-N", "1", "-R", "4"])
            .args(["-H", &self.bmc.ip().to_string(), "-p", &self.bmc.port().to_string()])
            .args(["-U", &self.user, "-C", &suite.to_string()])
            .args(words)
            .env("IPMITOOL_PASSWORD", self.password.expose())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| PowerError::Protocol {
                bmc: self.bmc,
                what: format!("the program ipmitool cannot be run: {e}"),
            })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let complaint = format!("{out}\n{err}").to_lowercase();
        Ok((output.status.success(), out, complaint))
    }

    /// ipmitool has one exit code for everything; its words say more.
    fn explain(&self, complaint: &str) -> PowerError {
        let (bmc, user) = (self.bmc, self.user.clone());
        let says = |any: &[&str]| any.iter().any(|words| complaint.contains(words));
        if says(&["hmac is invalid", "unauthorized name", "invalid user name", "password invalid"])
        {
            PowerError::WrongCredentials { bmc, user }
        } else if says(&["insufficient resources"]) {
            PowerError::SessionsFull { bmc }
        } else if says(&["insufficient privilege", "unauthorized role", "privilege level"]) {
            PowerError::InsufficientPrivilege { bmc, user }
        } else if says(&["unable to establish", "no response", "connection refused", "timeout"]) {
            PowerError::Unreachable { bmc, why: "ipmitool got no session".to_owned() }
        } else {
            let first = complaint.lines().map(str::trim).find(|l| !l.is_empty());
            let line: String = first.unwrap_or("no message").chars().take(200).collect();
            PowerError::Protocol { bmc, what: format!("ipmitool: {line}") }
        }
    }
}

#[async_trait]
impl PowerControl for Ipmitool {
    fn bmc(&self) -> SocketAddr {
        self.bmc
    }

    async fn status(&self) -> Result<PowerState, PowerError> {
        let said = self.call(&["chassis", "power", "status"]).await?;
        if said.contains("Power is on") {
            Ok(PowerState::On)
        } else if said.contains("Power is off") {
            Ok(PowerState::Off)
        } else {
            Err(self.explain(&said.to_lowercase()))
        }
    }

    async fn on(&self) -> Result<(), PowerError> {
        self.call(&["chassis", "power", "on"]).await.map(drop)
    }

    async fn off(&self) -> Result<(), PowerError> {
        self.call(&["chassis", "power", "off"]).await.map(drop)
    }

    async fn cycle(&self) -> Result<(), PowerError> {
        // "Cycle" of a machine that is off is an error for many BMCs.
        match self.status().await? {
            PowerState::Off => self.on().await,
            PowerState::On => self.call(&["chassis", "power", "cycle"]).await.map(drop),
        }
    }

    async fn set_boot_once(
        &self,
        device: BootDevice,
        firmware: Firmware,
    ) -> Result<(), PowerError> {
        let word = match device {
            BootDevice::None => "none",
            BootDevice::Network => "pxe",
            BootDevice::Disk => "disk",
            BootDevice::Other(n) => {
                let what = format!("boot device {n} cannot be set");
                return Err(PowerError::Protocol { bmc: self.bmc, what });
            }
        };
        let mut words = vec!["chassis", "bootdev", word];
        if firmware == Firmware::Uefi {
            words.push("options=efiboot");
        }
        self.call(&words).await.map(drop)
    }

    async fn boot_override(&self) -> Result<BootOverride, PowerError> {
        let said = self.call(&["chassis", "bootparam", "get", "5"]).await?;
        boot_flags(&said).ok_or_else(|| PowerError::Protocol {
            bmc: self.bmc,
            what: "ipmitool shows no boot parameter 5".to_owned(),
        })
    }
}

/// Reads the raw bytes that ipmitool shows with parameter 5; its prose has
/// changed between versions.
fn boot_flags(said: &str) -> Option<BootOverride> {
    let raw = said.lines().find_map(|l| l.trim().strip_prefix("Boot parameter data:"))?;
    let bytes = hex::decode(raw.trim()).ok()?;
    Some(super::ipmi::boot_flags(bytes.first().copied()?, bytes.get(1).copied()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_device_is_read_from_what_ipmitool_prints() {
        let said = "Boot parameter version: 1\nBoot parameter 5 is valid/unlocked\n\
                    Boot parameter data: a004000000\n Boot Flags :\n   - Boot Flag Valid\n";
        let shown = boot_flags(said).unwrap();
        assert_eq!(shown.to_string(), "network (UEFI, next boot)");
        assert_eq!(boot_flags("Boot parameter version: 1\n"), None);
    }
}
