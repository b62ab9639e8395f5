//! The sockets: datagrams and connections on our address of the boot network.
//!
//! What a stranger can make us do is bounded: he is not answered outside our
//! networks; questions on their way elsewhere, connections, and both for one
//! asker, have a limit; a connection that says nothing is closed.

use super::decide::{Decision, MAX_QUESTION, Outcome, Transport, decide};
use super::forward::{Forwarder, read_framed, write_framed};
use super::{DnsError, Names, Settings};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Room for a rack that powers on at once; the kernel may give less.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Questions on their way elsewhere, each with a socket.
const FORWARDING: Limit = Limit { all: 256, each: 64 };
/// Connections.
const CONNECTIONS: Limit = Limit { all: 128, each: 16 };
/// How long a connection may say nothing (RFC 7766 §6.2.3).
const IDLE: Duration = Duration::from_secs(10);

/// How many questions came to which end, by [`Outcome::as_str`].
#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<&'static str, u64>>);

impl Counters {
    fn add(&self, what: Outcome) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what.as_str()).or_insert(0) += 1;
    }

    /// All counts so far.
    pub fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Limit {
    all: usize,
    each: usize,
}

/// What is under way, by asker.
type UnderWay = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One thing under way; it is over when this is dropped.
struct Turn(UnderWay, IpAddr);

impl Turn {
    fn take(of: &UnderWay, who: IpAddr, limit: &Limit) -> Option<Self> {
        let mut map = of.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = map.get(&who).copied().unwrap_or(0);
        if mine >= limit.each || map.values().sum::<usize>() >= limit.all {
            return None;
        }
        map.insert(who, mine + 1);
        Some(Self(Arc::clone(of), who))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match map.get_mut(&self.1) {
            Some(n) if *n > 1 => *n -= 1,
            _ => drop(map.remove(&self.1)),
        }
    }
}

/// A name server.
pub struct Server {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    core: Arc<Core>,
}

struct Core {
    settings: Settings,
    names: Arc<dyn Names>,
    forwarder: Forwarder,
    counters: Arc<Counters>,
    forwarding: UnderWay,
}

