//! Bytes of a terminal to lines of text. Firmware and installers paint: they
//! move the cursor, colour and clear. Of that only the text is kept; whatever
//! moves the cursor elsewhere ends a line (ECMA-48 §8.3 names the functions).

/// Longest line, in bytes; a longer one goes on in the next.
const LONGEST: usize = 8 << 10;

/// Where in a control sequence the stream is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Text,
    /// Behind ESC.
    Escape,
    /// In a control sequence: ESC [ … final byte.
    Control,
    /// In a string, such as a window's title: until BEL or ESC.
    Title,
    /// The one byte behind ESC ( and its like.
    Charset,
}

/// Takes bytes as they come, gives lines.
#[derive(Debug, Default)]
pub struct Lines {
    at: At,
    line: Vec<u8>,
    /// The line before: one that is painted again is the same line.
    last: String,
}

impl Lines {
    /// Takes `bytes`; hands each line that they end to `out`, without its end.
    /// Lines without text, and one equal to the line before, are left out.
    pub fn push(&mut self, bytes: &[u8], mut out: impl FnMut(&str)) {
        for &b in bytes {
            self.at = match (self.at, b) {
                (At::Text | At::Title, 0x1b) => At::Escape,
                (At::Text, b'\n' | b'\r' | 0x0b | 0x0c) => {
                    self.end(&mut out);
                    At::Text
                }
                (At::Text, 0x08) => {
                    self.line.pop();
                    At::Text
                }
                (At::Text, b'\t') => self.add(b' ', &mut out),
                (At::Text, 0..0x20 | 0x7f) => At::Text,
                (At::Text, _) => self.add(b, &mut out),
                (At::Escape, b'[') => At::Control,
                (At::Escape, b']' | b'P' | b'^' | b'_' | b'X') => At::Title,
                (At::Escape, b'(' | b')' | b'*' | b'+' | b'#' | b'%') => At::Charset,
                (At::Escape, b'D' | b'E' | b'M' | b'c') => {
                    self.end(&mut out);
                    At::Text
                }
                (At::Escape | At::Charset, _) => At::Text,
                // Cursor to the right or to a column: a gap.
                (At::Control, b'C' | b'G' | b'`' | b'a') => self.add(b' ', &mut out),
                // Elsewhere, or cleared.
                (At::Control, b'A' | b'B' | b'D'..=b'F' | b'H' | b'J' | b'd' | b'f') => {
                    self.end(&mut out);
                    At::Text
                }
                (At::Control, 0x40..=0x7e) => At::Text,
                // A parameter; anything else breaks the sequence off.
                (At::Control, 0x20..=0x3f) => At::Control,
                (At::Control, _) => At::Text,
                (At::Title, 0x07) => At::Text,
                (At::Title, _) => At::Title,
            };
        }
    }

    /// Whether something stands without an end.
    pub fn is_unfinished(&self) -> bool {
        !self.line.is_empty()
    }

    /// What stands without an end, such as a prompt, as a line; unless its last
    /// word is long: that may be half of a key, and is not shown before it can
    /// be seen whole.
    pub fn rest(&mut self, mut out: impl FnMut(&str)) {
        let word = self.line.rsplit(|b| *b == b' ').next().unwrap_or_default();
        if word.len() < 12 {
            self.end(&mut out);
        }
    }

    fn add(&mut self, b: u8, out: &mut impl FnMut(&str)) -> At {
        if self.line.len() >= LONGEST {
            self.end(out);
        }
        self.line.push(b);
        At::Text
    }

    fn end(&mut self, out: &mut impl FnMut(&str)) {
        let line = String::from_utf8_lossy(&self.line);
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        let text = line.trim_end();
        // A frame of dashes and nothing else tells nothing either.
        if text.chars().any(char::is_alphanumeric) && text != self.last {
            out(text);
            text.clone_into(&mut self.last);
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut l, mut all) = (Lines::default(), Vec::new());
        for p in pieces {
            l.push(p, |t| all.push(t.to_owned()));
        }
        l.rest(|t| all.push(t.to_owned()));
        all
    }

    #[test]
    fn text_is_kept_and_paint_is_not() {
        for (bytes, want) in [
            (
                &b"[    0.1] Linux version 6.12\r\n[    0.2] x\r\n"[..],
                &["[    0.1] Linux version 6.12", "[    0.2] x"][..],
            ),
            (
                b"\x1b[2J\x1b[01;01H\x1b[0;37;40m>>Start PXE over IPv4.\x1b[02;03H",
                &[">>Start PXE over IPv4."],
            ),
            (b"10%\r20%\r20%\r30%\n", &["10%", "20%", "30%"]),
            (b"ab\x08c\tx\x1b[5Cy\n\n\n----\n", &["ac x y"]),
            (b"\x1b]0;title\x07node01 login: ", &["node01 login:"]),
            (b"\x1b(B\xe2\x9c\x93 done\xff\n", &["\u{2713} done\u{fffd}"]),
        ] {
            assert_eq!(lines(&[bytes]), want);
        }
    }

    #[test]
    fn half_a_key_waits_for_its_other_half() {
        assert_eq!(lines(&[b"provision.token=b-01m7z"]), Vec::<String>::new());
        let mut l = Lines::default();
        let mut all = Vec::new();
        l.push(b"x provision.token=abc", |t| all.push(t.to_owned()));
        l.rest(|t| all.push(t.to_owned()));
        l.push(b"def\n", |t| all.push(t.to_owned()));
        assert_eq!(all, ["x provision.token=abcdef"]);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_bounded_lines_without_controls(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let whole = pieces.concat();
            let all = lines(&pieces);
            prop_assert_eq!(&all, &lines(&[&whole]), "pieces do not matter");
            for l in all {
                prop_assert!(l.len() <= 3 * LONGEST);
                prop_assert!(!l.chars().any(char::is_control));
            }
        }
    }
}
