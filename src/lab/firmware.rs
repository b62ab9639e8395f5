//! The machines' firmware: which there are, their files, and what QEMU is told.

use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;

/// Firmware of the virtual machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabFirmware {
    /// SeaBIOS with iPXE in the card.
    Bios,
    /// EDK2 with its own PXE client, nothing in the card.
    Uefi,
    /// The same with Secure Boot on and the usual vendor keys enrolled.
    UefiSecure,
    /// EDK2 that boots by HTTP and does not try PXE.
    UefiHttp,
    /// Both.
    UefiSecureHttp,
}

impl LabFirmware {
    /// Whether it is EDK2.
    pub fn is_uefi(self) -> bool {
        self != Self::Bios
    }

    /// Whether it starts signed loaders only.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::UefiSecure | Self::UefiSecureHttp)
    }

    fn http_only(self) -> bool {
        matches!(self, Self::UefiHttp | Self::UefiSecureHttp)
    }

    /// The same, with Secure Boot on where there is such a thing.
    pub fn secured(self) -> Self {
        match self {
            Self::Uefi => Self::UefiSecure,
            Self::UefiHttp => Self::UefiSecureHttp,
            same => same,
        }
    }

    /// As in an inventory file.
    pub fn inventory(self) -> &'static str {
        if self.is_uefi() { "uefi" } else { "bios" }
    }

    /// The variables a new machine begins with.
    pub(super) fn variables(self) -> Option<&'static Path> {
        // `ms`: Microsoft's and the distribution's keys, and Secure Boot on.
        self.is_uefi().then(|| {
            Path::new(if self.is_secure() {
                "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
            } else {
                "/usr/share/OVMF/OVMF_VARS_4M.fd"
            })
        })
    }

    /// `-machine`, for all that hangs on it.
    pub(super) fn machine(self) -> &'static str {
        // Only code in system management mode may write the variables: without
        // it the operating system could switch Secure Boot off.
        if self.is_secure() { "q35,graphics=off,smm=on" } else { "q35,graphics=off" }
    }

    /// Adds the flash chips with firmware and variables.
    pub(super) fn flash(self, c: &mut Command, variables: &str) {
        if !self.is_uefi() {
            return;
        }
        let code = if self.is_secure() { "OVMF_CODE_4M.ms.fd" } else { "OVMF_CODE_4M.fd" };
        if self.is_secure() {
            c.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
            c.args(["-global", "ICH9-LPC.disable_s3=1"]);
        }
        c.arg("-drive")
            .arg(format!("if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/{code}"));
        c.arg("-drive").arg(format!("if=pflash,unit=1,format=raw,file={variables}"));
        if self.http_only() {
            for protocol in ["IPv4PXESupport", "IPv6PXESupport"] {
                c.arg("-fw_cfg").arg(format!("name=opt/org.tianocore/{protocol},string=n"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LabFirmware::*;

    #[test]
    fn names_in_a_lab_s_file_stay_what_they_were() {
        for (firmware, name) in
            [(Bios, "bios"), (Uefi, "uefi"), (UefiSecureHttp, "uefi-secure-http")]
        {
            assert_eq!(serde_json::to_value(firmware).unwrap(), name);
        }
    }

    #[test]
    fn a_machine_is_secured_where_its_firmware_can_be() {
        assert_eq!(
            [Bios, Uefi, UefiHttp].map(super::LabFirmware::secured),
            [Bios, UefiSecure, UefiSecureHttp]
        );
    }
}
