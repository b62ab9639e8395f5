//! What the agent says: to the console at once, and kept until the server has
//! it. Bounded, so that a server that stays away costs no memory.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// What is kept when the server does not take it.
const KEPT: usize = 512 << 10;
/// What is sent at once.
const PIECE: usize = 64 << 10;

/// Text by its place in the whole log.
#[derive(Debug, Default)]
pub struct Journal {
    text: Vec<u8>,
    /// Bytes before `text`.
    offset: u64,
    /// No longer taking lines for the server.
    closed: bool,
}

impl Journal {
    /// A log that continues at `offset`.
    pub fn starting_at(offset: u64) -> Self {
        Self { offset, ..Self::default() }
    }

    /// Adds a line; the oldest text goes when there is too much.
    pub fn push(&mut self, line: &str) {
        if self.closed {
            return;
        }
        self.text.extend_from_slice(line.as_bytes());
        self.text.push(b'\n');
        if self.text.len() > KEPT {
            let excess = self.text.len() - KEPT;
            self.text.drain(..excess);
            self.offset += excess as u64;
        }
    }

    /// The next piece to send, and its offset.
    pub fn next(&self) -> Option<(u64, Vec<u8>)> {
        let piece = &self.text[..self.text.len().min(PIECE)];
        (!piece.is_empty()).then(|| (self.offset, piece.to_vec()))
    }

    /// Everything before `offset` has arrived.
    pub fn arrived(&mut self, offset: u64) {
        let done = offset.saturating_sub(self.offset).min(self.text.len() as u64);
        self.text.drain(..done as usize);
        self.offset += done;
    }

    /// Takes no more lines, and says where the log ends.
    pub fn close(&mut self) -> u64 {
        self.closed = true;
        self.offset + self.text.len() as u64
    }
}

struct Shared {
    journal: Mutex<Journal>,
    start: Instant,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

fn shared() -> &'static Shared {
    SHARED.get_or_init(|| Shared { journal: Mutex::default(), start: Instant::now() })
}

/// Runs `f` on the process's journal.
pub fn with<T>(f: impl FnOnce(&mut Journal) -> T) -> T {
    f(&mut shared().journal.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Says a line: seconds since start, then the text.
pub fn say(text: impl std::fmt::Display) {
    let seconds = shared().start.elapsed().as_secs_f64();
    for line in text.to_string().lines() {
        let line = format!("[{seconds:8.3}] {line}");
        println!("{line}");
        with(|j| j.push(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_arrived_is_not_sent_again_and_nothing_is_skipped() {
        let mut j = Journal::starting_at(100);
        j.push("one");
        j.push("two");
        let (at, text) = j.next().unwrap();
        assert_eq!((at, &text[..]), (100, &b"one\ntwo\n"[..]));
        // The answer was lost; more has been said in the meantime.
        j.push("three");
        assert_eq!(j.next().unwrap().0, 100);
        j.arrived(108);
        assert_eq!(j.next().unwrap(), (108, b"three\n".to_vec()));
        // An answer that comes twice changes nothing.
        j.arrived(108);
        assert_eq!(j.next().unwrap().0, 108);
    }

    #[test]
    fn a_server_that_stays_away_costs_no_more_than_the_bound() {
        let mut j = Journal::default();
        let line = "x".repeat(1023);
        for _ in 0..2000 {
            j.push(&line);
        }
        assert_eq!(j.text.len(), KEPT);
        assert_eq!(j.offset + KEPT as u64, 2000 * 1024);
        let end = j.close();
        j.push("late");
        assert_eq!(end, 2000 * 1024);
        assert_eq!(j.offset + j.text.len() as u64, end);
    }
}
