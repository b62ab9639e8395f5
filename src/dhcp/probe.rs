//! Looks for another DHCP server before we begin: two authoritative servers
//! on one network give nodes two addresses, and the one that wins is chance.
//!
//! It finds servers that give addresses to strangers, as office routers and
//! default installations do. One that knows only its own machines, as this
//! program does, stays silent and is seen later, when a node's REQUEST names
//! it ([`Reason::OtherServer`](super::Reason::OtherServer)).

use super::{DhcpError, Settings, socket};
use crate::model::Mac;
use dhcproto::v4::borrowed::Message;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::UdpSocket;
use tokio::time::{Duration, Instant, timeout_at};

/// Sends a DISCOVER from `interface` and waits `settings.probe` for offers;
/// an offer from anybody but us is an error that names the server.
pub async fn look_for_others(settings: &Settings) -> Result<(), DhcpError> {
    let interface = settings.interface.clone();
    let receive = |source| DhcpError::Receive { interface: interface.clone(), source };
    let socket = UdpSocket::from_std(socket::udp(&settings.interface, 68)?).map_err(receive)?;
    let xid = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |d| d.subsec_nanos() ^ std::process::id());
    let everyone = SocketAddr::from((Ipv4Addr::BROADCAST, 67));
    let end = Instant::now() + settings.probe;
    let mut buffer = [0; 2048];
    while Instant::now() < end {
        // Asked again each second: a switch port or a lost frame must not
        // pass for an empty network.
        if let Err(error) = socket.send_to(&discover(xid), everyone).await {
            tracing::debug!(interface, %error, "dhcp.probe.send");
        }
        let pause = end.min(Instant::now() + Duration::from_secs(1));
        while let Ok(received) = timeout_at(pause, socket.recv_from(&mut buffer)).await {
            let (len, from) = received.map_err(receive)?;
            let packet = buffer.get(..len).unwrap_or_default();
            let Some((server, offered)) = offer(packet, xid) else { continue };
            let server = server.unwrap_or(match from {
                SocketAddr::V4(a) => *a.ip(),
                SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
            });
            if server != settings.server_address {
                return Err(DhcpError::OtherServer { interface, server, offered });
            }
        }
    }
    Ok(())
}

/// A locally administered address that is nobody's: another instance of this
/// program must take the probe for a stranger.
fn probe_mac() -> Option<Mac> {
    Mac::from_bytes([0x02, 0x50, 0x52, 0x4f, 0x42, 0x45])
}

fn discover(xid: u32) -> Vec<u8> {
    let mut packet = vec![0; 236];
    packet.splice(0..4, [1, 1, 6, 0]);
    packet.splice(4..8, xid.to_be_bytes());
    packet.splice(10..12, [0x80, 0]); // broadcast: the address is not ours
    packet.splice(28..34, probe_mac().map_or([2; 6], Mac::bytes));
    packet.extend_from_slice(&dhcproto::v4::MAGIC);
    packet.extend_from_slice(&[53, 1, 1, 55, 3, 1, 3, 6, 255]);
    packet.resize(300, 0);
    packet
}

/// Server identifier and offered address of an OFFER to `xid`.
fn offer(packet: &[u8], xid: u32) -> Option<(Option<Ipv4Addr>, Ipv4Addr)> {
    let message = Message::new(packet).ok()?;
    if packet.first() != Some(&2) || message.xid() != xid {
        return None;
    }
    let (mut is_offer, mut server) = (false, None);
    for option in message.opts() {
        match u8::from(option.code()) {
            53 => is_offer = option.data().first() == Some(&2),
            54 => server = option.data().first_chunk::<4>().copied().map(Ipv4Addr::from),
            _ => {}
        }
    }
    // A proxyDHCP server offers no address and is no rival.
    (is_offer && !message.yiaddr().is_unspecified()).then(|| (server, message.yiaddr()))
}
