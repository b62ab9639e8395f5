//! Rights in the registry, by repository prefix: `team/:pull,push`. Pure.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What one may do in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Read.
    Pull,
    /// Write.
    Push,
    /// Take away.
    Delete,
    /// Move from staging.
    Promote,
}

impl Right {
    /// All.
    pub const ALL: [Self; 4] = [Self::Pull, Self::Push, Self::Delete, Self::Promote];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Promote => "promote",
        }
    }
}

/// Rights below a prefix. `*` is every repository; `team/` those below
/// `team`; `team/app` that one and those below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Grant {
    prefix: String,
    rights: BTreeSet<Right>,
}

/// A grant that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not PREFIX:RIGHTS, such as team/:pull,push or *:pull (rights are pull, push, delete, promote)"
)]
pub struct BadGrant(String);

impl FromStr for Grant {
    type Err = BadGrant;

    fn from_str(text: &str) -> Result<Self, BadGrant> {
        let bad = || BadGrant(text.chars().take(80).collect());
        let (prefix, list) = text.split_once(':').ok_or_else(bad)?;
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-/".contains(&c);
        let shaped = !prefix.is_empty()
            && prefix.len() <= 255
            && !prefix.starts_with('/')
            && prefix.bytes().all(plain);
        if prefix != "*" && !shaped {
            return Err(bad());
        }
        let right = |w: &str| Right::ALL.into_iter().find(|r| r.as_str() == w.trim());
        let rights: Option<BTreeSet<Right>> = list.split(',').map(right).collect();
        let rights = rights.filter(|r| !r.is_empty()).ok_or_else(bad)?;
        Ok(Self { prefix: prefix.to_owned(), rights })
    }
}

impl TryFrom<String> for Grant {
    type Error = BadGrant;

    fn try_from(s: String) -> Result<Self, BadGrant> {
        s.parse()
    }
}

impl From<Grant> for String {
    fn from(g: Grant) -> Self {
        g.to_string()
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rights: Vec<&str> = self.rights.iter().map(|r| r.as_str()).collect();
        write!(f, "{}:{}", self.prefix, rights.join(","))
    }
}

impl Grant {
    fn covers(&self, repository: &str) -> bool {
        if self.prefix == "*" {
            return true;
        }
        let Some(rest) = repository.strip_prefix(&self.prefix) else { return false };
        self.prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/')
    }
}

/// Whether `grants` allow `right` in `repository`.
pub fn allow(grants: &[Grant], repository: &str, right: Right) -> bool {
    grants.iter().any(|g| g.rights.contains(&right) && g.covers(repository))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_what_is_below_it_and_nothing_beside() {
        let may = |grant: &str, repository: &str, right| {
            allow(&[grant.parse().unwrap()], repository, right)
        };
        assert!(may("team/:pull", "team/app", Right::Pull));
        assert!(!may("team/:pull", "team", Right::Pull));
        assert!(!may("team/:pull", "teamwork/app", Right::Pull));
        assert!(!may("team/:pull", "team/app", Right::Push));
        assert!(may("team/app:pull,push", "team/app", Right::Push));
        assert!(may("team/app:pull", "team/app/x", Right::Pull));
        assert!(!may("team/app:pull", "team/apple", Right::Pull));
        assert!(may("*:delete", "any/thing", Right::Delete));
    }

    #[test]
    fn a_grant_that_cannot_be_read_says_what_would_be_right() {
        for text in ["", "team/", "team/:", "team/:fly", ":pull", "/x:pull", "A:pull", "a b:pull"] {
            let e = text.parse::<Grant>().unwrap_err().to_string();
            assert!(e.contains("team/:pull,push"), "{e}");
        }
        let g: Grant = "team/:push,pull".parse().unwrap();
        assert_eq!(g.to_string(), "team/:pull,push");
    }
}
