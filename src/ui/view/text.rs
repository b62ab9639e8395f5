//! Times, durations, sizes and states as a person reads them. A state is a
//! symbol, a word and a tone: never colour alone.

use crate::model::{BuildOutcome, LifeCycle, OperationState, Outcome, Time};
use askama::filters::HtmlSafe;
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use std::fmt;

/// How long, to two units: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`,
/// `4 d 3 h`.
pub fn took(d: SignedDuration) -> String {
    let s = d.as_secs().max(0);
    match s {
        0..10 => format!("{:.1} s", d.as_secs_f64().max(0.0)),
        10..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3600 % 24),
    }
}

/// How long ago, to one unit.
pub fn ago(t: Time, now: Time) -> String {
    let s = now.duration_since(t).as_secs().max(0);
    match s {
        0..60 => format!("{s} s ago"),
        60..3600 => format!("{} min ago", s / 60),
        3600..172_800 => format!("{} h ago", s / 3600),
        _ => format!("{} d ago", s / 86_400),
    }
}

/// Bytes, decimal, as disks are sold.
pub fn bytes(n: u64) -> String {
    let f = n as f64;
    match n {
        1_000_000_000_000.. => format!("{:.2} TB", f / 1e12),
        1_000_000_000.. => format!("{:.1} GB", f / 1e9),
        1_000_000.. => format!("{:.1} MB", f / 1e6),
        1_000.. => format!("{:.1} kB", f / 1e3),
        _ => format!("{n} B"),
    }
}

/// Memory, binary, as it is sold.
pub fn memory(n: u64) -> String {
    format!("{:.1} GiB", n as f64 / f64::from(1u32 << 30))
}

/// A point in time, UTC: of today the time alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// RFC 3339.
    pub iso: String,
    /// For people.
    pub text: String,
}

impl At {
    /// `t` as read at `now`.
    pub fn new(t: Time, now: Time) -> Self {
        let (z, n) = (t.to_zoned(TimeZone::UTC), now.to_zoned(TimeZone::UTC));
        let form = if z.date() == n.date() {
            "%H:%M:%S"
        } else if z.year() == n.year() {
            "%b %d %H:%M"
        } else {
            "%Y-%m-%d"
        };
        let iso = t.round(jiff::Unit::Second).unwrap_or(t).to_string();
        Self { text: z.strftime(form).to_string(), iso }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<time datetime=\"{0}\" title=\"{0}\">{1}</time>", self.iso, self.text)
    }
}

// Digits, letters of the format above, and our own tags.
impl HtmlSafe for At {}

/// The mark of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// For the eye; not read out.
    pub symbol: &'static str,
    /// The state in a word.
    pub word: &'static str,
    /// `ok`, `busy`, `warn`, `bad` or `idle`.
    pub tone: &'static str,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { symbol, word, tone } = self;
        write!(f, "<span class=\"mark {tone}\"><i aria-hidden=\"true\">{symbol}</i>{word}</span>")
    }
}

// Made of constants.
impl HtmlSafe for Mark {}

const fn mark(symbol: &'static str, word: &'static str, tone: &'static str) -> Mark {
    Mark { symbol, word, tone }
}

impl Mark {
    /// It needs somebody.
    pub const STUCK: Self = mark("▲", "stuck", "warn");
    /// It goes on, and slower than it should.
    pub const SLOW: Self = mark("▲", "slow", "warn");
    /// It was begun again.
    pub const AGAIN: Self = mark("▲", "again", "warn");
    /// It ended badly.
    pub const FAILED: Self = mark("✕", "failed", "bad");
    /// It goes on.
    pub const RUNNING: Self = mark("◐", "running", "busy");
    /// It ended well.
    pub const DONE: Self = mark("●", "done", "ok");
    /// It cannot be used.
    pub const UNUSABLE: Self = mark("✕", "unusable", "bad");
    /// It can be used.
    pub const USABLE: Self = mark("●", "usable", "ok");

    /// Of a node.
    pub fn of_life(l: LifeCycle) -> Self {
        match l {
            LifeCycle::Discovered => mark("◌", "discovered", "idle"),
            LifeCycle::Ready => mark("○", "ready", "idle"),
            LifeCycle::Installing => mark("◐", "installing", "busy"),
            LifeCycle::Deployed => mark("●", "deployed", "ok"),
            LifeCycle::Failed => Self::FAILED,
            LifeCycle::Rescue => mark("◐", "rescue", "busy"),
            LifeCycle::Erasing => mark("◐", "erasing", "busy"),
            LifeCycle::Retired => mark("–", "retired", "idle"),
        }
    }

