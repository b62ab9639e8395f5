//! What is known to go wrong between a powered-off machine and a node, and
//! how it shows in the record: a table. Pure: (build, events, what is usual,
//! strangers, now) → the symptoms that fit, the likeliest first.
//!
//! Two kinds: what stops a build, of which the first that fits its phase is
//! the likely cause; and what is worth knowing also of one that goes on or has
//! ended well (a clock that was wrong, a switch port that was slow).

use super::explain::{NO_HTTP, Scene};
use super::usual::Usual;
use crate::model::{BuildOutcome, Event, Outcome, Phase};
use serde::{Deserialize, Serialize};

/// A symptom that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Symptom {
    /// Which one, such as `offers-not-taken`; these names stay.
    #[schema(example = "offers-not-taken")]
    pub name: String,
    /// What was seen.
    pub seen: String,
    /// What is likely behind it.
    pub cause: String,
    /// What to do.
    pub advice: String,
    /// Whether it is what the build waits for or failed of.
    pub stops: bool,
}

/// A line of the table.
struct Known {
    name: &'static str,
    /// Phases in which it stops a build; none: worth knowing at any time.
    phases: &'static [Phase],
    /// What of it is seen.
    seen: fn(&Scene<'_>) -> Option<String>,
    cause: &'static str,
    advice: &'static str,
}

use Phase::{Dhcp, FirstBoot, Image, Installer, Kernel, Loader, Power};

/// Within a phase the more telling one stands first.
const TABLE: &[Known] = &[
    Known {
        name: "bmc-silent",
        phases: &[Power],
        seen: |s| s.said(Power, &["does not answer"]),
        cause: "The BMC has no power or no link, the inventory has another address for it, or \
                IPMI over LAN is off.",
        advice: "Ping the BMC from this host; on a Dell switch iDRAC.IPMILan.Enable on.",
    },
    Known {
        name: "bmc-refuses",
        phases: &[Power],
        seen: |s| s.said(Power, &["wrong user name or password", "lacks the privilege"]),
        cause: "User or password of the BMC are not those of the inventory, or the user may not \
                do as much.",
        advice: "`provision nodes set NODE --bmc-password-file FILE`; the user needs the privilege \
                 level Operator over LAN.",
    },
    Known {
        name: "override-ignored",
        phases: &[Power, Dhcp, Loader],
        seen: ignored,
        cause: "The BMC took the boot device and the machine booted its disk: the override was lost \
                on the way, is for the other firmware mode, or network boot is off for this card.",
        advice: "Look at the boot mode (BIOS or UEFI) and at PXE on this card in the firmware's \
                 setup; `provision nodes set NODE --firmware uefi` where we guess it wrong.",
    },
    Known {
        name: "wrong-mac",
        phases: &[Power, Dhcp],
        seen: strangers,
        cause: "A machine that no node has the MAC address of asks for one since the power-on: it \
                may be this one, by another card than the inventory names.",
        advice: "`provision nodes discovered` lists them; `provision nodes set NODE --mac MAC`.",
    },
    Known {
        name: "no-dhcp",
        phases: &[Dhcp],
        seen: |s| Some(format!("no packet from {}", s.node_macs())),
        cause: "The machine is still in its self test, boots from another card or a disk, has no \
                link, or sits behind a switch port that takes long to forward.",
        advice: "Look at the console (`provision console NODE`), then at the link of the boot card and its VLAN.",
    },
    Known {
        name: "other-dhcp-server",
        phases: &[Dhcp, Loader],
        seen: |s| s.last("dhcp.other-server").map(|e| detail(e, "reason")),
        cause: "Another DHCP server answers in this network, and the firmware chose it.",
        advice: "Switch it off here, or tell it to leave this machine out; or run as proxy \
                 (`dhcp.mode = \"proxy\"`).",
    },
    Known {
        name: "offers-not-taken",
        phases: &[Dhcp, Loader],
        seen: |s| {
            let n = s.count("dhcp.offer");
            (n >= 3 && s.count("dhcp.ack") == 0).then(|| format!("{n} OFFERs and no REQUEST"))
        },
        cause: "Our offers do not reach the machine, or it prefers another server's: a switch \
                that drops broadcasts or DHCP from this port (DHCP snooping), or a second server.",
        advice: "Make this host's switch port a trusted one for DHCP; look for another server.",
    },
    Known {
        name: "http-boot-without-http",
        phases: &[Dhcp, Loader],
        seen: |s| {
            let e = s.events().find(|e| detail(e, "reason") == NO_HTTP)?;
            Some(detail(e, "reason"))
        },
        cause: "The firmware boots by HTTP and is to get the signed GRUB, and the one here has no \
                HTTP.",
        advice: "Put Debian 13's into loaders_dir, or let it boot by PXE.",
    },
    Known {
        name: "loader-refused",
        phases: &[Loader],
        seen: |s| s.last("boot.refused").map(|e| detail(e, "reason")),
        cause: "The firmware did not run the unsigned loader: Secure Boot is probably on, and the \
                node is offered the signed shim and GRUB now.",
        advice: "Nothing, if the next try goes on; else put signed loaders into loaders_dir.",
    },
    Known {
        name: "loader-missing",
        phases: &[Loader],
        seen: |s| {
            let missing = |e: &&Event| {
                matches!(e.event.action.as_str(), "tftp.not-found" | "tftp.refused")
                    && !may_lack(&detail(e, "file"))
            };
            // It went on with another one.
            let went_on =
                |e: &&Event| matches!(e.event.action.as_str(), "tftp.done" | "http.script");
            let e = s.events().rfind(missing)?;
            let last = s.events().rfind(went_on).is_none_or(|w| w.seq < e.seq);
            last.then(|| format!("it asked for {}", detail(e, "file")))
        },
        cause: "The firmware asks for a file that is not served: an address from another server, \
                or a loader that is missing here.",
        advice: "`build-server check` names loaders that are missing.",
    },
    Known {
        name: "tftp-breaks",
        phases: &[Loader, Kernel],
        seen: |s| {
            let broken = ["tftp.timed-out", "tftp.dropped", "tftp.failed", "tftp.client-error"];
            let e = s.events().rfind(|e| broken.contains(&e.event.action.as_str()))?;
            (s.count("tftp.done") == 0)
                .then(|| format!("{} after {} bytes", detail(e, "file"), detail(e, "bytes")))
        },
        cause: "TFTP begins and does not end: packets are lost, or a firewall lets port 69 through \
                and not the transfer's own port.",
        advice: "Let UDP from this host to the machines through, all ports; look for errors on the \
                 link.",
    },
    Known {
        name: "loader-silent",
        phases: &[Loader],
        seen: |s| {
            let e = s.last("tftp.done").or_else(|| s.last("boot.loader"))?;
            (s.count("http.script") == 0).then(|| {
                format!("{} went out whole, and no script was asked for", detail(e, "file"))
            })
        },
        cause: "The loader was fetched and has not asked for its script: it does not run on this \
                firmware (Secure Boot, a broken file), or lost the link.",
        advice: "Look at the console (`provision console NODE`); `provision nodes set NODE --label loader=pxelinux` (or grub) \
                 tries another.",
    },
    Known {
        name: "kernel-refused",
        phases: &[Kernel],
        seen: |s| s.last("boot.failed").map(|e| detail(e, "reason")),
        cause: "The loader cannot start the kernel: under Secure Boot one that is not signed is \
                refused.",
        advice: "Use an image with the distribution's signed kernel, or switch Secure Boot off.",
    },
    Known {
        name: "transfer-broken",
        phases: &[Kernel],
        seen: |s| {
            let e = s
                .events()
                .rfind(|e| e.event.action == "http.file" && e.event.outcome == Outcome::Failed)?;
            Some(format!("{} broke off after {} bytes", detail(e, "file"), detail(e, "bytes")))
        },
        cause: "Kernel or ramdisk broke off on the way.",
        advice: "Look for errors on the link and at what else this host sends.",
    },
    Known {
        name: "kernel-silent",
        phases: &[Kernel],
        seen: |s| Some(format!("{} of kernel and ramdisk went out", s.files())),
        cause: "The loader has its script and does not fetch all, or the kernel was refused: \
                under Secure Boot GRUB refuses one that is not signed.",
        advice: "Look at the console (`provision console NODE`) for what the loader says.",
    },
    Known {
        name: "installer-asks",
        phases: &[Installer, Phase::Disk, Image],
        seen: asks,
        cause: "The installer stands at a question that the preseed file does not answer.",
        advice: "Answer it in a file of your own in templates_dir; `provision preseed NODE` shows \
                 what it was given.",
    },
    Known {
        name: "agent-silent",
        phases: &[Installer],
        seen: |s| (s.count("installer.file") == 0 && !s.has_facts()).then(|| s.after_the_kernel()),
        cause: "The kernel was fetched and nothing in it has spoken: a kernel panic, too little \
                memory for the ramdisk, or no driver (or firmware) for the boot card.",
        advice: "Look at the console (`provision console NODE`); compare the memory with what the image needs, and the card with \
                 the drivers of its ramdisk.",
    },
    Known {
        name: "no-first-boot",
        phases: &[FirstBoot],
        seen: |s| (s.in_phase("dhcp.ack") == 0).then(|| "no address was asked for since".into()),
        cause: "The machine was restarted and its new system has not come: another disk or the \
                network stands first in the boot order, the disk controller is in another mode, \
                Secure Boot refuses the loader on the disk, or the machine is off.",
        advice: "Look at the console (`provision console NODE`) and at the boot order in the firmware's setup.",
    },
    Known {
        name: "first-boot-silent",
        phases: &[FirstBoot],
        seen: |s| {
            Some(format!(
                "{} addresses were given since, and the agent has not spoken",
                s.in_phase("dhcp.ack")
            ))
        },
        cause: "The new system runs and its agent does not reach us: a firewall in the profile, a \
                wrong default route, or a service it waits for.",
        advice: "Log in at the console (`ipmitool sol activate`): `systemctl status provision-agent`.",
    },
    Known {
        name: "clock-wrong",
        phases: &[],
        seen: |s| {
            s.of_build("agent.clock").map(|e| format!("it was {} s off", detail(e, "off_seconds")))
        },
        cause: "The machine's clock was wrong and has been set: certificates and packages would \
                not have been believed. The battery may be empty.",
        advice: "Replace the battery if it comes again.",
    },
    Known {
        name: "slow-port",
        phases: &[],
        seen: |s| {
            let of = |e: &&Event| e.event.action.starts_with("dhcp.") && !is_system(e);
            let asked: u64 = detail(s.events().find(of)?, "secs").parse().ok()?;
            (asked >= SLOW_PORT).then(|| {
                format!("the firmware had asked for {asked} s when its first packet came through")
            })
        },
        cause: "The switch port takes long to forward after the link comes up (spanning tree \
                without PortFast), or the first packets are lost.",
        advice: "Make it an edge port (PortFast).",
    },
    Known {
        name: "restarted-by-itself",
        phases: &[],
        seen: |s| {
            let by_itself = |e: &&Event| {
                e.event.action == "install.restarted" && e.event.outcome == Outcome::Failed
            };
            s.build_events().find(by_itself).map(|e| detail(e, "reason"))
        },
        cause: "Nobody here restarted it: a power cut, a watchdog or a panic.",
        advice: "Look at the BMC's event log (`ipmitool sel list`).",
    },
    Known {
        name: "console-says",
        phases: &[],
        seen: |s| {
            let open = matches!(s.build.outcome, BuildOutcome::Running | BuildOutcome::Failed);
            // One that went on since has got over it.
            let e = s.last("console.line")?;
            if !open || e.event.outcome != Outcome::Failed {
                return None;
            }
            Some(format!("\u{201c}{}\u{201d}: {}", detail(e, "line"), detail(e, "means")))
        },
        cause: "The machine said it on its console.",
        advice: "`provision console NODE` shows all of it.",
    },
    Known {
        name: "image-slow",
        phases: &[],
        seen: |s| slower(s, Image),
        cause: "Less of the image arrives each second, or the disk takes it more slowly, than in \
                other installs of this profile: a link at a lower speed or with errors, a disk that \
                fails, or many installs at once.",
        advice: "Compare `ethtool` of both ends and the disk's SMART values.",
    },
    Known {
        name: "slow-phase",
        phases: &[],
        seen: |s| Phase::ALL.into_iter().filter(|p| *p != Image).find_map(|p| slower(s, p)),
        cause: "It takes much longer than the same phase of other installs of this profile.",
        advice: "Compare with an earlier build: `provision builds`.",
    },
];

/// Firmware asks at 0, 4, 12 and 28 s (RFC 2131 §4.1): a first packet that is
/// lost once is nothing yet.
const SLOW_PORT: u64 = 10;

/// The symptoms that fit, what stops the build first.
pub fn symptoms(s: &Scene<'_>) -> Vec<Symptom> {
    let told = |k: &Known, stops: bool| {
        let seen = (k.seen)(s)?;
        Some(Symptom {
            name: k.name.to_owned(),
            seen,
            cause: k.cause.to_owned(),
            advice: k.advice.to_owned(),
            stops,
        })
    };
    let open = matches!(s.build.outcome, BuildOutcome::Running | BuildOutcome::Failed);
    let here = |k: &&Known| open && k.phases.contains(&s.build.phase);
    let stops = TABLE.iter().filter(here).find_map(|k| told(k, true));
    let known = TABLE.iter().filter(|k| k.phases.is_empty()).filter_map(|k| told(k, false));
    stops.into_iter().chain(known).collect()
}

/// A fact of an event, empty where it has none.
pub(super) fn detail(e: &Event, key: &str) -> String {
    e.event.detail.get(key).cloned().unwrap_or_default()
}

/// Whether a packet came from a system, not from firmware or a loader.
pub(super) fn is_system(e: &Event) -> bool {
    detail(e, "client").starts_with("operating system")
}

/// The reason that the BMC's boot device was not taken: of this attempt, or of
/// the one before as long as the machine has not come by network since.
fn ignored(s: &Scene<'_>) -> Option<String> {
    let b = s.build;
    let firmware = |e: &Event| e.event.action == "dhcp.offer" && !is_system(e);
    let came = b.phase >= Loader || s.events().any(firmware);
    let first = if came { b.attempt } else { b.attempt.saturating_sub(1) };
    let recent = b.phases.iter().filter(|p| p.phase == Dhcp && p.attempt >= first);
    let mut reasons = recent.filter_map(|p| p.reason.as_deref());
    reasons.rfind(|r| r.contains("did not honour")).map(str::to_owned)
}

/// The question at which the installer stands, or stood when it was given up.
fn asks(s: &Scene<'_>) -> Option<String> {
    if let Some(question) = &s.build.question {
        return Some(question.clone());
    }
    let given_up = s.build.phases.last()?.reason.as_deref().or(s.build.reason.as_deref())?;
    let e = s.last("install.question").filter(|_| given_up.contains("nobody answered"))?;
    Some(detail(e, "question"))
}

/// What shim and GRUB ask for and do without.
fn may_lack(file: &str) -> bool {
    file.ends_with("revocations.efi") || file.contains("grub/x86_64-efi/")
}

fn strangers(s: &Scene<'_>) -> Option<String> {
    if s.events().any(|e| e.event.action.starts_with("dhcp.")) {
        return None;
    }
    let since = s.build.current()?.started;
    let all: Vec<String> =
        s.strangers.iter().filter(|x| x.last_seen >= since).map(|x| x.text.clone()).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// A phase of this attempt that takes, or took, much longer than usual.
fn slower(s: &Scene<'_>, phase: Phase) -> Option<String> {
    let p = s.build.phases.iter().rfind(|p| p.phase == phase && p.attempt == s.build.attempt)?;
    let usual = s.usual.phase(s.build, phase)?;
    let is = p.ended.unwrap_or(s.now).duration_since(p.started);
    Usual::is_slow(is, Some(usual))
        .then(|| format!("phase {phase}: {} s, usually {} s", is.as_secs(), usual.as_secs()))
}

#[cfg(test)]
#[path = "symptoms_tests.rs"]
mod tests;
