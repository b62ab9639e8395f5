//! When a server's certificate is exchanged: somebody has put another pair of
//! files there, or our own nears its end. Deciding is pure; [`Rotation::look`]
//! asks for the files' stamps, which costs two calls of the system, and reads
//! them only when they have changed.

use super::TlsError;
use super::held::{Facts, Held, Look};
use crate::model::Time;
use jiff::SignedDuration;
use std::sync::Arc;

/// After a certificate of our own could not be made, the next try.
const RENEW_AGAIN: SignedDuration = SignedDuration::from_hours(1);
/// Nobody is warned earlier than so many hours before the end, and a second
/// time: a month and a week.
const WARNED: [i64; 2] = [30 * 24, 7 * 24];

/// What a look at the files leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// They are those that were judged already.
    Keep,
    /// They are changing: a pair is two files, written one after the other.
    Settle,
    /// They are to be read.
    Read,
}

/// Decides from the files as they were when they were last read (`judged`), at
/// the look before this one, and now.
pub fn decide(judged: &Look, before: &Look, now: &Look) -> Decision {
    if now == judged {
        Decision::Keep
    } else if now == before {
        Decision::Read
    } else {
        Decision::Settle
    }
}

/// How near its end a certificate is: 0 not at all, 1 in its last quarter or
/// month, 2 in its last twelfth or week, 3 over.
pub fn urgency(f: &Facts, now: Time) -> u8 {
    let (life, left) = (f.until.duration_since(f.from), f.until.duration_since(now));
    let within =
        |part: i32, hours: i64| left <= (life / part).min(SignedDuration::from_hours(hours));
    match () {
        () if left <= SignedDuration::ZERO => 3,
        () if within(12, WARNED[1]) => 2,
        () if within(4, WARNED[0]) => 1,
        () => 0,
    }
}

/// Whether it is time to make another: a certificate is in its last third.
pub fn due(from: Time, until: Time, now: Time) -> bool {
    until.duration_since(now) <= until.duration_since(from) / 3
}

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Who connects from now on gets `new`.
    Changed {
        /// Until now.
        old: Facts,
        /// From now on.
        new: Facts,
    },
    /// The files cannot be used; `still` goes on being used.
    Refused {
        /// What, where, and what would be right.
        why: String,
        /// In use.
        still: Facts,
    },
    /// It ends soon, or has ended.
    Ends {
        /// In use.
        facts: Facts,
        /// As [`urgency`] says.
        urgency: u8,
    },
}

/// Makes a new pair in the files if it is time.
pub type Renew = Box<dyn Fn() -> Result<(), TlsError> + Send>;

/// Watches over one pair of files.
pub struct Rotation {
    held: Arc<Held>,
    renew: Option<Renew>,
    judged: Look,
    before: Look,
    warned: u8,
    renew_at: Option<Time>,
}

impl Rotation {
    /// Of what is in `held`; `renew` makes another where the pair is our own.
    pub fn new(held: Arc<Held>, renew: Option<Renew>) -> Self {
        let look = held.read_at();
        Self { held, renew, judged: look, before: look, warned: 0, renew_at: None }
    }

    /// The pair it watches over.
    pub fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// Looks once; what there is to tell. `told` is somebody who says that the
    /// files are complete: they are read whatever they look like.
    pub fn look(&mut self, now: Time, told: bool) -> Vec<News> {
        let mut news = Vec::new();
        let renewed = self.renew(now, &mut news);
        let look = self.held.look();
        let decision = match told || renewed {
            true => Decision::Read,
            false => decide(&self.judged, &self.before, &look),
        };
        self.before = look;
        if decision == Decision::Read {
            self.judged = look;
            self.read(now, &mut news);
        }
        let facts = self.held.facts();
        let urgency = urgency(&facts, now);
        if urgency > self.warned {
            news.push(News::Ends { facts, urgency });
        }
        self.warned = urgency;
        news
    }

    fn read(&self, now: Time, news: &mut Vec<News>) {
        let old = self.held.facts();
        match self.held.read_again(now) {
            Ok(new) if new == old => {}
            Ok(new) => news.push(News::Changed { old, new }),
            Err(e) => news.push(News::Refused { why: e.to_string(), still: old }),
        }
    }

    /// Whether another one was made.
    fn renew(&mut self, now: Time, news: &mut Vec<News>) -> bool {
        let Some(renew) = &self.renew else { return false };
        let f = self.held.facts();
        if !due(f.from, f.until, now) || self.renew_at.is_some_and(|t| t > now) {
            return false;
        }
        self.renew_at = Some(now + RENEW_AGAIN);
        match renew() {
            Ok(()) => true,
            Err(e) => {
                let why = format!("no new certificate could be made, tried again in an hour: {e}");
                news.push(News::Refused { why, still: f });
                false
            }
        }
    }
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
