//! `Content-Range` of pushes: the specification's own form, without a unit.

use std::ops::Range;

/// `<start>-<end>`, inclusive; docker's older clients write `bytes ` before
/// and `/*` after it. `None` when it is not of that form.
pub(super) fn content_range(s: &str) -> Option<Range<u64>> {
    let s = s.trim();
    let s = s.strip_prefix("bytes").map_or(s, |r| r.trim_start_matches(['=', ' ']));
    let s = s.split_once('/').map_or(s, |(r, _)| r);
    let (from, to) = s.split_once('-')?;
    let (from, to) = (number(from)?, number(to)?.checked_add(1)?);
    (from < to).then_some(from..to)
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
    fn content_ranges_are_read_in_both_forms() {
        assert_eq!(content_range("0-9"), Some(0..10));
        assert_eq!(content_range("bytes 10-19/*"), Some(10..20));
        for bad in ["", "9-0", "0-", "-1", "a-b", "0-18446744073709551615", "+1-2"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_content_range_is_read_back(a in 0..u64::MAX - 1, n in 1u64..1000) {
            let end = a.saturating_add(n).min(u64::MAX - 1);
            prop_assume!(end > a);
            prop_assert_eq!(content_range(&format!("{a}-{}", end - 1)), Some(a..end));
        }
    }
}
