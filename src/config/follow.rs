//! `[follow]`: another registry whose images this one has too.

use super::resolved::{Fault, fault};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// As written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireFollow {
    leader: Spanned<String>,
    ca_file: Option<PathBuf>,
    token_file: PathBuf,
    images: Option<bool>,
    repositories: Option<Spanned<Vec<String>>>,
    interval_seconds: Option<Spanned<u32>>,
}

/// Whom to follow, and in what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// `https://HOST:PORT`.
    pub leader: String,
    /// The authority that signed its certificate; none for our own.
    pub ca_file: Option<PathBuf>,
    /// A token of the leader, role `read`.
    pub token_file: PathBuf,
    /// Whether images are followed, or nodes' certificates alone: two servers
    /// on one bucket have the same images anyway.
    pub images: bool,
    /// Which: `team/` for all below, `team/app` for that one and all below,
    /// `*` for all.
    pub repositories: Vec<String>,
    /// Between two looks.
    pub every: Duration,
}

pub(super) fn follow(w: WireFollow, base: &Path) -> Result<Follow, Fault> {
    let url = w.leader.get_ref().trim_end_matches('/').to_owned();
    let host = url.strip_prefix("https://");
    if host.is_none_or(|h| h.is_empty() || h.contains(['/', '@'])) {
        return fault(w.leader.span(), format!("leader = {url:?} must be https://HOST:PORT"));
    }
    let every = match &w.interval_seconds {
        None => 30,
        Some(n) if (1..=86_400).contains(n.get_ref()) => *n.get_ref(),
        Some(n) => {
            let m = format!("interval_seconds = {} must be 1 to 86400", n.get_ref());
            return fault(n.span(), m);
        }
    };
    if let Some(all) = &w.repositories {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        let good = |p: &String| p == "*" || (!p.is_empty() && p.chars().all(plain));
        if all.get_ref().is_empty() || !all.get_ref().iter().all(good) {
            let m = "repositories must be such as [\"team/\", \"base/debian\"], or [\"*\"] for all";
            return fault(all.span(), m);
        }
    }
    Ok(Follow {
        leader: url,
        ca_file: w.ca_file.map(|f| base.join(f)),
        token_file: base.join(w.token_file),
        images: w.images.unwrap_or(true),
        repositories: w.repositories.map_or_else(|| vec!["*".into()], Spanned::into_inner),
        every: Duration::from_secs(u64::from(every)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::deployment::parse;
    use super::*;

    #[test]
    fn a_leader_and_a_token_are_enough_and_faults_say_what_would_be_right() {
        let read = |t: &str| {
            parse(&format!("[follow]\n{t}"), "f", Path::new("/etc"))
                .map(|c| c.follow.unwrap())
                .map_err(|e| e.to_string())
        };
        let f = read("leader = \"https://one:5000/\"\ntoken_file = \"t\"").unwrap();
        assert_eq!(
            (f.leader.as_str(), f.every.as_secs(), f.images),
            ("https://one:5000", 30, true)
        );
        assert_eq!(f.token_file, Path::new("/etc/t"));
        let wrong = |t: &str| read(t).unwrap_err();
        assert!(wrong("leader = \"http://one\"\ntoken_file = \"t\"").contains("f:2: leader"));
        let more = |t: &str| wrong(&format!("leader = \"https://one\"\ntoken_file = \"t\"\n{t}"));
        assert!(more("interval_seconds = 0").contains("f:4: interval_seconds"));
        assert!(more("repositories = [\"A b\"]").contains("team/"));
        assert!(more("repositores = []").contains("did you mean `repositories`"));
    }
}
