//! What is known to be said on consoles, and what it means: how far a machine
//! came, and why it goes no further. The words are those of SeaBIOS, EDK2,
//! iPXE, GRUB, Linux and systemd, as seen in the lab and in their sources.

/// What a line means.
#[derive(Debug, PartialEq, Eq)]
pub struct Remark {
    /// Words of the line.
    words: &'static str,
    /// Whether the machine will not go on from here as it should.
    pub stops: bool,
    /// In words.
    pub means: &'static str,
}

const fn step(words: &'static str, means: &'static str) -> Remark {
    Remark { words, stops: false, means }
}

const fn stop(words: &'static str, means: &'static str) -> Remark {
    Remark { words, stops: true, means }
}

/// The first whose words are in a line counts.
const TABLE: &[Remark] = &[
    step("Start PXE over IPv4", "the firmware's own PXE begins"),
    step("Start HTTP Boot over IPv4", "the firmware's own HTTP boot begins"),
    step("iPXE initialising devices", "iPXE begins"),
    step("Booting from Hard Disk", "the firmware boots the disk"),
    step("Welcome to GRUB", "GRUB begins"),
    step("Linux version ", "the kernel begins"),
    step(" login:", "the system is up"),
    stop("bad shim signature", "GRUB refuses a kernel that is not signed: Secure Boot is on"),
    stop("Security Violation", "the firmware refuses what is not signed: Secure Boot is on"),
    stop("PXE-E", "the card's PXE gives up"),
    stop("No configuration methods succeeded", "iPXE got no address"),
    stop("Could not boot", "the loader could not start what it fetched"),
    stop("No bootable device", "the firmware found nothing to boot"),
    stop("No bootable option", "the firmware found nothing to boot"),
    stop("Initramfs unpacking failed", "the ramdisk is broken, or the memory is too small for it"),
    stop("Unable to mount root fs", "the kernel found no root: driver or ramdisk missing"),
    stop("Out of memory", "the memory is too small"),
    stop("Kernel panic", "the kernel gave up"),
    stop("emergency mode", "systemd could not bring the system up"),
    stop("grub rescue>", "GRUB does not find its files on the disk"),
];

/// What `line` means, where that is known.
pub fn remark(line: &str) -> Option<&'static Remark> {
    TABLE.iter().find(|r| line.contains(r.words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_real_consoles_are_understood() {
        for (line, stops) in [
            (">>Start PXE over IPv4.", false),
            ("iPXE initialising devices...ok", false),
            ("[    0.000000] Linux version 6.12.48+deb13-amd64 (debian-kernel@…)", false),
            ("node01 login:", false),
            ("error: bad shim signature.", true),
            ("PXE-E16: No valid offer received.", true),
            ("[    3.2] Kernel panic - not syncing: VFS: Unable to mount root fs", true),
        ] {
            assert_eq!(remark(line).map(|r| r.stops), Some(stops), "{line}");
        }
        assert_eq!(remark("[    1.0] usb 1-1: new device"), None);
    }
}
