//! The steps of a build, in order.

use super::Time;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A step of a build. The order is the order in which they happen; a build
/// may skip one (no baked image: `profile` is empty) but never goes back,
/// except that a retry starts again at `power`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Boot device set and read back, machine powered or cycled.
    Power,
    /// Waiting for the firmware's first DHCP packet.
    Dhcp,
    /// Firmware fetches and starts the network boot loader.
    Loader,
    /// Loader fetches kernel and ramdisk.
    Kernel,
    /// Kernel starts, the agent reports its facts.
    Installer,
    /// Disk chosen and partitioned.
    Disk,
    /// Image streamed to the disk.
    Image,
    /// Identity and profile applied.
    Profile,
    /// Boot loader installed, machine restarted.
    Bootloader,
    /// The installed system starts and reports.
    FirstBoot,
    /// The profile's `verify.sh` runs on the installed system.
    Verify,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Phase; 11] = [
        Phase::Power,
        Phase::Dhcp,
        Phase::Loader,
        Phase::Kernel,
        Phase::Installer,
        Phase::Disk,
        Phase::Image,
        Phase::Profile,
        Phase::Bootloader,
        Phase::FirstBoot,
        Phase::Verify,
    ];

    /// The name used in the API, on the command line and in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Power => "power",
            Phase::Dhcp => "dhcp",
            Phase::Loader => "loader",
            Phase::Kernel => "kernel",
            Phase::Installer => "installer",
            Phase::Disk => "disk",
            Phase::Image => "image",
            Phase::Profile => "profile",
            Phase::Bootloader => "bootloader",
            Phase::FirstBoot => "first-boot",
            Phase::Verify => "verify",
        }
    }

    /// The phase that follows, if any.
    pub fn next(self) -> Option<Phase> {
        Self::ALL.get(self as usize + 1).copied()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One phase as it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PhaseRecord {
    /// Which.
    pub phase: Phase,
    /// The attempt it belongs to, from 1.
    pub attempt: u32,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started: Time,
    /// When it ended; `None` while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Time>,
    /// When it will be given up.
    #[schema(value_type = String, format = DateTime)]
    pub deadline: Time,
    /// Why it waits or failed, readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bytes done, where the phase moves bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes in all, 0 when not known.
    #[serde(default)]
    pub total: u64,
    /// The first of the files that it hands out, such as the kernel, went out
    /// whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sent: bool,
}

#[cfg(test)]
mod tests {
    use super::Phase;

    #[test]
    fn phases_are_listed_in_their_order() {
        assert!(Phase::ALL.windows(2).all(|w| w[0] < w[1] && w[0].next() == Some(w[1])));
        assert_eq!(Phase::Verify.next(), None);
        for p in Phase::ALL {
            assert_eq!(serde_json::to_value(p).unwrap(), p.as_str());
        }
    }
}
