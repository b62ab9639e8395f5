//! From a datagram to a datagram: decode, decide, encode, address. Pure, and
//! the one entry point that the server, the tests and the fuzzer share.

use super::decide::{Decision, Port, Reply, ReplyKind, decide};
use super::packet::{Malformed, MessageType, Request};
use super::reply::{Destination, ReplyError, destination, encode};
use super::{Directory, Settings, Sighting, SightingKind};
use crate::model::{Mac, NodeName};
use std::net::{Ipv4Addr, SocketAddrV4};

/// What a packet came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For the sink, once the datagram is sent.
    pub sighting: Sighting,
    /// What to send and where.
    pub datagram: Option<(Vec<u8>, Destination)>,
}

/// Why a packet came to nothing at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It is not a DHCP request.
    #[error("{0}")]
    Malformed(Malformed),
    /// The answer cannot be written.
    #[error("answer to {mac}: {source}")]
    Unwritable {
        /// The client.
        mac: Mac,
        /// Why.
        source: ReplyError,
    },
}

/// Answers the datagram `packet`, which came to `port` from `from`.
pub fn answer(
    packet: &[u8],
    port: Port,
    from: SocketAddrV4,
    settings: &Settings,
    directory: &dyn Directory,
) -> Result<Answer, NoAnswer> {
    let request = Request::decode(packet).map_err(NoAnswer::Malformed)?;
    let decision = decide(&request, port, settings, directory);
    let datagram = match &decision {
        Decision::Reply(reply) => {
            let bytes = encode(reply, &request, settings)
                .map_err(|source| NoAnswer::Unwritable { mac: request.mac, source })?;
            Some((bytes, destination(reply, &request, settings, port, from)))
        }
        _ => None,
    };
    Ok(Answer { sighting: sighting(&request, decision), datagram })
}

fn sighting(request: &Request, decision: Decision) -> Sighting {
    let (kind, node, address, boot_file) = match decision {
        Decision::Ignore(reason) => (SightingKind::Ignored(reason), None, None, None),
        Decision::Declined(host, address) => {
            (SightingKind::Decline, Some(host.name), Some(address), None)
        }
        Decision::Released(host, address) => {
            (SightingKind::Release, Some(host.name), Some(address), None)
        }
        Decision::Reply(reply) => of_reply(request, *reply),
    };
    Sighting {
        hints: request.hints(),
        xid: request.xid,
        secs: request.secs,
        kind,
        node,
        address,
        boot_file,
        hostname: request.hostname.clone(),
    }
}

type Told = (SightingKind, Option<NodeName>, Option<Ipv4Addr>, Option<String>);

fn of_reply(request: &Request, reply: Reply) -> Told {
    let kind = match reply.kind {
        ReplyKind::Offer => SightingKind::Offer,
        ReplyKind::Ack if request.kind == MessageType::Inform => SightingKind::Inform,
        ReplyKind::Ack => SightingKind::Ack,
        ReplyKind::Nak => SightingKind::Nak,
    };
    let given = (!reply.yiaddr.is_unspecified()).then_some(reply.yiaddr);
    // In a NAK the address that was asked for says most.
    let address = given.or(request.requested).or(Some(request.ciaddr));
    let address = address.filter(|a| !a.is_unspecified());
    (kind, reply.host.map(|h| h.name), address, reply.boot.map(|b| b.file))
}
