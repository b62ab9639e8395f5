//! Power and the next boot device, through a server's BMC.
//!
//! [`PowerControl`] is the seam; `ipmi` speaks IPMI 2.0 itself, `ipmitool`
//! runs the program of that name, `fake` is in memory, `counted` stands before
//! any of them. [`connect`] chooses by the node's BMC specification. The life
//! cycle and the API call it; it knows nothing of nodes, only of BMCs. It keeps
//! one thing: a lock for each BMC address, because many BMCs serve one session
//! well and four not at all; only a console is listened to beside it. No
//! session outlives a call, and no password is logged or put on a command
//! line.

pub mod counted;
pub mod fake;
pub mod ipmi;
pub mod ipmitool;

pub use counted::{Counted, Counts};
pub use fake::Fake;

use crate::model::{BmcSpec, Firmware, Invalid, PowerDriver, Secret};
use async_trait::async_trait;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Whether the machine has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerState {
    /// It has.
    On,
    /// It has not (standby).
    Off,
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// What an operator may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerCommand {
    /// Switch on; nothing happens when it is on.
    On,
    /// Switch off at once, without asking the operating system.
    Off,
    /// Off and on; when it is off, only on.
    Cycle,
    /// Only look.
    Status,
}

impl FromStr for PowerCommand {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            "cycle" => Ok(Self::Cycle),
            "status" => Ok(Self::Status),
            _ => Err(Invalid::new("power command", s, "one of on, off, cycle, status")),
        }
    }
}

impl fmt::Display for PowerCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Cycle => "cycle",
            Self::Status => "status",
        })
    }
}

/// What to boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootDevice {
    /// The firmware's own order.
    None,
    /// The network (IPMI: "force PXE"; UEFI HTTP boot as well).
    Network,
    /// The first disk.
    Disk,
    /// Something else that somebody has set, by its IPMI number.
    Other(u8),
}

impl fmt::Display for BootDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Network => f.pad("network"),
            Self::Disk => f.pad("disk"),
            Self::Other(n) => write!(f, "device {n}"),
        }
    }
}

/// What the BMC says it will tell the firmware (IPMI 2.0 §28.13, parameter 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootOverride {
    /// Whether it counts at all; the firmware clears this when it has read it.
    pub valid: bool,
    /// For every boot, not only the next.
    pub persistent: bool,
    /// Boot in UEFI mode.
    pub efi: bool,
    /// The device.
    pub device: BootDevice,
}

impl fmt::Display for BootOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.efi { "UEFI" } else { "BIOS" };
        let often = if self.persistent { "every boot" } else { "next boot" };
        let valid = if self.valid { "" } else { ", not valid" };
        write!(f, "{} ({mode}, {often}{valid})", self.device)
    }
}

/// Why a BMC did not do what it was asked. Every text names the BMC and none
/// holds a password.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// Nobody answers there.
    #[error("BMC {bmc} does not answer: {why}")]
    Unreachable {
        /// Address.
        bmc: SocketAddr,
        /// How that showed.
        why: String,
    },
    /// User or password is wrong.
    #[error("BMC {bmc} refuses user {user:?}: wrong user name or password")]
    WrongCredentials {
        /// Address.
        bmc: SocketAddr,
        /// User.
        user: String,
    },
    /// It has no session left.
    #[error("BMC {bmc} has no free session; others are logged in, or sessions were not closed")]
    SessionsFull {
        /// Address.
        bmc: SocketAddr,
    },
    /// The user may not do this.
    #[error("BMC {bmc}: user {user:?} lacks the privilege level Operator")]
    InsufficientPrivilege {
        /// Address.
        bmc: SocketAddr,
        /// User.
        user: String,
    },
    /// It answered something that makes no sense, or an error of its own.
    #[error("BMC {bmc}: {what}")]
    Protocol {
        /// Address.
        bmc: SocketAddr,
        /// What.
        what: String,
    },
    /// It began to answer and did not get done in time.
    #[error("BMC {bmc} was not done within {} s", within.as_secs())]
    Deadline {
        /// Address.
        bmc: SocketAddr,
        /// The time it had.
        within: Duration,
    },
    /// It does not pass the machine's console on.
    #[error("BMC {bmc} does not pass the console on: {why}")]
    NoConsole {
        /// Address.
        bmc: SocketAddr,
        /// What it said.
        why: &'static str,
        /// Whether it may do so later.
        again: bool,
    },
    /// It said yes to a boot device and shows another when asked.
    #[error("BMC {bmc} does not keep the boot device: wanted {wanted}, it shows {shown}")]
    NotKept {
        /// Address.
        bmc: SocketAddr,
        /// What was set.
        wanted: BootOverride,
        /// What it shows.
        shown: BootOverride,
    },
}

impl PowerError {
    /// Whether the same call may well succeed a little later.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::SessionsFull { .. }
                | Self::Deadline { .. }
                | Self::NoConsole { again: true, .. }
        )
    }
}

/// How long a BMC may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For one call, from the first packet (not from the wait for the BMC's
    /// lock).
    pub deadline: Duration,
    /// Until the first answer; after that the BMC counts as unreachable.
    pub contact: Duration,
    /// First wait for an answer to a packet; doubled at each repetition.
    pub retransmit: Duration,
}

impl Default for Limits {
    /// 20 s, 8 s, 500 ms.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(20),
            contact: Duration::from_secs(8),
            retransmit: Duration::from_millis(500),
        }
    }
}

