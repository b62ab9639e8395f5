//! The loop: admit requests, run each transfer on its own task, drop the
//! idlest when there are too many.

use super::packet::{self, ErrorCode, MAX_REQUEST, Mode, Packet, Request, printable};
use super::transfer::{Activity, Transfer};
use super::{Counts, Settings, Sighting, SightingKind, Sink, Source, TftpError, path};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Room for the first request of a whole rack at once.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A TFTP server.
pub struct Server {
    settings: Arc<Settings>,
    source: Arc<dyn Source>,
    sink: Arc<dyn Sink>,
    socket: UdpSocket,
    epoch: Instant,
    counts: Arc<Counts>,
}

/// A transfer that runs.
struct Slot {
    serial: u64,
    request: Request,
    activity: Arc<Activity>,
    stop: CancellationToken,
}

impl Server {
    /// Opens the socket. Needs CAP_NET_BIND_SERVICE for port 69, and a tokio
    /// runtime.
    pub fn bind(
        settings: Settings,
        source: Arc<dyn Source>,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, TftpError> {
        let listen = settings.listen;
        let open = || -> io::Result<UdpSocket> {
            let socket =
                Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
            let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
            socket.set_nonblocking(true)?;
            socket.bind(&listen.into())?;
            UdpSocket::from_std(socket.into())
        };
        let socket = open().map_err(|source| TftpError::Bind { listen, source })?;
        let (settings, counts) = (Arc::new(settings), Arc::default());
        Ok(Self { settings, source, sink, socket, epoch: Instant::now(), counts })
    }

    /// The counts, to be kept while the server runs.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Where it listens, when the port was left to the system.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop`; transfers under way are then dropped.
    pub async fn run(self, stop: CancellationToken) -> Result<(), TftpError> {
        let mut slots: HashMap<SocketAddr, Slot> = HashMap::new();
        let mut tasks: JoinSet<(SocketAddr, u64)> = JoinSet::new();
        let mut buffer = [0; MAX_REQUEST];
        let mut serial = 0;
        let outcome = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                Some(ended) = tasks.join_next() => {
                    let Ok((peer, serial)) = ended else { continue };
                    // The peer may have begun anew meanwhile.
                    if slots.get(&peer).is_some_and(|slot| slot.serial == serial) {
                        slots.remove(&peer);
                    }
                }
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((len, peer)) => {
                        let datagram = buffer.get(..len).unwrap_or_default();
                        if let Some((request, path)) = self.admit(datagram, peer, &slots).await {
                            serial += 1;
                            make_room(&mut slots, peer, &self.settings);
                            let slot = self.start(&mut tasks, serial, peer, request, path);
                            if let Some(old) = slots.insert(peer, slot) {
                                old.stop.cancel();
                            }
                        }
                    }
                    // ICMP about an earlier refusal; the next packet is not
                    // concerned.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(source) => {
                        break Err(TftpError::Receive { listen: self.settings.listen, source });
                    }
                },
            }
        };
        for slot in slots.into_values() {
            slot.stop.cancel();
        }
        while tasks.join_next().await.is_some() {}
        outcome
    }

    /// The request and its clean path, or `None` when it was refused or is to
    /// be passed over.
    async fn admit(
        &self,
        datagram: &[u8],
        peer: SocketAddr,
        slots: &HashMap<SocketAddr, Slot>,
    ) -> Option<(Request, String)> {
        let (name, code, why) = match Packet::decode(datagram)? {
            Packet::Read(request) => match path::clean(&request.file) {
                _ if request.mode == Mode::Other => {
                    (request.file, ErrorCode::Illegal, "mode must be octet or netascii")
                }
                Err(why) => (request.file, ErrorCode::Access, why),
                Ok(path) => {
                    // The client repeats itself because our first answer is
                    // slow or lost; the transfer repeats that by itself.
                    let again = slots.get(&peer).is_some_and(|slot| {
                        slot.request == request
                            && !slot.activity.alive.load(Ordering::Relaxed)
                            && !slot.activity.over.load(Ordering::Relaxed)
                    });
                    return (!again).then_some((request, path));
                }
            },
            Packet::Write => (Vec::new(), ErrorCode::Access, "this server is read-only"),
            Packet::Ack(_) | Packet::Error(..) | Packet::Unexpected => return None,
        };
        // From the server's port: no transfer identifier is spent on it.
        let _ = self.socket.send_to(&packet::error(code, why), peer).await;
        let kind = SightingKind::Refused(why.to_owned());
        self.counts.add(&kind, 0);
        self.sink.seen(Sighting {
            peer,
            path: printable(&name),
            kind,
            bytes: 0,
            elapsed: std::time::Duration::ZERO,
        });
        None
    }

    fn start(
        &self,
        tasks: &mut JoinSet<(SocketAddr, u64)>,
        serial: u64,
        peer: SocketAddr,
        request: Request,
        path: String,
    ) -> Slot {
        let activity = Arc::new(Activity::default());
        let began = Instant::now();
        let since = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        activity.last.store(since, Ordering::Relaxed);
        let stop = CancellationToken::new();
        let slot = Slot {
            serial,
            request: request.clone(),
            activity: Arc::clone(&activity),
            stop: stop.clone(),
        };
        let (settings, epoch) = (Arc::clone(&self.settings), self.epoch);
        let (source, sink) = (Arc::clone(&self.source), Arc::clone(&self.sink));
        let counts = Arc::clone(&self.counts);
        counts.begins();
        tasks.spawn(async move {
            let report = |kind: SightingKind| {
                let bytes = activity.bytes.load(Ordering::Relaxed);
                let path = path.clone();
                sink.seen(Sighting { peer, path, kind, bytes, elapsed: began.elapsed() });
            };
            let transfer =
                Transfer { peer, request: &request, settings: &settings, activity: &activity, epoch };
            let kind = tokio::select! {
                () = stop.cancelled() => SightingKind::Dropped,
                kind = transfer.run(&path, source.as_ref(), || report(SightingKind::Started)) => kind,
            };
            // Its place in the table goes a moment later: who asks in between
            // asks anew.
            activity.over.store(true, Ordering::Relaxed);
            counts.ends(&kind, activity.bytes.load(Ordering::Relaxed));
            report(kind);
            (peer, serial)
        });
        slot
    }
}

/// Drops one transfer of `peer`'s address, or of anybody, where a limit is
/// reached: first those that never confirmed anything, then the one that was
/// longest silent. So a thousand requests that nobody follows up cannot stop
/// a boot.
fn make_room(slots: &mut HashMap<SocketAddr, Slot>, peer: SocketAddr, settings: &Settings) {
    let of_client = slots.keys().filter(|p| p.ip() == peer.ip()).count();
    let client_full = of_client >= settings.max_per_client.max(1);
    if !client_full && slots.len() < settings.max_transfers.max(1) {
        return;
    }
    let idlest = slots
        .iter()
        .filter(|(p, _)| !client_full || p.ip() == peer.ip())
        .min_by_key(|(_, slot)| {
            let alive = slot.activity.alive.load(Ordering::Relaxed);
            (alive, slot.activity.last.load(Ordering::Relaxed), slot.serial)
        })
        .map(|(p, _)| *p);
    if let Some(slot) = idlest.and_then(|p| slots.remove(&p)) {
        slot.stop.cancel();
    }
}
