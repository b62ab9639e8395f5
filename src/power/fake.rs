//! A BMC in memory, for tests of everything above power. Faults are scripted:
//! the next calls fail as told, in order.

use super::{BootDevice, BootOverride, PowerControl, PowerError, PowerState};
use crate::model::Firmware;
use async_trait::async_trait;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A BMC in memory.
#[derive(Debug)]
pub struct Fake {
    bmc: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    power: PowerState,
    boot: BootOverride,
    forget: bool,
    faults: VecDeque<PowerError>,
    calls: Vec<String>,
}

const NO_OVERRIDE: BootOverride =
    BootOverride { valid: false, persistent: false, efi: false, device: BootDevice::None };

impl Default for Fake {
    /// Off, at 192.0.2.1 (an address of RFC 5737, for documentation).
    fn default() -> Self {
        Self::at(SocketAddr::from(([192, 0, 2, 1], 623)))
    }
}

impl Fake {
    /// Off, at an address.
    pub fn at(bmc: SocketAddr) -> Self {
        Self {
            bmc,
            state: Mutex::new(State {
                power: PowerState::Off,
                boot: NO_OVERRIDE,
                forget: false,
                faults: VecDeque::new(),
                calls: Vec::new(),
            }),
        }
    }

    /// One more call will fail so.
    pub fn fail_next(&self, error: PowerError) {
        self.state().faults.push_back(error);
    }

    /// Whether boot devices are acknowledged and forgotten.
    pub fn forget_boot_device(&self, forget: bool) {
        self.state().forget = forget;
    }

    /// What was called, in order: `on`, `off`, `cycle`, `status`,
    /// `boot network uefi`, `boot?`; failed calls too.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// The machine boots: a one-time boot device is used up and returned.
    pub fn boots(&self) -> BootDevice {
        let mut state = self.state();
        let device = if state.boot.valid { state.boot.device } else { BootDevice::None };
        if !state.boot.persistent {
            state.boot = NO_OVERRIDE;
        }
        device
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<T>(&self, what: String, act: impl FnOnce(&mut State) -> T) -> Result<T, PowerError> {
        let mut state = self.state();
        state.calls.push(what);
        match state.faults.pop_front() {
            Some(fault) => Err(fault),
            None => Ok(act(&mut state)),
        }
    }
}

#[async_trait]
impl PowerControl for Fake {
    fn bmc(&self) -> SocketAddr {
        self.bmc
    }

    async fn status(&self) -> Result<PowerState, PowerError> {
        self.call("status".into(), |s| s.power)
    }

    async fn on(&self) -> Result<(), PowerError> {
        self.call("on".into(), |s| s.power = PowerState::On)
    }

    async fn off(&self) -> Result<(), PowerError> {
        self.call("off".into(), |s| s.power = PowerState::Off)
    }

    async fn cycle(&self) -> Result<(), PowerError> {
        self.call("cycle".into(), |s| s.power = PowerState::On)
    }

    async fn set_boot_once(
        &self,
        device: BootDevice,
        firmware: Firmware,
    ) -> Result<(), PowerError> {
        self.call(format!("boot {device} {firmware}"), |s| {
            if !s.forget {
                let efi = firmware == Firmware::Uefi;
                s.boot = BootOverride { valid: true, persistent: false, efi, device };
            } else {
                s.boot = NO_OVERRIDE;
            }
        })
    }

    async fn boot_override(&self) -> Result<BootOverride, PowerError> {
        self.call("boot?".into(), |s| s.boot)
    }
}
