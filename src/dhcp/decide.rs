//! What to do with a packet: pure, so that every row of RFC 2131 §4.3 and of
//! the PXE specification can be a line in a test table.

use super::packet::{MessageType, Request};
use super::{Directory, Host, Mode, Settings, Subnet};
use crate::model::{BootFile, ClientKind};
use std::net::Ipv4Addr;

/// The port a packet came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// 67, where DHCP servers listen.
    Server,
    /// 4011, where a client that has an address asks a proxyDHCP server
    /// (PXE 2.1 §2.2.4).
    Proxy,
}

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not in the inventory.
    Stranger,
    /// The client chose the server named here.
    OtherServer(Ipv4Addr),
    /// It came through a relay agent we do not serve.
    Relay(Ipv4Addr),
    /// The node's address is not in the network it asks from: it is plugged
    /// into the wrong one, or the inventory is wrong.
    WrongNetwork(Ipv4Addr),
    /// Proxy mode, and nothing that boots from the network.
    NotNetboot,
    /// Proxy mode, and nothing for it to boot now.
    NothingToBoot,
    /// Proxy mode: addresses are another server's business.
    NotOurLease,
    /// It asks for no address at all.
    NoAddress,
    /// A message no client sends, or one we do not serve (lease query).
    NotServed(u8),
}

impl Reason {
    /// A short word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::OtherServer(_) => "other-server",
            Self::Relay(_) => "relay-not-allowed",
            Self::WrongNetwork(_) => "wrong-network",
            Self::NotNetboot => "not-netboot",
            Self::NothingToBoot => "nothing-to-boot",
            Self::NotOurLease => "not-our-lease",
            Self::NoAddress => "no-address",
            Self::NotServed(_) => "not-served",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stranger => f.write_str("not in the inventory"),
            Self::OtherServer(a) => write!(f, "it chose another DHCP server, {a}"),
            Self::Relay(a) => write!(f, "relay agent {a} is not one we serve"),
            Self::WrongNetwork(a) => write!(f, "its address {a} is not in the network it is on"),
            Self::NotNetboot => f.write_str("it is not booting from the network"),
            Self::NothingToBoot => f.write_str("there is nothing for it to boot now"),
            Self::NotOurLease => f.write_str("addresses here are another server's business"),
            Self::NoAddress => f.write_str("it names no address"),
            Self::NotServed(n) => write!(f, "DHCP message type {n} is not served"),
        }
    }
}

/// What is sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// To a DISCOVER.
    Offer,
    /// To a REQUEST or INFORM.
    Ack,
    /// To a REQUEST that cannot be granted.
    Nak,
}

/// A reply, before it is bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Message type.
    pub kind: ReplyKind,
    /// The address granted; 0.0.0.0 from a proxy, to an INFORM, in a NAK.
    pub yiaddr: Ipv4Addr,
    /// Whether to send lease times (not to an INFORM, RFC 2131 §4.3.5).
    pub lease: bool,
    /// The network to describe (mask, router …); `None` from a proxy.
    pub subnet: Option<Subnet>,
    /// What to boot.
    pub boot: Option<BootFile>,
    /// The node; `None` in a NAK.
    pub host: Option<Host>,
    /// Option 56, why not.
    pub message: Option<&'static str>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Send this.
    Reply(Box<Reply>),
    /// The client found its address in use; only to be reported.
    Declined(Host, Ipv4Addr),
    /// The client gave its address back; only to be reported.
    Released(Host, Ipv4Addr),
    /// Send nothing.
    Ignore(Reason),
}

/// Decides. `port` is where the packet came to; in authoritative mode only
/// [`Port::Server`] is listened to.
pub fn decide(
    request: &Request,
    port: Port,
    settings: &Settings,
    directory: &dyn Directory,
) -> Decision {
    let subnet = match from_where(request, settings) {
        Ok(subnet) => subnet,
        Err(reason) => return Decision::Ignore(reason),
    };
    // Before the inventory is asked: a stranger and a node both may speak to
    // the other server, but only the reason "stranger" makes a discovery.
    let Some(host) = directory.lookup(&request.hints()) else {
        return Decision::Ignore(Reason::Stranger);
    };
    match settings.mode {
        Mode::Proxy => as_proxy(request, port, settings, host),
        Mode::Authoritative => as_server(request, settings, subnet, host),
    }
}

/// The network the client is on. The relay's address tells it (RFC 2131
/// §4.3.1); a relay that is allowed by name may have an address outside every
/// network we know, and then the node's own address decides.
fn from_where(request: &Request, settings: &Settings) -> Result<Option<Subnet>, Reason> {
    if !request.is_relayed() {
        // A renewal comes straight from a node behind a router, without a
        // relay; its own address tells its network.
        let there = settings.relayed.iter().find(|s| s.contains(request.ciaddr));
        return Ok(Some(*there.unwrap_or(&settings.subnet)));
    }
    let relay = request.giaddr;
    if !settings.relays.is_empty() && !settings.relays.contains(&relay) {
        return Err(Reason::Relay(relay));
    }
    let known = settings.relayed.iter().chain([&settings.subnet]).find(|s| s.contains(relay));
    match known {
        Some(subnet) => Ok(Some(*subnet)),
        None if settings.relays.contains(&relay) => Ok(None),
        None => Err(Reason::Relay(relay)),
    }
}

