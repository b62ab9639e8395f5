//! Asks others what is not ours. The question goes on as it came but for its
//! number, and the answer comes back as it is, so that record types which we
//! never heard of pass too. Nothing is kept.
//!
//! A forged answer must guess the port (a socket for each question, bound by
//! the kernel), the number (from the system's random source) and the question
//! (RFC 5452); packets from other addresses do not reach a connected socket.

use super::decide::{Asked, Transport};
use hickory_proto::op::{Header, MessageType, Query};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use ring::rand::{SecureRandom, SystemRandom};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

/// How long one server is waited for before the next is asked too.
const TRY: Duration = Duration::from_millis(1500);
/// How long in all. The resolver of a node asks again after 5 s (resolv.conf),
/// and should hear "no" before that.
const ALL: Duration = Duration::from_secs(4);
/// How long the list from a `resolv.conf` is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// As many servers as a `resolv.conf` counts (glibc, MAXNS), and not more.
const MOST: usize = 3;

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// These; none when empty.
    Fixed(Vec<SocketAddr>),
    /// Those that a file in the form of resolv.conf(5) names. It is read again
    /// while serving: a host's servers change with its lease.
    Listed(PathBuf),
}

impl Upstreams {
    /// The servers as of now, without `own`, who would ask himself for ever.
    pub fn servers(&self, own: SocketAddr) -> Vec<SocketAddr> {
        let mut all = match self {
            Self::Fixed(all) => all.clone(),
            Self::Listed(file) => resolv_conf(&std::fs::read_to_string(file).unwrap_or_default()),
        };
        all.retain(|a| *a != own);
        all.truncate(MOST);
        all
    }
}

/// The `nameserver` lines of a resolv.conf(5).
fn resolv_conf(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let rest = line.strip_prefix("nameserver")?;
        let word = rest.strip_prefix([' ', '\t'])?.split_whitespace().next()?;
        word.parse::<IpAddr>().ok()
    };
    text.lines().filter_map(address).map(|a| SocketAddr::new(a, 53)).collect()
}

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// There is nobody to ask.
    #[error("no name server is configured, and none is in resolv.conf")]
    Nobody,
    /// The system has no random bytes.
    #[error("no random bytes for the question's number")]
    Random,
    /// It did not answer in time.
    #[error("{0} did not answer within {TRY:?}")]
    Silent(SocketAddr),
    /// It cannot be reached.
    #[error("{server} cannot be asked: {source}")]
    Unreachable {
        /// Whom.
        server: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It sent something else than an answer to this question.
    #[error("{0} sent what is no answer to the question")]
    Nonsense(SocketAddr),
}

/// Asks.
pub struct Forwarder {
    upstreams: Upstreams,
    own: SocketAddr,
    listed: Mutex<(Instant, Vec<SocketAddr>)>,
    /// Which one answered last: it is asked first.
    first: AtomicUsize,
    silent: AtomicBool,
    random: SystemRandom,
}

impl Forwarder {
    /// Asks `upstreams`, but never `own`.
    pub fn new(upstreams: Upstreams, own: SocketAddr) -> Self {
        let now = upstreams.servers(own);
        Self {
            upstreams,
            own,
            listed: Mutex::new((Instant::now(), now)),
            first: AtomicUsize::new(0),
            silent: AtomicBool::new(false),
            random: SystemRandom::new(),
        }
    }

