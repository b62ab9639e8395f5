//! Reads what the templates render to as the installers will, and takes each
//! fault back to the template's own file and line.
//!
//! For the way back, every line of a source gets its place written in front of
//! it before it is rendered; the text that is checked has them taken out again.

use super::values::Values;
use super::yaml::{self, Kind, Node};
use super::{File, debconf, schema};
use crate::template::{Syntax, TemplateError, Templates, place};
use std::fmt;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Around a place: private use, in no template.
const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';
/// How long a checker may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One thing the lint found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The template's file name.
    pub file: String,
    /// Line in it, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template {}: {}", place(&self.file, self.line), self.text)
    }
}

impl From<TemplateError> for Finding {
    fn from(e: TemplateError) -> Self {
        match e {
            TemplateError::Render { name, line, why } => Self { file: name, line, text: why },
            TemplateError::Missing(name) => {
                Self { file: name, line: None, text: "is not there".to_owned() }
            }
        }
    }
}

/// Files, with little and with all that can be said of a node.
pub(super) fn files(templates: &Templates, all: &[File], with_debconf: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for full in [true, false] {
        let Some(values) = Values::example(full) else { continue };
        let values = values.shown();
        for file in all {
            found.extend(one(templates, &file.template(), &values, with_debconf));
        }
    }
    let mut once: Vec<Finding> = Vec::new();
    for f in found {
        if !once.contains(&f) {
            once.push(f);
        }
    }
    once
}

fn one(
    templates: &Templates,
    name: &str,
    values: &serde_json::Value,
    with_debconf: bool,
) -> Vec<Finding> {
    let marked = match templates.render_prepared(name, values, mark) {
        Ok(rendered) => rendered.text,
        Err(e) => return vec![e.into()],
    };
    let text = Placed::read(&marked, name);
    let faults = match Syntax::ByExtension.of(name) {
        Syntax::Debconf => preseed(&text.text, with_debconf),
        Syntax::Yaml if name == "user-data.yaml" => user_data(&text.text),
        Syntax::Yaml => yaml::parse(&text.text).err().into_iter().collect(),
        _ => shell(&text.text),
    };
    faults.into_iter().map(|(line, why)| text.finding(line, why)).collect()
}

/// A text, and where each of its lines comes from.
struct Placed {
    text: String,
    places: Vec<(String, Option<usize>)>,
}

impl Placed {
    fn read(marked: &str, name: &str) -> Self {
        let (mut text, mut places) = (String::new(), Vec::new());
        let mut last = (name.to_owned(), None);
        for line in marked.lines() {
            let mut first = true;
            let mut rest = line;
            while let Some((before, after)) = rest.split_once(OPEN) {
                text.push_str(before);
                let (mark, after) = after.split_once(CLOSE).unwrap_or(("", after));
                if let Some((file, n)) = mark.rsplit_once(':').filter(|_| first) {
                    last = (file.to_owned(), n.parse().ok());
                }
                first = false;
                rest = after;
            }
            text.push_str(rest);
            text.push('\n');
            places.push(last.clone());
        }
        Self { text, places }
    }

    fn finding(&self, line: usize, text: String) -> Finding {
        let at = self.places.get(line.saturating_sub(1)).or_else(|| self.places.last());
        let (file, line) = at.cloned().unwrap_or_default();
        Finding { file, line, text }
    }
}

/// Writes its place in front of each line, except inside a tag and where a
/// tag begins the line: those leave no line of their own.
fn mark(name: &str, source: String) -> String {
    let mut out = String::new();
    let mut inside = false;
    for (n, line) in source.split_inclusive('\n').enumerate() {
        let begins = line.trim_start();
        if !inside && !begins.starts_with("{%") && !begins.starts_with("{#") {
            out.push_str(&format!("{OPEN}{name}:{}{CLOSE}", n + 1));
        }
        out.push_str(line);
        let last = |words: [&str; 3]| words.iter().filter_map(|w| line.rfind(w)).max();
        inside = match (last(["{%", "{{", "{#"]), last(["%}", "}}", "#}"])) {
            (Some(open), Some(close)) => open > close,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => inside,
        };
    }
    out
}

type Faults = Vec<(usize, String)>;

