//! Makes the disk boot with the firmware at hand. GRUB is installed by its own
//! program; its configuration is ours and short: `update-grub` would look for
//! other systems for half a minute, and there are none.

use super::AgentError;
use super::bootorder::{self, order_text};
use super::chroot::run;
use super::facts;
use super::journal::say;
use super::partition::Partitions;
use super::target::{Kind, Target};
use crate::model::{Firmware, Phase};
use std::fs;
use std::io;
use std::time::Duration;

/// Label of our UEFI boot entry, and the directory on the system partition.
const LABEL: &str = "debian";
/// What makes a disk that Secure Boot starts, where Debian's packages put it.
const SIGNED: [&str; 2] =
    ["/usr/lib/shim/shimx64.efi.signed", "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"];
const PATIENCE: Duration = Duration::from_secs(300);

/// Modules of GRUB that our configuration uses; the rest is not copied.
const BIOS_MODULES: &str = "part_gpt ext2 biosdisk search search_fs_uuid linux normal configfile \
    serial terminal test echo minicmd reboot halt ls cat gzio zstd";
const EFI_MODULES: &str = "part_gpt ext2 fat search search_fs_uuid linux normal configfile serial \
    terminal test echo minicmd reboot halt ls cat gzio zstd efi_gop all_video chain efifwsetup";

/// Installs GRUB on the disk and in the firmware.
pub fn install(
    target: &mut Target,
    disk: &Partitions,
    firmware: Firmware,
    root_uuid: &str,
    kernel_args: &str,
) -> Result<(), AgentError> {
    let failed = |reason: String| AgentError::failed(Phase::Bootloader, reason);
    let io = |e: io::Error| failed(e.to_string());
    let config = grub_config(root_uuid, kernel_args);
    target.write("/boot/grub/grub.cfg", 0o600, Kind::Identity, &config).map_err(io)?;
    let defaults = grub_defaults(kernel_args);
    target.write("/etc/default/grub", 0o644, Kind::Common, &defaults).map_err(io)?;
    let device = disk.disk.to_string_lossy().into_owned();
    let common = ["grub-install", "--no-floppy", "--locales=", "--fonts=", "--themes="];
    let mut arguments: Vec<&str> = common.to_vec();
    let modules = if firmware == Firmware::Uefi { EFI_MODULES } else { BIOS_MODULES };
    let modules_argument = format!("--install-modules={modules}");
    arguments.push(&modules_argument);
    let id = format!("--bootloader-id={LABEL}");
    let signed = firmware == Firmware::Uefi && SIGNED.iter().all(|f| target.path(f).is_file());
    if firmware == Firmware::Uefi && !signed && facts::secure_boot() == Some(true) {
        return Err(failed(
            "Secure Boot is on and this image has no signed boot loader, so the disk would not \
             start: build the image with the packages shim-signed and grub-efi-amd64-signed, or \
             switch Secure Boot off"
                .into(),
        ));
    }
    if firmware == Firmware::Uefi {
        // The entry is ours to make: grub-install would put it in front of
        // the network.
        arguments.extend(["--target=x86_64-efi", "--efi-directory=/boot/efi", "--no-nvram", &id]);
        if signed {
            // Debian's: shim, GRUB, and shim's key manager, all as signed.
            arguments.push("--uefi-secure-boot");
        }
    } else {
        arguments.extend(["--target=i386-pc", &device]);
    }
    run(target, &arguments, PATIENCE).map_err(|e| failed(e.to_string()))?;
    let kind = match (firmware, signed) {
        (Firmware::Uefi, true) => "x86_64-efi-signed",
        (Firmware::Uefi, false) => "x86_64-efi",
        _ => "i386-pc",
    };
    target.manifest.note("grub", kind);
    if firmware == Firmware::Uefi {
        removable_path(target, signed).map_err(|e| failed(format!("EFI/BOOT: {e}")))?;
        let first = if signed { "shimx64.efi" } else { "grubx64.efi" };
        if let Err(e) = firmware_entry(target, &device, first) {
            // The removable path boots all the same.
            say(format_args!(
                "no boot entry in the firmware: {e}; it will find \\EFI\\BOOT itself"
            ));
        }
    }
    Ok(())
}

