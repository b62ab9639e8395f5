//! The life of one build, as a function: (build, input, now) → effects.
//!
//! The build's [`Phase`] says what is waited for; every phase has a deadline;
//! when it passes, either the boot is tried again (nothing on the disk was
//! touched yet, or the machine restarted by itself) or the build has failed
//! with a reason. Inputs may come late, twice, or skip steps (a server that
//! was down missed some): a later phase is always entered from any earlier
//! one, and an earlier one is never gone back to, except by a new attempt.

use crate::config::Deadlines;
use crate::model::plan::{FailureReport, InstalledReport, PhaseReport, VerifiedReport};
use crate::model::{
    Build, BuildOutcome, ClientKind, LifeCycle, Method, NewEvent, Outcome, Phase, PhaseRecord, Time,
};

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The build begins.
    Start,
    /// Boot device set, read back, machine powered; the text says how.
    Powered(String),
    /// The BMC could not be made to do it. `again`: may be tried once more.
    PowerFailed {
        /// Why.
        reason: String,
        /// Whether another try may help (not for a wrong password).
        again: bool,
    },
    /// A DHCP packet from one of the node's MACs, and when it was seen: it may
    /// be told late.
    Dhcp(ClientKind, Time),
    /// The loader is being fetched by TFTP or HTTP.
    LoaderAsked,
    /// The loader has asked for its script.
    ScriptAsked,
    /// Firmware or loader does, or does not, start what it was given.
    Started(refused::Started),
    /// The last file of kernel and ramdisk went out whole.
    KernelFetched,
    /// The agent has sent its facts.
    FactsSeen,
    /// The agent says where it is.
    Reported(PhaseReport),
    /// The installer's log shows that it goes on; what it does, where that is
    /// worth showing.
    Progress(Option<String>),
    /// The installer asks something that nobody is there to answer.
    Asked(String),
    /// The agent gave up.
    AgentFailed(FailureReport),
    /// The disk is complete.
    Installed(InstalledReport),
    /// The installed system runs.
    Booted(String),
    /// The profile's check has ended.
    Verified(VerifiedReport),
    /// Somebody asked to stop.
    Cancel(String),
    /// The server or its store was away until now: nobody may be blamed for
    /// the silence.
    Returned,
    /// Time passes.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Set the boot device for one boot, read it back, power on or cycle.
    ArmAndPower,
    /// Write this into the log.
    Log(NewEvent),
    /// Set the node's state.
    SetLife(LifeCycle, Option<String>),
    /// Worth writing down now (else a later write will do).
    Persist,
}

/// The least time that is left after the server was away.
const GRACE: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

/// What a phase waits for, for people.
fn waits_for(phase: Phase, method: Method) -> &'static str {
    match phase {
        Phase::Installer if method.is_installer() => {
            "the installer to start, to fetch its preseed file and to load its components"
        }
        Phase::Image if method.is_installer() => "the base system and packages to be installed",
        Phase::Power => "the BMC to take the boot device and the power command",
        Phase::Dhcp => "the firmware's first DHCP packet",
        Phase::Loader => {
            "the firmware to fetch the boot loader and the loader to ask for its script"
        }
        Phase::Kernel => "the loader to fetch kernel and ramdisk",
        Phase::Installer => "the agent in the ramdisk to report",
        Phase::Disk => "the disk to be chosen and partitioned",
        Phase::Image => "the image to be written",
        Phase::Profile => "identity and profile to be applied",
        Phase::Bootloader => "the boot loader to be installed",
        Phase::FirstBoot => "the installed system to start and report",
        Phase::Verify => "the profile's verify.sh",
    }
}

/// Whether a new attempt may follow from `phase`: the disk is not being
/// written, so that starting again costs nothing but time.
fn may_retry(phase: Phase) -> bool {
    phase <= Phase::Installer
}

/// Advances `build`; see the module. An ended build takes no input.
pub fn step(build: &mut Build, input: Input, limits: &Deadlines, now: Time) -> Vec<Effect> {
    if build.outcome != BuildOutcome::Running {
        return Vec::new();
    }
    let mut m = Machine { build, limits, now, out: Vec::new() };
    m.take(input);
    m.out
}

struct Machine<'a> {
    build: &'a mut Build,
    limits: &'a Deadlines,
    now: Time,
    out: Vec<Effect>,
}

