//! The loop: receive, answer, send; a limit for each asker.

use super::clock::{Clock, Source};
use super::decide::{self, PACKET};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Room for a rack that powers on at once; the kernel may give less.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Answers an asker may have at once: ntpdate sends four in a second, chrony's
/// `iburst` four in six, and a node may have both while it boots.
const BURST: u32 = 16;
/// And then one in this time.
const EACH: Duration = Duration::from_secs(1);
/// Askers remembered; beyond, the table begins anew.
const MOST: usize = 8192;
/// How long what the kernel said is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// How time is served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our address on the boot network; port 123 in earnest.
    pub listen: SocketAddrV4,
    /// Networks answered, address and prefix length, beside this host.
    pub networks: Vec<(Ipv4Addr, u8)>,
}

/// Why time cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TimeError {
    /// The port cannot be had.
    #[error("time: cannot listen on {listen} (UDP)")]
    Bind {
        /// Address and port.
        listen: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// The socket broke while serving.
    #[error("time: receiving on {listen} failed")]
    Receive {
        /// Address and port.
        listen: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
}

/// How many packets came to which end, and whether the clock is kept.
#[derive(Debug, Default)]
pub struct Counters {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    kept: AtomicBool,
}

impl Counters {
    fn add(&self, what: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_insert(0) += 1;
    }

    /// All counts so far.
    pub fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether something outside keeps this host's clock.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }
}

/// What an asker has left: answers, as of then.
#[derive(Debug, Default)]
struct Patience(HashMap<IpAddr, (u32, Instant)>);

impl Patience {
    fn allows(&mut self, who: IpAddr, now: Instant) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&who) {
            self.0.clear();
        }
        let (left, since) = self.0.entry(who).or_insert((BURST, now));
        let gained = now.saturating_duration_since(*since).as_millis() / EACH.as_millis();
        if gained > 0 {
            *left = left.saturating_add(u32::try_from(gained).unwrap_or(BURST)).min(BURST);
            *since = now;
        }
        let allowed = *left > 0;
        *left = left.saturating_sub(1);
        allowed
    }
}

/// A time server.
pub struct Server {
    settings: Settings,
    source: Arc<dyn Source>,
    socket: UdpSocket,
    counters: Arc<Counters>,
}

impl Server {
    /// Opens the socket. Needs CAP_NET_BIND_SERVICE for port 123, and a tokio
    /// runtime.
    pub fn bind(settings: Settings, source: Arc<dyn Source>) -> Result<Self, TimeError> {
        let listen = settings.listen;
        let open = || -> io::Result<UdpSocket> {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::V4(listen).into())?;
            UdpSocket::from_std(socket.into())
        };
        let socket = open().map_err(|source| TimeError::Bind { listen, source })?;
        let counters = Arc::new(Counters::default());
        Ok(Self { settings, source, socket, counters })
    }

    /// The counters, to be kept while the server runs.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), TimeError> {
        let mut patience = Patience::default();
        let mut standing = self.look(None);
        let mut tick = tokio::time::interval(BELIEVED);
        let mut buffer = [0; 2048];
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = tick.tick() => standing = self.look(Some(standing)),
                received = self.socket.recv_from(&mut buffer) => {
                    let now = self.source.now();
                    match received {
                        Ok((len, from)) => {
                            let packet = buffer.get(..len).unwrap_or_default();
                            let what = self.answer(packet, from, now, standing, &mut patience).await;
                            self.counters.add(what);
                        }
                        // About an earlier answer, or the link down for a moment.
                        Err(e) if e.raw_os_error() != Some(libc::EBADF) => {
                            tracing::debug!(error = %e, "time.receive");
                        }
                        Err(source) => {
                            return Err(TimeError::Receive { listen: self.settings.listen, source });
                        }
                    }
                }
            }
        }
    }

    /// What the kernel says now. A change is said in the log.
    fn look(&self, before: Option<(Duration, Clock)>) -> (Duration, Clock) {
        let clock = self.source.clock();
        let is_kept = |c: Clock| matches!(c, Clock::Kept { .. });
        if before.is_none_or(|(_, b)| is_kept(b) != is_kept(clock)) {
            self.counters.kept.store(is_kept(clock), Ordering::Relaxed);
            if is_kept(clock) {
                tracing::info!(stratum = decide::KEPT_STRATUM, "time.clock.kept");
            } else {
                tracing::warn!(
                    stratum = decide::FREE_STRATUM,
                    "time.clock.free: nothing corrects this host's clock; the nodes follow it all the same"
                );
            }
        }
        (self.source.now(), clock)
    }

    async fn answer(
        &self,
        packet: &[u8],
        from: SocketAddr,
        received: Duration,
        (looked, clock): (Duration, Clock),
        patience: &mut Patience,
    ) -> &'static str {
        if !self.is_ours(from.ip()) {
            return "outsider";
        }
        let mut answer: [u8; PACKET] = match decide::decide(packet, received, looked, clock) {
            Ok(answer) => answer,
            Err(why) => return why.as_str(),
        };
        if !patience.allows(from.ip(), Instant::now()) {
            return "too-often";
        }
        decide::stamp(&mut answer, self.source.now());
        match self.socket.send_to(&answer, from).await {
            Ok(_) => "answered",
            Err(_) => "send-failed",
        }
    }

    fn is_ours(&self, from: IpAddr) -> bool {
        let IpAddr::V4(from) = from else { return false };
        let inside = |(net, prefix): &(Ipv4Addr, u8)| {
            let mask = u32::MAX.checked_shl(32 - u32::from((*prefix).min(32))).unwrap_or(0);
            u32::from(from) & mask == u32::from(*net) & mask
        };
        from.is_loopback() || self.settings.networks.iter().any(inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_often_is_passed_over_and_nobody_else_is() {
        let (mut p, now) = (Patience::default(), Instant::now());
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let given = (0..100).filter(|_| p.allows(a, now)).count();
        assert_eq!(given, BURST as usize);
        assert!(p.allows(b, now));
        let later = now + EACH * 2;
        assert_eq!((0..100).filter(|_| p.allows(a, later)).count(), 2);
    }

    #[test]
    fn many_askers_take_bounded_room() {
        let (mut p, now) = (Patience::default(), Instant::now());
        for n in 0..100_000u32 {
            assert!(p.allows(IpAddr::V4(n.into()), now));
        }
        assert!(p.0.len() <= MOST);
    }
}
