//! A decision as bytes, and where they go.
//!
//! dhcproto writes the fixed header. The options are written here, because
//! its option map is ordered by number: we need the order in which things may
//! be left out when the client's buffer is small, and padding to 300 bytes,
//! which it does not do.

use super::decide::{Port, Reply, ReplyKind};
use super::packet::Request;
use super::{Mode, Settings};
use crate::model::{ClientKind, Mac};
use dhcproto::v4;
use dhcproto::{Encodable, Encoder};
use std::net::{Ipv4Addr, SocketAddrV4};

/// BOOTP's 300 bytes: old relays and PXE ROMs drop anything shorter
/// (RFC 1542 §2.1).
const MIN_PAYLOAD: usize = 300;
/// A client takes 576-byte datagrams unless it says more (RFC 2131 §2); less
/// the IP and UDP headers.
const DEFAULT_PAYLOAD: usize = 576 - 28;
/// Never fragment on Ethernet. EDK2 announces 65280 bytes and means 1500.
const MAX_PAYLOAD: usize = 1500 - 28;

/// Where a reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// An Ethernet frame to this hardware and network address, port 68. The
    /// client cannot answer ARP yet, and a thousand renewals at once would
    /// overflow the neighbour table (1,024 entries by default).
    Frame(Mac, Ipv4Addr),
    /// To everybody on the interface, port 68.
    Broadcast,
    /// Through the routing table: relay agents, nodes behind routers,
    /// port 4011.
    Routed(SocketAddrV4),
}

/// Why a reply could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The boot file's name is too long for option 67.
    #[error("boot file name has {0} bytes; DHCP carries at most 255")]
    BootFileTooLong(usize),
    /// The boot file's name does not fit the client's buffer.
    #[error("boot file name does not fit the {0} bytes this client takes")]
    NoRoom(usize),
    /// dhcproto refused.
    #[error("DHCP header: {0}")]
    Header(String),
}

/// Where the reply goes (RFC 2131 §4.1); `source` is where the packet came
/// from.
pub fn destination(
    reply: &Reply,
    request: &Request,
    settings: &Settings,
    port: Port,
    source: SocketAddrV4,
) -> Destination {
    if port == Port::Proxy {
        // A client on 4011 may have any source port.
        return Destination::Routed(source);
    }
    if request.is_relayed() {
        return Destination::Routed(SocketAddrV4::new(request.giaddr, 67));
    }
    if reply.kind == ReplyKind::Nak {
        // It may hold an address of another network: §4.3.2 asks for
        // broadcast.
        return Destination::Broadcast;
    }
    if !request.ciaddr.is_unspecified() {
        return if settings.subnet.contains(request.ciaddr) {
            Destination::Frame(request.mac, request.ciaddr)
        } else {
            Destination::Routed(SocketAddrV4::new(request.ciaddr, 68))
        };
    }
    if request.wants_broadcast() || reply.yiaddr.is_unspecified() {
        Destination::Broadcast
    } else {
        Destination::Frame(request.mac, reply.yiaddr)
    }
}

/// Writes the reply.
pub fn encode(
    reply: &Reply,
    request: &Request,
    settings: &Settings,
) -> Result<Vec<u8>, ReplyError> {
    let limit = request.max_size.map_or(DEFAULT_PAYLOAD, |n| usize::from(n).saturating_sub(28));
    let limit = limit.clamp(DEFAULT_PAYLOAD, MAX_PAYLOAD);
    let boot_file = reply.boot.as_ref().map(|b| b.file.as_str()).unwrap_or_default();
    if boot_file.len() > 255 {
        return Err(ReplyError::BootFileTooLong(boot_file.len()));
    }
    let mut out = header(reply, request, boot_file)?;
    let relay_info = request.relay_info.as_deref().unwrap_or_default();
    // The relay takes option 82 out again, so that the client's limit does
    // not count it; the frame's does. One byte is kept for the end mark.
    let room = MAX_PAYLOAD.saturating_sub(split_len(relay_info.len())).max(DEFAULT_PAYLOAD);
    let mut options = Options { out: &mut out, limit: limit.min(room) - 1 };

    let kind = match reply.kind {
        ReplyKind::Offer => 2,
        ReplyKind::Ack => 5,
        ReplyKind::Nak => 6,
    };
    options.put(53, &[kind]);
    options.put(54, &settings.server_address.octets());
    if let Some(id) = &request.client_id {
        options.put(61, id); // RFC 6842: always back, even in a NAK
    }
    if let Some(message) = reply.message {
        options.put(56, message.as_bytes());
    }
    if reply.lease {
        let seconds = u32::try_from(settings.lease.as_secs()).unwrap_or(u32::MAX);
        options.put(51, &seconds.to_be_bytes());
    }
    if let Some(subnet) = &reply.subnet {
        options.put(1, &subnet.mask().octets());
        // Debian's installer drops name servers, domain and time servers where
        // there is no router: its script ends at the empty route. A way that
        // leads to us and no further does no harm.
        let ours = request.is_debian_installer().then_some(settings.server_address);
        options.put_addresses(3, subnet.router.or(ours).as_slice());
        options.put_addresses(6, &settings.dns);
    }
    if !netboot(reply, request, settings, boot_file, &mut options) {
        return Err(ReplyError::NoRoom(limit));
    }
    if let (Some(host), Some(subnet)) = (&reply.host, &reply.subnet) {
        options.put(12, host.name.as_str().as_bytes());
        if let Some(domain) = &settings.domain {
            options.put(15, domain.as_bytes());
        }
        if reply.lease {
            let seconds = settings.lease.as_secs();
            let at = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
            options.put(58, &at(seconds / 2)); // T1 and T2: RFC 2131 §4.4.5
            options.put(59, &at(seconds.saturating_mul(7) / 8));
        }
        options.put(28, &subnet.broadcast().octets());
        options.put_addresses(42, &settings.ntp);
        let search = search_list(&settings.search);
        options.put(119, &search);
    }
    options.limit = MAX_PAYLOAD - 1;
    options.put(82, relay_info); // RFC 3046 §2.2: last
    out.push(255);
    if out.len() < MIN_PAYLOAD {
        out.resize(MIN_PAYLOAD, 0);
    }
    Ok(out)
}

