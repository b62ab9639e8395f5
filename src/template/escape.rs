//! What may stand where: the filters that dress a value for its place, and
//! the guard that refuses one that is not.

use minijinja::value::{Object, Value};
use minijinja::{Environment, Error, ErrorKind, Output};
use std::fmt;
use std::sync::Arc;

/// What a rendered value may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// iPXE scripts and pxelinux configuration: no control characters, no
    /// variable expansion, no command separators.
    BootScript,
    /// Lines of `debconf-set-selections`. A bare value is plain words; a
    /// piece of a command goes through `sh`, a password's hash through `crypt`.
    Debconf,
    /// YAML: text only through `yaml`, which makes a quoted scalar.
    Yaml,
    /// Shell: text only through `sh` (one line) or `sh_text` (several), which
    /// make one single-quoted word.
    Shell,
    /// By the name of the template: `.cfg` [`Debconf`](Syntax::Debconf),
    /// `.yaml` [`Yaml`](Syntax::Yaml), `.sh` [`Shell`](Syntax::Shell).
    ByExtension,
}

impl Syntax {
    /// The syntax of the file `name`: that of the file that is rendered, not
    /// of one that it includes.
    pub fn of(self, name: &str) -> Syntax {
        match (self, name.rsplit('.').next()) {
            (Syntax::ByExtension, Some("cfg")) => Syntax::Debconf,
            (Syntax::ByExtension, Some("yaml")) => Syntax::Yaml,
            (Syntax::ByExtension, Some("sh")) => Syntax::Shell,
            // Unknown files get the rules that let the least through.
            (Syntax::ByExtension, _) => Syntax::BootScript,
            (syntax, _) => syntax,
        }
    }
}