    /// Who is asked now.
    pub fn servers(&self) -> Vec<SocketAddr> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.0.elapsed() > BELIEVED {
            *listed = (Instant::now(), self.upstreams.servers(self.own));
        }
        listed.1.clone()
    }

    /// The answer to `packet`, which is `asked`. Says in the log, once, when
    /// nobody answers any more, and once when somebody does again.
    pub async fn ask(&self, packet: &[u8], asked: &Asked, by: Transport) -> Option<Vec<u8>> {
        match self.ask_all(packet, &asked.query, by).await {
            Ok(answer) => {
                if self.silent.swap(false, Ordering::Relaxed) {
                    tracing::info!("dns.forward.again");
                }
                Some(answer)
            }
            Err(error) => {
                let name = asked.query.name();
                if self.silent.swap(true, Ordering::Relaxed) {
                    tracing::debug!(%error, %name, "dns.forward.failed");
                } else {
                    tracing::warn!(%error, %name, "dns.forward.failed");
                }
                None
            }
        }
    }

    async fn ask_all(
        &self,
        packet: &[u8],
        query: &Query,
        by: Transport,
    ) -> Result<Vec<u8>, ForwardError> {
        let (servers, end) = (self.servers(), Instant::now() + ALL);
        let mut why = ForwardError::Nobody;
        let first = self.first.load(Ordering::Relaxed);
        for n in 0..servers.len() {
            let at = (first + n) % servers.len();
            let Some(&server) = servers.get(at) else { break };
            let until = end.min(Instant::now() + TRY);
            let mut number = [0; 2];
            self.random.fill(&mut number).map_err(|_| ForwardError::Random)?;
            let mut question = packet.to_vec();
            if let Some(id) = question.first_chunk_mut::<2>() {
                *id = number;
            }
            let asking = async {
                match by {
                    Transport::Udp => datagram(server, &question, query).await,
                    Transport::Tcp => stream(server, &question, query).await,
                }
            };
            match timeout_at(until, asking).await {
                Ok(Ok(mut answer)) => {
                    self.first.store(at, Ordering::Relaxed);
                    if let (Some(to), Some(from)) =
                        (answer.first_chunk_mut::<2>(), packet.first_chunk::<2>())
                    {
                        *to = *from;
                    }
                    return Ok(answer);
                }
                Ok(Err(Fault::Io(source))) => why = ForwardError::Unreachable { server, source },
                Ok(Err(Fault::Nonsense)) => why = ForwardError::Nonsense(server),
                Err(_) => why = ForwardError::Silent(server),
            }
        }
        Err(why)
    }
}

enum Fault {
    Io(io::Error),
    Nonsense,
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

async fn datagram(server: SocketAddr, question: &[u8], query: &Query) -> Result<Vec<u8>, Fault> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let len = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..len).unwrap_or_default();
        // What does not belong to the question may be somebody's guess: the
        // true answer may still come.
        if belongs(answer, question, query) {
            return Ok(answer.to_vec());
        }
    }
}

async fn stream(server: SocketAddr, question: &[u8], query: &Query) -> Result<Vec<u8>, Fault> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, question).await?;
    let answer = read_framed(&mut stream, usize::from(u16::MAX)).await?;
    if belongs(&answer, question, query) { Ok(answer) } else { Err(Fault::Nonsense) }
}

/// One message with its length in front (RFC 1035 §4.2.2), in one write.
pub(super) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = len.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    timeout(ALL, stream.write_all(&framed)).await?
}

/// The same the other way; longer than `most` is an error.
pub(super) async fn read_framed(stream: &mut TcpStream, most: usize) -> io::Result<Vec<u8>> {
    let len = usize::from(stream.read_u16().await?);
    if len > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Whether `answer` answers this very question.
fn belongs(answer: &[u8], question: &[u8], query: &Query) -> bool {
    if answer.first_chunk::<2>() != question.first_chunk::<2>() {
        return false;
    }
    let mut decoder = BinDecoder::new(answer);
    let Ok(header) = Header::read(&mut decoder) else { return false };
    if header.metadata.message_type != MessageType::Response {
        return false;
    }
    // Some refuse or report a fault without saying the question again.
    if header.counts.queries == 0 {
        return header.counts.answers == 0;
    }
    Query::read(&mut decoder).is_ok_and(|q| q == *query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_of_a_resolv_conf_are_read_as_the_system_reads_them() {
        let text = "# nameserver 10.0.0.9\nsearch a.example\nnameserver 10.0.0.1 # x\n\
                    nameserver\t::1\nnameserver nonsense\n nameserver 10.0.0.8\nnameservers 1.1.1.1\n";
        let text = resolv_conf(text);
        let want: Vec<SocketAddr> =
            ["10.0.0.1:53", "[::1]:53"].iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(text, want);
    }

    #[test]
    fn one_never_asks_oneself_and_at_most_three() {
        let a = |n: u8| SocketAddr::from(([10, 0, 0, n], 53));
        let all = Upstreams::Fixed((1..9).map(a).collect());
        assert_eq!(all.servers(a(1)), [a(2), a(3), a(4)]);
    }
}
