//! TFTP for boot loaders: a read-only server of about a megabyte per boot;
//! everything larger goes over HTTP.
//!
//! `packet` is the wire form (RFC 1350, 2347), `terms` what is agreed of a
//! client's options (RFC 2348, 2349, 7440), `path` what a file name may be,
//! `window` which blocks are under way: all pure. `transfer` moves one file
//! on its own task and socket; `server` admits requests and drops the idlest
//! transfer when there are too many; `counts` is for metrics; `root` serves a directory. The module
//! may use nothing else of this crate: files come from a [`Source`], what
//! happened goes to a [`Sink`]; `app` implements both. `docs/decisions/tftp.md` says why it is not async-tftp.

pub mod counts;
pub mod packet;
pub mod path;
pub mod root;
pub mod server;
pub mod terms;
mod transfer;
pub mod window;

pub use counts::Counts;
pub use root::Root;
pub use server::Server;

use async_trait::async_trait;
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncRead;

/// A file ready to be sent.
pub struct Opened {
    /// Its length in bytes, for option `tsize`.
    pub size: u64,
    /// Its content.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
}

impl Opened {
    /// A file that is in memory.
    pub fn bytes(content: impl Into<Bytes>) -> Self {
        let content = content.into();
        Self { size: content.len() as u64, reader: Box::new(std::io::Cursor::new(content)) }
    }
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// TFTP error 1.
    #[error("no such file")]
    NotFound,
    /// TFTP error 2: this client must not have it, or nobody.
    #[error("not allowed: {0}")]
    Refused(&'static str),
    /// TFTP error 0.
    #[error("cannot be read")]
    Io(#[from] std::io::Error),
}

/// Where files come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// Opens the file that `peer` asks for. `path` is relative, with `/`
    /// between its parts, and has no `..` (see [`path::clean`]).
    async fn open(&self, path: &str, peer: SocketAddr) -> Result<Opened, SourceError>;
}

/// Where sightings go. It must return at once.
pub trait Sink: Send + Sync {
    /// Something happened to a transfer.
    fn seen(&self, sighting: Sighting);
}

/// Something happened to a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The client.
    pub peer: SocketAddr,
    /// What it asked for, cleaned where it could be, else made printable.
    pub path: String,
    /// What happened.
    pub kind: SightingKind,
    /// Bytes of the file that the client has confirmed.
    pub bytes: u64,
    /// Since the request.
    pub elapsed: Duration,
}

/// What happened to a transfer. Each begins with at most one `Started` and
/// ends with exactly one of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SightingKind {
    /// The file was found; sending begins.
    Started,
    /// The client confirmed the last block.
    Done,
    /// No such file.
    NotFound,
    /// Not served: a write, a bad path, a mode nobody uses.
    Refused(String),
    /// The client sent an ERROR. With 0 bytes it only wanted the size, as
    /// EDK2 does before each file.
    ClientError(String),
    /// The client went silent.
    TimedOut,
    /// Dropped for newer transfers, or because it began again.
    Dropped,
    /// Reading the file or the socket failed.
    Failed(String),
}

/// How TFTP is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Address and port; transfers are sent from the same address.
    pub listen: SocketAddr,
    /// Largest block; 1468 fills an Ethernet frame without fragments.
    pub max_block: u16,
    /// Largest window (RFC 7440), in blocks.
    pub max_window: u16,
    /// First wait for an answer; doubled at each retry, up to 8 s.
    pub timeout: Duration,
    /// Retries until the client is given up.
    pub retries: u32,
    /// Transfers at a time.
    pub max_transfers: usize,
    /// Transfers at a time for one client address.
    pub max_per_client: usize,
}

impl Settings {
    /// The settings that carried real firmware, on `listen`.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            max_block: 1468,
            max_window: 16,
            timeout: Duration::from_secs(1),
            retries: 5,
            max_transfers: 2048,
            max_per_client: 16,
        }
    }
}

/// Why TFTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TftpError {
    /// The port cannot be had.
    #[error("TFTP: cannot listen on {listen}")]
    Bind {
        /// Address and port.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The socket broke while serving.
    #[error("TFTP: receiving on {listen} failed")]
    Receive {
        /// Address and port.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}