impl Server {
    /// Opens both sockets. Needs CAP_NET_BIND_SERVICE for port 53, and a
    /// tokio runtime.
    pub fn bind(settings: Settings, names: Arc<dyn Names>) -> Result<Self, DnsError> {
        let listen = settings.listen;
        let failed = |transport| move |source| DnsError::Bind { listen, transport, source };
        let udp = || -> io::Result<UdpSocket> {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::V4(listen).into())?;
            UdpSocket::from_std(socket.into())
        };
        let tcp = || -> io::Result<TcpListener> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            // Connections of the server before us may still be closing.
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::V4(listen).into())?;
            socket.listen(128)?;
            TcpListener::from_std(socket.into())
        };
        let udp = Arc::new(udp().map_err(failed("UDP"))?);
        let tcp = tcp().map_err(failed("TCP"))?;
        let forwarder = Forwarder::new(settings.upstreams.clone(), SocketAddr::V4(listen));
        let (counters, forwarding) = Default::default();
        Ok(Self {
            udp,
            tcp,
            core: Arc::new(Core { settings, names, forwarder, counters, forwarding }),
        })
    }

    /// The counters, to be kept while the server runs.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.core.counters)
    }

    /// Serves until `stop`; what is under way is then dropped.
    pub async fn run(self, stop: CancellationToken) -> Result<(), DnsError> {
        let listen = SocketAddr::V4(self.core.settings.listen);
        let connections = UnderWay::default();
        let mut tasks = JoinSet::new();
        // Longer than a question may be, so that one that is is seen to be.
        let mut buffer = [0; MAX_QUESTION + 1];
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = tasks.join_next() => {}
                received = self.udp.recv_from(&mut buffer) => match received {
                    Ok((len, from)) => {
                        let packet = buffer.get(..len).unwrap_or_default();
                        self.datagram(packet, from, &mut tasks).await;
                    }
                    Err(e) if is_passing(&e) => {}
                    Err(source) => return Err(DnsError::Receive { listen, source }),
                },
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, from)) => {
                        if !self.core.is_ours(from) {
                            self.core.counters.add(Outcome::Outsider);
                        } else if let Some(turn) = Turn::take(&connections, from.ip(), &CONNECTIONS) {
                            let core = Arc::clone(&self.core);
                            tasks.spawn(async move { core.connection(stream, from).await; drop(turn) });
                        } else {
                            self.core.counters.add(Outcome::Busy);
                        }
                    }
                    // Out of file descriptors, or a client gone again.
                    Err(error) => {
                        tracing::debug!(%error, "dns.accept");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                },
            }
        }
        tasks.shutdown().await;
        Ok(())
    }

    async fn datagram(&self, packet: &[u8], from: SocketAddr, tasks: &mut JoinSet<()>) {
        let core = &self.core;
        if !core.is_ours(from) {
            core.counters.add(Outcome::Outsider);
            return;
        }
        let asked = match core.decide(packet) {
            Decision::Ignore(what) => return core.counters.add(what),
            Decision::Answer(answer, what) => {
                core.counters.add(what);
                // Lost answers are asked for again.
                let _ = self.udp.send_to(&answer, from).await;
                return;
            }
            Decision::Forward(asked) => asked,
        };
        let Some(turn) = Turn::take(&core.forwarding, from.ip(), &FORWARDING) else {
            core.counters.add(Outcome::Busy);
            if let Some(answer) = asked.failed() {
                let _ = self.udp.send_to(&answer, from).await;
            }
            return;
        };
        let (core, udp, packet) = (Arc::clone(core), Arc::clone(&self.udp), packet.to_vec());
        tasks.spawn(async move {
            if let Some(answer) = core.forward(&packet, &asked, Transport::Udp).await {
                let _ = udp.send_to(&answer, from).await;
            }
            drop(turn);
        });
    }
}

impl Core {
    /// On the boot network, behind a relay, or this host.
    fn is_ours(&self, from: SocketAddr) -> bool {
        match from.ip() {
            IpAddr::V4(a) => a.is_loopback() || self.settings.zone.contains(a),
            IpAddr::V6(_) => false,
        }
    }

    fn decide(&self, packet: &[u8]) -> Decision {
        let forwards = !self.forwarder.servers().is_empty();
        decide(packet, &self.settings.zone, self.names.as_ref(), forwards)
    }

    async fn forward(
        &self,
        packet: &[u8],
        asked: &super::decide::Asked,
        by: Transport,
    ) -> Option<Vec<u8>> {
        match self.forwarder.ask(packet, asked, by).await {
            Some(answer) => {
                self.counters.add(Outcome::Forwarded);
                asked.fit(answer, by)
            }
            None => {
                self.counters.add(Outcome::ForwardFailed);
                asked.failed()
            }
        }
    }

    /// One question after the other (RFC 7766 §6.2.1), until nothing comes.
    async fn connection(&self, mut stream: TcpStream, from: SocketAddr) {
        loop {
            let read = tokio::time::timeout(IDLE, read_framed(&mut stream, MAX_QUESTION)).await;
            let Ok(Ok(packet)) = read else { return };
            let answer = match self.decide(&packet) {
                Decision::Ignore(what) => return self.counters.add(what),
                Decision::Answer(answer, what) => {
                    self.counters.add(what);
                    Some(answer)
                }
                Decision::Forward(asked) => {
                    match Turn::take(&self.forwarding, from.ip(), &FORWARDING) {
                        Some(_turn) => self.forward(&packet, &asked, Transport::Tcp).await,
                        None => {
                            self.counters.add(Outcome::Busy);
                            asked.failed()
                        }
                    }
                }
            };
            let Some(answer) = answer else { return };
            if write_framed(&mut stream, &answer).await.is_err() {
                return;
            }
        }
    }
}

/// Errors that the next packet does not share: an ICMP message for an earlier
/// answer, an interface that is down for a moment.
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
