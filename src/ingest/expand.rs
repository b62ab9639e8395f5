//! Words and variables of a Dockerfile, by the rules of its reference ("Shell
//! and exec form", "Environment replacement"): `$X`, `${X}`, `${X:-word}`,
//! `${X-word}`, `${X:+word}`, `${X+word}`, quotes, and the escape character.

use std::collections::BTreeMap;
use std::ops::Range;

/// Longest value after replacement, in bytes: values may name each other.
const LONGEST: usize = 4096;
/// Deepest `${X:-${Y:-…}}`.
const DEEPEST: usize = 8;

/// Words of `text`, separated by blanks outside of quotes.
pub fn words(text: &str, escape: char) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let (mut start, mut quote, mut escaped) = (None, None, false);
    for (i, c) in text.char_indices() {
        if quote.is_none() && !escaped && c.is_whitespace() {
            if let Some(s) = start.take() {
                out.push(s..i);
            }
            continue;
        }
        start.get_or_insert(i);
        match quote {
            _ if escaped => escaped = false,
            Some('\'') if c != '\'' => {}
            _ if c == escape => escaped = true,
            Some(q) if c == q => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            _ => {}
        }
    }
    if let Some(s) = start {
        out.push(s..text.len());
    }
    out
}

/// Values of the `ARG`s before the first `FROM`.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// With the platform arguments that builders set by themselves.
    pub fn of_this_machine() -> Self {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let mut all = BTreeMap::new();
        for side in ["BUILD", "TARGET"] {
            all.insert(format!("{side}PLATFORM"), format!("linux/{arch}"));
            all.insert(format!("{side}OS"), "linux".to_owned());
            all.insert(format!("{side}ARCH"), arch.to_owned());
            all.insert(format!("{side}VARIANT"), String::new());
        }
        Self(all)
    }

    /// Sets one.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        if !is_name(name) {
            return Err(format!("ARG {:?}: a name has letters, digits and '_'", cut(name)));
        }
        self.0.insert(name.to_owned(), value);
        Ok(())
    }

    /// Replaces variables and takes quotes away.
    pub fn expand(&self, word: &str, escape: char) -> Result<String, String> {
        let mut out = String::new();
        self.append(word, escape, 0, &mut out)?;
        Ok(out)
    }

    fn append(
        &self,
        word: &str,
        escape: char,
        depth: usize,
        out: &mut String,
    ) -> Result<(), String> {
        let mut rest = word;
        let mut quote = None;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match (quote, c) {
                (Some('\''), '\'') => quote = None,
                (Some('\''), c) => out.push(c),
                (Some(q), c) if c == q => quote = None,
                (None, '"' | '\'') => quote = Some(c),
                (_, '$') => rest = self.variable(rest, escape, depth, out)?,
                (_, c) if c == escape => {
                    if let Some(next) = rest.chars().next() {
                        out.push(next);
                        rest = &rest[next.len_utf8()..];
                    }
                }
                (_, c) => out.push(c),
            }
            if out.len() > LONGEST {
                return Err(format!("{:?} becomes longer than {LONGEST} bytes", cut(word)));
            }
        }
        if quote.is_some() {
            return Err(format!("a quote in {:?} is not closed", cut(word)));
        }
        Ok(())
    }

    /// `rest` is what follows `$`; returns what follows the variable.
    fn variable<'t>(
        &self,
        rest: &'t str,
        escape: char,
        depth: usize,
        out: &mut String,
    ) -> Result<&'t str, String> {
        let Some(inner) = rest.strip_prefix('{') else {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
            if name.is_empty() {
                out.push('$');
            }
            out.push_str(self.0.get(name).map_or("", String::as_str));
            return Ok(after);
        };
        let close = closing(inner).ok_or_else(|| format!("'${{{}' is not closed", cut(inner)))?;
        let (body, after) = (&inner[..close], &inner[close + 1..]);
        let end = body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let (name, how) = body.split_at(end.unwrap_or(body.len()));
        let value = self.0.get(name);
        let filled = value.filter(|v| !v.is_empty());
        let unknown =
            || format!("'${{{}}}' is not understood: write ${{X}} or ${{X:-default}}", cut(body));
        if !is_name(name) {
            return Err(unknown());
        }
        if depth == DEEPEST {
            return Err(format!("'${{{}}}' is nested too deep", cut(body)));
        }
        let (word, value, other) = match (how.get(..2), how.get(..1)) {
            _ if how.is_empty() => ("", value, false),
            (Some(":-"), _) => (&how[2..], filled, true),
            (Some(":+"), _) => (&how[2..], filled, false),
            (_, Some("-")) => (&how[1..], value, true),
            (_, Some("+")) => (&how[1..], value, false),
            _ => return Err(unknown()),
        };
        match (value, other) {
            (Some(v), true) => out.push_str(v),
            (None, true) => self.append(word, escape, depth + 1, out)?,
            (Some(v), false) if how.is_empty() => out.push_str(v),
            (Some(_), false) => self.append(word, escape, depth + 1, out)?,
            (None, false) => {}
        }
        Ok(after)
    }
}

/// Place of the brace that closes the one before `inner`.
fn closing(inner: &str) -> Option<usize> {
    let mut depth = 1;
    inner.char_indices().find_map(|(i, c)| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        (depth == 0).then_some(i)
    })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