/// `\EFI\BOOT\BOOTX64.EFI`, which firmware starts that has lost its entries.
/// Signed, it is shim, which looks for GRUB beside itself. Shim's own fallback
/// program is left out: it would make a boot entry in front of the network.
fn removable_path(target: &Target, signed: bool) -> io::Result<()> {
    let from = target.path(&format!("/boot/efi/EFI/{LABEL}"));
    let dir = target.path("/boot/efi/EFI/BOOT");
    fs::create_dir_all(&dir)?;
    if !signed {
        fs::copy(from.join("grubx64.efi"), dir.join("BOOTX64.EFI"))?;
        return Ok(());
    }
    fs::copy(from.join("shimx64.efi"), dir.join("BOOTX64.EFI"))?;
    for beside in ["grubx64.efi", "mmx64.efi"] {
        fs::copy(from.join(beside), dir.join(beside))?;
    }
    Ok(())
}

fn firmware_entry(
    target: &Target,
    device: &str,
    first: &str,
) -> Result<(), super::chroot::ChrootError> {
    let efibootmgr = |arguments: &[&str]| {
        let mut all = vec!["efibootmgr"];
        all.extend_from_slice(arguments);
        run(target, &all, Duration::from_secs(60))
    };
    let before = bootorder::parse(&efibootmgr(&["-v"])?);
    for old in before.labelled(LABEL) {
        efibootmgr(&["-q", "-b", &format!("{old:04X}"), "-B"])?;
    }
    let loader = format!("\\EFI\\{LABEL}\\{first}");
    let made = efibootmgr(&["-v", "-C", "-d", device, "-p", "2", "-L", LABEL, "-l", &loader])?;
    let after = bootorder::parse(&made);
    if let Some(new) = after.labelled(LABEL).last() {
        efibootmgr(&["-q", "-o", &order_text(&after.order_with(*new))])?;
    }
    Ok(())
}

/// The serial port that the kernel is told to speak on, as GRUB counts them.
fn serial(kernel_args: &str) -> Option<(u8, u32)> {
    let word = kernel_args
        .split_whitespace()
        .filter_map(|w| w.strip_prefix("console=ttyS"))
        .next_back()?;
    let (unit, rest) = word.split_once(',').unwrap_or((word, ""));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((unit.parse().ok().filter(|u| *u < 4)?, digits.parse().unwrap_or(115_200)))
}

/// `/vmlinuz` and `/initrd.img` are links that the kernel's package moves to
/// the newest: the configuration survives upgrades as it is.
fn grub_config(root_uuid: &str, kernel_args: &str) -> String {
    let console = match serial(kernel_args) {
        Some((unit, speed)) => format!(
            "serial --unit={unit} --speed={speed}\nterminal_input console serial\n\
             terminal_output console serial\n"
        ),
        None => String::new(),
    };
    let linux = format!("linux /vmlinuz root=UUID={root_uuid} ro {kernel_args}");
    let linux = linux.trim_end();
    format!(
        "# Written by provision; 'update-grub' replaces it by one of its own.\n\
         set timeout=1\nset timeout_style=hidden\nset default=0\n{console}\
         search --no-floppy --fs-uuid --set=root {root_uuid}\n\
         menuentry 'Debian' {{\n\t{linux}\n\tinitrd /initrd.img\n}}\n\
         menuentry 'Debian (single user)' {{\n\t{linux} single\n\tinitrd /initrd.img\n}}\n"
    )
}

/// For `update-grub` later on.
fn grub_defaults(kernel_args: &str) -> String {
    let quoted = kernel_args.replace(['"', '$', '`', '\\', '\n'], "");
    let terminal = match serial(kernel_args) {
        Some((unit, speed)) => format!(
            "GRUB_TERMINAL=\"console serial\"\n\
             GRUB_SERIAL_COMMAND=\"serial --unit={unit} --speed={speed}\"\n"
        ),
        None => String::new(),
    };
    format!(
        "GRUB_DEFAULT=0\nGRUB_TIMEOUT=1\nGRUB_DISTRIBUTOR=Debian\n\
         GRUB_CMDLINE_LINUX_DEFAULT=\"\"\nGRUB_CMDLINE_LINUX=\"{quoted}\"\n\
         GRUB_DISABLE_OS_PROBER=true\n{terminal}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grub_speaks_where_the_kernel_speaks() {
        assert_eq!(serial("console=tty0 console=ttyS1,57600n8"), Some((1, 57_600)));
        assert_eq!(serial("quiet console=ttyS0"), Some((0, 115_200)));
        assert_eq!(serial("quiet"), None);
        assert_eq!(serial("console=ttyS9"), None);
        let config = grub_config("abc", "quiet console=ttyS0");
        assert!(config.contains("linux /vmlinuz root=UUID=abc ro quiet console=ttyS0\n"));
        assert!(config.contains("serial --unit=0 --speed=115200\n"));
    }
}