fn preseed(text: &str, with_debconf: bool) -> Faults {
    let (answers, mut faults) = debconf::parse(text);
    for a in answers.iter().filter(|a| a.key.ends_with("_command")) {
        for (_, why) in shell(&a.value) {
            faults.push((a.line, format!("{}: {why}", a.key)));
        }
    }
    // It stops at its first error: ours come first, and name more.
    if faults.is_empty() && with_debconf {
        let (ok, said) = match debconf_says(text) {
            Ok(done) => done,
            Err(None) => return faults,
            Err(Some(why)) => return vec![(1, why)],
        };
        let told: Vec<&str> = said.lines().filter(|l| l.contains("line ")).collect();
        faults.extend(told.iter().map(|l| (number_after(l, "line "), (*l).to_owned())));
        if !ok && faults.is_empty() {
            faults.push((1, format!("debconf-set-selections -c: {}", said.trim())));
        }
    }
    faults
}

/// It locks debconf's database even to check, and fails without a word while
/// somebody else has that: a package that is being installed.
fn debconf_says(text: &str) -> Result<(bool, String), Option<String>> {
    let began = Instant::now();
    loop {
        match run("debconf-set-selections", &["-c"], text)? {
            (false, said) if said.trim().is_empty() && began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(100));
            }
            (false, said) if said.trim().is_empty() => {
                let why =
                    "debconf-set-selections -c gives no answer: is a package being installed?";
                return Err(Some(why.to_owned()));
            }
            done => return Ok(done),
        }
    }
}

fn user_data(text: &str) -> Faults {
    let document = match yaml::parse(text) {
        Ok(document) => document,
        Err(fault) => return vec![fault],
    };
    let mut faults = schema::check(&document);
    if !text.starts_with("#cloud-config\n") {
        faults.push((1, "user-data begins with '#cloud-config' or is not read".to_owned()));
    }
    let autoinstall = document.get("autoinstall");
    for key in ["early-commands", "late-commands", "error-commands"] {
        let Some(Node { kind: Kind::List(commands), .. }) = autoinstall.and_then(|a| a.get(key))
        else {
            continue;
        };
        for command in commands {
            if let Kind::Text(text) = &command.kind {
                faults.extend(shell(text).into_iter().map(|(_, why)| (command.line, why)));
            }
        }
    }
    faults
}

fn shell(text: &str) -> Faults {
    match run("sh", &["-n"], text) {
        Ok((true, _)) => Vec::new(),
        Ok((false, said)) => {
            let said = said.lines().next().unwrap_or("sh -n refuses it");
            // `sh: 12: Syntax error: …`, or `sh: line 12: …`.
            let short = said.split_once("sh: ").map_or(said, |(_, s)| s);
            let short = short.strip_prefix("line ").unwrap_or(short);
            let why = short.split_once(": ").map_or(short, |(_, why)| why);
            vec![(number_after(short, ""), why.to_owned())]
        }
        Err(why) => vec![(1, why.unwrap_or_else(|| "there is no sh".to_owned()))],
    }
}

/// The number in `text` right behind `word`; 1 where there is none.
fn number_after(text: &str, word: &str) -> usize {
    let rest = text.split_once(word).map_or("", |(_, rest)| rest);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or(1)
}

/// Whether `program` took `input`, and what it said; `Err(None)` when it is
/// not installed.
fn run(program: &str, args: &[&str], input: &str) -> Result<(bool, String), Option<String>> {
    let told = |e: std::io::Error| Some(format!("{program}: {e}"));
    let child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(None),
        Err(e) => return Err(told(e)),
    };
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    std::thread::scope(|scope| {
        // One that stops reading has said why.
        scope.spawn(|| stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
        let said = scope.spawn(|| {
            let mut said = String::new();
            let read = stderr.map(|pipe| pipe.take(1 << 16).read_to_string(&mut said));
            read.map_or(String::new(), |_| said)
        });
        let began = Instant::now();
        let status = loop {
            match child.try_wait().map_err(told)? {
                Some(status) => break Ok(status),
                None if began.elapsed() > PATIENCE => {
                    // Its end is all that is wanted.
                    let _ = child.kill().and_then(|()| child.wait());
                    break Err(Some(format!("{program} did not end within {PATIENCE:?}")));
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let said = said.join().unwrap_or_default();
        status.map(|s| (s.success(), said))
    })
}