/// One BMC. Each method is one session, opened and closed; calls to the same
/// BMC wait for one another.
#[async_trait]
pub trait PowerControl: Send + Sync {
    /// Where the BMC is.
    fn bmc(&self) -> SocketAddr;
    /// Whether the machine is on.
    async fn status(&self) -> Result<PowerState, PowerError>;
    /// Switches on.
    async fn on(&self) -> Result<(), PowerError>;
    /// Switches off at once.
    async fn off(&self) -> Result<(), PowerError>;
    /// Off and on again; when it was off, on.
    async fn cycle(&self) -> Result<(), PowerError>;
    /// Sets the device for the next boot only. [`Firmware::Auto`] is BIOS.
    async fn set_boot_once(&self, device: BootDevice, firmware: Firmware)
    -> Result<(), PowerError>;
    /// What the BMC shows as boot device.
    async fn boot_override(&self) -> Result<BootOverride, PowerError>;
    /// Hands on what the machine writes on its serial console, from now on and
    /// as it comes. Ends well when `stop` says so or nobody takes it any more;
    /// with an error when the BMC ends it. The one call that lasts: other
    /// calls go on beside it, in sessions of their own. To be ended by `stop`:
    /// dropped, it leaves its session open until the BMC's own time-out.
    async fn console(
        &self,
        _to: mpsc::Sender<Vec<u8>>,
        _stop: CancellationToken,
    ) -> Result<(), PowerError> {
        let why = "this driver has none; the driver \"ipmi\" has";
        Err(PowerError::NoConsole { bmc: self.bmc(), why, again: false })
    }
}

/// A handle on the BMC; nothing is sent yet.
pub fn connect(bmc: &BmcSpec, password: Secret, limits: Limits) -> Arc<dyn PowerControl> {
    match bmc.driver {
        PowerDriver::Ipmi => Arc::new(ipmi::Ipmi::new(bmc, password, limits)),
        PowerDriver::Ipmitool => Arc::new(ipmitool::Ipmitool::new(bmc, password, limits)),
        PowerDriver::Fake => Arc::new(Fake::at(SocketAddr::new(bmc.address, bmc.port))),
    }
}

/// A boot device that was set and looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Armed {
    /// What the BMC shows.
    pub shown: BootOverride,
    /// What makes it doubtful that the next boot goes to the network, for the
    /// log: some BMCs show a right device with wrong flags and do as told.
    pub doubt: Option<String>,
}

/// Sets the network as the next boot device and looks whether the BMC kept
/// it; some acknowledge and forget. Tries twice.
pub async fn arm_network_boot(
    power: &dyn PowerControl,
    firmware: Firmware,
) -> Result<Armed, PowerError> {
    let efi = firmware == Firmware::Uefi;
    let wanted = BootOverride { valid: true, persistent: false, efi, device: BootDevice::Network };
    let mut last = None;
    for _ in 0..2 {
        power.set_boot_once(BootDevice::Network, firmware).await?;
        let shown = power.boot_override().await?;
        if shown == wanted {
            return Ok(Armed { shown, doubt: None });
        }
        last = Some(shown);
    }
    let shown = last.unwrap_or(BootOverride { valid: false, ..wanted });
    if shown.device != wanted.device {
        return Err(PowerError::NotKept { bmc: power.bmc(), wanted, shown });
    }
    let doubt = Some(format!("set to {wanted}, BMC {} shows {shown}", power.bmc()));
    Ok(Armed { shown, doubt })
}

/// Runs a command and tells the state after it: what was asked for, without
/// waiting for the machine to get there.
pub async fn run(
    power: &dyn PowerControl,
    command: PowerCommand,
) -> Result<PowerState, PowerError> {
    match command {
        PowerCommand::Status => power.status().await,
        PowerCommand::On => power.on().await.map(|()| PowerState::On),
        PowerCommand::Off => power.off().await.map(|()| PowerState::Off),
        PowerCommand::Cycle => power.cycle().await.map(|()| PowerState::On),
    }
}

type Lock = Arc<tokio::sync::Mutex<()>>;

/// The lock of a BMC, shared by all handles on it.
fn lock_of(bmc: SocketAddr) -> Lock {
    static LOCKS: Mutex<Option<HashMap<SocketAddr, Lock>>> = Mutex::new(None);
    let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(locks.get_or_insert_default().entry(bmc).or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_exist_is_refused_with_the_list_of_those_that_do() {
        assert_eq!("cycle".parse::<PowerCommand>().unwrap(), PowerCommand::Cycle);
        for wrong in ["restart", "ON", "", "on;off"] {
            let error = wrong.parse::<PowerCommand>().unwrap_err().to_string();
            assert!(error.contains("on, off, cycle, status"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_bmc_that_forgets_the_boot_device_is_found_out() {
        let fake = Fake::default();
        let armed = arm_network_boot(&fake, Firmware::Uefi).await.unwrap();
        assert_eq!(armed.shown.to_string(), "network (UEFI, next boot)");
        assert_eq!(armed.doubt, None);
        fake.forget_boot_device(true);
        let error = arm_network_boot(&fake, Firmware::Bios).await.unwrap_err();
        assert!(matches!(error, PowerError::NotKept { .. }));
        assert!(error.to_string().contains("192.0.2.1:623"), "{error}");
    }

    #[test]
    fn a_handle_shows_no_password() {
        let spec = BmcSpec {
            address: [192, 0, 2, 7].into(),
            port: 623,
            driver: PowerDriver::Ipmi,
            user: "ops".into(),
        };
        let handle = ipmi::Ipmi::new(&spec, Secret::new("hunter2"), Limits::default());
        assert!(!format!("{handle:?}").contains("hunter2"));
    }
}
