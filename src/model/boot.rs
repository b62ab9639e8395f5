//! What a network-booting client says of itself, and what it is told.

use super::{Arch, Firmware, Mac};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The processor and firmware a PXE client names in DHCP option 93
/// (RFC 4578 §2.1; numbers from IANA's "Processor Architecture Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientArch {
    /// 0: PC with BIOS.
    Bios,
    /// 6: 32-bit x86 UEFI.
    UefiX86,
    /// 7 and 9: x86-64 UEFI (RFC 4578's table and errata disagree; both are
    /// in the field).
    UefiX64,
    /// 11: 64-bit ARM UEFI.
    UefiArm64,
    /// 16: x86-64 UEFI HTTP boot.
    UefiX64Http,
    /// 19: 64-bit ARM UEFI HTTP boot.
    UefiArm64Http,
    /// Any other number, kept for the record.
    Other(u16),
}

impl ClientArch {
    /// From the number in option 93.
    pub fn from_code(code: u16) -> Self {
        match code {
            0 => Self::Bios,
            6 => Self::UefiX86,
            7 | 9 => Self::UefiX64,
            11 => Self::UefiArm64,
            16 => Self::UefiX64Http,
            19 => Self::UefiArm64Http,
            n => Self::Other(n),
        }
    }

    /// The firmware this implies, if it is one we boot.
    pub fn firmware(self) -> Option<Firmware> {
        match self {
            Self::Bios => Some(Firmware::Bios),
            Self::UefiX86 | Self::UefiX64 | Self::UefiX64Http => Some(Firmware::Uefi),
            Self::UefiArm64 | Self::UefiArm64Http => Some(Firmware::Uefi),
            Self::Other(_) => None,
        }
    }

    /// The processor this implies, if it is one we boot.
    pub fn arch(self) -> Option<Arch> {
        match self {
            Self::Bios | Self::UefiX64 | Self::UefiX64Http => Some(Arch::X86_64),
            Self::UefiArm64 | Self::UefiArm64Http => Some(Arch::Aarch64),
            Self::UefiX86 | Self::Other(_) => None,
        }
    }
}

/// The label of a node that says which [`Loader`] it gets.
pub const LOADER_LABEL: &str = "loader";

/// Which boot loader a node is given by the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loader {
    /// By what the firmware says and has been seen to do.
    #[default]
    Auto,
    /// iPXE, which no Secure Boot firmware starts.
    Ipxe,
    /// pxelinux, for BIOS; UEFI as in `auto`.
    Pxelinux,
    /// Signed shim and GRUB, for UEFI; BIOS as in `auto`.
    Grub,
}

impl FromStr for Loader {
    type Err = super::Invalid;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "auto" => Ok(Self::Auto),
            "ipxe" => Ok(Self::Ipxe),
            "pxelinux" => Ok(Self::Pxelinux),
            "grub" => Ok(Self::Grub),
            _ => {
                Err(super::Invalid::new("loader", s, "auto, ipxe, pxelinux (BIOS) or grub (UEFI)"))
            }
        }
    }
}

/// Which program is speaking DHCP, told by vendor class (option 60) and user
/// class (option 77).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// Firmware's PXE client: option 60 begins `PXEClient`, no iPXE.
    Pxe,
    /// Firmware's HTTP boot client: option 60 begins `HTTPClient`.
    HttpBoot,
    /// iPXE: user class `iPXE` (or option 175 present).
    Ipxe,
    /// Anything else: an operating system, dhclient, an installer.
    Os,
}

impl ClientKind {
    /// Whether the machine is in its network boot (not a running system).
    pub fn is_netboot(self) -> bool {
        !matches!(self, Self::Os)
    }
}

/// All that a DHCP packet says that bears on what to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHints {
    /// `chaddr`: the identity.
    pub mac: Mac,
    /// Which program speaks.
    pub kind: ClientKind,
    /// Option 93, first entry that we know, else the first.
    pub arch: Option<ClientArch>,
    /// Option 60, cut to 64 bytes, made printable.
    pub vendor_class: Option<String>,
    /// Option 97 without its type byte (SMBIOS UUID).
    pub uuid: Option<[u8; 16]>,
    /// `giaddr` when the packet came through a relay agent.
    pub relay: Option<Ipv4Addr>,
}

/// What to load next: `file` from `server`, or a URL in `file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile {
    /// `siaddr` and option 66: where TFTP is.
    pub server: Ipv4Addr,
    /// `file` and option 67: a TFTP path, or an `http://` URL.
    pub file: String,
    /// Answer option 60 with this (`PXEClient` or `HTTPClient`): clients of
    /// that kind ignore offers that do not repeat it.
    pub vendor_class: Option<&'static str>,
}
