//! Holds the tree to its own rules: floors, sizes, openings. A rule that is
//! only written down is broken within a month; here a new breach fails the
//! build and names file, line and what would be right.
//!
//! The scan is of tokens, not of types: comments, strings and test modules are
//! blanked, then every `crate::X` (or `provision::X` in a program) counts as
//! an import of module `X`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Floors, top to bottom. A module imports from lower floors and itself.
const FLOORS: &[&[&str]] = &[
    &["bin"],
    &["app"],
    &["api", "ui", "cli", "lab"],
    &[
        "lifecycle",
        "netboot",
        "preseed",
        "dhcp",
        "tftp",
        "dns",
        "time",
        "syslog",
        "console",
        "cache",
        "registry",
        "ingest",
        "metrics",
        "stack",
        "client",
        "agent",
    ],
    &["mirror"],
    &["power", "image", "profile"],
    &["archive"],
    &["store", "tls", "auth", "template"],
    &["config"],
    &["model"],
];

/// Breaches that are known and why they are borne: importer, imported, reason.
/// One that is no longer used fails too, so that the list only shrinks.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("cli", "api", "request and answer types of the API, so that both ends agree at compile time"),
    ("ui", "api", "the pages read and order through the API's own functions"),
    ("cli", "lab", "`provision lab` is the lab's only front"),
    ("client", "api", "reads `Problem`, the form of the API's errors"),
    ("auth", "tls", "`write_private`, which makes the 0600 key file"),
];

/// Modules that may use less than their floor allows, as they say of themselves:
/// protocols are handed what they need, the agent goes to the node alone.
const NARROW: &[(&str, &[&str])] = &[
    ("dhcp", &["model"]),
    ("tftp", &[]),
    ("dns", &["model"]),
    ("time", &[]),
    ("syslog", &[]),
    ("console", &[]),
    ("registry", &["model"]),
    ("metrics", &["model"]),
    ("cache", &["model", "tls", "archive"]),
    ("preseed", &["model", "template"]),
    ("ingest", &["model", "image", "tls"]),
    ("agent", &["model", "image", "tls"]),
    ("power", &["model"]),
    ("profile", &["model"]),
    ("image", &["model", "config", "archive"]),
    ("mirror", &["model", "archive", "image"]),
    ("archive", &["model", "tls"]),
];

/// Longest file, in lines: past that it has become two thoughts.
const LONGEST_FILE: usize = 450;
/// Longest `src/bin/*.rs`: a program only calls into the library.
const LONGEST_MAIN: usize = 60;

fn root() -> PathBuf {
    option_env!("CARGO_MANIFEST_DIR").unwrap_or(".").into()
}

