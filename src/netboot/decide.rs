//! Which boot file a client is told, by what it says of itself.

use super::BootNode;
use crate::model::{Arch, BootFile, ClientArch, ClientHints, ClientKind, Firmware};
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

/// The loader file for firmware of this kind; `None` where we have none.
pub fn loader(arch: ClientArch, pxelinux: bool) -> Option<&'static str> {
    match arch {
        ClientArch::Bios if pxelinux => Some("lpxelinux.0"),
        ClientArch::Bios => Some("undionly.kpxe"),
        // snponly drives the card through the firmware's own driver, which is
        // there by definition; ipxe.efi would need a driver of its own.
        ClientArch::UefiX64 | ClientArch::UefiX64Http => Some("snponly.efi"),
        ClientArch::UefiArm64 | ClientArch::UefiArm64Http => Some("snponly-arm64.efi"),
        ClientArch::UefiX86 | ClientArch::Other(_) => None,
    }
}

/// What to answer in DHCP; `None`: no boot file (an operating system, or
/// firmware we have no loader for).
pub fn boot_file(node: &BootNode, hints: &ClientHints, server: Server) -> Option<BootFile> {
    let file =
        |file: String, vendor_class| Some(BootFile { server: server.address, file, vendor_class });
    match hints.kind {
        ClientKind::Os => None,
        ClientKind::Ipxe => {
            file(format!("{}/boot/{}/script.ipxe", server.base(), node.mac.hyphenated()), None)
        }
        ClientKind::Pxe => {
            let arch = hints.arch.unwrap_or_else(|| assumed(node));
            file(loader(arch, node.pxelinux)?.to_owned(), Some("PXEClient"))
        }
        ClientKind::HttpBoot => {
            let arch = hints.arch.unwrap_or(ClientArch::UefiX64Http);
            let name = loader(arch, false)?;
            file(format!("{}/boot/loader/{name}", server.base()), Some("HTTPClient"))
        }
    }
}

/// Option 93 is missing (old BIOS ROMs): go by the inventory.
fn assumed(node: &BootNode) -> ClientArch {
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
            pxelinux: false,
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
        let lx = BootNode { pxelinux: true, ..node() };
        let b = boot_file(&lx, &hints(ClientKind::Pxe, Some(0)), s).unwrap();
        assert_eq!(b.file, "lpxelinux.0");
    }
}
