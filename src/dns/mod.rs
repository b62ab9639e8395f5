//! Names for the boot network: the nodes and the servers, forward and
//! reverse; the rest is passed on when there is somewhere to pass it.
//!
//! A question goes `decide` (pure: RFC 1034 §4.3.2, RFC 2308, RFC 6891), which
//! looks in `zone` for what is ours; `forward` carries the rest to other
//! servers, bounded in time and number; `server` is the loop around them over
//! UDP and TCP. The module may use `model` and nothing else of this crate: who
//! is called what comes through [`Names`], from the inventory as it is at that
//! moment, so that a change counts at once. Nothing is kept: not the answers of
//! others either, each node has a cache of its own. Only the boot network is
//! answered; an open resolver is a gun lying about.

pub mod decide;
pub mod forward;
pub mod server;
#[cfg(test)]
mod tests;
pub mod zone;

pub use decide::{Decision, Outcome, Transport, decide};
pub use forward::Upstreams;
pub use server::{Counters, Server};
pub use zone::Zone;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// A view of the inventory. Called for each question on the receiving task: it
/// must answer from memory, at once. Names are in lower case.
pub trait Names: Send + Sync {
    /// The address of `label` in our domain.
    fn address(&self, label: &str) -> Option<Ipv4Addr>;
    /// The address of a server of ours whose full name, without the last dot,
    /// is in somebody else's domain.
    fn elsewhere(&self, full: &str) -> Option<Ipv4Addr>;
    /// The label, or where it has dots the full name, that `address` has.
    fn name(&self, address: Ipv4Addr) -> Option<String>;
}

/// How names are served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our address on the boot network; port 53 in earnest.
    pub listen: SocketAddrV4,
    /// What we speak for.
    pub zone: Zone,
    /// Who is asked the rest.
    pub upstreams: Upstreams,
}

/// Why names cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain is none.
    #[error("DNS: {domain:?} is no domain: {why}")]
    Domain {
        /// As configured.
        domain: String,
        /// What the codec said.
        why: String,
    },
    /// The port cannot be had.
    #[error("DNS: cannot listen on {listen} ({transport})")]
    Bind {
        /// Address and port.
        listen: SocketAddrV4,
        /// `UDP` or `TCP`.
        transport: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The socket broke while serving.
    #[error("DNS: receiving on {listen} failed")]
    Receive {
        /// Address and port.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}
