//! Reads from a Dockerfile what it takes from elsewhere: the images named by
//! `FROM`, `COPY --from` and `RUN --mount=from`, and what `ADD` downloads.
//! Every image can then be put in exact form, the rest staying byte for byte.
//!
//! The builders read the file again and have the last word; this reader only
//! has to see every name that they would fetch. What it cannot follow it
//! refuses. Text comes from strangers: nothing here panics, and the cost grows
//! with the size of the file, which is limited.

use super::expand::{self, Variables};
use std::collections::BTreeMap;
use std::ops::Range;

/// Largest Dockerfile, in bytes.
pub const LARGEST: usize = 256 << 10;
/// Most stages in one file.
const MOST_STAGES: usize = 100;

/// An image from outside of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// As written, variables filled in.
    pub name: String,
    /// Line of its first use, from 1.
    pub line: usize,
}

/// Something that `ADD` would download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// As written.
    pub what: String,
    /// Line, from 1.
    pub line: usize,
}

/// Why a Dockerfile cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerfileError {
    /// Longer than [`LARGEST`].
    #[error("the Dockerfile has {0} bytes; at most {LARGEST} are read")]
    TooLarge(usize),
    /// Not text.
    #[error("the Dockerfile is no UTF-8 text (first bad byte at offset {0})")]
    NotText(usize),
    /// Has no `FROM`.
    #[error("the Dockerfile has no FROM: write 'FROM debian:12' or another base image first")]
    NoFrom,
    /// A line.
    #[error("Dockerfile line {line}: {why}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong and what would be right.
        why: String,
    },
}

/// A Dockerfile, read.
#[derive(Debug, Clone)]
pub struct Dockerfile<'a> {
    text: &'a str,
    /// Images from outside, each once, in order of their first use.
    pub bases: Vec<Base>,
    /// What `ADD` downloads.
    pub downloads: Vec<Download>,
    /// Number of stages.
    pub stages: usize,
    uses: Vec<(Range<usize>, usize)>,
    syntax: Option<Range<usize>>,
}

/// A logical line: its text with continuations joined, and for each byte its
/// place in the file.
struct Logical {
    text: String,
    places: Vec<usize>,
    line: usize,
}

impl Logical {
    fn span(&self, word: &Range<usize>) -> Range<usize> {
        let start = self.places.get(word.start).copied().unwrap_or(0);
        let last = word.end.checked_sub(1).and_then(|i| self.places.get(i)).copied();
        start..last.map_or(start, |l| l + 1)
    }
}

/// Reads `bytes`; `arguments` are the build arguments, which win over the
/// defaults of `ARG`.
pub fn read<'a>(
    bytes: &'a [u8],
    arguments: &BTreeMap<String, String>,
) -> Result<Dockerfile<'a>, DockerfileError> {
    if bytes.len() > LARGEST {
        return Err(DockerfileError::TooLarge(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| DockerfileError::NotText(e.valid_up_to()))?;
    let (escape, syntax, begin) = directives(text);
    let mut reader = Reader {
        file: Dockerfile {
            text,
            bases: Vec::new(),
            downloads: Vec::new(),
            stages: 0,
            uses: Vec::new(),
            syntax,
        },
        variables: Variables::of_this_machine(),
        arguments,
        names: Vec::new(),
        escape,
    };
    let mut lines = Lines { text, at: begin, number: text[..begin].matches('\n').count() };
    while let Some(logical) = lines.next(escape) {
        let line = logical.line;
        let heredocs =
            reader.instruction(&logical).map_err(|why| DockerfileError::Line { line, why })?;
        for (end, indented) in heredocs {
            lines.skip_heredoc(&end, indented);
        }
    }
    if reader.file.stages == 0 { Err(DockerfileError::NoFrom) } else { Ok(reader.file) }
}

impl Dockerfile<'_> {
    /// The file with the n-th of [`Self::bases`] written as `exact(n)`. A
    /// `# syntax=` line goes: it names a program that the builder would fetch.
    pub fn rewritten(&self, exact: impl Fn(usize) -> String) -> String {
        let mut out = String::with_capacity(self.text.len() + 64 * self.uses.len());
        let mut from = 0;
        if let Some(gone) = &self.syntax {
            out.push_str(&self.text[..gone.start]);
            from = gone.end;
        }
        for (span, base) in &self.uses {
            out.push_str(&self.text[from..span.start]);
            out.push_str(&exact(*base));
            from = span.end;
        }
        out.push_str(&self.text[from..]);
        out
    }
}

