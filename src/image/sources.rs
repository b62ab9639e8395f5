//! Where packages come from: the host's own apt configuration, read the way
//! apt reads it (sources.list(5)), so that no mirror is named in this program.
//!
//! From every source of the distribution itself one is derived for the suite
//! that an image wants: on a Debian 12 host `bookworm-security` becomes
//! `trixie-security` for a Debian 13 image. Sources of third parties are left
//! alone; a profile's script adds those.

use super::child::clean_environment;
use crate::model::Secret;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Suites of Debian, to tell the distribution's sources from others'.
const CODENAMES: [&str; 7] =
    ["buster", "bullseye", "bookworm", "trixie", "forky", "sid", "testing"];

/// One archive and the suite in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Base address, without a slash at the end.
    pub uri: String,
    /// Suite, such as `bookworm-updates`.
    pub suite: String,
    /// Components, such as `main`.
    pub components: Vec<String>,
    /// Key file, if one is named.
    pub signed_by: Option<String>,
}

impl Source {
    /// As a line of `sources.list`.
    pub fn line(&self) -> String {
        let signed =
            self.signed_by.as_ref().map(|k| format!("[signed-by={k}] ")).unwrap_or_default();
        format!("deb {signed}{} {} {}", self.uri, self.suite, self.components.join(" "))
    }
}

/// Why there are no sources.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// Reading failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Nothing of the distribution in the configuration.
    #[error(
        "apt on this host has no Debian archive with component 'main' \
         (looked in sources.list and sources.list.d): add one there"
    )]
    None,
}

/// The host's Debian sources, moved to `suite`. `apt` is apt's configuration
/// directory, `/etc/apt`.
pub fn for_suite(apt: &Path, suite: &str) -> Result<Vec<Source>, SourcesError> {
    let mut out: Vec<Source> = Vec::new();
    for found in read(apt)? {
        let Some((codename, pocket)) = debian_suite(&found.suite) else { continue };
        let main = found.components.iter().any(|c| c == "main");
        let ours = found.signed_by.as_ref().is_none_or(|k| k.contains("debian-archive"));
        if !main || !ours || pocket == "-backports" {
            continue;
        }
        // A key of one release does not sign the next one's archive.
        let signed_by = found.signed_by.filter(|k| codename == suite || !k.contains(codename));
        let moved = Source { suite: format!("{suite}{pocket}"), signed_by, ..found };
        if !out.contains(&moved) {
            out.push(moved);
        }
    }
    if out.is_empty() { Err(SourcesError::None) } else { Ok(out) }
}

/// The host's Debian archives, whatever the suite; none without a
/// configuration that can be read.
pub fn archives(apt: &Path) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for s in read(apt).unwrap_or_default() {
        let web = s.uri.starts_with("http://") || s.uri.starts_with("https://");
        if web && debian_suite(&s.suite).is_some() && !all.contains(&s.uri) {
            all.push(s.uri);
        }
    }
    all
}

/// The same sources, fetched through where `map` says: address of an archive,
/// address in its place.
pub fn through(mut sources: Vec<Source>, map: &[(String, String)]) -> Vec<Source> {
    for s in &mut sources {
        if let Some((_, here)) = map.iter().find(|(there, _)| *there == s.uri) {
            s.uri.clone_from(here);
        }
    }
    sources
}

/// As the text of a `sources.list`: for a node, in [`InstallPlan::apt_sources`].
///
/// [`InstallPlan::apt_sources`]: crate::model::plan::InstallPlan::apt_sources
pub fn text(sources: &[Source]) -> String {
    sources.iter().map(|s| s.line() + "\n").collect()
}

/// A single mirror that was configured by hand: the release and its updates.
pub fn from_mirror(uri: &str, suite: &str, components: &[String]) -> Vec<Source> {
    let source = |suite: String| Source {
        uri: uri.trim_end_matches('/').to_owned(),
        suite,
        components: components.to_vec(),
        signed_by: None,
    };
    vec![source(suite.to_owned()), source(format!("{suite}-updates"))]
}

/// `bookworm-security` → (`bookworm`, `-security`); none for other names.
fn debian_suite(suite: &str) -> Option<(&'static str, &str)> {
    CODENAMES.iter().find_map(|codename| {
        let pocket = suite.strip_prefix(codename)?;
        (pocket.is_empty() || pocket.starts_with('-')).then_some((*codename, pocket))
    })
}

