//! DHCP for the boot network: known machines get their one address and the
//! next thing to boot; strangers get silence and are reported.
//!
//! A packet goes `packet` (tolerant decode) → `decide` (pure: RFC 2131
//! §4.3, PXE, proxyDHCP) → `reply` (encode, where to send); `answer` is the
//! three in one. `server` is the loop around it over `socket`, and `probe`
//! looks for a rival server before we begin. The module may use `model` and
//! nothing else of this crate: who is known and what they boot comes through
//! [`Directory`], what happened goes out through [`Sink`]; `app` implements
//! both. It keeps no leases: the inventory gives each machine one
//! address, keyed by its MAC and never by client id (installers, loaders and
//! installed systems send different ones), so there is nothing to store.

pub mod answer;
pub mod decide;
pub mod packet;
pub mod probe;
pub mod reply;
pub mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use answer::{Answer, NoAnswer, answer};
pub use decide::{Decision, Reason};
pub use server::{Counters, Server};

use crate::model::{BootFile, ClientHints, NodeName};
use std::net::Ipv4Addr;
use std::time::Duration;

/// What the inventory says of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Sent as option 12.
    pub name: NodeName,
    /// The same at every boot stage.
    pub address: Ipv4Addr,
    /// What to boot now, for exactly the client that the hints describe;
    /// `None` lets firmware go on to its next boot device.
    pub boot: Option<BootFile>,
}

/// A view of the inventory. Called for each packet on the receiving task: it
/// must answer from memory, at once.
pub trait Directory: Send + Sync {
    /// The machine that sent this, or `None` for a stranger.
    fn lookup(&self, hints: &ClientHints) -> Option<Host>;
}

/// Where sightings go. Called on the receiving task: it must return at once.
pub trait Sink: Send + Sync {
    /// One packet from a client, and what became of it.
    fn seen(&self, sighting: Sighting);
}

/// One packet from a client, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Who sent it.
    pub hints: ClientHints,
    /// Transaction id: the same through one exchange.
    pub xid: u32,
    /// Seconds since the client began to ask, as it says itself (`secs`).
    pub secs: u16,
    /// What became of it.
    pub kind: SightingKind,
    /// The node's name, when known.
    pub node: Option<NodeName>,
    /// The address offered, granted, declined or released.
    pub address: Option<Ipv4Addr>,
    /// The boot file it was told.
    pub boot_file: Option<String>,
    /// What the client calls itself (option 12), made printable.
    pub hostname: Option<String>,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SightingKind {
    /// A DISCOVER was answered with an OFFER.
    Offer,
    /// A REQUEST was granted; on port 4011, the boot file was confirmed.
    Ack,
    /// A REQUEST was refused: the client starts over.
    Nak,
    /// The client found its address in use by somebody else.
    Decline,
    /// The client gave its address back.
    Release,
    /// An INFORM was answered.
    Inform,
    /// Nothing was sent.
    Ignored(Reason),
}

impl SightingKind {
    /// A short word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Ack => "ack",
            Self::Nak => "nak",
            Self::Decline => "decline",
            Self::Release => "release",
            Self::Inform => "inform",
            Self::Ignored(reason) => reason.as_str(),
        }
    }
}

/// Whether we give out addresses or only boot files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// We are the DHCP server of this network.
    Authoritative,
    /// Somebody else gives out addresses; we add the boot file (PXE 2.1
    /// §2.2.4 "proxyDHCP"). UEFI HTTP boot works so too.
    Proxy,
}

/// An IPv4 network and the way out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// Any address inside it.
    pub network: Ipv4Addr,
    /// Length of the prefix, 1 to 30.
    pub prefix: u8,
    /// Option 3.
    pub router: Option<Ipv4Addr>,
}

impl Subnet {
    /// The mask, option 1.
    pub fn mask(&self) -> Ipv4Addr {
        let bits = u32::from(self.prefix.min(32));
        Ipv4Addr::from(u32::MAX.checked_shl(32 - bits).unwrap_or(0))
    }

    /// The broadcast address, option 28.
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !u32::from(self.mask()))
    }

    /// Whether `address` is inside.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::from(self.mask());
        u32::from(address) & mask == u32::from(self.network) & mask
    }
}

/// How one interface is served. Several boot networks on several interfaces
/// are several servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The interface; packets that arrive on others are not even read.
    pub interface: String,
    /// Our address on it: server identifier (option 54) and source address.
    pub server_address: Ipv4Addr,
    /// The network on the interface.
    pub subnet: Subnet,
    /// Networks behind relay agents.
    pub relayed: Vec<Subnet>,
    /// Relay agents we answer. When empty, any whose address (`giaddr`) is
    /// inside `subnet` or `relayed`.
    pub relays: Vec<Ipv4Addr>,
    /// Option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Option 42.
    pub ntp: Vec<Ipv4Addr>,
    /// Option 15.
    pub domain: Option<String>,
    /// Option 119 (RFC 3397).
    pub search: Vec<String>,
    /// Option 51.
    pub lease: Duration,
    /// Addresses and boot files, or boot files only.
    pub mode: Mode,
    /// Serve even where another DHCP server answers. Only for networks where
    /// that one is known not to answer our nodes.
    pub allow_other_servers: bool,
    /// How long to look for another server before serving. dnsmasq pings an
    /// address for 3 s before it offers it, ISC dhcpd for 1 s.
    pub probe: Duration,
}

impl Settings {
    /// Settings for the plain case: one network, no relays, ten-minute
    /// leases, authoritative.
    pub fn new(interface: &str, server_address: Ipv4Addr, prefix: u8) -> Self {
        Self {
            interface: interface.to_owned(),
            server_address,
            subnet: Subnet { network: server_address, prefix, router: None },
            relayed: Vec::new(),
            relays: Vec::new(),
            dns: Vec::new(),
            ntp: Vec::new(),
            domain: None,
            search: Vec::new(),
            lease: Duration::from_secs(600),
            mode: Mode::Authoritative,
            allow_other_servers: false,
            probe: Duration::from_secs(5),
        }
    }
}

/// Why DHCP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// The interface does not exist (here).
    #[error("DHCP: there is no network interface {interface:?} on this machine")]
    NoInterface {
        /// Its name.
        interface: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The port cannot be had.
    #[error("DHCP: cannot listen on UDP port {port} of {interface}")]
    Bind {
        /// Port.
        port: u16,
        /// Interface.
        interface: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another server answers on this network.
    #[error(
        "DHCP: another server, {server}, already answers on {interface} (it offered {offered}); \
         switch it off, use proxy mode, or allow other servers"
    )]
    OtherServer {
        /// Interface.
        interface: String,
        /// Its server identifier.
        server: Ipv4Addr,
        /// What it offered our probe.
        offered: Ipv4Addr,
    },
    /// The socket broke while serving.
    #[error("DHCP: receiving on {interface} failed")]
    Receive {
        /// Interface.
        interface: String,
        /// What the system said.
        source: std::io::Error,
    },
}
