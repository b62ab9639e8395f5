//! From a packet to an answer. Pure; the fuzz test drives this very function.

use super::clock::{Clock, Leap};
use std::time::Duration;

/// Bytes of a packet without extensions (RFC 5905 §7.3).
pub const PACKET: usize = 48;
/// What we say when somebody outside keeps the host's clock: nobody tells us
/// how far from a reference he is, and it is a stratum that no chain on the
/// Internet comes to. See `docs/decisions/time.md`.
pub const KEPT_STRATUM: u8 = 6;
/// What we say when the clock runs freely: that of chrony's `local`.
pub const FREE_STRATUM: u8 = 10;
/// Seconds from 1900, where NTP counts from, to 1970.
const ERA: u64 = 2_208_988_800;
/// log2 of the precision in seconds: about a microsecond.
const PRECISION: i8 = -20;

/// Why nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// Shorter than any NTP packet.
    Short,
    /// A version that nobody speaks.
    Version,
    /// Not a client's question: an answer, a peer, a broadcast, a command. To
    /// answer those is what made NTP servers amplifiers.
    NotAClient,
}

impl Ignored {
    /// A short word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Version => "version",
            Self::NotAClient => "not-a-client",
        }
    }
}

/// Time since 1970 as NTP's 64 bits: seconds since 1900, modulo 2^32, and a
/// fraction (RFC 5905 §6).
fn timestamp(t: Duration) -> [u8; 8] {
    let seconds = t.as_secs().wrapping_add(ERA) & 0xffff_ffff;
    let fraction = (u64::from(t.subsec_nanos()) << 32) / 1_000_000_000;
    (seconds << 32 | fraction).to_be_bytes()
}

/// A span as NTP's 32 bits: seconds and 65536ths, at most 16 s (RFC 5905 §6,
/// `MAXDISP`).
fn short(span: Duration) -> [u8; 4] {
    let span = span.min(Duration::from_secs(16));
    let bits = span.as_micros() * 65_536 / 1_000_000;
    u32::try_from(bits).unwrap_or(u32::MAX).to_be_bytes()
}

/// The answer to `packet`, which came at `received`; `looked` is when the
/// kernel said what `clock` is. Its last eight bytes, the time of sending, are
/// put in by [`stamp`].
pub fn decide(
    packet: &[u8],
    received: Duration,
    looked: Duration,
    clock: Clock,
) -> Result<[u8; PACKET], Ignored> {
    let Some(question) = packet.first_chunk::<PACKET>() else { return Err(Ignored::Short) };
    let [first, _, poll, ..] = *question;
    let (version, mode) = (first >> 3 & 7, first & 7);
    if !(1..=4).contains(&version) {
        return Err(Ignored::Version);
    }
    if mode != 3 {
        return Err(Ignored::NotAClient);
    }
    let (leap, stratum, error, reference) = match clock {
        Clock::Kept { error, leap } => {
            let leap = match leap {
                Leap::None => 0,
                Leap::Insert => 1,
                Leap::Delete => 2,
            };
            (leap, KEPT_STRATUM, error, [127, 127, 1, 0])
        }
        // Not "unsynchronised" (leap 3): nobody would follow us, and in a
        // closed room following us is how the nodes agree with one another.
        Clock::Free => (0, FREE_STRATUM, Duration::ZERO, [127, 127, 1, 1]),
    };
    let mut out = [0; PACKET];
    let mut fields: Vec<u8> = vec![leap << 6 | version << 3 | 4, stratum, poll];
    fields.extend(PRECISION.to_be_bytes());
    fields.extend([0; 4]); // Root delay: only the error is known.
    fields.extend(short(error));
    fields.extend(reference);
    fields.extend(timestamp(looked.min(received)));
    // The client's time of sending comes back as it is, so that it knows its
    // own question and can compute the way there and back.
    fields.extend(question.get(40..48).unwrap_or_default());
    fields.extend(timestamp(received));
    for (to, from) in out.iter_mut().zip(fields) {
        *to = from;
    }
    Ok(out)
}

/// Writes the time of sending.
pub fn stamp(answer: &mut [u8; PACKET], sent: Duration) {
    if let Some(place) = answer.last_chunk_mut::<8>() {
        *place = timestamp(sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::new(1_700_000_000, 500_000_000);
    const KEPT: Clock = Clock::Kept { error: Duration::from_millis(1), leap: Leap::Insert };

    fn question(first: u8) -> [u8; PACKET] {
        let mut q = [0; PACKET];
        q[0] = first;
        q[2] = 6;
        q[40..].copy_from_slice(b"transmit");
        q
    }

    #[test]
    fn a_client_is_answered_with_both_its_and_our_times() {
        let mut a = decide(&question(0x23), NOW, NOW - Duration::from_secs(1), KEPT).unwrap();
        stamp(&mut a, NOW + Duration::from_millis(250));
        assert_eq!(a[..4], [0x64, KEPT_STRATUM, 6, 0xec], "leap 1, version 4, mode 4");
        assert_eq!(a[8..12], [0, 0, 0, 65], "a millisecond in 65536ths");
        assert_eq!(a[24..32], *b"transmit", "origin");
        let receive = u64::from_be_bytes(a[32..40].try_into().unwrap());
        assert_eq!(receive, (1_700_000_000 + ERA) << 32 | 1 << 31);
        let transmit = u64::from_be_bytes(a[40..48].try_into().unwrap());
        assert_eq!(transmit - receive, 1 << 30, "a quarter second");
        let reference = u64::from_be_bytes(a[16..24].try_into().unwrap());
        assert_eq!(receive - reference, 1 << 32);
    }

    #[test]
    fn a_free_clock_is_told_from_a_kept_one_and_still_followed() {
        let a = decide(&question(0x1b), NOW, NOW, Clock::Free).unwrap();
        assert_eq!(a[..2], [0x1c, FREE_STRATUM], "leap 0, version 3 as asked, mode 4");
        assert_eq!(a[12..16], [127, 127, 1, 1]);
    }

    #[test]
    fn after_2036_the_seconds_begin_anew() {
        let later = Duration::from_secs((1 << 32) - ERA + 5);
        assert_eq!(timestamp(later), [0, 0, 0, 5, 0, 0, 0, 0]);
    }

    #[test]
    fn only_a_clients_question_is_answered() {
        for first in 0..=255u8 {
            let answered = decide(&question(first), NOW, NOW, KEPT).is_ok();
            let want = first & 7 == 3 && (1..=4).contains(&(first >> 3 & 7));
            assert_eq!(answered, want, "{first:#x}");
        }
        assert_eq!(decide(&question(0x23)[..47], NOW, NOW, KEPT), Err(Ignored::Short));
    }

    proptest! {
        #[test]
        fn no_packet_gets_more_than_it_brought(
            packet in proptest::collection::vec(any::<u8>(), 0..1500),
            seconds in any::<u64>(), error in any::<u64>(),
        ) {
            let clock = Clock::Kept { error: Duration::from_micros(error), leap: Leap::None };
            let now = Duration::from_secs(seconds);
            if let Ok(mut answer) = decide(&packet, now, NOW, clock) {
                stamp(&mut answer, now);
                prop_assert!(answer.len() <= packet.len());
                prop_assert_eq!(answer[0] & 7, 4);
            }
        }
    }
}
