//! What a signed GRUB can do. Under Secure Boot it loads no modules, so that
//! only what is built in counts: Debian 12's image for the network has TFTP
//! alone, Debian 13's has HTTP as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Files that were looked at, each with its time then.
#[derive(Debug, Default)]
pub struct Grubs(Mutex<BTreeMap<PathBuf, (SystemTime, bool)>>);

impl Grubs {
    /// Whether the GRUB in `file` can fetch by HTTP; read again when the file
    /// has changed.
    pub fn speaks_http(&self, file: &Path) -> bool {
        let Ok(time) = std::fs::metadata(file).and_then(|m| m.modified()) else { return false };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(file) {
            Some((then, speaks)) if *then == time => *speaks,
            _ => {
                let speaks = speaks_http(file);
                known.insert(file.to_owned(), (time, speaks));
                speaks
            }
        }
    }
}

/// By a text that its HTTP cannot be without.
pub fn speaks_http(file: &Path) -> bool {
    const REQUEST: &[u8] = b" HTTP/1.1";
    std::fs::read(file).is_ok_and(|b| b.windows(REQUEST.len()).any(|w| w == REQUEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grub_that_is_replaced_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("grubx64.efi");
        let grubs = Grubs::default();
        assert!(!grubs.speaks_http(&file));
        std::fs::write(&file, b"tftp").unwrap();
        assert!(!grubs.speaks_http(&file));
        std::fs::write(&file, b"GET %s HTTP/1.1").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::options().append(true).open(&file).unwrap().set_modified(later).unwrap();
        assert!(grubs.speaks_http(&file));
    }
}
