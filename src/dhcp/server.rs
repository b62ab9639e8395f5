//! The loop: receive, answer, send, report.

use super::answer::{NoAnswer, answer};
use super::decide::Port;
use super::reply::Destination;
use super::socket::{self, FrameSocket};
use super::{DhcpError, Directory, Mode, Settings, Sink, probe};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// The largest datagram UDP can bring.
const BUFFER: usize = 65_536;

/// How many packets came to which end, by the words of
/// [`SightingKind::as_str`] and of malformed packets.
#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<&'static str, u64>>);

impl Counters {
    fn add(&self, what: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_insert(0) += 1;
    }

    /// All counts so far.
    pub fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A DHCP server on one interface.
pub struct Server {
    settings: Settings,
    directory: Arc<dyn Directory>,
    sink: Arc<dyn Sink>,
    main: UdpSocket,
    proxy: Option<UdpSocket>,
    frames: FrameSocket,
    counters: Arc<Counters>,
}

impl Server {
    /// Opens the sockets; in authoritative mode first looks for another
    /// server, for `settings.probe`, unless others are allowed. Needs
    /// CAP_NET_BIND_SERVICE and CAP_NET_RAW, and a tokio runtime.
    pub async fn bind(
        settings: Settings,
        directory: Arc<dyn Directory>,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, DhcpError> {
        socket::index_of(&settings.interface)?;
        if settings.mode == Mode::Authoritative && !settings.allow_other_servers {
            probe::look_for_others(&settings).await?;
        }
        let open = |port| {
            UdpSocket::from_std(socket::udp(&settings.interface, port)?).map_err(|source| {
                DhcpError::Bind { port, interface: settings.interface.clone(), source }
            })
        };
        let main = open(67)?;
        let proxy = match settings.mode {
            Mode::Proxy => Some(open(4011)?),
            Mode::Authoritative => None,
        };
        let source = SocketAddrV4::new(settings.server_address, 67);
        let frames = FrameSocket::open(&settings.interface, source)?;
        let counters = Arc::new(Counters::default());
        Ok(Self { settings, directory, sink, main, proxy, frames, counters })
    }

    /// The counters, to be kept while the server runs.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), DhcpError> {
        let (mut main_buffer, mut proxy_buffer) = (vec![0; BUFFER], vec![0; BUFFER]);
        loop {
            let (received, port) = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                r = self.main.recv_from(&mut main_buffer) => (r, Port::Server),
                r = receive(self.proxy.as_ref(), &mut proxy_buffer) => (r, Port::Proxy),
            };
            let (len, from) = match received {
                Ok(received) => received,
                Err(error) if is_passing(&error) => {
                    tracing::debug!(interface = self.settings.interface, %error, "dhcp.receive");
                    continue;
                }
                Err(source) => {
                    let interface = self.settings.interface.clone();
                    return Err(DhcpError::Receive { interface, source });
                }
            };
            let buffer = match port {
                Port::Server => &main_buffer,
                Port::Proxy => &proxy_buffer,
            };
            if let (Some(packet), SocketAddr::V4(from)) = (buffer.get(..len), from) {
                self.handle(packet, port, from).await;
            }
        }
    }

    async fn handle(&self, packet: &[u8], port: Port, from: SocketAddrV4) {
        let found = match answer(packet, port, from, &self.settings, self.directory.as_ref()) {
            Ok(found) => found,
            Err(NoAnswer::Malformed(why)) => {
                self.counters.add(why.as_str());
                tracing::debug!(%from, len = packet.len(), reason = %why, "dhcp.malformed");
                return;
            }
            Err(error @ NoAnswer::Unwritable { .. }) => {
                self.counters.add("unwritable");
                tracing::warn!(%error, "dhcp.unwritable");
                return;
            }
        };
        if let Some((bytes, to)) = &found.datagram
            && let Err(error) = self.send(bytes, *to, port).await
        {
            self.counters.add("send-failed");
            tracing::warn!(mac = %found.sighting.hints.mac, ?to, %error, "dhcp.send.failed");
            return;
        }
        self.counters.add(found.sighting.kind.as_str());
        self.sink.seen(found.sighting);
    }

    async fn send(&self, bytes: &[u8], to: Destination, port: Port) -> io::Result<()> {
        match to {
            Destination::Frame(mac, to) => self.frames.send_to(bytes, mac, to),
            Destination::Broadcast => self.frames.broadcast(bytes),
            Destination::Routed(to) => {
                let socket = match (port, &self.proxy) {
                    (Port::Proxy, Some(proxy)) => proxy,
                    _ => &self.main,
                };
                socket.send_to(bytes, to).await.map(|_| ())
            }
        }
    }
}

/// Receives, or waits for ever when there is no such socket.
async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

/// Errors that the next packet does not share: an ICMP message for an earlier
/// reply, an interface that is down for a moment.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionRefused
            | K::ConnectionReset
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown
            | K::Interrupted
            | K::WouldBlock
    )
}
