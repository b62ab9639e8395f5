//! What a suite's `Release` says of its indices, so that an index which is
//! here and still the right one is not fetched again. Archives that give
//! neither `ETag` nor `Last-Modified` would have it sent whole each time.
//!
//! It counts while it is new: clients ask for `InRelease` first and for the
//! indices right after, and who asks for an index alone must see changes. It
//! also keeps the two together: an index is given out that fits to the list
//! that was given out.

use super::path::Key;
use crate::archive::suite;
use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a list counts after upstream (or, with upstream away, we) said it.
const NEW: Duration = Duration::from_secs(600);
/// The longest list that is read, in bytes. Debian's has 150 kB.
const LONGEST: u64 = 8 << 20;
/// Suites remembered at most.
const SUITES: usize = 256;

#[derive(Debug)]
struct List {
    at: Instant,
    /// Path from the suite's directory, and SHA-256 in hexadecimal.
    files: HashMap<String, String>,
}

/// The lists, by origin and directory.
#[derive(Debug, Default)]
pub struct Lists(Mutex<HashMap<(String, String), List>>);

/// The directory of a suite, if `key` is its list.
fn directory(key: &Key) -> Option<&str> {
    let (dir, name) = key.path.rsplit_once('/')?;
    matches!(name, "InRelease" | "Release").then_some(dir)
}

/// Whether `key` is a list, from which more can be known.
pub fn is_list(key: &Key) -> bool {
    directory(key).is_some()
}

/// Path and digest of every file that it names.
fn parse(text: &str) -> HashMap<String, String> {
    suite::listed(text).map(|(d, path)| (path.to_owned(), d.to_ascii_lowercase())).collect()
}

impl Lists {
    /// Takes the list in that is given out from `now` on; `None` forgets it.
    pub fn said(&self, key: &Key, file: Option<std::fs::File>, now: Instant) {
        let Some(dir) = directory(key) else { return };
        let name = (key.origin.clone(), dir.to_owned());
        let mut text = String::new();
        let read = file.map(|f| f.take(LONGEST).read_to_string(&mut text).is_ok());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, l| now.saturating_duration_since(l.at) < NEW);
        if read == Some(true) && all.len() < SUITES {
            all.insert(name, List { at: now, files: parse(&text) });
        } else {
            all.remove(&name);
        }
    }

    /// The SHA-256 that `key` has by its suite's list.
    pub fn digest(&self, key: &Key, now: Instant) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dir = key.path.as_str();
        while let Some((up, _)) = dir.rsplit_once('/') {
            dir = up;
            let Some(list) = all.get(&(key.origin.clone(), dir.to_owned())) else { continue };
            let new = now.saturating_duration_since(list.at) < NEW;
            return list.files.get(&key.path[dir.len() + 1..]).filter(|_| new).cloned();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};

    const LIST: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSuite: x\nMD5Sum:\n \
        aa 5 main/binary-amd64/Packages\nSHA256:\n AB 5 main/binary-amd64/Packages\n \
        cd 6 main/Contents\nAcquire-By-Hash: yes\n ef 7 main/other\n";

    fn file(text: &str) -> std::fs::File {
        let mut f = tempfile::tempfile().unwrap();
        f.write_all(text.as_bytes()).unwrap();
        f.rewind().unwrap();
        f
    }

    fn key(path: &str) -> Key {
        Key::new("debian", path).unwrap()
    }

    #[test]
    fn an_index_has_the_digest_of_its_suites_list_while_that_is_new() {
        let (lists, now) = (Lists::default(), Instant::now());
        let index = key("dists/x/main/binary-amd64/Packages");
        assert_eq!(lists.digest(&index, now), None);
        lists.said(&key("dists/x/InRelease"), Some(file(LIST)), now);
        assert_eq!(lists.digest(&index, now).unwrap(), "ab");
        assert_eq!(lists.digest(&key("dists/x/main/other"), now), None, "not of that section");
        assert_eq!(lists.digest(&key("dists/y/main/binary-amd64/Packages"), now), None);
        let other = Key::new("security", &index.path).unwrap();
        assert_eq!(lists.digest(&other, now), None);
        assert_eq!(lists.digest(&index, now + NEW), None);
        lists.said(&key("dists/x/InRelease"), None, now);
        assert_eq!(lists.digest(&index, now), None, "forgotten");
    }

    #[test]
    fn what_is_no_list_is_read_without_harm() {
        let (lists, now) = (Lists::default(), Instant::now());
        for text in ["", "SHA256:", "SHA256:\n a\n b c\n", "\n\n SHA256:\n x 1 y\n"] {
            lists.said(&key("dists/x/Release"), Some(file(text)), now);
            assert_eq!(lists.digest(&key("dists/x/y"), now), None);
        }
        // Neither a suite nor a list.
        lists.said(&key("InRelease"), Some(file(LIST)), now);
        lists.said(&key("dists/x/Packages"), Some(file(LIST)), now);
        assert_eq!(lists.digest(&key("dists/x/main/Contents"), now), None);
    }
}
