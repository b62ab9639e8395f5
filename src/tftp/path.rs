//! What a file name may be, before anything is opened.

/// The longest name that is looked at, in bytes.
const MAX: usize = 255;

/// Makes a requested name a relative path with `/` between its parts, or says
/// why it is refused. Leading and doubled slashes and `.` go away (many
/// clients send `/loader`); backslashes are separators, because EDK2 and
/// Windows-made loaders write them. `..` is refused rather than resolved.
pub fn clean(name: &[u8]) -> Result<String, &'static str> {
    if name.len() > MAX {
        return Err("file name is longer than 255 bytes");
    }
    let text = std::str::from_utf8(name).map_err(|_| "file name is not UTF-8")?;
    if text.chars().any(char::is_control) {
        return Err("file name has control characters");
    }
    let mut parts = Vec::new();
    for part in text.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => return Err("file name leads upwards"),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { Err("file name is empty") } else { Ok(parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_relative_paths() {
        for (name, path) in [
            ("undionly.kpxe", "undionly.kpxe"),
            ("/pxelinux.0", "pxelinux.0"),
            ("//grub///x86_64-efi/./core.efi", "grub/x86_64-efi/core.efi"),
            ("\\EFI\\boot\\bootx64.efi", "EFI/boot/bootx64.efi"),
            ("a..b", "a..b"),
        ] {
            assert_eq!(clean(name.as_bytes()).as_deref(), Ok(path));
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "a".repeat(256);
        for name in ["", "/", ".", "..", "../etc/passwd", "a/../../b", "\\..\\x", "a\\..", "a\nb"] {
            assert!(clean(name.as_bytes()).is_err(), "{name:?}");
        }
        assert!(clean(long.as_bytes()).is_err());
        assert!(clean(b"\xff\xfe").is_err());
    }
}
