//! Which boot file a client is told, by what it says of itself.

use super::BootNode;
use crate::model::{Arch, BootFile, ClientArch, ClientHints, ClientKind, Firmware, Loader};
use std::net::Ipv4Addr;

/// Our end of the boot network.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    /// Address.
    pub address: Ipv4Addr,
    /// Port of the boot HTTP server.
    pub http_port: u16,
}

impl Server {
    /// `http://address:port`.
    pub fn base(&self) -> String {
        format!("http://{}:{}", self.address, self.http_port)
    }
}

/// Through which loaders a node boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// iPXE, unsigned.
    Ipxe,
    /// pxelinux, BIOS only.
    Pxelinux,
    /// Signed shim → signed GRUB → signed kernel, UEFI only.
    Signed,
}

/// What the choice of a chain depends on, beside the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choice {
    /// The node's label.
    pub label: Loader,
    /// The site's default for UEFI.
    pub uefi: Loader,
    /// Whether the node's firmware starts signed loaders only, if known.
    pub secure_boot: Option<bool>,
    /// Whether the signed GRUB it would get can fetch by HTTP.
    pub grub_http: bool,
}

/// The chain for firmware of this kind: the label where it fits the firmware,
/// then what was seen of the firmware, then the site's default.
pub fn chain(arch: ClientArch, choice: Choice) -> Chain {
    match (arch.firmware(), choice.label) {
        (Some(Firmware::Uefi), Loader::Ipxe) => Chain::Ipxe,
        (Some(Firmware::Uefi), Loader::Grub) => Chain::Signed,
        (Some(Firmware::Uefi), _) if choice.secure_boot == Some(true) => Chain::Signed,
        (Some(Firmware::Uefi), _) if choice.uefi == Loader::Grub => Chain::Signed,
        (Some(Firmware::Bios), Loader::Pxelinux) => Chain::Pxelinux,
        _ => Chain::Ipxe,
    }
}

/// The loader file for firmware of this kind; `None` where we have none.
pub fn loader(arch: ClientArch, chain: Chain) -> Option<&'static str> {
    match (arch, chain) {
        (ClientArch::Bios, Chain::Pxelinux) => Some("lpxelinux.0"),
        (ClientArch::Bios, _) => Some("undionly.kpxe"),
        (ClientArch::UefiX64 | ClientArch::UefiX64Http, Chain::Signed) => Some("shimx64.efi"),
        (ClientArch::UefiArm64 | ClientArch::UefiArm64Http, Chain::Signed) => Some("shimaa64.efi"),
        // snponly drives the card through the firmware's own driver, which is
        // there by definition; ipxe.efi would need a driver of its own.
        (ClientArch::UefiX64 | ClientArch::UefiX64Http, _) => Some("snponly.efi"),
        (ClientArch::UefiArm64 | ClientArch::UefiArm64Http, _) => Some("snponly-arm64.efi"),
        (ClientArch::UefiX86 | ClientArch::Other(_), _) => None,
    }
}

/// What to answer in DHCP; `None`: no boot file (an operating system, or
/// firmware we have no loader for).
pub fn boot_file(node: &BootNode, hints: &ClientHints, server: Server) -> Option<BootFile> {
    let file =
        |file: String, vendor_class| Some(BootFile { server: server.address, file, vendor_class });
    match hints.kind {
        ClientKind::Os => None,
        // iPXE in a BIOS card's ROM stands for the firmware, and has TFTP.
        // Under UEFI it cannot stand in for shim's firmware: it gets its script.
        ClientKind::Ipxe if chain(arch_of(node, hints), node.choice) == Chain::Pxelinux => {
            file("lpxelinux.0".to_owned(), None)
        }
        ClientKind::Ipxe => {
            file(format!("{}/boot/{}/script.ipxe", server.base(), node.mac.hyphenated()), None)
        }
        ClientKind::Pxe => {
            let arch = arch_of(node, hints);
            file(loader(arch, chain(arch, node.choice))?.to_owned(), Some("PXEClient"))
        }
        ClientKind::HttpBoot => {
            let arch = hints.arch.unwrap_or(ClientArch::UefiX64Http);
            let chain = chain(arch, node.choice);
            // GRUB fetches from where it came; one without HTTP would stand
            // at its prompt. Without an offer the firmware goes on.
            if chain == Chain::Signed && !node.choice.grub_http {
                return None;
            }
            let name = loader(arch, chain)?;
            file(format!("{}/boot/loader/{name}", server.base()), Some("HTTPClient"))
        }
    }
}