/// All `.rs` files below `dir`, as paths from the root of the package.
fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root().join(dir)];
    while let Some(d) = todo.pop() {
        for e in fs::read_dir(&d).unwrap_or_else(|e| panic!("{}: {e}", d.display())) {
            let path = e.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|x| x == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `src/dhcp/server.rs` → `dhcp`; `src/lib.rs` has no module.
fn module_of(path: &Path) -> Option<String> {
    let first = path.components().nth(1)?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib").then(|| name.to_owned())
}

/// Files that hold nothing but tests.
fn is_test_file(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    stem == "tests" || stem.ends_with("_tests")
}

/// Blanks comments, strings and character literals; lines stay where they are.
fn without_comments_and_strings(text: &str) -> String {
    let c: Vec<char> = text.chars().collect();
    let at = |i: usize| c.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < c.len() {
        let from = i;
        let word_before = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
        let hashes = (i + 1..).take_while(|&j| at(j) == '#').count();
        if at(i) == '/' && at(i + 1) == '/' {
            while i < c.len() && at(i) != '\n' {
                i += 1;
            }
        } else if at(i) == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 || i >= c.len() {
                    break;
                }
            }
        } else if at(i) == 'r' && at(i + 1 + hashes) == '"' && (!word_before || at(i - 1) == 'b') {
            i += 2 + hashes;
            let ends = |j: usize| at(j) == '"' && (1..=hashes).all(|h| at(j + h) == '#');
            while i < c.len() && !ends(i) {
                i += 1;
            }
            i += 1 + hashes;
        } else if at(i) == '"' {
            i += 1;
            while i < c.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            // A lifetime has neither.
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < c.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else {
            out.push(at(i));
            i += 1;
            continue;
        }
        out.extend(c[from..i.min(c.len())].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
    }
    out
}

/// Blanks `#[cfg(test)] mod x { … }`.
fn without_test_modules(text: &str) -> String {
    let mut out = text.to_owned();
    let mut from = 0;
    while let Some(start) = out[from..].find("#[cfg(test)]").map(|i| from + i) {
        from = start + 1;
        let rest = out[start..].trim_start_matches("#[cfg(test)]").trim_start();
        if !rest.starts_with("mod ") && !rest.starts_with("pub mod ") {
            continue;
        }
        let Some(open) = out[start..].find(['{', ';']).map(|i| start + i) else { continue };
        if out[open..].starts_with(';') {
            continue;
        }
        let mut depth = 0i32;
        let close = out[open..].char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth == 0
        });
        let end = close.map_or(out.len(), |(i, _)| open + i + 1);
        let blank: String =
            out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// Modules named after `root_word::`, with their lines. Groups are looked
/// into: `crate::{dhcp, tftp::Source}` names two.
fn imports(text: &str, root_word: &str) -> Vec<(String, usize)> {
    let text = without_test_modules(&without_comments_and_strings(text));
    let word = format!("{root_word}::");
    let mut found = Vec::new();
    for (at, _) in text.match_indices(&word) {
        let before = text[..at].chars().next_back().unwrap_or(' ');
        if before.is_alphanumeric() || before == '_' || before == '$' {
            continue;
        }
        let line = 1 + text[..at].matches('\n').count();
        let rest = &text[at + word.len()..];
        let (mut depth, mut name, mut begins) = (0, String::new(), true);
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                // Inside a group only its own level names modules.
                ',' if depth == 1 => begins = true,
                c if begins && (c.is_alphanumeric() || c == '_') => {
                    name.push(c);
                    continue;
                }
                _ => {}
            }
            if !name.is_empty() {
                found.push((std::mem::take(&mut name), line));
                begins = c == ',' && depth == 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    // `crate::Thing`, re-exported at the root, would be no module.
    found.retain(|(n, _)| n.chars().next().is_some_and(char::is_lowercase));
    found
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|f| f.contains(&module))
}

/// What is wrong with `module` using `other`; `None` when it may.
fn breach(module: &str, other: &str) -> Option<&'static str> {
    if other == module {
        return None;
    }
    match (floor(module), floor(other)) {
        (Some(a), Some(b)) if b < a => Some("which is on a higher floor"),
        (Some(a), Some(b)) if b == a => Some("which is on the same floor"),
        (Some(_), Some(_)) => NARROW
            .iter()
            .find(|(m, may)| *m == module && !may.contains(&other))
            .map(|_| "which it says it knows nothing of: have it handed in"),
        _ => Some("since one of them is on no floor"),
    }
}

#[test]
fn a_module_imports_from_lower_floors_only() {
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for path in rust_files("src").iter().filter(|p| !is_test_file(p)) {
        let Some(module) = module_of(path) else { continue };
        let root_word = if module == "bin" { "provision" } else { "crate" };
        for (other, line) in imports(&read(path), root_word) {
            let Some(why) = breach(&module, &other) else { continue };
            match EXCEPTIONS.iter().position(|(a, b, _)| *a == module && *b == other) {
                Some(n) => drop(used.insert(n)),
                None => faults.push(format!(
                    "{}:{line}: {module} may not use {other}, {why}",
                    path.display()
                )),
            }
        }
    }
    for (n, (a, b, _)) in EXCEPTIONS.iter().enumerate() {
        if !used.contains(&n) {
            faults.push(format!("{a} no longer uses {b}: take the exception out"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_folder_of_the_source_has_a_floor() {
    let homeless: BTreeSet<String> = rust_files("src")
        .iter()
        .filter_map(|p| module_of(p))
        .filter(|m| floor(m).is_none())
        .collect();
    assert!(homeless.is_empty(), "put into FLOORS, and into the architecture page: {homeless:?}");
}

#[test]
fn a_file_is_one_thought() {
    let long: Vec<String> = ["src", "tests", "examples", "fuzz/fuzz_targets"]
        .iter()
        .flat_map(|d| rust_files(d))
        .map(|p| (read(&p).lines().count(), p))
        .filter(|(n, _)| *n > LONGEST_FILE)
        .map(|(n, p)| format!("{}: {n} lines, at most {LONGEST_FILE}", p.display()))
        .collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn every_module_opens_with_what_it_is() {
    let silent: Vec<String> = rust_files("src")
        .iter()
        .filter(|p| matches!(p.file_name().and_then(|f| f.to_str()), Some("lib.rs" | "mod.rs")))
        .filter(|p| {
            let text = read(p);
            let opening = text.lines().map_while(|l| l.strip_prefix("//!"));
            opening.filter(|l| !l.trim().is_empty()).count() < 2
        })
        .map(|p| p.display().to_string())
        .collect();
    assert!(silent.is_empty(), "open with a //! paragraph of two lines or more: {silent:?}");
}

#[test]
fn every_program_is_thin() {
    for p in rust_files("src/bin") {
        let lines = read(&p).lines().count();
        assert!(lines < LONGEST_MAIN, "{}: {lines} lines; move them to `app`", p.display());
    }
}

/// The README's table "Where things are" is how a newcomer finds the way.
#[test]
fn the_folders_that_the_readme_names_exist() {
    let readme = read(Path::new("README.md"));
    let table = readme.split("## Where things are").nth(1).unwrap_or_default();
    let table = table.split("\n## ").next().unwrap_or_default();
    let named: Vec<&str> =
        table.lines().filter_map(|l| Some(l.strip_prefix("| `")?.split_once("/`")?.0)).collect();
    assert!(named.contains(&"src") && named.contains(&"docs"), "the table is gone: {named:?}");
    let missing: Vec<&&str> = named.iter().filter(|d| !root().join(d).is_dir()).collect();
    assert!(missing.is_empty(), "README.md names folders that are not there: {missing:?}");
}

#[test]
fn the_scan_sees_imports_and_nothing_else() {
    let text = r##"
        // use crate::one;
        /* crate::two /* crate::three */ */
        use crate::{dhcp::{self, Sink}, tftp, model::Mac};
        let s = "crate::four \" crate::five"; let c = '"'; let r = r#"crate::six" crate::seven"#;
        fn f<'a>(x: &'a crate::store::Doc) -> crate::Thing { $crate::eight() }
        #[cfg(test)]
        mod tests { use crate::cli; fn g() { if true { crate::app::x() } } }
        pub(crate) use crate::auth;
    "##;
    let found: BTreeMap<String, usize> = imports(text, "crate").into_iter().collect();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["auth", "dhcp", "model", "store", "tftp"]);
    assert_eq!(found["auth"], 9);
}

#[test]
fn a_breach_is_found() {
    for (module, other) in [
        ("model", "store"),  // upwards
        ("dhcp", "netboot"), // sideways
        ("dhcp", "store"),   // downwards, and still not its business
        ("dhcp", "nowhere"),
        ("nowhere", "model"),
    ] {
        assert!(breach(module, other).is_some(), "{module} uses {other}");
    }
    assert_eq!(breach("api", "model").or(breach("api", "api")), None);
}
