//! Firmware that does not start its loader, and a loader that does not start
//! its kernel: the part of a build's life that Secure Boot decides.

use super::Machine;
use crate::model::{Outcome, Phase};

/// Whether what was given was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// The firmware fetched this loader whole and began anew.
    LoaderRefused {
        /// The loader's file.
        loader: &'static str,
        /// What the node is given instead.
        next: NextLoader,
    },
    /// The kernel went out whole.
    KernelSent,
    /// The loader says that it could not start the kernel.
    KernelRefused,
}

/// What firmware is given that did not start its loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextLoader {
    /// Signed shim and GRUB.
    Signed,
    /// The same, from a new start of the machine: it has gone on to HTTP boot,
    /// which the signed GRUB here cannot do.
    Restart,
    /// Those would be next, and are not installed here.
    Missing,
    /// The node's label says iPXE.
    Forbidden,
}

/// What is waited for once the kernel went out whole.
const KERNEL_SENT: &str = "the kernel was fetched; waiting for the loader to fetch the ramdisks";
/// Why it may not come to that.
const UNSIGNED: &str = "under Secure Boot an unsigned kernel is refused (bad signature): look at \
                        `sbverify --list` of the image's kernel, and take one that the \
                        distribution has signed";

/// Why a build ends whose kernel was fetched and silent for `limit` seconds.
pub(super) fn never_ran(limit: i64) -> String {
    format!("waited {limit} s after the kernel was fetched, and it never ran; {UNSIGNED}")
}

impl Machine<'_> {
    /// Takes what was seen of it.
    pub(super) fn started(&mut self, s: Started) {
        match s {
            Started::LoaderRefused { loader, next } => self.loader_refused(loader, next),
            Started::KernelSent => self.note_kernel_sent(),
            Started::KernelRefused => self.kernel_refused(),
        }
    }

    /// The firmware did not start what it was given; the packet that shows it
    /// is answered with another loader already.
    fn loader_refused(&mut self, loader: &str, next: NextLoader) {
        if !matches!(self.build.phase, Phase::Dhcp | Phase::Loader) {
            return;
        }
        let seen = format!(
            "the firmware fetched {loader} and did not run it; Secure Boot is probably on, and \
             {loader} is not signed"
        );
        let why = match next {
            NextLoader::Signed => format!("{seen}: it is given the signed shim and GRUB now"),
            NextLoader::Restart => format!(
                "{seen}: the machine is started once more, for the signed shim and GRUB by TFTP"
            ),
            NextLoader::Missing => format!(
                "{seen}; the signed shim and GRUB are not here: apt install shim-signed \
                 grub-efi-amd64-signed"
            ),
            NextLoader::Forbidden => format!(
                "{seen}; the node's label loader=ipxe forbids the signed shim and GRUB: take the \
                 label away, or switch Secure Boot off"
            ),
        };
        self.log("boot.refused", Outcome::Failed, |e| {
            e.with("loader", loader).with("reason", &why)
        });
        if next != NextLoader::Signed {
            return self.retry(why);
        }
        let deadline = self.now + self.limits.of(Phase::Loader);
        if self.build.phase == Phase::Loader
            && let Some(p) = self.build.phases.last_mut()
        {
            p.reason = Some(why);
            p.deadline = p.deadline.max(deadline);
        }
    }

    /// Whether the loader has the kernel, and not yet its ramdisks.
    pub(super) fn kernel_sent(&self) -> bool {
        self.build.phase == Phase::Kernel && self.build.current().is_some_and(|p| p.sent)
    }

    /// GRUB had the kernel whole and would not start it: another attempt ends
    /// the same way. Without the kernel it is the transfer that failed.
    fn kernel_refused(&mut self) {
        if self.kernel_sent() {
            self.fail(format!(
                "the kernel was fetched whole and GRUB did not start it; {UNSIGNED}"
            ));
        } else if self.build.phase <= Phase::Kernel {
            self.retry("GRUB could not fetch the kernel".into());
        } else if self.build.phase == Phase::Installer {
            self.retry("GRUB fetched kernel and ramdisks and could not start them".into());
        }
    }

    /// The loader has the kernel.
    fn note_kernel_sent(&mut self) {
        self.enter_from(Phase::Kernel, Phase::Loader);
        if self.build.phase == Phase::Kernel
            && let Some(p) = self.build.phases.last_mut()
        {
            p.sent = true;
            p.reason = Some(KERNEL_SENT.into());
        }
    }
}

#[cfg(test)]
#[path = "refused_tests.rs"]
mod tests;