/// Directives stand before everything else, `# key=value`, each once: escape
/// character, place of the line `# syntax=`, and where the rest begins.
fn directives(text: &str) -> (char, Option<Range<usize>>, usize) {
    let (mut escape, mut syntax) = ('\\', None);
    let mut at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    for line in text[at..].split_inclusive('\n') {
        let Some((key, value)) = line.trim().strip_prefix('#').and_then(|l| l.split_once('='))
        else {
            break;
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "escape" if value.trim() == "`" => escape = '`',
            "escape" => {}
            "syntax" if syntax.is_none() => syntax = Some(at..at + line.len()),
            "check" => {}
            _ => break,
        }
        at += line.len();
    }
    (escape, syntax, at)
}

struct Lines<'a> {
    text: &'a str,
    at: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    fn physical(&mut self) -> Option<(usize, &'a str)> {
        let rest = self.text.get(self.at..).filter(|r| !r.is_empty())?;
        let line = rest.split_inclusive('\n').next()?;
        let start = self.at;
        self.at += line.len();
        self.number += 1;
        Some((start, line))
    }

    fn next(&mut self, escape: char) -> Option<Logical> {
        let mut out = Logical { text: String::new(), places: Vec::new(), line: 0 };
        while let Some((start, line)) = self.physical() {
            let inside = out.line != 0;
            let shown = line.trim_start();
            // Comments and empty lines do not end a continued instruction.
            if shown.starts_with('#') || shown.is_empty() {
                continue;
            }
            let body = line.trim_end();
            let (body, goes_on) = match body.strip_suffix(escape) {
                Some(b) => (b, true),
                None => (body, false),
            };
            if !inside {
                out.line = self.number;
            }
            out.text.push_str(body);
            out.places.extend(start..start + body.len());
            if !goes_on {
                break;
            }
        }
        (out.line != 0).then_some(out)
    }

    fn skip_heredoc(&mut self, end: &str, indented: bool) {
        while let Some((_, line)) = self.physical() {
            let line = line.trim_end_matches(['\n', '\r']);
            if end == if indented { line.trim_start_matches('\t') } else { line } {
                return;
            }
        }
    }
}

struct Reader<'a, 'b> {
    file: Dockerfile<'a>,
    variables: Variables,
    arguments: &'b BTreeMap<String, String>,
    /// Names of the stages so far.
    names: Vec<Option<String>>,
    escape: char,
}

/// Ends of the here-documents that an instruction opens, and whether tabs
/// before them count as nothing.
type HereDocs = Vec<(String, bool)>;

impl Reader<'_, '_> {
    fn instruction(&mut self, l: &Logical) -> Result<HereDocs, String> {
        let words = expand::words(&l.text, self.escape);
        let Some(first) = words.first() else { return Ok(Vec::new()) };
        match l.text[first.clone()].to_ascii_uppercase().as_str() {
            "FROM" => self.from(l, &words[1..])?,
            "ARG" if self.file.stages == 0 => self.global(l, &words[1..])?,
            "COPY" => self.taking_from(l, &words[1..], "--from=")?,
            "ADD" => self.add(l, &words[1..]),
            "RUN" => self.taking_from(l, &words[1..], "--mount=")?,
            _ => return Ok(Vec::new()),
        }
        let here =
            matches!(l.text[first.clone()].to_ascii_uppercase().as_str(), "RUN" | "COPY" | "ADD");
        Ok(if here { here_documents(&l.text) } else { Vec::new() })
    }

