//! Which disk is wiped: decided from facts and hint alone, and never guessed.

use crate::model::DiskHint;
use crate::model::node::DiskFacts;

/// Why no disk can be chosen. Both list what the machine has, so that the
/// operator can write the hint from the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// None fits.
    #[error("no disk fits {wanted}; the node has {found}")]
    None {
        /// The hint in words.
        wanted: String,
        /// All disks, with what rules each out.
        found: String,
    },
    /// More than one fits.
    #[error(
        "more than one disk fits {wanted}: {found}; \
         say which by serial or wwn in the node's 'disk'"
    )]
    Ambiguous {
        /// The hint in words.
        wanted: String,
        /// Those that fit.
        found: String,
    },
}

/// A disk in one line: what an operator needs to tell it from another.
pub fn describe(disk: &DiskFacts) -> String {
    let mut out = format!("/dev/{} {}", disk.name, size(disk.bytes));
    for (label, value) in [("", &disk.model), ("serial ", &disk.serial), ("wwn ", &disk.wwn)] {
        if !value.is_empty() {
            // Identify data is padded with blanks, inside a wwn too.
            let value: Vec<&str> = value.split_whitespace().collect();
            out.push_str(&format!(" {label}{}", value.join(" ")));
        }
    }
    out
}

/// Decimal, as on the disk's own label.
fn size(bytes: u64) -> String {
    match bytes {
        1_000_000_000_000.. => format!("{:.1} TB", bytes as f64 / 1e12),
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// The one disk that fits `hint` and can hold `need` bytes.
pub fn choose_disk<'a>(
    disks: &'a [DiskFacts],
    hint: &DiskHint,
    need: u64,
) -> Result<&'a DiskFacts, ChoiceError> {
    let judged: Vec<(&DiskFacts, Option<String>)> =
        disks.iter().map(|d| (d, against(d, hint, need))).collect();
    let fit: Vec<&DiskFacts> = judged.iter().filter(|j| j.1.is_none()).map(|j| j.0).collect();
    match fit[..] {
        [one] => Ok(one),
        [] => Err(ChoiceError::None {
            wanted: in_words(hint),
            found: if disks.is_empty() {
                "no disk at all (is the controller's driver in the ramdisk?)".to_owned()
            } else {
                join(judged.iter().map(|(d, why)| {
                    format!("{} ({})", describe(d), why.as_deref().unwrap_or_default())
                }))
            },
        }),
        _ => Err(ChoiceError::Ambiguous {
            wanted: in_words(hint),
            found: join(fit.into_iter().map(describe)),
        }),
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join("; ")
}

/// What speaks against this disk, if anything.
fn against(disk: &DiskFacts, hint: &DiskHint, need: u64) -> Option<String> {
    if disk.removable {
        return Some("removable".to_owned());
    }
    if disk.read_only {
        return Some("read-only".to_owned());
    }
    if disk.bytes < need {
        return Some(format!("too small, {} are needed", size(need)));
    }
    let plain = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    let differs =
        |said: &Option<String>, have: &str| said.as_ref().is_some_and(|s| plain(s) != plain(have));
    if differs(&hint.serial, &disk.serial) {
        return Some("another serial".to_owned());
    }
    // The kernel writes naa.5000c5…, labels and BMCs the bare digits.
    let bare = |w: &str| {
        let w = plain(w);
        let w = w.trim_start_matches("naa.").trim_start_matches("eui.");
        w.trim_start_matches("0x").to_owned()
    };
    if hint.wwn.as_ref().is_some_and(|w| bare(w) != bare(&disk.wwn)) {
        return Some("another wwn".to_owned());
    }
    let name = |p: &String| p.trim_start_matches("/dev/").to_owned();
    if hint.path.as_ref().is_some_and(|p| name(p) != disk.name) {
        return Some("another path".to_owned());
    }
    if hint.min_bytes.is_some_and(|min| disk.bytes < min) {
        return Some("smaller than asked for".to_owned());
    }
    if hint.max_bytes.is_some_and(|max| disk.bytes > max) {
        return Some("larger than asked for".to_owned());
    }
    None
}

fn in_words(hint: &DiskHint) -> String {
    let mut parts = Vec::new();
    for (label, value) in [("serial", &hint.serial), ("wwn", &hint.wwn), ("path", &hint.path)] {
        if let Some(v) = value {
            parts.push(format!("{label} {v}"));
        }
    }
    if let Some(min) = hint.min_bytes {
        parts.push(format!("at least {}", size(min)));
    }
    if let Some(max) = hint.max_bytes {
        parts.push(format!("at most {}", size(max)));
    }
    if parts.is_empty() {
        "the node (which has no disk hint)".to_owned()
    } else {
        format!("the hint ({})", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, gb: u64, serial: &str) -> DiskFacts {
        DiskFacts {
            name: name.to_owned(),
            bytes: gb * 1_000_000_000,
            model: "PERC H730".to_owned(),
            serial: serial.to_owned(),
            wwn: format!("naa.600{serial}"),
            ..DiskFacts::default()
        }
    }

    fn hint(f: impl FnOnce(&mut DiskHint)) -> DiskHint {
        let mut h = DiskHint::default();
        f(&mut h);
        h
    }

    #[test]
    fn a_disk_is_chosen_only_when_exactly_one_fits() {
        let two = [disk("sda", 480, "A1"), disk("sdb", 960, "B2")];
        let usb = DiskFacts { removable: true, ..disk("sdc", 960, "C3") };
        let locked = DiskFacts { read_only: true, ..disk("sdd", 960, "D4") };
        let with_usb = [disk("sda", 480, "A1"), usb.clone(), locked];
        let table: [(&[DiskFacts], DiskHint, Result<&str, &str>); 13] = [
            (&two[..1], hint(|_| ()), Ok("sda")),
            (&two, hint(|_| ()), Err("more than one disk fits the node")),
            (&two, hint(|h| h.serial = Some("b2".into())), Ok("sdb")),
            (&two, hint(|h| h.serial = Some("B".into())), Err("another serial")),
            (&two, hint(|h| h.wwn = Some("600B2".into())), Ok("sdb")),
            (&two, hint(|h| h.wwn = Some("naa.600a1".into())), Ok("sda")),
            (&two, hint(|h| h.path = Some("/dev/sdb".into())), Ok("sdb")),
            (&two, hint(|h| h.min_bytes = Some(500_000_000_000)), Ok("sdb")),
            (&two, hint(|h| h.max_bytes = Some(500_000_000_000)), Ok("sda")),
            (&two, hint(|h| h.max_bytes = Some(1)), Err("larger than asked for")),
            (&with_usb, hint(|_| ()), Ok("sda")),
            (&with_usb, hint(|h| h.path = Some("sdc".into())), Err("(removable)")),
            (&[], hint(|_| ()), Err("no disk at all")),
        ];
        for (n, (disks, hint, want)) in table.iter().enumerate() {
            match (choose_disk(disks, hint, 4 << 30), want) {
                (Ok(d), Ok(name)) => assert_eq!(d.name, *name, "row {n}"),
                (Err(e), Err(text)) => assert!(e.to_string().contains(text), "row {n}: {e}"),
                (got, want) => panic!("row {n}: {got:?}, wanted {want:?}"),
            }
        }
    }

    #[test]
    fn the_fields_of_a_hint_must_all_fit() {
        let two = [disk("sda", 480, "A1"), disk("sdb", 960, "B2")];
        let h = hint(|h| {
            h.serial = Some("A1".into());
            h.path = Some("/dev/sdb".into());
        });
        assert!(matches!(choose_disk(&two, &h, 0), Err(ChoiceError::None { .. })));
    }

    #[test]
    fn a_disk_too_small_for_the_image_is_no_candidate() {
        let e = choose_disk(&[disk("vda", 2, "")], &DiskHint::default(), 4 << 30).unwrap_err();
        assert!(e.to_string().contains("/dev/vda 2.0 GB PERC H730"), "{e}");
        assert!(e.to_string().contains("too small"), "{e}");
    }

    #[test]
    fn an_ambiguous_choice_lists_size_model_and_serial_of_each() {
        let two = [disk("sda", 480, "A1"), disk("sdb", 1960, "B2")];
        let e = choose_disk(&two, &DiskHint::default(), 0).unwrap_err().to_string();
        assert!(e.contains("/dev/sda 480.0 GB PERC H730 serial A1 wwn naa.600A1"), "{e}");
        assert!(e.contains("/dev/sdb 2.0 TB"), "{e}");
    }
}
