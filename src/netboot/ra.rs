//! A short answer to iPXE's router solicitation.
//!
//! iPXE with IPv6 (the distributions' builds) configures IPv6 beside DHCP and
//! goes on only when a router has answered or five solicitations have timed
//! out: 17 seconds at every boot on a link without IPv6 (seen with Debian's
//! 1.0.0+git-20190125, see `docs/booting.md`). A Router Advertisement with
//! lifetime 0 says "there is no default router here" (RFC 4861 §4.2, §6.2.5)
//! and changes nothing for anybody else. Only known nodes are answered, by
//! unicast.
//!
//! `answer` is pure; `serve` is the raw ICMPv6 socket around it. Without IPv6
//! on the interface this does nothing, and boots are as slow as they were.

use crate::model::Mac;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;

/// The MAC in a link-local address made from it (modified EUI-64, RFC 4291
/// appendix A).
fn mac_of(address: Ipv6Addr) -> Option<Mac> {
    let o = address.octets();
    if o[..8] != [0xfe, 0x80, 0, 0, 0, 0, 0, 0] || o[11..13] != [0xff, 0xfe] {
        return None;
    }
    Mac::from_bytes([o[8] ^ 2, o[9], o[10], o[13], o[14], o[15]])
}

/// The advertisement for a solicitation from `from`, if it is one from a node
/// that `is_known`. The checksum is the kernel's to fill in.
pub fn answer(packet: &[u8], from: Ipv6Addr, is_known: impl Fn(Mac) -> bool) -> Option<[u8; 16]> {
    if packet.len() < 8 || packet[0] != ROUTER_SOLICITATION || packet[1] != 0 {
        return None;
    }
    is_known(mac_of(from)?).then(|| {
        let mut ra = [0u8; 16];
        // No flags (neither managed nor other: no DHCPv6), lifetime 0.
        ra[0] = ROUTER_ADVERTISEMENT;
        ra
    })
}

/// Answers on `interface` until `stop`.
pub async fn serve(
    interface: &str,
    is_known: impl Fn(Mac) -> bool,
    stop: CancellationToken,
) -> io::Result<()> {
    // SAFETY: the descriptor belongs to the socket, which lives in the AsyncFd
    // and is neither closed nor replaced before it.
    let socket = unsafe { AsyncFd::register(open(interface)?) }?;
    loop {
        let mut buf = [MaybeUninit::<u8>::uninit(); 1500];
        let got = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            r = socket.async_io(Interest::READABLE, |s| {
                let (n, from) = s.recv_from(&mut buf)?;
                // SAFETY: the kernel has written the first `n` bytes.
                let bytes = unsafe { std::slice::from_raw_parts(buf.as_ptr().cast::<u8>(), n) };
                Ok((bytes.to_vec(), from))
            }) => r,
        };
        let (bytes, from) = match got {
            Ok(g) => g,
            Err(e) => {
                tracing::debug!(error = %e, "router solicitations cannot be read");
                continue;
            }
        };
        let Some(SocketAddr::V6(from)) = from.as_socket() else { continue };
        if let Some(ra) = answer(&bytes, *from.ip(), &is_known) {
            let to = SocketAddrV6::new(*from.ip(), 0, 0, from.scope_id());
            if let Err(e) = socket.get_ref().send_to(&ra, &to.into()) {
                tracing::debug!(error = %e, "router advertisement not sent");
            }
        }
    }
}

fn open(interface: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // RFC 4861 §6.1: a hop limit other than 255 did not come from the link.
    socket.set_unicast_hops_v6(255)?;
    // Solicitations go to all routers.
    let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
    socket.join_multicast_v6(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), index)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_nodes_solicitation_is_answered_with_lifetime_zero() {
        let from: Ipv6Addr = "fe80::5054:ff:fe77:b".parse().unwrap();
        let known: Mac = "52:54:00:77:00:0b".parse().unwrap();
        // As iPXE sent it: type, code, checksum, reserved, source link layer.
        let rs = [133, 0, 0x4f, 0x9b, 0, 0, 0, 0, 1, 1, 0x52, 0x54, 0, 0x77, 0, 0x0b];
        let ra = answer(&rs, from, |m| m == known).unwrap();
        assert_eq!(ra[0], 134);
        assert_eq!(ra[5..8], [0, 0, 0], "no flags, lifetime 0");
        assert_eq!(answer(&rs, from, |_| false), None, "a stranger");
        assert_eq!(answer(&rs[..4], from, |_| true), None, "cut short");
        assert_eq!(answer(&[135; 16], from, |_| true), None, "something else");
        let private: Ipv6Addr = "fe80::1234:5678:9abc:def0".parse().unwrap();
        assert_eq!(answer(&rs, private, |_| true), None, "no MAC in the address");
    }
}
