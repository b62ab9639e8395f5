//! The socket to one BMC: a packet goes out until an answer comes in.

use super::super::PowerError;
use super::session::Target;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// The socket to one BMC.
pub struct Link {
    socket: UdpSocket,
    bmc: SocketAddr,
    first_wait: Duration,
}

impl Link {
    /// Opens it.
    pub async fn to(target: &Target) -> Result<Self, PowerError> {
        let bmc = target.bmc;
        let any: SocketAddr = match bmc {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let open = async {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(bmc).await?;
            io::Result::Ok(socket)
        };
        let socket = open.await.map_err(|e| PowerError::Unreachable { bmc, why: e.to_string() })?;
        Ok(Self { socket, bmc, first_wait: target.limits.retransmit })
    }

    /// Sends once, for what is not answered.
    pub async fn send(&self, packet: &[u8]) {
        // A lost packet and one that could not be sent are the same.
        if let Err(error) = self.socket.send(packet).await {
            tracing::debug!(bmc = %self.bmc, %error, "ipmi.send");
        }
    }

    /// The next packet, or none when `until` comes first.
    pub async fn next(&self, until: Instant) -> Result<Option<Vec<u8>>, PowerError> {
        let mut buffer = [0; 1024];
        match timeout_at(until, self.socket.recv(&mut buffer)).await {
            Ok(Ok(len)) => Ok(buffer.get(..len).map(<[u8]>::to_vec)),
            Ok(Err(e)) => Err(PowerError::Unreachable { bmc: self.bmc, why: e.to_string() }),
            Err(_) => Ok(None),
        }
    }

    /// Sends what `build` makes, again after 1, 2, 4 … times the first wait,
    /// until `accept` takes an answer. Tells whether it had to repeat itself.
    pub async fn exchange<T>(
        &self,
        until: Instant,
        mut build: impl FnMut() -> Vec<u8>,
        mut accept: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<(T, bool), PowerError> {
        let mut wait = self.first_wait;
        let mut repeated = false;
        let mut buffer = [0; 1024];
        while Instant::now() < until {
            self.send(&build()).await;
            let pause = until.min(Instant::now() + wait);
            while let Ok(received) = timeout_at(pause, self.socket.recv(&mut buffer)).await {
                match received {
                    Ok(len) => {
                        if let Some(answer) = accept(buffer.get(..len).unwrap_or_default()) {
                            return Ok((answer, repeated));
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                        let why = "nothing listens on that port".to_owned();
                        return Err(PowerError::Unreachable { bmc: self.bmc, why });
                    }
                    Err(e) => {
                        return Err(PowerError::Unreachable { bmc: self.bmc, why: e.to_string() });
                    }
                }
            }
            wait = wait.saturating_mul(2);
            repeated = true;
        }
        Err(PowerError::Unreachable { bmc: self.bmc, why: "no answer".to_owned() })
    }
}