/// A value that a filter has dressed, and for which place.
#[derive(Debug)]
struct Dressed {
    dress: Dress,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dress {
    ShellWord,
    ShellText,
    Yaml,
    Crypt,
}

impl Object for Dressed {
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn bad(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}

/// Everything that some reader somewhere takes for the end of a line, or
/// drops in silence.
fn breaks_lines(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn text_of(value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    // A hash that was checked may be escaped once more.
    if value.downcast_object_ref::<Dressed>().is_some_and(|d| d.dress != Dress::Crypt) {
        return Err(bad("a value is escaped twice; join the parts with ~ and escape the whole"));
    }
    Ok(value.to_string())
}

fn one_line(value: &Value) -> Result<String, Error> {
    let text = text_of(value)?;
    match text.chars().find(|c| breaks_lines(*c)) {
        Some(c) => Err(bad(format!("a value holds {c:?}, which may not stand here"))),
        None => Ok(text),
    }
}

fn dressed(dress: Dress, text: String) -> Value {
    Value::from_object(Dressed { dress, text })
}

/// One word of a shell command: nothing inside single quotes is acted on
/// (POSIX.1-2017 XCU §2.2.2).
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn sh(value: Value) -> Result<Value, Error> {
    Ok(dressed(Dress::ShellWord, quoted(&one_line(&value)?)))
}

fn sh_text(value: Value) -> Result<Value, Error> {
    let text = text_of(&value)?;
    match text.chars().find(|c| breaks_lines(*c) && !matches!(c, '\n' | '\t')) {
        Some(c) => Err(bad(format!("a text holds {c:?}, which may not stand here"))),
        None => Ok(dressed(Dress::ShellText, quoted(&text))),
    }
}

/// A double-quoted scalar in ASCII, so that no reader's idea of printable
/// characters or of line breaks matters. JSON as well, outside the
/// supplementary planes (YAML 1.2 §5.7).
fn yaml(value: Value) -> Result<Value, Error> {
    let mut out = String::from("\"");
    for c in one_line(&value)?.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    Ok(dressed(Dress::Yaml, out))
}

/// A password's hash, or `!`: nobody can log in with one.
fn crypt(value: Value) -> Result<Value, Error> {
    let text = text_of(&value)?;
    if text != "!" && !is_password_hash(&text) {
        // The value itself may be a password: it is not repeated.
        return Err(bad("a password is a $6$ or $y$ hash, as `mkpasswd` makes it, or !"));
    }
    Ok(dressed(Dress::Crypt, text))
}

/// Whether `text` is a SHA-512 (`$6$`) or yescrypt (`$y$`) hash, as crypt(5)
/// describes them, and so not a password.
pub fn is_password_hash(text: &str) -> bool {
    let part = |s: &str| {
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/'))
    };
    let fields: Vec<&str> = text.split('$').collect();
    match fields[..] {
        ["", "6", salt, hash] => part(salt) && salt.len() <= 16 && part(hash) && hash.len() == 86,
        ["", "6", rounds, salt, hash] => {
            let n = rounds.strip_prefix("rounds=").and_then(|n| n.parse::<u32>().ok());
            n.is_some() && part(salt) && salt.len() <= 16 && part(hash) && hash.len() == 86
        }
        ["", "y", cost, salt, hash] => {
            part(cost) && part(salt) && salt.len() <= 86 && part(hash) && hash.len() == 43
        }
        _ => false,
    }
}

pub(super) fn add_filters(env: &mut Environment<'_>) {
    env.add_filter("sh", sh);
    env.add_filter("sh_text", sh_text);
    env.add_filter("yaml", yaml);
    env.add_filter("crypt", crypt);
}

/// Writes `value` where it stands, or refuses it.
pub(super) fn guarded(
    syntax: Syntax,
    out: &mut Output<'_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    let text = match value.downcast_object_ref::<Dressed>() {
        Some(d) => {
            let fits = match syntax {
                Syntax::Debconf => matches!(d.dress, Dress::ShellWord | Dress::Crypt),
                Syntax::Shell => matches!(d.dress, Dress::ShellWord | Dress::ShellText),
                Syntax::Yaml => d.dress == Dress::Yaml,
                Syntax::BootScript | Syntax::ByExtension => false,
            };
            // A backslash that ends a line of debconf joins the next one.
            if !fits || (syntax == Syntax::Debconf && d.text.contains('\\')) {
                return Err(bad(format!("a value escaped as {:?} may not stand here", d.dress)));
            }
            d.text.clone()
        }
        None => bare(syntax, value)?,
    };
    out.write_str(&text).map_err(|e| bad(e.to_string()))
}

fn bare(syntax: Syntax, value: &Value) -> Result<String, Error> {
    let text = one_line(value)?;
    let harmless = value.is_number() || value.kind() == minijinja::value::ValueKind::Bool;
    let refused = |c: char| bad(format!("a value holds {c:?}, which may not stand here"));
    match syntax {
        Syntax::BootScript | Syntax::ByExtension => {
            let acts = |c: &char| !c.is_ascii() || "$`|&;\\#".contains(*c);
            text.chars().find(acts).map_or(Ok(()), |c| Err(refused(c)))?;
        }
        Syntax::Debconf => {
            let acts = |c: &char| "$`|&;\\#'\"<>(){}*?!~".contains(*c);
            text.chars().find(acts).map_or(Ok(()), |c| Err(refused(c)))?;
            if text.trim() != text {
                return Err(bad("a value begins or ends with a blank, which debconf would drop"));
            }
        }
        Syntax::Yaml if !harmless => return Err(bad("text in YAML goes through | yaml")),
        Syntax::Shell if !harmless => {
            return Err(bad("text in a shell script goes through | sh"));
        }
        Syntax::Yaml | Syntax::Shell => {}
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashes_pass_for_passwords() {
        let sha = format!("$6$saltsalt${}", "a".repeat(86));
        let rounds = format!("$6$rounds=5000$saltsalt${}", "a".repeat(86));
        let yes = format!("$y$j9T$salt.salt/salt${}", "b".repeat(43));
        for good in [&sha, &rounds, &yes] {
            assert!(is_password_hash(good), "{good}");
        }
        let with_line = format!("{sha}\nd-i x");
        for bad in ["secret", "$6$secret", "$1$aa$bb", "$6$$x", "", "!", &with_line] {
            assert!(!is_password_hash(bad), "{bad:?}");
        }
    }
}
