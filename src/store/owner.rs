//! Who writes to a store: a line for people, part of which a restart keeps.

use std::time::Duration;

/// A server, as it names itself to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    host: String,
    instance: String,
    pid: u32,
}

impl Owner {
    /// `instance` tells one state directory from another on the same host.
    /// That no two servers use one directory is for the caller to see to.
    pub fn new(host: &str, instance: &str, pid: u32) -> Self {
        Self { host: host.to_owned(), instance: instance.to_owned(), pid }
    }

    /// What is kept over a restart.
    pub fn stays(&self) -> String {
        format!("the build-server on {} (instance {}), pid ", self.host, self.instance)
    }

    /// The whole line.
    pub fn line(&self) -> String {
        format!("{}{}", self.stays(), self.pid)
    }
}

/// What came of asking to be the only writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Granted, or granted for longer.
    Ours,
    /// Somebody else is.
    Held {
        /// Their line.
        by: String,
        /// When it will expire unless they renew it; `None`: never by itself.
        left: Option<Duration>,
    },
}