    /// Of a build.
    pub fn of_build(o: BuildOutcome) -> Self {
        match o {
            BuildOutcome::Running => Self::RUNNING,
            BuildOutcome::Deployed => mark("●", "deployed", "ok"),
            BuildOutcome::Failed => Self::FAILED,
            BuildOutcome::Cancelled => mark("–", "cancelled", "idle"),
        }
    }

    /// Of an operation.
    pub fn of_operation(s: OperationState) -> Self {
        match s {
            OperationState::Running => Self::RUNNING,
            OperationState::Done => Self::DONE,
            OperationState::Failed => Self::FAILED,
            OperationState::Cancelled => mark("–", "cancelled", "idle"),
        }
    }

    /// Of an event.
    pub fn of_event(o: Outcome) -> Self {
        match o {
            Outcome::Ok => mark("●", "ok", "ok"),
            Outcome::Info => mark("·", "info", "idle"),
            Outcome::Refused => mark("▲", "refused", "warn"),
            Outcome::Failed => Self::FAILED,
        }
    }
}

/// A bar of 0 to 1000 with a stroke where it would usually end. An SVG, since
/// the policy allows no styles in the page. What it shows stands beside it in
/// words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Thousandths that are full.
    pub full: u32,
    /// Thousandths where the stroke is.
    pub usual: Option<u32>,
    /// As of a [`Mark`].
    pub tone: &'static str,
}

impl Bar {
    /// `part` of `whole`.
    pub fn of(part: f64, whole: f64, tone: &'static str) -> Self {
        Self { full: thousandths(part, whole), usual: None, tone }
    }

    /// With a stroke at `usual`.
    pub fn with_usual(self, usual: Option<f64>, whole: f64) -> Self {
        Self { usual: usual.map(|u| thousandths(u, whole)), ..self }
    }
}

fn thousandths(part: f64, whole: f64) -> u32 {
    if whole <= 0.0 { 0 } else { (part / whole * 1000.0).clamp(0.0, 1000.0) as u32 }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { full, usual, tone } = self;
        f.write_str("<svg class=\"bar ")?;
        f.write_str(tone)?;
        f.write_str(
            "\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
        )?;
        f.write_str("<rect class=\"way\" width=\"1000\" height=\"10\"/>")?;
        write!(f, "<rect class=\"full\" width=\"{full}\" height=\"10\"/>")?;
        if let Some(u) = usual {
            let x = (*u).min(994);
            write!(f, "<rect class=\"usual\" x=\"{x}\" width=\"6\" height=\"10\"/>")?;
        }
        f.write_str("</svg>")
    }
}

// Made of numbers and constants.
impl HtmlSafe for Bar {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        for (ms, want) in [
            (400, "0.4 s"),
            (12_000, "12 s"),
            (185_000, "3 min 05 s"),
            (7_800_000, "2 h 10 min"),
            (356_400_000, "4 d 3 h"),
            (-5, "0.0 s"),
        ] {
            assert_eq!(took(SignedDuration::from_millis(ms)), want);
        }
    }

    #[test]
    fn a_time_of_today_is_a_time_alone() {
        let now: Time = "2026-11-21T17:49:00Z".parse().unwrap();
        for (t, want) in [
            ("2026-11-21T03:00:07.9Z", "03:00:07"),
            ("2026-11-20T23:59:59Z", "Nov 20 23:59"),
            ("2025-11-21T03:00:07Z", "2025-11-21"),
        ] {
            assert_eq!(At::new(t.parse().unwrap(), now).text, want);
        }
    }

    #[test]
    fn sizes_are_decimal() {
        for (n, want) in
            [(0, "0 B"), (999, "999 B"), (1_500_000, "1.5 MB"), (480_103_981_056, "480.1 GB")]
        {
            assert_eq!(bytes(n), want);
        }
    }

    #[test]
    fn a_bar_never_leaves_its_box() {
        let b = Bar::of(5.0, 2.0, "ok").with_usual(Some(9.0), 2.0).to_string();
        assert!(b.contains("width=\"1000\" height") && b.contains("x=\"994\""), "{b}");
        assert_eq!(Bar::of(1.0, 0.0, "ok").full, 0);
    }
}
