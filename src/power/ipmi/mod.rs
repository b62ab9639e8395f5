//! IPMI 2.0 over LAN, our own client: `wire` (packets), `keys` (cipher suites
//! 17 and 3), `link` (repetition), `session` (open, call, close), `sol` (the
//! machine's console, listened to); here the commands.
//! `docs/decisions/ipmi.md` says why it is not a crate. It does what installs
//! need and nothing else; typing at the console and sensors are for
//! `ipmitool`.

mod keys;
mod link;
mod session;
mod sol;
#[cfg(test)]
mod tests;
mod wire;

use self::keys::Suite;
use self::session::{Session, Target};
use super::{
    BootDevice, BootOverride, Limits, Lock, PowerControl, PowerError, PowerState, lock_of,
};
use crate::model::{BmcSpec, Firmware, Secret};
use async_trait::async_trait;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Network function "chassis".
const CHASSIS: u8 = 0;
const GET_STATUS: u8 = 1;
const CONTROL: u8 = 2;
const SET_BOOT: u8 = 8;
const GET_BOOT: u8 = 9;

/// For giving a console back.
const GOODBYE: Duration = Duration::from_secs(2);

/// Read by nobody: whoever asked is gone.
const GIVEN_UP: &str = "the command was taken back before it was sent";

/// A BMC over IPMI.
#[derive(Debug)]
pub struct Ipmi {
    target: Target,
    lock: Lock,
    /// Suite 17 was refused before: do not offer it again.
    old: Arc<AtomicBool>,
}

/// What to do in one session.
#[derive(Debug, Clone, Copy)]
enum Job {
    Status,
    Control(u8),
    Cycle,
    SetBoot([u8; 2]),
    GetBoot,
}

/// What came of it.
enum Done {
    Nothing,
    Power(PowerState),
    Boot(BootOverride),
}

impl Ipmi {
    /// A handle; nothing is sent yet.
    pub fn new(bmc: &BmcSpec, password: Secret, limits: Limits) -> Self {
        let address = SocketAddr::new(bmc.address, bmc.port);
        let target = Target { bmc: address, user: bmc.user.clone(), password, limits };
        Self { target, lock: lock_of(address), old: Arc::default() }
    }

    /// Runs a job on a task of its own: when the caller gives up waiting, no
    /// further command is sent, and the session is still closed before the
    /// next one begins.
    async fn session(&self, job: Job) -> Result<Done, PowerError> {
        let guard = Arc::clone(&self.lock).lock_owned().await;
        let (target, old) = (self.target.clone(), Arc::clone(&self.old));
        let given_up = CancellationToken::new();
        let _tell = given_up.clone().drop_guard();
        let task = tokio::spawn(async move {
            let outcome = one_session(&target, &old, job, &given_up).await;
            drop(guard);
            outcome
        });
        let failed = |e| self.target.protocol(format!("the call was broken off: {e}"));
        task.await.unwrap_or_else(|e| Err(failed(e)))
    }
}

async fn one_session(
    target: &Target,
    old: &AtomicBool,
    job: Job,
    given_up: &CancellationToken,
) -> Result<Done, PowerError> {
    let within = target.limits.deadline;
    let until = Instant::now() + within;
    let late = PowerError::Deadline { bmc: target.bmc, within };
    let mut session = open(target, old, until).await?;
    // Boot options that were begun are finished: a BMC may stay locked
    // otherwise, and they harm nobody.
    let stop = async {
        given_up.cancelled().await;
        if matches!(job, Job::SetBoot(_)) {
            std::future::pending::<()>().await;
        }
    };
    let outcome = if given_up.is_cancelled() {
        Err(target.protocol(GIVEN_UP.to_owned()))
    } else {
        tokio::select! {
            biased;
            () = stop => Err(target.protocol(GIVEN_UP.to_owned())),
            done = timeout_at(until, perform(&mut session, until, job)) => done.unwrap_or(Err(late)),
        }
    };
    session.close().await;
    outcome
}

/// A session, with the suite that this BMC took before.
async fn open<'a>(
    target: &'a Target,
    old: &AtomicBool,
    until: Instant,
) -> Result<Session<'a>, PowerError> {
    let all = Suite::ALL;
    let suites: &[Suite] = if old.load(Ordering::Relaxed) { &[Suite::S3] } else { &all };
    let Ok(opened) = timeout_at(until, Session::open(target, suites)).await else {
        return Err(PowerError::Deadline { bmc: target.bmc, within: target.limits.deadline });
    };
    let session = opened?;
    old.store(session.suite() == Suite::S3, Ordering::Relaxed);
    Ok(session)
}

async fn perform(session: &mut Session<'_>, until: Instant, job: Job) -> Result<Done, PowerError> {
    session.become_operator(until).await?;
    match job {
        Job::Status => status(session, until).await.map(Done::Power),
        Job::Control(what) => control(session, until, what).await.map(|()| Done::Nothing),
        Job::Cycle => {
            // IPMI 2.0 §28.3: a cycle of a machine that is off is an error,
            // or does nothing.
            let what = match status(session, until).await? {
                PowerState::On => 2,
                PowerState::Off => 1,
            };
            control(session, until, what).await.map(|()| Done::Nothing)
        }
        Job::SetBoot(flags) => set_boot(session, until, flags).await.map(|()| Done::Nothing),
        Job::GetBoot => get_boot(session, until).await.map(Done::Boot),
    }
}

async fn status(session: &mut Session<'_>, until: Instant) -> Result<PowerState, PowerError> {
    match session.call(until, CHASSIS, GET_STATUS, &[]).await? {
        (0, data) => match data.first() {
            Some(bits) if bits & 1 == 1 => Ok(PowerState::On),
            Some(_) => Ok(PowerState::Off),
            None => Err(session.complaint("Get Chassis Status (empty answer)", 0)),
        },
        (code, _) => Err(session.complaint("Get Chassis Status", code)),
    }
}

