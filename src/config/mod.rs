//! Configuration: `wire` is the file as written (serde, TOML, unknown keys
//! refused), `resolved` is what the program works with (typed, checked
//! against itself, defaults filled in), `services` are names and time in it,
//! `cache` is packages, `subnets` the networks behind relays; `nodes` reads
//! inventory files; `deployment` is the deployment server's file, with
//! `bucket`, `follow` and `ingest` in it, `link` where the build server finds it.
//!
//! [`load`] is called by `app` and by `build-server check`. A file that does
//! not hold together is refused with file, line and what would be right, and
//! nothing is started.

pub mod bucket;
pub mod cache;
pub mod deployment;
pub mod follow;
pub mod ingest;
pub mod link;
mod netboot;
pub mod nodes;
pub mod resolved;
pub mod services;
pub mod subnets;
pub mod wire;

pub use resolved::{Config, Deadlines, DhcpMode, Network};

use std::path::{Path, PathBuf};

/// A configuration or inventory file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Wrong at a place.
    #[error("{file}:{line}: {message}")]
    At {
        /// File name as given.
        file: String,
        /// Line, from 1; 0 when the fault is in no single line.
        line: usize,
        /// What is wrong and what would be right.
        message: String,
    },
}

/// Reads and checks the configuration file at `path`.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let base = path.parent().unwrap_or(Path::new("/"));
    parse(&text, &path.display().to_string(), base)
}

/// Checks configuration text; relative paths in it start at `base`.
pub fn parse(text: &str, file: &str, base: &Path) -> Result<Config, ConfigError> {
    let wire: wire::Wire = from_toml(text, file)?;
    resolved::resolve(wire, base).map_err(|fault| ConfigError::At {
        file: file.to_owned(),
        line: fault.at.map_or(0, |o| line_of(text, o)),
        message: fault.message,
    })
}

/// TOML to a type, with the line of the fault and, for a mistyped key, the
/// nearest one that exists.
pub fn from_toml<T: serde::de::DeserializeOwned>(text: &str, file: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|e| ConfigError::At {
        file: file.to_owned(),
        line: e.span().map_or(0, |s| line_of(text, s.start)),
        message: with_suggestion(e.message()),
    })
}

/// The line, from 1, of a byte offset.
pub fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count()
}

/// The candidate nearest to `word`, if one is near enough to be a typing
/// mistake.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(word, c), c))
        .filter(|(d, c)| *d <= 2.max(c.len() / 3))
        .min()
        .map(|(_, c)| c)
}

/// serde says "unknown field `x`, expected one of `a`, `b`": adds which one
/// was probably meant.
fn with_suggestion(message: &str) -> String {
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match words.split_first() {
        Some((wrong, known)) if message.starts_with("unknown ") => {
            match nearest(wrong, known.iter().copied()) {
                Some(near) => format!("{message}; did you mean `{near}`?"),
                None => message.to_owned(),
            }
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[network]
interface = "eth1"
address = "10.1.0.1"
subnet = "10.1.0.0/24"
range = ["10.1.0.10", "10.1.0.99"]
"#;

    fn fault(text: &str) -> String {
        parse(text, "build-server.toml", Path::new("/etc/provision")).unwrap_err().to_string()
    }

    #[test]
    fn five_lines_are_a_whole_configuration() {
        let c = parse(GOOD, "f", Path::new("/etc/provision")).unwrap();
        assert_eq!(c.network.prefix, 24);
        assert_eq!(c.network.router, None);
        assert_eq!(c.store, "sqlite:/var/lib/provision/provision.db");
    }

    #[test]
    fn a_mistyped_key_is_refused_with_line_and_suggestion() {
        let text = GOOD.replace("interface", "interfaec");
        let f = fault(&text);
        assert!(f.starts_with("build-server.toml:3:"), "{f}");
        assert!(f.contains("did you mean `interface`"), "{f}");
    }

    #[test]
    fn a_range_outside_the_subnet_is_refused_with_what_would_be_right() {
        let f = fault(&GOOD.replace("10.1.0.99", "10.2.0.99"));
        assert!(f.starts_with("build-server.toml:6:"), "{f}");
        assert!(f.contains("10.1.0.1 to 10.1.0.254"), "{f}");
        let f = fault(&GOOD.replace("10.1.0.10\"", "10.1.0.200\""));
        assert!(f.contains("ends before it begins"), "{f}");
    }

    #[test]
    fn the_servers_own_address_must_be_in_its_subnet_and_not_in_the_range() {
        let f = fault(&GOOD.replace("address = \"10.1.0.1\"", "address = \"10.9.0.1\""));
        assert!(f.starts_with("build-server.toml:4:"), "{f}");
        let f = fault(&GOOD.replace("address = \"10.1.0.1\"", "address = \"10.1.0.20\""));
        assert!(f.contains("inside the range"), "{f}");
    }
}
