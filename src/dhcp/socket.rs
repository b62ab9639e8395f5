//! The sockets: UDP bound to one interface, and link-layer frames to clients
//! that have no address yet.

use super::DhcpError;
use crate::model::Mac;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Room for the bursts of a rack that powers on at once: 4 MiB are some
/// thousands of packets. The kernel may give less (`net.core.rmem_max`).
const RECEIVE_BUFFER: usize = 4 << 20;

/// A UDP socket on `port` of `interface` only (SO_BINDTODEVICE), allowed to
/// broadcast, non-blocking.
pub fn udp(interface: &str, port: u16) -> Result<UdpSocket, DhcpError> {
    let open = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Beside another program on 67 that is bound to another interface.
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        // Best effort: a smaller buffer still serves.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        Ok(socket.into())
    };
    open().map_err(|source| DhcpError::Bind { port, interface: interface.to_owned(), source })
}

/// The number of an interface.
pub fn index_of(interface: &str) -> Result<u32, DhcpError> {
    let no = |source| DhcpError::NoInterface { interface: interface.to_owned(), source };
    let name = std::ffi::CString::new(interface)
        .map_err(|_| no(io::Error::from(io::ErrorKind::InvalidInput)))?;
    // SAFETY: `name` is a NUL-terminated string that lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(no(io::Error::last_os_error())) } else { Ok(index) }
}

/// Sends whole IPv4/UDP packets in Ethernet frames out of one interface.
pub struct FrameSocket {
    fd: OwnedFd,
    index: u32,
    source: SocketAddrV4,
}

impl FrameSocket {
    /// Opens a packet socket; frames carry `source`.
    pub fn open(interface: &str, source: SocketAddrV4) -> Result<Self, DhcpError> {
        let index = index_of(interface)?;
        // Protocol 0: nothing is ever delivered to this socket.
        // SAFETY: plain system call; the descriptor is checked and then owned.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            let source = io::Error::last_os_error();
            return Err(DhcpError::Bind { port: 67, interface: interface.to_owned(), source });
        }
        // SAFETY: a fresh descriptor that nobody else has.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, index, source })
    }

    /// To one machine.
    pub fn send_to(&self, payload: &[u8], mac: Mac, to: Ipv4Addr) -> io::Result<()> {
        self.send(payload, mac.bytes(), to)
    }

    /// To all machines on the interface.
    pub fn broadcast(&self, payload: &[u8]) -> io::Result<()> {
        self.send(payload, [0xff; 6], Ipv4Addr::BROADCAST)
    }

    fn send(&self, payload: &[u8], mac: [u8; 6], to: Ipv4Addr) -> io::Result<()> {
        let packet = datagram(payload, self.source, SocketAddrV4::new(to, 68));
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
        address.sll_ifindex = self.index as i32;
        address.sll_halen = 6;
        if let Some(start) = address.sll_addr.first_chunk_mut::<6>() {
            *start = mac;
        }
        // SAFETY: both pointers are to live values of the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// An IPv4 packet with a UDP datagram in it (RFC 791, RFC 768).
fn datagram(payload: &[u8], from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let udp_len = (payload.len() + 8) as u16;
    let mut ip = Vec::with_capacity(payload.len() + 28);
    ip.extend_from_slice(&[0x45, 0]);
    ip.extend_from_slice(&(udp_len + 20).to_be_bytes());
    ip.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend_from_slice(&from.ip().octets());
    ip.extend_from_slice(&to.ip().octets());
    let sum = checksum(&[&ip]);
    ip.splice(10..12, sum.to_be_bytes());

    let mut udp = Vec::with_capacity(8);
    udp.extend_from_slice(&from.port().to_be_bytes());
    udp.extend_from_slice(&to.port().to_be_bytes());
    udp.extend_from_slice(&udp_len.to_be_bytes());
    let (src, dst, len) = (from.ip().octets(), to.ip().octets(), udp_len.to_be_bytes());
    // Zero would mean "no checksum"; RFC 768 sends all ones instead.
    let sum = match checksum(&[&src, &dst, &[0, 17], &len, &udp, &[0, 0], payload]) {
        0 => 0xffff,
        n => n,
    };
    udp.extend_from_slice(&sum.to_be_bytes());
    ip.extend_from_slice(&udp);
    ip.extend_from_slice(payload);
    ip
}

/// The Internet checksum (RFC 1071) over parts; all but the last are of even
/// length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_s_checksums_come_out_at_zero_when_summed_again() {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 1), 67);
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 9), 68);
        for payload in [&b"odd"[..], b"even", b""] {
            let packet = datagram(payload, from, to);
            assert_eq!(checksum(&[&packet[..20]]), 0, "IP header");
            let len = (payload.len() as u16 + 8).to_be_bytes();
            let pseudo = [&packet[12..20], &[0, 17], &len];
            let parts = [pseudo[0], pseudo[1], pseudo[2], &packet[20..]];
            assert_eq!(checksum(&parts), 0, "UDP");
        }
    }
}
