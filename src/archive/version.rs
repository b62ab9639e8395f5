//! Which of two versions is newer: Debian Policy §5.6.12, as dpkg does it.

use std::cmp::Ordering;

/// Compares two versions `[EPOCH:]UPSTREAM[-REVISION]`.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (ea, ua, ra) = split(a);
    let (eb, ub, rb) = split(b);
    ea.cmp(&eb).then_with(|| part(ua, ub)).then_with(|| part(ra, rb))
}

fn split(v: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match v.split_once(':') {
        Some((e, rest)) => (e.parse().unwrap_or(0), rest),
        None => (0, v),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// `~` before the end, the end before letters, letters before the rest.
fn weight(c: Option<u8>) -> i32 {
    match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_digit() => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(c),
        Some(c) => i32::from(c) + 256,
    }
}

fn part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        // Letters and signs, one by one.
        while a.first().is_some_and(|c| !c.is_ascii_digit())
            || b.first().is_some_and(|c| !c.is_ascii_digit())
        {
            match weight(a.first().copied()).cmp(&weight(b.first().copied())) {
                Ordering::Equal => {}
                other => return other,
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (na, nb) = (digits(&mut a), digits(&mut b));
        // Without leading zeros, the longer is the larger.
        match na.len().cmp(&nb.len()).then_with(|| na.cmp(nb)) {
            Ordering::Equal => {}
            other => return other,
        }
    }
    Ordering::Equal
}

/// Takes the digits at the beginning, without leading zeros.
fn digits<'a>(s: &mut &'a [u8]) -> &'a [u8] {
    let n = s.iter().take_while(|c| c.is_ascii_digit()).count();
    let (head, rest) = s.split_at(n);
    *s = rest;
    let zeros = head.iter().take_while(|c| **c == b'0').count();
    &head[zeros..]
}

#[cfg(test)]
mod tests {
    use super::compare;
    use proptest::prelude::*;
    use std::cmp::Ordering::{self, Equal, Greater, Less};
    use std::process::Command;

    #[test]
    fn versions_are_ordered_as_policy_says() {
        for (a, b, want) in [
            ("1.0", "1.0", Equal),
            ("1.0-1", "1.0-1", Equal),
            ("1.0~rc1-1", "1.0-1", Less),
            ("1:0.1", "9.9", Greater),
            ("6.12.94-1", "6.12.107-1", Less),
            ("20250803+deb13u7", "20250803+deb13u10", Less),
            ("2.0", "2.0-0", Equal),
            ("1.0a", "1.0+", Less),
            ("1.2.3~~", "1.2.3~", Less),
            ("007", "7", Equal),
            ("1.0-1+b9", "1.0-1", Greater),
            ("1.0-1-2", "1.0-1-1", Greater),
        ] {
            assert_eq!(compare(a, b), want, "{a} {b}");
            assert_eq!(compare(b, a), want.reverse(), "{b} {a}");
        }
    }

    fn dpkg(a: &str, b: &str) -> Ordering {
        let is = |op| {
            Command::new("dpkg").args(["--compare-versions", a, op, b]).status().unwrap().success()
        };
        if is("lt") {
            Less
        } else if is("gt") {
            Greater
        } else {
            Equal
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn dpkg_says_the_same(
            a in "([0-3]:)?[0-9][0-9a-c.+~]{0,6}(-[0-9a-c.+~]{1,4})?",
            b in "([0-3]:)?[0-9][0-9a-c.+~]{0,6}(-[0-9a-c.+~]{1,4})?",
        ) {
            prop_assert_eq!(compare(&a, &b), dpkg(&a, &b), "{} {}", a, b);
        }
    }
}
