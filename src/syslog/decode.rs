//! One datagram, as a line.

/// Characters of a line that are kept. RFC 3164 §4.1 allows 1,024 bytes, RFC
/// 5424 §6.1 asks for 2,048.
const LONGEST: usize = 2048;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// 0 emergency to 7 debug (RFC 5424 §6.2.1); 5 where it is not said.
    pub severity: u8,
    /// The program, without its process number; may be empty.
    pub program: String,
    /// The text: one line, nothing but printable characters.
    pub text: String,
}

/// Reads a datagram; `None` when there is no text in it.
pub fn decode(datagram: &[u8]) -> Option<Line> {
    let all: String = String::from_utf8_lossy(datagram)
        .chars()
        .map(|c| if c.is_control() || c == '\u{feff}' { ' ' } else { c })
        .take(LONGEST)
        .collect();
    let (severity, rest) = priority(&all);
    let rest = match rest.strip_prefix("1 ") {
        Some(structured) => from_5424(structured),
        None => from_3164(rest),
    };
    let (program, text) = split_tag(rest.trim());
    let text = text.trim();
    (!text.is_empty()).then(|| Line { severity, program, text: text.to_owned() })
}

/// `<PRI>`: facility times eight and severity.
fn priority(all: &str) -> (u8, &str) {
    let parsed = all.strip_prefix('<').and_then(|r| {
        let (number, rest) = r.split_once('>')?;
        let number: u8 = number.parse().ok().filter(|n| *n <= 191)?;
        Some((number & 7, rest))
    });
    parsed.unwrap_or((5, all))
}

/// What follows the time stamp, and the host name where there is one.
fn from_3164(rest: &str) -> &str {
    // `Nov 21 14:00:00 `: fixed width.
    let stamped = rest.get(15..16) == Some(" ") && rest.as_bytes().get(9) == Some(&b':');
    if !stamped {
        return rest;
    }
    let rest = &rest[16..];
    match rest.split_once(' ') {
        // A first word without a colon is the host's name.
        Some((host, more)) if !host.ends_with(':') && more.contains(": ") => more,
        _ => rest,
    }
}

/// `TIMESTAMP HOST APP PROCID MSGID [DATA] TEXT`, made into `APP: TEXT`'s
/// parts by leaving out what stands between.
fn from_5424(rest: &str) -> &str {
    let mut parts = rest.splitn(6, ' ');
    let text = parts.nth(5).unwrap_or_default();
    match text.strip_prefix('[').and_then(|t| t.split_once("] ")) {
        Some((_, text)) => text,
        None => text.strip_prefix("- ").unwrap_or(text),
    }
}

fn split_tag(rest: &str) -> (String, &str) {
    let Some((tag, text)) = rest.split_once(": ") else { return (String::new(), rest) };
    let program = tag.split('[').next().unwrap_or_default();
    let is_name = !program.is_empty()
        && program.len() <= 48
        && program.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./+".contains(&b));
    if is_name { (program.to_owned(), text) } else { (String::new(), rest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> (u8, String, String) {
        let l = decode(text.as_bytes()).unwrap();
        (l.severity, l.program, l.text)
    }

    #[test]
    fn the_forms_that_installers_send_are_read() {
        let menu = "INFO: Menu item 'partman-base' selected";
        for (text, want) in [
            // busybox syslogd -R: no host.
            (format!("<29>Nov 21 14:00:00 main-menu[271]: {menu}"), (5, "main-menu", menu)),
            // rsyslog: a host.
            (format!("<30>Nov  1 04:00:00 node01 main-menu: {menu}"), (6, "main-menu", menu)),
            (
                "<30>1 2026-11-21T14:00:00Z node01 subiquity 12 - - started".to_owned(),
                (6, "", "started"),
            ),
            ("<4>kernel: [    1.0] usb 1-1".to_owned(), (4, "kernel", "[    1.0] usb 1-1")),
            ("no more than this".to_owned(), (5, "", "no more than this")),
            ("<999>odd: x".to_owned(), (5, "", "<999>odd: x")),
        ] {
            let (s, p, t) = want;
            assert_eq!(parts(&text), (s, p.to_owned(), t.to_owned()), "{text}");
        }
        assert_eq!(decode(b"<13>"), None);
        assert_eq!(decode(b" \n\0"), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_one_short_line_of_printable_characters(
            datagram in proptest::collection::vec(any::<u8>(), 0..5000)
        ) {
            if let Some(l) = decode(&datagram) {
                prop_assert!(l.severity <= 7);
                for t in [&l.text, &l.program] {
                    prop_assert!(t.chars().count() <= LONGEST);
                    prop_assert!(!t.chars().any(char::is_control));
                }
            }
        }
    }
}
