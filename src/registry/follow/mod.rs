//! Following: this registry has the images of another one, its leader, and
//! serves them when the leader is gone.
//!
//! A *pass* asks the leader for its repositories, tags and what refers to
//! them, and takes what is missing: blobs before the manifests that name them,
//! the tag last, so that nobody ever sees half an image. A blob that broke off
//! goes on from the bytes that are here (`fetch`). Everything is hashed.
//!
//! Repositories that follow are read-only for everybody else: of two writers
//! one would lose. A tag that the leader no longer has is taken away if it
//! came from there and is still what came; `_followed` says so. A leader that
//! shows no repository at all takes nothing away: it has lost its own.

mod fetch;
mod leader;
mod pass;
mod status;

pub use leader::{FollowError, Leader};
pub use status::{Behind, Fetching, Status};

use super::Registry;
use super::error::{Code, Fault};
use super::name::RepositoryName;
use status::Progress;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Whose repositories a registry follows, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    leader: String,
    prefixes: Vec<String>,
}

impl Followed {
    /// `leader` is for people; a prefix is `*`, `team/` or `team/app`.
    pub fn new(leader: impl Into<String>, prefixes: Vec<String>) -> Self {
        Self { leader: leader.into(), prefixes }
    }

    /// Whether `repository` follows.
    pub fn covers(&self, repository: &RepositoryName) -> bool {
        let name = repository.as_str();
        self.prefixes.iter().any(|p| {
            let below = |p: &str| name.strip_prefix(p).is_some_and(|r| r.starts_with('/'));
            match p.strip_suffix('/') {
                Some(p) => below(p),
                None => p == "*" || name == p || below(p),
            }
        })
    }
}

impl Registry {
    /// Refuses to change what is another registry's to change.
    pub(super) fn refuse_if_followed(&self, repository: &RepositoryName) -> Result<(), Fault> {
        match &self.settings.followed {
            Some(f) if f.covers(repository) => Err(Fault::new(
                Code::Denied,
                format!(
                    "{repository} follows {}, so it can only be read here: change it there; if \
                     that one is gone for good, take [follow] out of this server's configuration",
                    f.leader
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Follows; see the module.
pub struct Follower {
    registry: Arc<Registry>,
    leader: Leader,
    followed: Followed,
    progress: Progress,
    /// Everything was looked at once, blobs too.
    looked: AtomicBool,
}

impl Follower {
    /// Of `leader`, in those repositories that `registry` was opened to follow.
    pub fn new(registry: Arc<Registry>, leader: Leader) -> Self {
        let followed = registry.settings.followed.clone();
        let followed = followed.unwrap_or_else(|| Followed::new(leader.name(), Vec::new()));
        Self {
            registry,
            leader,
            followed,
            progress: Progress::default(),
            looked: AtomicBool::new(false),
        }
    }

    /// How it goes.
    pub fn status(&self) -> Status {
        self.progress.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_what_a_grant_of_the_same_form_covers() {
        let covers =
            |p: &str, r: &str| Followed::new("x", vec![p.to_owned()]).covers(&r.parse().unwrap());
        assert!(covers("*", "any/thing") && covers("team", "team") && covers("team", "team/app"));
        assert!(
            covers("team/", "team/app") && !covers("team/", "team") && !covers("team", "teams")
        );
    }
}