impl Machine<'_> {
    fn take(&mut self, input: Input) {
        let phase = self.build.phase;
        match input {
            Input::Start => {
                self.out.push(Effect::SetLife(LifeCycle::Installing, None));
                self.log("install.start", Outcome::Info, |e| e);
                self.open(Phase::Power);
                self.out.push(Effect::ArmAndPower);
            }
            Input::Powered(how) => {
                if phase == Phase::Power {
                    self.log("install.armed", Outcome::Ok, |e| e.with("how", how));
                    self.enter(Phase::Dhcp);
                }
            }
            Input::PowerFailed { reason, again } => {
                if phase != Phase::Power {
                    return;
                }
                if again { self.retry(reason) } else { self.fail(reason) }
            }
            Input::Dhcp(kind, seen) => self.dhcp(kind, seen),
            Input::LoaderAsked => self.enter_from(Phase::Loader, Phase::Dhcp),
            Input::ScriptAsked => self.enter_from(Phase::Kernel, Phase::Loader),
            Input::Started(s) => self.started(s),
            Input::KernelFetched => self.enter_from(Phase::Installer, Phase::Kernel),
            Input::FactsSeen => self.enter_from(Phase::Installer, Phase::Kernel),
            Input::Reported(r) => self.reported(r),
            Input::Progress(what) => self.progress(what),
            Input::Asked(question) => self.asked(question),
            Input::AgentFailed(r) => {
                if r.phase > phase && r.phase < Phase::FirstBoot {
                    self.enter(r.phase);
                }
                self.fail(r.reason);
            }
            Input::Installed(r) => {
                // It may come from the installed system, where the one from
                // the installer was lost.
                if self.build.manifest.is_none() {
                    self.log("install.written", Outcome::Ok, |e| {
                        e.with("manifest", r.manifest).with("disk", &r.disk)
                    });
                    self.build.manifest = Some(r.manifest);
                    self.build.disk = Some(r.disk);
                }
                if phase < Phase::FirstBoot {
                    self.enter(Phase::FirstBoot);
                }
            }
            Input::Booted(kernel) => {
                if phase < Phase::Verify {
                    self.log("install.booted", Outcome::Ok, |e| e.with("kernel", kernel));
                    self.enter(Phase::Verify);
                }
            }
            Input::Verified(r) if r.ok => self.finish(),
            Input::Verified(r) => {
                self.enter_from(Phase::Verify, Phase::FirstBoot);
                let last = last_lines(&r.output);
                self.fail(format!("verify.sh ended with exit code {}: {last}", r.code));
            }
            Input::Cancel(who) => {
                self.close(Some(format!("cancelled by {who}")));
                self.end(BuildOutcome::Cancelled, format!("cancelled by {who}"));
            }
            Input::Returned => {
                if let Some(p) = self.build.phases.last_mut() {
                    p.deadline = p.deadline.max(self.now + GRACE);
                }
                // The power command may or may not have been given: giving it
                // again is safe, leaving it out is not.
                if phase == Phase::Power {
                    self.out.push(Effect::ArmAndPower);
                }
            }
            Input::Tick => {
                if self.build.current().is_some_and(|p| self.now >= p.deadline) {
                    self.overdue();
                }
            }
        }
    }

    fn dhcp(&mut self, kind: ClientKind, seen: Time) {
        // A packet from before this phase tells of a boot that is already
        // accounted for.
        if self.build.current().is_some_and(|p| seen < p.started) {
            return;
        }
        match (self.build.phase, kind) {
            (Phase::Dhcp, ClientKind::Os) => self.retry(
                "an operating system asked for an address, not the firmware: the BMC did not \
                 honour the network boot and the machine started from its disk"
                    .into(),
            ),
            (Phase::Power | Phase::Dhcp, k) if k.is_netboot() => self.enter(Phase::Loader),
            // iPXE speaking means that the firmware's loader has arrived; the
            // phase stays `loader` until the script is asked for.
            // The installer's last steps are on the disk, which boots: that it
            // was told so is not known, and the installed system says it again.
            (p, ClientKind::Pxe | ClientKind::HttpBoot | ClientKind::Ipxe)
                if self.boots_its_disk() && p < Phase::FirstBoot =>
            {
                self.log("install.restarted", Outcome::Info, |e| {
                    e.with("reason", "the last report did not come; started from the disk")
                });
                self.enter(Phase::FirstBoot);
            }
            // iPXE as well: in many cards it is the firmware's own PXE, and nobody
            // speaks before it.
            (p, ClientKind::Pxe | ClientKind::HttpBoot | ClientKind::Ipxe)
                if (Phase::Installer..=Phase::Bootloader).contains(&p) =>
            {
                self.restarted();
            }
            _ => {}
        }
    }

    /// The machine started over in the middle of its install (power cut,
    /// watchdog, panic): it will be given the installer again, as a new
    /// attempt; the disk is rewritten from the start.
    fn restarted(&mut self) {
        let phase = self.build.phase;
        let reason = format!("the machine restarted by itself in phase {phase}");
        if self.build.attempt >= self.limits.attempts {
            return self.fail(format!("{reason}, at attempt {}", self.build.attempt));
        }
        self.log("install.restarted", Outcome::Failed, |e| e.with("reason", &reason));
        self.close(Some(reason));
        self.build.attempt += 1;
        self.open(Phase::Loader);
    }

    fn reported(&mut self, r: PhaseReport) {
        if r.phase > self.build.phase && r.phase < Phase::FirstBoot {
            self.enter(r.phase);
        }
        if r.phase != self.build.phase {
            return;
        }
        let limit = self.limits.of(r.phase);
        let now = self.now;
        if let Some(p) = self.build.phases.last_mut() {
            if r.bytes > p.bytes {
                // As long as bytes move, the deadline moves with them.
                p.deadline = p.deadline.max(now + limit);
                p.bytes = r.bytes;
            }
            p.total = r.total.max(p.total);
            if r.message.is_some() {
                p.reason = r.message;
            }
        }
    }

    fn method(&self) -> Method {
        self.build.inputs.method
    }

    fn boots_its_disk(&self) -> bool {
        boots_its_disk(self.build)
    }

    fn overdue(&mut self) {
        let phase = self.build.phase;
        let limit = self.limits.of(phase).as_secs();
        if let Some(why) = self.unanswered() {
            // Asked again, it would be as silent.
            return self.fail(why);
        }
        let never_ran = self.kernel_sent().then(|| refused::never_ran(limit));
        let waited = || format!("waited {limit} s for {}", waits_for(phase, self.method()));
        self.retry(never_ran.unwrap_or_else(waited));
    }

    fn retry(&mut self, reason: String) {
        let (attempt, of) = (self.build.attempt, self.limits.attempts);
        if !may_retry(self.build.phase) || attempt >= of {
            let tries = if attempt > 1 { format!(", {attempt} times") } else { String::new() };
            return self.fail(format!("{reason}{tries}"));
        }
        self.log("install.retry", Outcome::Failed, |e| {
            e.with("reason", &reason).with("attempt", format!("{attempt} of {of}"))
        });
        self.close(Some(reason));
        self.build.attempt += 1;
        self.open(Phase::Power);
        self.out.push(Effect::ArmAndPower);
    }

    fn fail(&mut self, reason: String) {
        self.close(Some(reason.clone()));
        self.end(BuildOutcome::Failed, reason);
    }

    fn finish(&mut self) {
        // A `verified` that overtakes a lost `booted` still ends the build.
        self.enter_from(Phase::Verify, Phase::FirstBoot);
        self.close(None);
        self.build.outcome = BuildOutcome::Deployed;
        self.build.reason = None;
        self.build.ended = Some(self.now);
        let seconds = self.now.duration_since(self.build.started).as_secs();
        self.log("install.deployed", Outcome::Ok, |e| e.with("seconds", seconds));
        self.out.push(Effect::SetLife(LifeCycle::Deployed, None));
        self.out.push(Effect::Persist);
    }

    fn end(&mut self, outcome: BuildOutcome, reason: String) {
        self.build.outcome = outcome;
        self.build.ended = Some(self.now);
        self.build.reason = Some(reason.clone());
        let phase = self.build.phase;
        let action = match outcome {
            BuildOutcome::Cancelled => "install.cancelled",
            _ => "install.failed",
        };
        self.log(action, Outcome::Failed, |e| e.with("phase", phase).with("reason", &reason));
        self.out.push(Effect::SetLife(LifeCycle::Failed, Some(format!("{phase}: {reason}"))));
        self.out.push(Effect::Persist);
    }

    /// Enters `to` when now in `from` or earlier.
    fn enter_from(&mut self, to: Phase, from: Phase) {
        if self.build.phase <= from {
            self.enter(to);
        }
    }

    fn enter(&mut self, to: Phase) {
        self.close(None);
        self.open(to);
    }

    fn open(&mut self, phase: Phase) {
        self.build.phase = phase;
        self.build.phases.push(PhaseRecord {
            phase,
            attempt: self.build.attempt,
            started: self.now,
            ended: None,
            deadline: self.now + self.limits.of(phase),
            reason: Some(format!("waiting for {}", waits_for(phase, self.method()))),
            bytes: 0,
            total: 0,
            sent: false,
        });
        self.log("install.phase", Outcome::Info, |e| e.with("phase", phase));
        self.out.push(Effect::Persist);
    }

    fn close(&mut self, reason: Option<String>) {
        if let Some(p) = self.build.phases.last_mut() {
            p.ended = Some(self.now);
            p.reason = reason;
        }
    }

    fn log(&mut self, action: &str, outcome: Outcome, more: impl FnOnce(NewEvent) -> NewEvent) {
        let e = NewEvent::new(self.now, &self.build.actor, action, outcome)
            .node(&self.build.node)
            .with("build", &self.build.id)
            .with("attempt", self.build.attempt);
        self.out.push(Effect::Log(more(e)));
    }
}

/// The end of a program's output, short enough for a reason.
fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let text = lines[lines.len().saturating_sub(3)..].join(" / ");
    text.chars().take(400).collect()
}

#[path = "installer.rs"]
mod installer;
#[path = "refused.rs"]
pub mod refused;
pub use installer::boots_its_disk;

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
