//! `Range` of pulls (RFC 9110 §14) and `Content-Range` of pushes (the
//! specification's own form, without a unit).

use std::ops::Range;

/// What a `Range` header asks of a blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    Part(Range<u64>),
    Impossible,
}

/// One range only; several, or a form we do not know, mean the whole blob
/// (RFC 9110 §14.2 lets a server ignore them).
pub(super) fn wanted(range: Option<&str>, size: u64) -> Wanted {
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
        fn a_part_lies_within_the_blob(s in "bytes=[0-9]{0,21}-[0-9]{0,21}", size in 0u64..1000) {
            if let Wanted::Part(r) = wanted(Some(&s), size) {
                prop_assert!(r.start < r.end && r.end <= size, "{:?}", r);
            }
        }

        #[test]
        fn a_content_range_is_read_back(a in 0..u64::MAX - 1, n in 1u64..1000) {
            let end = a.saturating_add(n).min(u64::MAX - 1);
            prop_assume!(end > a);
            prop_assert_eq!(content_range(&format!("{a}-{}", end - 1)), Some(a..end));
        }
    }
}
