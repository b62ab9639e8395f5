//! What a `Range` header asks for (RFC 9110 §14), for all that serves files.

use std::ops::Range;

/// What a `Range` header asks of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// These bytes, some of them at least.
    Part(Range<u64>),
    /// Bytes that are not there: 416.
    Impossible,
}

/// One range only; several, or a form we do not know, mean the whole file
/// (RFC 9110 §14.2 lets a server ignore them).
pub fn wanted(range: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = range.and_then(|r| r.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    let Some((from, to)) = spec.split_once('-') else { return Wanted::Whole };
    match (number(from), number(to)) {
        (Some(a), Some(b)) if a > b => Wanted::Whole,
        (Some(a), _) if a >= size && !to.contains(',') => Wanted::Impossible,
        (Some(a), Some(b)) => Wanted::Part(a..b.saturating_add(1).min(size)),
        (Some(a), None) if to.trim().is_empty() => Wanted::Part(a..size),
        (None, Some(0)) if from.trim().is_empty() => Wanted::Impossible,
        (None, Some(n)) if from.trim().is_empty() && size > 0 => {
            Wanted::Part(size - n.min(size)..size)
        }
        (None, Some(_)) if from.trim().is_empty() => Wanted::Impossible,
        _ => Wanted::Whole,
    }
}

/// Digits only: `parse` would take a sign.
fn number(s: &str) -> Option<u64> {
    let s = s.trim();
    if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    s.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (text, want) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=5-99", Wanted::Part(5..10)),
            ("bytes=5-18446744073709551615", Wanted::Part(5..10)),
            ("bytes=10-", Wanted::Impossible),
            ("bytes=10-11", Wanted::Impossible),
            ("bytes=-0", Wanted::Impossible),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("bytes=x-1", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(text), 10), want, "{text}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Impossible);
        assert_eq!(wanted(Some("bytes=-5"), 0), Wanted::Impossible);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_blob(s in "bytes=[0-9]{0,21}-[0-9]{0,21}", size in 0u64..1000) {
            if let Wanted::Part(r) = wanted(Some(&s), size) {
                prop_assert!(r.start < r.end && r.end <= size, "{:?}", r);
            }
        }
    }
}
