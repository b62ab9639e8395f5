//! UEFI boot order: reads what `efibootmgr -v` prints and decides the new
//! order. The network entries stay before ours: the next install must be able
//! to boot from the network even where a BMC's one-time override is ignored.

use std::collections::BTreeMap;

/// The firmware's boot entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Order, by number.
    pub order: Vec<u16>,
    /// Number to label and device path as printed.
    pub all: BTreeMap<u16, String>,
}

/// Reads `efibootmgr -v`.
pub fn parse(text: &str) -> Entries {
    let mut entries = Entries::default();
    for line in text.lines() {
        if let Some(order) = line.strip_prefix("BootOrder:") {
            entries.order =
                order.trim().split(',').filter_map(|n| u16::from_str_radix(n, 16).ok()).collect();
        } else if let Some(rest) = line.strip_prefix("Boot")
            && let Some(number) = rest.get(..4).and_then(|n| u16::from_str_radix(n, 16).ok())
        {
            let said = rest[4..].trim_start_matches('*').trim();
            entries.all.insert(number, said.to_owned());
        }
    }
    entries
}

/// Whether an entry boots from the network: its device path goes through a
/// card (UEFI 2.10 §10.3.5: MAC, IPv4, IPv6, URI).
pub fn is_network(said: &str) -> bool {
    let path = said.to_ascii_lowercase();
    ["mac(", "ipv4(", "ipv6(", "uri("].iter().any(|p| path.contains(p))
}

impl Entries {
    /// Entries with our label: of earlier installs, to be removed.
    pub fn labelled(&self, label: &str) -> Vec<u16> {
        let ours = |said: &String| {
            said.strip_prefix(label).is_some_and(|r| r.starts_with(['\t', ' ']) || r.is_empty())
        };
        self.all.iter().filter(|(_, said)| ours(said)).map(|(n, _)| *n).collect()
    }

    /// The order with `new` behind the last network entry, or in front when
    /// there is none; nothing else moves.
    pub fn order_with(&self, new: u16) -> Vec<u16> {
        let mut order: Vec<u16> = self.order.iter().copied().filter(|n| *n != new).collect();
        let last_network =
            order.iter().rposition(|n| self.all.get(n).is_some_and(|said| is_network(said)));
        order.insert(last_network.map_or(0, |at| at + 1), new);
        order
    }
}

/// As `efibootmgr -o` takes it.
pub fn order_text(order: &[u16]) -> String {
    order.iter().map(|n| format!("{n:04X}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVMF: &str = "BootCurrent: 0003\nTimeout: 0 seconds\n\
        BootOrder: 0000,0001,0003,0004,0002\n\
        Boot0000* UiApp\tFvVol(7cb8bdc9)/FvFile(462caa21)\n\
        Boot0001* UEFI Misc Device\tPciRoot(0x0)/Pci(0x3,0x0)N.....YM....R,Y.\n\
        Boot0002* EFI Internal Shell\tFvVol(7cb8bdc9)/FvFile(7c04a583)\n\
        Boot0003* UEFI PXEv4 (MAC:525400123456)\tPciRoot(0x0)/Pci(0x2,0x0)/MAC(525400123456,1)/IPv4(0.0.0.00.0.0.0,0,0)N.....YM....R,Y.\n\
        Boot0004* UEFI HTTPv4 (MAC:525400123456)\tPciRoot(0x0)/Pci(0x2,0x0)/MAC(525400123456,1)/IPv4(0.0.0.0)/Uri()\n\
        Boot0005* debian\tHD(2,GPT,1234,0x1000,0x100000)/File(\\EFI\\debian\\grubx64.efi)\n";

    #[test]
    fn the_network_stays_before_the_new_entry_and_nothing_else_moves() {
        let e = parse(OVMF);
        assert_eq!(e.labelled("debian"), [5]);
        assert_eq!(order_text(&e.order_with(5)), "0000,0001,0003,0004,0005,0002");
    }

    #[test]
    fn without_network_entries_ours_is_first() {
        let e = parse("BootOrder: 0001\nBoot0001* Disk\tHD(1)\n");
        assert_eq!(e.order_with(7), [7, 1]);
        assert_eq!(parse("").order_with(0), [0]);
    }
}
