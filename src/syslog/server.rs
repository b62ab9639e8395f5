//! The socket.

use super::decode::{Line, decode};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Room for the burst in which an installer tells what came before its network.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The longest datagram that is read; what is beyond is cut.
const DATAGRAM: usize = 8192;

/// Where it listens.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our address on the boot network, and the port that the installers are
    /// told.
    pub listen: SocketAddrV4,
}

/// Why logs cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SyslogError {
    /// The port cannot be had.
    #[error("syslog: cannot listen on {listen} (UDP)")]
    Bind {
        /// Address and port.
        listen: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// The socket broke while serving.
    #[error("syslog: receiving on {listen} failed")]
    Receive {
        /// Address and port.
        listen: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
}

/// Where lines go. Must return at once.
pub trait Sink: Send + Sync {
    /// A line of the machine at `from`.
    fn line(&self, from: Ipv4Addr, line: Line);
}

/// The receiver.
pub struct Server {
    socket: UdpSocket,
    listen: SocketAddrV4,
    sink: Arc<dyn Sink>,
}

impl Server {
    /// Opens the port.
    ///
    /// # Errors
    /// It is taken.
    pub fn bind(settings: Settings, sink: Arc<dyn Sink>) -> Result<Self, SyslogError> {
        let listen = settings.listen;
        let open = || {
            let s = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            s.set_nonblocking(true)?;
            // The kernel gives what it may; fewer lines are lost, none is owed.
            let _ = s.set_recv_buffer_size(RECEIVE_BUFFER);
            s.bind(&SocketAddr::from(listen).into())?;
            UdpSocket::from_std(s.into())
        };
        let socket = open().map_err(|source| SyslogError::Bind { listen, source })?;
        Ok(Self { socket, listen, sink })
    }

    /// The address in use.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Receives until `stop`.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn run(self, stop: CancellationToken) -> Result<(), SyslogError> {
        let mut buffer = vec![0u8; DATAGRAM];
        loop {
            let got = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                got = self.socket.recv_from(&mut buffer) => got,
            };
            match got {
                Ok((n, from)) => {
                    let IpAddr::V4(from) = from.ip() else { continue };
                    if let Some(line) = decode(&buffer[..n]) {
                        self.sink.line(from, line);
                    }
                }
                // An answer of ours would have been refused; we send none.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(source) => return Err(SyslogError::Receive { listen: self.listen, source }),
            }
        }
    }
}
