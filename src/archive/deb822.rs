//! Paragraphs of fields (deb822(5)), read one at a time: an index has 50 MB,
//! a paragraph a few kilobytes.

use std::io::{self, BufRead, Read};

/// Longest line that is read: `Built-Using` has ten kilobytes.
const LONGEST_LINE: u64 = 1 << 20;
/// Most lines of a paragraph.
const MOST_LINES: usize = 100_000;

/// Fields in the order they stand; further lines of a field are kept with the
/// line break and their first blank.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paragraph(pub Vec<(String, String)>);

impl Paragraph {
    /// The value of a field; names have no case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Sets a field, in its place if it is there.
    pub fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(k, _)| k.eq_ignore_ascii_case(name)) {
            Some((_, v)) => *v = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Takes a field out.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(k, _)| !k.eq_ignore_ascii_case(name));
    }

    /// As text, with an empty line at the end.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (k, v) in &self.0 {
            // A field of several lines has nothing after the colon.
            let gap = if v.is_empty() || v.starts_with('\n') { "" } else { " " };
            out.push_str(&format!("{k}:{gap}{v}\n"));
        }
        out.push('\n');
        out
    }
}

/// Reads paragraphs from `from`.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
}

impl<R: BufRead> Reader<R> {
    /// Reads from here.
    pub fn new(from: R) -> Self {
        Self { from }
    }

    /// The next paragraph; `None` at the end. Lines that are no field are
    /// passed over, as apt does.
    ///
    /// # Errors
    /// Reading failed; a line or paragraph without an end.
    pub fn next_paragraph(&mut self) -> io::Result<Option<Paragraph>> {
        let too_long = || io::Error::other("a line or paragraph without an end: no index");
        let mut p = Paragraph::default();
        let mut line = Vec::new();
        for _ in 0..MOST_LINES {
            line.clear();
            let n = (&mut self.from).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
            if n as u64 == LONGEST_LINE {
                return Err(too_long());
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            if n == 0 || text.trim().is_empty() {
                if n == 0 || !p.0.is_empty() {
                    return Ok((!p.0.is_empty()).then_some(p));
                }
            } else if text.starts_with([' ', '\t']) {
                if let Some((_, v)) = p.0.last_mut() {
                    v.push('\n');
                    v.push_str(text);
                }
            } else if let Some((k, v)) = text.split_once(':')
                && !text.starts_with('#')
            {
                p.0.push((k.to_owned(), v.trim().to_owned()));
            }
        }
        Err(too_long())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Paragraph> {
        let mut r = Reader::new(text.as_bytes());
        std::iter::from_fn(|| r.next_paragraph().unwrap()).collect()
    }

    #[test]
    fn paragraphs_come_back_as_they_were() {
        let text =
            "Package: a\nDescription: one\n two\n .\n three\nSHA256:\n ff 1 x\n\nPackage: b\n\n";
        let got = all(text);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].get("package"), Some("a"));
        assert_eq!(got[0].get("SHA256"), Some("\n ff 1 x"));
        assert_eq!(got.iter().map(Paragraph::text).collect::<String>(), text);
    }

    #[test]
    fn comments_stray_lines_and_empty_ones_are_passed_over() {
        let got = all("\n\n# x: y\n stray\nnonsense\nA: 1\r\n\n\n\nB: 2");
        assert_eq!(got.len(), 2);
        assert_eq!((got[0].get("a"), got[1].get("b")), (Some("1"), Some("2")));
    }

    #[test]
    fn a_line_without_an_end_is_refused_and_not_kept_in_memory() {
        let endless = std::io::BufReader::new(std::io::repeat(b'x'));
        assert!(Reader::new(endless).next_paragraph().is_err());
    }
}