async fn control(session: &mut Session<'_>, until: Instant, what: u8) -> Result<(), PowerError> {
    match session.call(until, CHASSIS, CONTROL, &[what]).await? {
        (0, _) => Ok(()),
        (code, _) => Err(session.complaint("Chassis Control", code)),
    }
}

/// Set System Boot Options (§28.12), as `ipmitool chassis bootdev` does it.
async fn set_boot(
    session: &mut Session<'_>,
    until: Instant,
    [flags, device]: [u8; 2],
) -> Result<(), PowerError> {
    // Parameters 0, 3 and 4 are courtesies that many BMCs do not have: set in
    // progress; keep the flag when no power command follows within 60 s; the
    // BIOS has not read it yet.
    for courtesy in [&[0, 1][..], &[3, 8], &[4, 1, 1]] {
        session.call(until, CHASSIS, SET_BOOT, courtesy).await?;
    }
    let set = session.call(until, CHASSIS, SET_BOOT, &[5, flags, device, 0, 0, 0]).await?;
    // Set complete, also after a refusal: another client must not find it
    // locked.
    session.call(until, CHASSIS, SET_BOOT, &[0, 0]).await?;
    match set {
        (0, _) => Ok(()),
        (code, _) => Err(session.complaint("Set System Boot Options", code)),
    }
}

async fn get_boot(session: &mut Session<'_>, until: Instant) -> Result<BootOverride, PowerError> {
    let (code, data) = session.call(until, CHASSIS, GET_BOOT, &[5, 0, 0]).await?;
    if code != 0 {
        return Err(session.complaint("Get System Boot Options", code));
    }
    // Version, parameter number, then the parameter.
    match data.get(2..4) {
        Some(&[flags, device]) => Ok(boot_flags(flags, device)),
        _ => Err(session.complaint("Get System Boot Options (short answer)", 0)),
    }
}

/// The first two bytes of parameter 5 (§28.13, table 28-14).
pub(super) fn boot_flags(flags: u8, device: u8) -> BootOverride {
    BootOverride {
        valid: flags & 0x80 != 0,
        persistent: flags & 0x40 != 0,
        efi: flags & 0x20 != 0,
        device: match (device >> 2) & 0x0f {
            0 => BootDevice::None,
            1 => BootDevice::Network,
            2 => BootDevice::Disk,
            n => BootDevice::Other(n),
        },
    }
}

#[async_trait]
impl PowerControl for Ipmi {
    fn bmc(&self) -> SocketAddr {
        self.target.bmc
    }

    async fn status(&self) -> Result<PowerState, PowerError> {
        match self.session(Job::Status).await? {
            Done::Power(state) => Ok(state),
            _ => Err(self.target.protocol("no power state")),
        }
    }

    async fn on(&self) -> Result<(), PowerError> {
        self.session(Job::Control(1)).await.map(drop)
    }

    async fn off(&self) -> Result<(), PowerError> {
        self.session(Job::Control(0)).await.map(drop)
    }

    async fn cycle(&self) -> Result<(), PowerError> {
        self.session(Job::Cycle).await.map(drop)
    }

    async fn set_boot_once(
        &self,
        device: BootDevice,
        firmware: Firmware,
    ) -> Result<(), PowerError> {
        let number = match device {
            BootDevice::None => 0,
            BootDevice::Network => 1,
            BootDevice::Disk => 2,
            BootDevice::Other(n) => n & 0x0f,
        };
        let efi = if firmware == Firmware::Uefi { 0x20 } else { 0 };
        self.session(Job::SetBoot([0x80 | efi, number << 2])).await.map(drop)
    }

    async fn boot_override(&self) -> Result<BootOverride, PowerError> {
        match self.session(Job::GetBoot).await? {
            Done::Boot(shown) => Ok(shown),
            _ => Err(self.target.protocol("no boot device")),
        }
    }

    async fn console(
        &self,
        to: mpsc::Sender<Vec<u8>>,
        stop: CancellationToken,
    ) -> Result<(), PowerError> {
        // Others wait while the session is opened, not while it is listened to.
        let guard = tokio::select! {
            guard = self.lock.lock() => guard,
            () = stop.cancelled() => return Ok(()),
        };
        let until = Instant::now() + self.target.limits.contact;
        let mut session = tokio::select! {
            opened = open(&self.target, &self.old, until) => opened?,
            // What was half opened the BMC closes by itself.
            () = stop.cancelled() => return Ok(()),
        };
        let begin = async {
            session.become_operator(until).await?;
            sol::activate(&mut session, until).await.map(|()| true)
        };
        let begun = tokio::select! {
            begun = begin => begun,
            () = stop.cancelled() => Ok(false),
        };
        drop(guard);
        let heard = match begun {
            Ok(true) => {
                let heard = tokio::select! {
                    biased;
                    () = stop.cancelled() => Ok(sol::End::Unwanted),
                    heard = sol::listen(&mut session, &to) => heard,
                };
                // The BMC gives back whoever has it now: not another's.
                if !matches!(heard, Ok(sol::End::Taken)) {
                    sol::deactivate(&mut session, Instant::now() + GOODBYE).await;
                }
                heard
            }
            Ok(false) => Ok(sol::End::Unwanted),
            Err(error) => Err(error),
        };
        session.close().await;
        match heard? {
            sol::End::Unwanted => Ok(()),
            sol::End::Taken => Err(PowerError::NoConsole {
                bmc: self.target.bmc,
                why: "another session has taken it",
                again: false,
            }),
        }
    }
}
