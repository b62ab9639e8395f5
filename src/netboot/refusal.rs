//! Notices firmware that fetches a loader and does not start it.
//!
//! DHCP does not say whether Secure Boot is on, and firmware that refuses an
//! unsigned loader tells nobody on the network. What can be seen is this: the
//! loader went out whole, it never spoke, and the firmware began anew. It may
//! also mean that the loader lost its link (a switch port that is not
//! forwarding yet); the signed chain is then no loss, for it starts with and
//! without Secure Boot.

/// What bears on it, from the protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign<'a> {
    /// This file went out to its last byte.
    Whole(&'a str),
    /// The loader runs: it spoke DHCP, or asked for its script.
    Runs,
    /// The firmware speaks DHCP, to boot.
    Firmware,
}

/// Loaders that nobody's key has signed.
const UNSIGNED: [&str; 3] = ["snponly.efi", "ipxe.efi", "snponly-arm64.efi"];

/// One node's boot so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    whole: Option<&'static str>,
}

impl Watch {
    /// Takes a sign; the loader that was refused, once it is clear.
    pub fn see(&mut self, sign: Sign) -> Option<&'static str> {
        match sign {
            Sign::Whole(file) => {
                self.whole = UNSIGNED.into_iter().find(|u| *u == file).or(self.whole);
                None
            }
            Sign::Runs => {
                self.whole = None;
                None
            }
            Sign::Firmware => self.whole.take(),
        }
    }

    /// Nothing is being waited for.
    pub fn is_idle(&self) -> bool {
        self.whole.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::Sign::{Firmware, Runs, Whole};
    use super::*;

    #[test]
    fn only_a_whole_loader_that_never_spoke_counts_as_refused() {
        let s = "snponly.efi";
        for (signs, refused) in [
            (vec![Firmware, Firmware, Whole(s), Firmware], Some(s)),
            (vec![Firmware, Whole(s), Runs, Firmware], None),
            (vec![Firmware, Firmware, Firmware], None),
            // The same, whatever else is fetched meanwhile.
            (vec![Whole(s), Whole("other"), Firmware], Some(s)),
            (vec![Whole("shimx64.efi"), Whole("grubx64.efi"), Firmware], None),
            (vec![Whole("undionly.kpxe"), Firmware], None),
            (vec![Whole("snponly-arm64.efi"), Firmware], Some("snponly-arm64.efi")),
        ] {
            let mut w = Watch::default();
            let said: Vec<_> = signs.iter().filter_map(|x| w.see(*x)).collect();
            assert_eq!(said, refused.into_iter().collect::<Vec<_>>(), "{signs:?}");
        }
    }

    #[test]
    fn a_refusal_is_said_once_for_each_loader_that_was_fetched() {
        let mut w = Watch::default();
        w.see(Whole("snponly.efi"));
        assert!(w.see(Firmware).is_some());
        assert_eq!(w.see(Firmware), None);
        assert!(w.is_idle());
    }
}