fn read(apt: &Path) -> Result<Vec<Source>, SourcesError> {
    let mut files = vec![apt.join("sources.list")];
    let list_d = apt.join("sources.list.d");
    if let Ok(entries) = fs::read_dir(&list_d) {
        let mut more: Vec<PathBuf> = entries.filter_map(Result::ok).map(|e| e.path()).collect();
        more.sort();
        files.extend(more);
    }
    let mut out = Vec::new();
    for path in files {
        let parse = match path.extension().and_then(|e| e.to_str()) {
            Some("list") => parse_list,
            Some("sources") => parse_deb822,
            _ => continue,
        };
        match fs::read_to_string(&path) {
            Ok(text) => out.extend(parse(&text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SourcesError::Io { path, source }),
        }
    }
    Ok(out)
}

/// One line each: `deb [option=value …] URI suite component …`.
fn parse_list(text: &str) -> Vec<Source> {
    let mut out = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb ") else { continue };
        let (options, rest) = match rest.trim_start().strip_prefix('[') {
            Some(r) => match r.split_once(']') {
                Some(parts) => parts,
                None => continue,
            },
            None => ("", rest),
        };
        let signed_by = options
            .split_whitespace()
            .find_map(|o| o.strip_prefix("signed-by="))
            .map(str::to_owned);
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        out.push(Source {
            uri: uri.trim_end_matches('/').to_owned(),
            suite: suite.to_owned(),
            components: words.map(str::to_owned).collect(),
            signed_by,
        });
    }
    out
}

/// Paragraphs of fields, several values in one field multiply.
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut out = Vec::new();
    for paragraph in paragraphs(text) {
        let get = |key: &str| -> Vec<String> {
            let field = paragraph.iter().find(|(k, _)| k.eq_ignore_ascii_case(key));
            field
                .map(|(_, v)| v.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default()
        };
        let off = get("Enabled").first().is_some_and(|v| v == "no" || v == "false");
        if off || !get("Types").iter().any(|t| t == "deb") {
            continue;
        }
        // A key written into the file itself has no path that could be named.
        let signed_by = get("Signed-By").into_iter().next().filter(|k| k.starts_with('/'));
        for uri in get("URIs") {
            for suite in get("Suites") {
                out.push(Source {
                    uri: uri.trim_end_matches('/').to_owned(),
                    suite,
                    components: get("Components"),
                    signed_by: signed_by.clone(),
                });
            }
        }
    }
    out
}

fn paragraphs(text: &str) -> Vec<Vec<(String, String)>> {
    let mut all = vec![Vec::<(String, String)>::new()];
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            all.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = all.last_mut().and_then(|p| p.last_mut()) {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let (Some((key, value)), Some(last)) = (line.split_once(':'), all.last_mut()) {
            last.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    all
}

/// The way out that the host's apt is told for HTTP, if it is told one.
pub fn proxy() -> Option<Secret> {
    let mut command = Command::new("apt-config");
    clean_environment(&mut command);
    let said = command.args(["shell", "P", "Acquire::http::Proxy"]).output().ok()?;
    proxy_of(&String::from_utf8_lossy(&said.stdout))
}

/// `P='http://proxy:3128'`, or nothing; `DIRECT` is none.
fn proxy_of(said: &str) -> Option<Secret> {
    let address = said.trim().strip_prefix("P='")?.strip_suffix('\'')?;
    address.starts_with("http://").then(|| Secret::new(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apt(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn deb822_sources_are_moved_to_the_suite_that_is_asked_for() {
        let dir = apt(&[(
            "sources.list.d/debian.sources",
            "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian/\n\
             Suites: bookworm bookworm-updates\nComponents: main\n non-free-firmware\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
             Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\n\
             Components: main\n\nTypes: deb\nEnabled: no\nURIs: http://off.example\n\
             Suites: bookworm\nComponents: main\n",
        )]);
        let lines: Vec<String> =
            for_suite(dir.path(), "trixie").unwrap().iter().map(Source::line).collect();
        let key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        assert_eq!(
            lines,
            [
                format!("deb {key} http://mirror.example/debian trixie main non-free-firmware"),
                format!(
                    "deb {key} http://mirror.example/debian trixie-updates main non-free-firmware"
                ),
                "deb http://mirror.example/security trixie-security main".to_owned(),
            ]
        );
    }

    #[test]
    fn third_parties_backports_and_other_names_are_left_alone() {
        let dir = apt(&[
            (
                "sources.list",
                "deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] http://d.example bookworm main\n\
                 deb http://mirror.example/debian bookworm main contrib # comment\n\
                 deb http://mirror.example/debian bookworm-backports main\n\
                 deb-src http://mirror.example/debian bookworm main\n\
                 deb http://cloud.example cloud-sdk-bookworm main\n\
                 deb http://stack.example bookworm stable\n",
            ),
            ("sources.list.d/old.list.disabled", "deb http://no.example bookworm main\n"),
        ]);
        let got = for_suite(dir.path(), "bookworm").unwrap();
        assert_eq!(got.len(), 1, "{got:?}");
        assert_eq!(got[0].line(), "deb http://mirror.example/debian bookworm main contrib");
    }

    #[test]
    fn the_way_out_is_that_of_the_hosts_apt() {
        let is = |said: &str| proxy_of(said).map(|p| p.expose().to_owned());
        assert_eq!(is("P='http://proxy:3128'\n").as_deref(), Some("http://proxy:3128"));
        for none in ["", "P='DIRECT'\n", "P=''\n", "P='http://unended"] {
            assert_eq!(is(none), None, "{none}");
        }
    }

    #[test]
    fn a_host_without_debian_sources_is_told_so() {
        let dir = apt(&[("sources.list", "")]);
        assert!(matches!(for_suite(dir.path(), "bookworm"), Err(SourcesError::None)));
    }
}
