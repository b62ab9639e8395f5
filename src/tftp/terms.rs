//! What is agreed of a client's options. An option we cannot grant is left
//! out of the answer, which by RFC 2347 §2 means "not agreed".

use super::Settings;
use super::packet::{self, Mode, Request};
use std::time::Duration;

/// RFC 1350's block.
const DEFAULT_BLOCK: u16 = 512;
/// Longer waits than this only keep dead transfers alive.
const MAX_TIMEOUT: u64 = 10;

/// The terms of one transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Bytes in a block.
    pub block: u16,
    /// Blocks in a window.
    pub window: u16,
    /// First wait for an answer.
    pub timeout: Duration,
    /// The OACK, when the client sent options that we grant.
    pub oack: Option<Vec<u8>>,
}

impl Terms {
    /// Agrees; `size` is the file's.
    pub fn agree(request: &Request, size: u64, settings: &Settings) -> Self {
        let mut terms =
            Self { block: DEFAULT_BLOCK, window: 1, timeout: settings.timeout, oack: None };
        let mut granted: Vec<(&str, u64)> = Vec::new();
        for (name, value) in &request.options {
            let Ok(value) = value.trim().parse::<u64>() else { continue };
            let grant = match name.as_str() {
                // RFC 2348: 8 to 65464, and the server may name less.
                "blksize" if (8..=65464).contains(&value) => {
                    terms.block = at_most(value, settings.max_block.max(8));
                    ("blksize", u64::from(terms.block))
                }
                // RFC 7440: 1 to 65535, and the server may name less.
                "windowsize" if (1..=65535).contains(&value) => {
                    terms.window = at_most(value, settings.max_window.max(1));
                    ("windowsize", u64::from(terms.window))
                }
                // RFC 2349: the server says the same or nothing.
                "timeout" if (1..=MAX_TIMEOUT).contains(&value) => {
                    terms.timeout = Duration::from_secs(value);
                    ("timeout", value)
                }
                // The size in netascii is known only after translating.
                "tsize" if request.mode == Mode::Octet => ("tsize", size),
                _ => continue,
            };
            if !granted.iter().any(|(n, _)| *n == grant.0) {
                granted.push(grant);
            }
        }
        if !granted.is_empty() {
            // Of a doubled option the last counts, in the answer as well.
            for (name, value) in &mut granted {
                match *name {
                    "blksize" => *value = u64::from(terms.block),
                    "windowsize" => *value = u64::from(terms.window),
                    "timeout" => *value = terms.timeout.as_secs(),
                    _ => {}
                }
            }
            terms.oack = Some(packet::oack(&granted));
        }
        terms
    }
}

fn at_most(value: u64, limit: u16) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(options: &[(&str, &str)]) -> Terms {
        let options = options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let request = Request { file: b"f".to_vec(), mode: Mode::Octet, options };
        Terms::agree(&request, 77, &Settings::new(([127, 0, 0, 1], 69).into()))
    }

    #[test]
    fn options_are_granted_up_to_our_limits() {
        let t = agree(&[("blksize", "65464"), ("windowsize", "64"), ("tsize", "0")]);
        assert_eq!((t.block, t.window), (1468, 16));
        let oack = t.oack.unwrap();
        assert_eq!(oack, b"\0\x06blksize\x001468\0windowsize\x0016\0tsize\x0077\0");
        assert_eq!(agree(&[("blksize", "1024")]).block, 1024);
    }

    #[test]
    fn options_that_make_no_sense_are_as_if_absent() {
        for odd in [
            ("blksize", "7"),
            ("blksize", "-1"),
            ("blksize", "65465"),
            ("blksize", "x"),
            ("windowsize", "0"),
            ("windowsize", "70000"),
            ("timeout", "0"),
            ("timeout", "255"),
            ("multicast", ""),
            ("blksize", "99999999999999999999"),
        ] {
            let t = agree(&[odd]);
            assert_eq!((t.block, t.window, t.oack), (512, 1, None), "{odd:?}");
        }
    }
}