fn as_server(
    request: &Request,
    settings: &Settings,
    subnet: Option<Subnet>,
    host: Host,
) -> Decision {
    let ours = |server: Ipv4Addr| server == settings.server_address;
    if let Some(server) = request.server.filter(|&s| !ours(s)) {
        return Decision::Ignore(Reason::OtherServer(server));
    }
    let subnet = subnet.or_else(|| {
        let all = settings.relayed.iter().chain([&settings.subnet]);
        all.copied().find(|s| s.contains(host.address))
    });
    let Some(subnet) = subnet.filter(|s| s.contains(host.address)) else {
        return Decision::Ignore(Reason::WrongNetwork(host.address));
    };
    match request.kind {
        MessageType::Discover => grant(ReplyKind::Offer, subnet, host),
        MessageType::Request => match wanted(request) {
            None => Decision::Ignore(Reason::NoAddress),
            Some(address) if address == host.address => grant(ReplyKind::Ack, subnet, host),
            Some(_) => nak("this node has another address"),
        },
        MessageType::Decline => {
            let address = request.requested.unwrap_or(host.address);
            Decision::Declined(host, address)
        }
        MessageType::Release => Decision::Released(host, request.ciaddr),
        MessageType::Inform => inform(request, subnet, host),
        MessageType::Other(n) => Decision::Ignore(Reason::NotServed(n)),
    }
}

/// The address a REQUEST is about. RFC 2131 §4.3.2 tells the states apart by
/// what is filled in: SELECTING has server identifier and option 50,
/// INIT-REBOOT option 50 alone, RENEWING and REBINDING only `ciaddr`. With
/// one fixed address per node the answer is the same in all of them: yes to
/// that address, no to any other.
fn wanted(request: &Request) -> Option<Ipv4Addr> {
    request.requested.or((!request.ciaddr.is_unspecified()).then_some(request.ciaddr))
}

fn grant(kind: ReplyKind, subnet: Subnet, host: Host) -> Decision {
    Decision::Reply(Box::new(Reply {
        kind,
        yiaddr: host.address,
        lease: true,
        subnet: Some(subnet),
        boot: host.boot.clone(),
        host: Some(host),
        message: None,
    }))
}

fn nak(message: &'static str) -> Decision {
    Decision::Reply(Box::new(Reply {
        kind: ReplyKind::Nak,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        lease: false,
        subnet: None,
        boot: None,
        host: None,
        message: Some(message),
    }))
}

/// An INFORM's client has its address from elsewhere and wants only the rest
/// (RFC 2131 §4.3.5).
fn inform(request: &Request, subnet: Subnet, host: Host) -> Decision {
    if request.ciaddr.is_unspecified() {
        return Decision::Ignore(Reason::NoAddress);
    }
    Decision::Reply(Box::new(Reply {
        kind: ReplyKind::Ack,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        lease: false,
        subnet: Some(subnet),
        boot: host.boot.clone(),
        host: Some(host),
        message: None,
    }))
}

/// ProxyDHCP: a boot file and no address. A REQUEST on port 67 is for the
/// server that gives addresses, even when it carries our identifier.
fn as_proxy(request: &Request, port: Port, settings: &Settings, host: Host) -> Decision {
    if request.client_kind() == ClientKind::Os {
        return Decision::Ignore(Reason::NotNetboot);
    }
    let kind = match (request.kind, port) {
        (MessageType::Discover, Port::Server) => ReplyKind::Offer,
        (MessageType::Request | MessageType::Inform, Port::Proxy) => {
            // On 4011 the identifier may be the address server's (iPXE
            // repeats what it was told); the port alone says we are meant.
            ReplyKind::Ack
        }
        (MessageType::Request, Port::Server) => {
            return Decision::Ignore(match request.server {
                Some(server) if server != settings.server_address => Reason::OtherServer(server),
                _ => Reason::NotOurLease,
            });
        }
        (MessageType::Other(n), _) => return Decision::Ignore(Reason::NotServed(n)),
        _ => return Decision::Ignore(Reason::NotOurLease),
    };
    let Some(boot) = host.boot.clone() else {
        return Decision::Ignore(Reason::NothingToBoot);
    };
    Decision::Reply(Box::new(Reply {
        kind,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        lease: false,
        subnet: None,
        boot: Some(boot),
        host: Some(host),
        message: None,
    }))
}
