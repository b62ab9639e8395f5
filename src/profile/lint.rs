//! Judges a profile before it can do harm on fifty nodes: every finding has a
//! file, a line where there is one, and says what would be right.

use super::load::{KEYS, Wire};
use crate::model::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};

/// One thing the lint found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// File inside the profile's directory.
    pub file: String,
    /// Line, from 1, where it has one.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.text),
            None => write!(f, "{}: {}", self.file, self.text),
        }
    }
}

/// What [`check`] comes to.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub wire: Option<Wire>,
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

impl Checked {
    fn error(&mut self, file: &str, line: Option<usize>, text: impl Into<String>) {
        self.errors.push(Finding { file: file.to_owned(), line, text: text.into() });
    }

    fn warn(&mut self, file: &str, line: Option<usize>, text: impl Into<String>) {
        self.warnings.push(Finding { file: file.to_owned(), line, text: text.into() });
    }
}

/// Judges the files of the profile in directory `name`.
pub(super) fn check(name: &Name, files: &BTreeMap<String, String>) -> Checked {
    let mut out = Checked::default();
    let toml_text = files.get("profile.toml").map(String::as_str).unwrap_or_default();
    unknown_keys(toml_text, &mut out);
    match toml::from_str::<Wire>(toml_text) {
        Ok(wire) => {
            check_wire(name, &wire, files, toml_text, &mut out);
            out.wire = Some(wire);
        }
        Err(e) => {
            let line = e.span().map(|s| line_of(toml_text, s.start));
            out.error("profile.toml", line, e.message().replace('\n', " "));
        }
    }
    for (file, text) in files.iter().filter(|(f, _)| f.ends_with(".sh")) {
        check_script(file, text, &mut out);
    }
    out
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1
}

fn line_with(text: &str, what: &str) -> Option<usize> {
    text.lines().position(|l| l.contains(what)).map(|n| n + 1)
}

fn unknown_keys(text: &str, out: &mut Checked) {
    let Ok(table) = text.parse::<toml::Table>() else { return };
    for key in table.keys().filter(|k| !KEYS.contains(&k.as_str())) {
        let near = KEYS
            .iter()
            .map(|k| (strsim::jaro_winkler(k, key), *k))
            .filter(|(likeness, _)| *likeness > 0.75)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = match near {
            Some((_, k)) => format!("did you mean '{k}'?"),
            None => format!("there are {}", KEYS.join(", ")),
        };
        let line = text.lines().position(|l| l.trim_start().starts_with(key.as_str()));
        out.error("profile.toml", line.map(|n| n + 1), format!("unknown key '{key}': {hint}"));
    }
}

fn check_wire(
    name: &Name,
    wire: &Wire,
    files: &BTreeMap<String, String>,
    text: &str,
    out: &mut Checked,
) {
    let at = |what: &str| line_with(text, what);
    if wire.name != *name {
        let say = format!("name is '{}' but the directory's is '{name}'", wire.name);
        out.error("profile.toml", at("name"), say);
    }
    if wire.description.trim().is_empty() || wire.description.contains('\n') {
        out.error("profile.toml", at("description"), "description must be one line of text");
    }
    if !(1..=3600).contains(&wire.verify_seconds) {
        out.error("profile.toml", at("verify_seconds"), "verify_seconds must be 1 to 3600");
    }
    for group in &wire.groups {
        // The rule of Debian's adduser: NAME_REGEX.
        let ok = group.len() <= 32
            && group.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && group
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if !ok {
            let say = format!("group '{group}' is not a group name: a-z, 0-9, '-' and '_'");
            out.error("profile.toml", at(group), say);
        }
    }
    let mut seen = BTreeSet::new();
    for file in wire.services.iter().chain([&wire.verify]) {
        if file.parse::<Name>().is_err() || !file.ends_with(".sh") {
            let say = format!("'{file}' must be a plain file name ending in '.sh'");
            out.error("profile.toml", at(file), say);
        } else if !files.contains_key(file) {
            let say = format!("'{file}' is listed but there is no such file");
            out.error("profile.toml", at(file), say);
        }
        if !seen.insert(file) {
            out.error("profile.toml", at(file), format!("'{file}' is listed twice"));
        }
    }
    for file in files.keys().filter(|f| f.ends_with(".sh") && !seen.contains(f)) {
        out.warn(file, None, "is not listed in services and never runs");
    }
}

/// Text that has no place in a script which must give the same result on
/// every node and at bake time.
const REFUSED: [(&str, &str); 6] = [
    ("| sh", "runs a program straight off the network; install a package instead"),
    ("| bash", "runs a program straight off the network; install a package instead"),
    ("|sh", "runs a program straight off the network; install a package instead"),
    ("|bash", "runs a program straight off the network; install a package instead"),
    ("reboot", "restarts the node; the agent does that when all is done"),
    ("shutdown", "restarts the node; the agent does that when all is done"),
];

fn check_script(file: &str, text: &str, out: &mut Checked) {
    if !text.starts_with("#!/bin/sh") && !text.starts_with("#!/bin/bash") {
        out.error(file, Some(1), "must begin with '#!/bin/sh' or '#!/bin/bash'");
        return;
    }
    if !text.lines().any(|l| l.trim_start().starts_with("set -") && l.contains('e')) {
        out.error(file, Some(1), "must say 'set -e' (or -eu): a failing step must fail the build");
    }
    for (n, line) in text.lines().enumerate() {
        let code = line.split(" #").next().unwrap_or_default().trim();
        if code.starts_with('#') {
            continue;
        }
        let fetches = code.contains("curl ") || code.contains("wget ");
        for (pattern, why) in REFUSED {
            let pipe = pattern.starts_with('|');
            let hit =
                if pipe { fetches && code.contains(pattern) } else { code.starts_with(pattern) };
            if hit {
                out.error(file, Some(n + 1), why);
            }
        }
        if code.contains("apt-get") && code.contains(" install") && !code.contains("-y") {
            out.error(file, Some(n + 1), "'apt-get install' without '-y' would wait for an answer");
        }
        if code.starts_with("systemctl start") || code.starts_with("systemctl restart") {
            let say = "starts a service where no service can run; 'systemctl enable' is enough";
            out.error(file, Some(n + 1), say);
        }
    }
    if let Err((line, say)) = syntax(text) {
        out.error(file, line, say);
    }
}

/// `sh -n`: reads the script without running it.
fn syntax(text: &str) -> Result<(), (Option<usize>, String)> {
    let shell = if text.starts_with("#!/bin/bash") { "bash" } else { "sh" };
    let spawned = Command::new(shell)
        .arg("-n")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else { return Ok(()) };
    if let Some(mut stdin) = child.stdin.take() {
        // A shell that has already found its error closes the pipe.
        let _ = stdin.write_all(text.as_bytes());
    }
    let Ok(done) = child.wait_with_output() else { return Ok(()) };
    if done.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&done.stderr);
    let first = message.lines().next().unwrap_or("syntax error").trim();
    let line = first.split([':', ' ']).map(str::trim).find_map(|word| word.parse::<usize>().ok());
    Err((line, format!("syntax error: {first}")))
}
