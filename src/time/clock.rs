//! What the kernel knows of its own clock (adjtimex(2), RFC 5905 §11.3). The
//! daemon that keeps the clock tells it; nothing else on the host knows the
//! same whichever daemon that is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The kernel's `maxerror` grows by 0.5 ms a second from the last correction.
/// A second is what half an hour without any gives. Clients stop to believe at
/// three (chrony's `maxdistance`), and the kernel gives up only at sixteen,
/// nine hours on: in between we would be refused for our own honesty. So a
/// clock this far gone counts as nobody's but ours.
const TOO_OLD: Duration = Duration::from_secs(1);

/// A second to be put in or left out at the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leap {
    /// None.
    None,
    /// The last minute has 61 seconds.
    Insert,
    /// It has 59.
    Delete,
}

/// How far the host's clock is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Something outside corrects it.
    Kept {
        /// Largest error.
        error: Duration,
        /// What comes at the end of the day.
        leap: Leap,
    },
    /// It runs freely.
    Free,
}

/// Where the time comes from; tests have their own.
pub trait Source: Send + Sync {
    /// The time, since 1970.
    fn now(&self) -> Duration;
    /// Its standing.
    fn clock(&self) -> Clock;
}

/// This host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernel;

impl Source for Kernel {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn clock(&self) -> Clock {
        // SAFETY: a structure of integers, for which zero is a value; with no
        // mode set the call reads and changes nothing.
        let (state, t) = unsafe {
            let mut t: libc::timex = std::mem::zeroed();
            (libc::adjtimex(&mut t), t)
        };
        standing(state, t.status, t.maxerror)
    }
}

/// `state` is what the call returned: -1 where a sandbox forbids it.
fn standing(state: libc::c_int, status: libc::c_int, max_error: libc::c_long) -> Clock {
    let error = Duration::from_micros(u64::try_from(max_error).unwrap_or(u64::MAX));
    if state < 0 || state == libc::TIME_ERROR || status & libc::STA_UNSYNC != 0 || error > TOO_OLD {
        return Clock::Free;
    }
    let leap = match state {
        libc::TIME_INS => Leap::Insert,
        libc::TIME_DEL => Leap::Delete,
        _ => Leap::None,
    };
    Clock::Kept { error, leap }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_corrected_for_long_is_not_kept() {
        let kept = |leap| Clock::Kept { error: Duration::from_millis(2), leap };
        for (state, status, max_error, want) in [
            (libc::TIME_OK, libc::STA_PLL, 2_000, kept(Leap::None)),
            (libc::TIME_INS, libc::STA_PLL, 2_000, kept(Leap::Insert)),
            (libc::TIME_DEL, 0, 2_000, kept(Leap::Delete)),
            (libc::TIME_OK, libc::STA_UNSYNC, 2_000, Clock::Free),
            (libc::TIME_ERROR, 0, 2_000, Clock::Free),
            (libc::TIME_OK, 0, 1_500_000, Clock::Free),
            (libc::TIME_OK, 0, -1, Clock::Free),
            (-1, 0, 0, Clock::Free),
        ] {
            assert_eq!(standing(state, status, max_error), want, "{state} {status} {max_error}");
        }
    }

    #[test]
    fn the_kernel_can_be_asked() {
        let _ = Kernel.clock();
        assert!(Kernel.now() > Duration::from_secs(1_700_000_000));
    }
}
