//! Which blocks are under way: RFC 1350's lock step and RFC 7440's windows,
//! with block numbers that roll over at 65,536.

/// What an ACK means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The client has this many more blocks; what is still under way behind
    /// them was lost and is to be sent again (RFC 7440 §4).
    Advanced(u16),
    /// The client repeats what it had said and waits for the first block of
    /// the window: send it again.
    Repeat,
    /// A duplicate, or nonsense: do nothing. In lock step, answering a
    /// duplicate ACK doubles all packets from there on ("sorcerer's
    /// apprentice", RFC 1123 §4.2.3.1).
    Stale,
}

/// The blocks under way.
#[derive(Debug, Clone)]
pub struct Window {
    size: u16,
    /// Blocks confirmed since the beginning.
    confirmed: u64,
    /// Blocks sent and not confirmed.
    under_way: u16,
    repeated: bool,
}

impl Window {
    /// Nothing sent yet; `size` blocks may be under way.
    pub fn new(size: u16) -> Self {
        Self { size: size.max(1), confirmed: 0, under_way: 0, repeated: false }
    }

    /// Whether one more block may be sent.
    pub fn has_room(&self) -> bool {
        self.under_way < self.size
    }

    /// Number on the wire of the block `n` places behind the last confirmed,
    /// from 1.
    pub fn number(&self, n: u16) -> u16 {
        ((self.confirmed + u64::from(n)) & 0xffff) as u16
    }

    /// Blocks under way.
    pub fn under_way(&self) -> u16 {
        self.under_way
    }

    /// Takes one more block under way and gives its number.
    pub fn push(&mut self) -> u16 {
        self.under_way += 1;
        self.number(self.under_way)
    }

    /// Takes in an ACK of `block`.
    pub fn heard(&mut self, block: u16) -> Heard {
        let ahead = block.wrapping_sub(self.number(0));
        if ahead == 0 {
            if self.size == 1 || self.under_way == 0 || self.repeated {
                return Heard::Stale;
            }
            self.repeated = true;
            Heard::Repeat
        } else if ahead <= self.under_way {
            self.confirmed += u64::from(ahead);
            self.under_way -= ahead;
            self.repeated = false;
            Heard::Advanced(ahead)
        } else {
            Heard::Stale
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_moves_on_with_each_ack() {
        let mut w = Window::new(4);
        assert_eq!([w.push(), w.push(), w.push(), w.push()], [1, 2, 3, 4]);
        assert!(!w.has_room());
        assert_eq!(w.heard(2), Heard::Advanced(2));
        assert_eq!((w.under_way(), w.number(1)), (2, 3));
        assert_eq!(w.heard(9), Heard::Stale);
        assert_eq!(w.heard(1), Heard::Stale);
        assert_eq!(w.heard(2), Heard::Repeat);
        assert_eq!(w.heard(2), Heard::Stale, "once is enough until it moves");
        assert_eq!(w.heard(4), Heard::Advanced(2));
    }

    #[test]
    fn in_lock_step_a_duplicate_ack_sends_nothing() {
        let mut w = Window::new(1);
        w.push();
        assert_eq!(w.heard(1), Heard::Advanced(1));
        w.push();
        assert_eq!(w.heard(1), Heard::Stale);
    }

    #[test]
    fn block_numbers_roll_over() {
        let mut w = Window::new(16);
        for _ in 0..20_000 {
            while w.has_room() {
                w.push();
            }
            let last = w.number(w.under_way());
            assert_eq!(w.heard(last), Heard::Advanced(16));
        }
        assert_eq!(w.number(0), (320_000u32 & 0xffff) as u16);
    }
}