/// The header through dhcproto; `file` also in its old place, which some PXE
/// ROMs read and nothing else.
fn header(reply: &Reply, request: &Request, boot_file: &str) -> Result<Vec<u8>, ReplyError> {
    let nak = reply.kind == ReplyKind::Nak;
    // A relay must broadcast a NAK (RFC 2131 §4.3.2).
    let flags = if nak && request.is_relayed() { request.flags | 0x8000 } else { request.flags };
    let mut message = v4::Message::default();
    message
        .set_opcode(v4::Opcode::BootReply)
        .set_htype(v4::HType::Eth)
        .set_xid(request.xid)
        .set_flags(v4::Flags::from(flags))
        .set_yiaddr(reply.yiaddr)
        .set_giaddr(request.giaddr)
        .set_chaddr(&request.mac.bytes());
    if reply.kind == ReplyKind::Ack {
        message.set_ciaddr(request.ciaddr); // RFC 2131 table 3
    }
    if let Some(boot) = &reply.boot {
        message.set_siaddr(boot.server);
        if boot_file.len() < 128 {
            message.set_fname(boot_file.as_bytes());
        }
    }
    let mut out = Vec::with_capacity(MIN_PAYLOAD);
    message.encode(&mut Encoder::new(&mut out)).map_err(|e| ReplyError::Header(e.to_string()))?;
    Ok(out)
}

/// What boot clients need; `false` when the boot file found no room.
fn netboot(
    reply: &Reply,
    request: &Request,
    settings: &Settings,
    boot_file: &str,
    options: &mut Options<'_>,
) -> bool {
    let Some(boot) = &reply.boot else { return true };
    let client = request.client_kind();
    let asked = match client {
        ClientKind::Pxe => Some("PXEClient"),
        ClientKind::HttpBoot => Some("HTTPClient"),
        // iPXE takes an offer with option 60 for a proxyDHCP offer as well
        // and waits for more; only a proxy must send it.
        ClientKind::Ipxe if settings.mode == Mode::Proxy => Some("PXEClient"),
        ClientKind::Ipxe | ClientKind::Os => None,
    };
    if let Some(class) = boot.vendor_class.or(asked) {
        options.put(60, class.as_bytes());
        if class == "PXEClient" {
            // PXE 2.1 table 2-1, sub-option 6, discovery control: bit 3, take
            // the boot file from this offer, no multicast discovery, no menu.
            options.put(43, &[6, 1, 8, 255]);
        }
    }
    if client == ClientKind::Ipxe && settings.mode == Mode::Authoritative {
        // iPXE's "no-pxedhcp": saves its 2 s wait for proxyDHCP offers.
        options.put(175, &[0xb0, 1, 1]);
    }
    if !boot_file.contains("://") {
        options.put(66, boot.server.to_string().as_bytes());
    }
    // With the name in `file`, option 67 is a second copy and may go.
    if !options.put(67, boot_file.as_bytes()) && boot_file.len() >= 128 {
        return false;
    }
    if let Some(id) = request.machine_id.as_deref().filter(|_| client.is_netboot()) {
        options.put(97, id); // RFC 4578 §2.3: back as it came
    }
    true
}

/// Bytes that `len` bytes of data take as one option or several (RFC 3396).
fn split_len(len: usize) -> usize {
    len + 2 * len.div_ceil(255)
}

/// Writes options while there is room.
struct Options<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
}

impl Options<'_> {
    /// Writes one option, split when it is longer than 255; `false` when it
    /// did not fit and was left out. Empty data is no option.
    fn put(&mut self, code: u8, data: &[u8]) -> bool {
        if self.out.len() + split_len(data.len()) > self.limit {
            return false;
        }
        for part in data.chunks(255) {
            self.out.push(code);
            self.out.push(part.len() as u8);
            self.out.extend_from_slice(part);
        }
        true
    }

    fn put_addresses(&mut self, code: u8, addresses: &[Ipv4Addr]) {
        let bytes: Vec<u8> = addresses.iter().flat_map(|a| a.octets()).collect();
        self.put(code, &bytes);
    }
}

/// RFC 3397, without compression (every client reads that).
fn search_list(domains: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for domain in domains {
        let labels: Vec<&[u8]> =
            domain.as_bytes().split(|&b| b == b'.').filter(|l| !l.is_empty()).collect();
        if labels.is_empty() || labels.iter().any(|l| l.len() > 63) {
            continue;
        }
        for label in labels {
            out.push(label.len() as u8);
            out.extend_from_slice(label);
        }
        out.push(0);
    }
    out
}