/// What option 93 says; where it is missing (old BIOS ROMs), the inventory.
fn arch_of(node: &BootNode, hints: &ClientHints) -> ClientArch {
    if let Some(said) = hints.arch {
        return said;
    }
    match (node.arch, node.firmware) {
        (Arch::Aarch64, _) => ClientArch::UefiArm64,
        (_, Firmware::Uefi) => ClientArch::UefiX64,
        _ => ClientArch::Bios,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> BootNode {
        BootNode {
            name: "n".parse().unwrap(),
            mac: "52:54:00:00:00:01".parse().unwrap(),
            address: [10, 0, 0, 9].into(),
            firmware: Firmware::Auto,
            arch: Arch::X86_64,
            choice: Choice::default(),
            installing: None,
        }
    }

    fn hints(kind: ClientKind, arch: Option<u16>) -> ClientHints {
        ClientHints {
            mac: node().mac,
            kind,
            arch: arch.map(ClientArch::from_code),
            vendor_class: None,
            uuid: None,
            relay: None,
        }
    }

    #[test]
    fn each_firmware_is_told_a_loader_it_can_run() {
        let s = Server { address: [10, 0, 0, 1].into(), http_port: 8080 };
        let script = "http://10.0.0.1:8080/boot/52-54-00-00-00-01/script.ipxe";
        let http = "http://10.0.0.1:8080/boot/loader/";
        for (kind, arch, want) in [
            (ClientKind::Pxe, Some(0), Some("undionly.kpxe".to_owned())),
            (ClientKind::Pxe, None, Some("undionly.kpxe".to_owned())),
            (ClientKind::Pxe, Some(7), Some("snponly.efi".to_owned())),
            (ClientKind::Pxe, Some(9), Some("snponly.efi".to_owned())),
            (ClientKind::Pxe, Some(11), Some("snponly-arm64.efi".to_owned())),
            (ClientKind::Pxe, Some(6), None),
            (ClientKind::Pxe, Some(999), None),
            (ClientKind::HttpBoot, Some(16), Some(format!("{http}snponly.efi"))),
            (ClientKind::HttpBoot, Some(19), Some(format!("{http}snponly-arm64.efi"))),
            (ClientKind::Ipxe, Some(7), Some(script.to_owned())),
            (ClientKind::Ipxe, Some(0), Some(script.to_owned())),
            (ClientKind::Os, None, None),
        ] {
            let got = boot_file(&node(), &hints(kind, arch), s).map(|b| b.file);
            assert_eq!(got, want, "{kind:?} {arch:?}");
        }
        let b = boot_file(&node(), &hints(ClientKind::HttpBoot, Some(16)), s).unwrap();
        assert_eq!(b.vendor_class, Some("HTTPClient"), "EDK2 ignores offers without it");
    }

    #[test]
    fn the_label_goes_before_what_was_seen_and_that_before_the_site_s_default() {
        use ClientKind::{HttpBoot, Ipxe, Pxe};
        let s = Server { address: [10, 0, 0, 1].into(), http_port: 80 };
        let script = "http://10.0.0.1:80/boot/52-54-00-00-00-01/script.ipxe";
        let shim = "http://10.0.0.1:80/boot/loader/shimx64.efi";
        let (auto, ipxe, lx, grub) = (Loader::Auto, Loader::Ipxe, Loader::Pxelinux, Loader::Grub);
        for (label, uefi, secure_boot, kind, arch, want) in [
            (lx, ipxe, None, Pxe, 0, "lpxelinux.0"),
            (lx, ipxe, None, Ipxe, 0, "lpxelinux.0"),
            (lx, ipxe, None, Pxe, 7, "snponly.efi"),
            (lx, ipxe, None, Ipxe, 7, script),
            (lx, ipxe, Some(true), Pxe, 7, "shimx64.efi"),
            (grub, ipxe, None, Pxe, 7, "shimx64.efi"),
            (grub, ipxe, None, Pxe, 11, "shimaa64.efi"),
            (grub, ipxe, None, HttpBoot, 16, shim),
            (grub, grub, Some(true), Pxe, 0, "undionly.kpxe"),
            (grub, ipxe, None, Ipxe, 7, script),
            (auto, ipxe, Some(true), Pxe, 7, "shimx64.efi"),
            (auto, ipxe, Some(true), HttpBoot, 16, shim),
            (auto, ipxe, Some(false), Pxe, 7, "snponly.efi"),
            (auto, ipxe, Some(true), Pxe, 0, "undionly.kpxe"),
            (auto, grub, None, Pxe, 9, "shimx64.efi"),
            (auto, grub, None, Pxe, 0, "undionly.kpxe"),
            (ipxe, grub, Some(true), Pxe, 7, "snponly.efi"),
        ] {
            let node =
                BootNode { choice: Choice { label, uefi, secure_boot, grub_http: true }, ..node() };
            let got = boot_file(&node, &hints(kind, Some(arch)), s).map(|b| b.file);
            let case = format!("{label:?} {uefi:?} {secure_boot:?} {kind:?} {arch}");
            assert_eq!(got.as_deref(), Some(want), "{case}");
        }
        let choice = Choice { label: grub, ..Choice::default() };
        let node = BootNode { choice, ..node() };
        assert_eq!(boot_file(&node, &hints(HttpBoot, Some(16)), s), None, "GRUB has no HTTP");
    }
}
