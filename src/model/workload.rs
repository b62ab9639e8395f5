//! What runs on an installed node: the containers of its engine and where
//! their images come from, as the agent tells the deployment server.

use super::{NodeName, Time};
use serde::{Deserialize, Serialize};

/// Things told in one report, at most; more wait for the next.
pub const MOST_SEEN: usize = 200;
/// Containers listed in one report, at most.
pub const MOST_RUNNING: usize = 1000;

/// A container and its image.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
pub struct Container {
    /// Name, as the engine lists it.
    pub name: String,
    /// Image as it was asked for: `10.0.0.2:5000/staging/web:1`.
    pub image: String,
    /// Digest of the image's manifest in the registry it came from,
    /// `sha256:…`; empty for what was built on the node itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

impl Container {
    /// Repository without registry, tag and digest: `staging/web`.
    pub fn repository(&self) -> &str {
        let name = self.image.split('@').next().unwrap_or_default();
        let name = match name.split_once('/') {
            // As docker tells a registry from a folder.
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest,
            _ => name,
        };
        name.split(':').next().unwrap_or_default()
    }
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum Happening {
    /// It started.
    Start,
    /// It ended.
    Exit {
        /// Its exit code.
        code: i32,
        /// Somebody had asked for it (`docker stop`, `docker kill`).
        asked: bool,
    },
    /// Its health check passes.
    Healthy,
    /// Its health check fails.
    Unhealthy,
}

impl Happening {
    /// Whether the software failed: it ended badly by itself, or is ill.
    pub fn is_failure(self) -> bool {
        match self {
            Self::Exit { code, asked } => code != 0 && !asked,
            Self::Unhealthy => true,
            Self::Start | Self::Healthy => false,
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Seen {
    /// When, by the node's clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// Which container.
    #[serde(flatten)]
    pub container: Container,
    /// What.
    #[serde(flatten)]
    pub happening: Happening,
}

/// What the agent sends when something happened, and every half minute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WorkloadReport {
    /// One start of the agent; a random text.
    pub session: String,
    /// Counts the reports of a session, from 1; the same number again is the
    /// same report sent again.
    pub number: u64,
    /// Since the last report, in order.
    pub seen: Vec<Seen>,
    /// Things that happened and could not be kept until they were told.
    #[serde(default)]
    pub missed: u64,
    /// What runs now, by name.
    pub running: Vec<Container>,
}

/// The deployment server's record of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Node.
    pub node: NodeName,
    /// When it was last heard of.
    pub heard: Time,
    /// Not heard of for too long since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Time>,
    /// What runs, as last told.
    pub running: Vec<Container>,
    /// Last report that was written down.
    pub session: String,
    /// Its number.
    pub number: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_found_in_what_people_write() {
        let of = |image: &str| {
            let c = Container { name: "c".into(), image: image.into(), digest: String::new() };
            c.repository().to_owned()
        };
        assert_eq!(of("10.0.0.2:5000/staging/web:1"), "staging/web");
        assert_eq!(of("reg.example/web@sha256:00"), "web");
        assert_eq!(of("localhost/web"), "web");
        assert_eq!(of("team/web:1"), "team/web");
        assert_eq!(of("web"), "web");
        assert_eq!(of(""), "");
    }
}