    fn from(&mut self, l: &Logical, words: &[Range<usize>]) -> Result<(), String> {
        if self.file.stages == MOST_STAGES {
            return Err(format!("more than {MOST_STAGES} stages"));
        }
        let flags = words.iter().take_while(|w| l.text[(*w).clone()].starts_with("--")).count();
        let (image, rest) = words[flags..]
            .split_first()
            .ok_or("FROM names no image: write 'FROM debian:12' or another one")?;
        let stage = match rest {
            [] => None,
            [word, name] if l.text[word.clone()].eq_ignore_ascii_case("as") => {
                Some(l.text[name.clone()].to_ascii_lowercase())
            }
            _ => return Err("after the image only 'AS NAME' may follow".to_owned()),
        };
        let written = &l.text[image.clone()];
        let name = self.variables.expand(written, self.escape)?;
        if name.is_empty() {
            return Err(format!(
                "{written:?} is empty: give its ARG a default, or pass a build argument"
            ));
        }
        if name != "scratch" && !self.is_stage(&name) {
            self.uses(l, image, &name);
        }
        self.names.push(stage);
        self.file.stages += 1;
        Ok(())
    }

    fn is_stage(&self, name: &str) -> bool {
        self.names.iter().flatten().any(|n| n.eq_ignore_ascii_case(name))
    }

    fn uses(&mut self, l: &Logical, word: &Range<usize>, name: &str) {
        let n = self.file.bases.iter().position(|b| b.name == name).unwrap_or_else(|| {
            self.file.bases.push(Base { name: name.to_owned(), line: l.line });
            self.file.bases.len() - 1
        });
        self.file.uses.push((l.span(word), n));
    }

    fn global(&mut self, l: &Logical, words: &[Range<usize>]) -> Result<(), String> {
        for w in words {
            let (name, default) = match l.text[w.clone()].split_once('=') {
                Some((n, v)) => (n, Some(self.variables.expand(v, self.escape)?)),
                None => (&l.text[w.clone()], None),
            };
            if let Some(value) = self.arguments.get(name).cloned().or(default) {
                self.variables.set(name, value)?;
            }
        }
        Ok(())
    }

    /// `--from=X` of COPY; `--mount=…,from=X,…` of RUN.
    fn taking_from(
        &mut self,
        l: &Logical,
        words: &[Range<usize>],
        flag: &str,
    ) -> Result<(), String> {
        for w in words.iter().take_while(|w| l.text[(*w).clone()].starts_with("--")) {
            let Some(value) = l.text[w.clone()].strip_prefix(flag) else { continue };
            let mut at = w.start + flag.len();
            for part in value.split(',') {
                let key = if flag == "--mount=" { "from=" } else { "" };
                if let Some(name) = part.trim_matches('"').strip_prefix(key) {
                    let start = at + part.find(name).unwrap_or(0);
                    self.taken(l, &(start..start + name.len()), name)?;
                }
                at += part.len() + 1;
            }
        }
        Ok(())
    }

    fn taken(&mut self, l: &Logical, word: &Range<usize>, name: &str) -> Result<(), String> {
        let plain = name.trim_matches(['"', '\'']);
        if plain.is_empty() || plain.contains(['$', '"', '\'', self.escape]) {
            return Err(format!("from={name}: name the stage or image itself, without variables"));
        }
        let index = plain.parse::<usize>().is_ok_and(|n| n < self.file.stages);
        if !index && !self.is_stage(plain) {
            self.uses(l, word, plain);
        }
        Ok(())
    }

    fn add(&mut self, l: &Logical, words: &[Range<usize>]) {
        for w in words {
            let what = l.text[w.clone()].trim_matches(['"', '\'', '[', ']', ',']);
            let lower = what.to_ascii_lowercase();
            let remote = ["http://", "https://", "git://", "ssh://", "ftp://", "git@"];
            if remote.iter().any(|r| lower.starts_with(r)) {
                self.file
                    .downloads
                    .push(Download { what: what.chars().take(200).collect(), line: l.line });
            }
        }
    }
}

/// `<<END`, `<<-"END"`, as words of an instruction.
fn here_documents(text: &str) -> HereDocs {
    text.split_whitespace()
        .filter_map(|w| w.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<"))
        .filter_map(|w| {
            let (w, indented) = w.strip_prefix('-').map_or((w, false), |w| (w, true));
            let end = w.trim_matches(['"', '\'']);
            let good = end.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && end.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
            good.then(|| (end.to_owned(), indented))
        })
        .collect()
}

#[cfg(test)]
#[path = "dockerfile_tests.rs"]
mod tests;
