//! The installers' logs, as they come over the network: syslog by UDP. What
//! arrives is made fit to keep and handed to a [`Sink`] with its sender's
//! address; what it means is for others.
//!
//! `decode` is pure and takes whatever comes: busybox leaves the host out,
//! others write RFC 5424, and a stranger may send anything. `server` is the
//! socket, answering nobody.

mod decode;
mod server;

pub use decode::{Line, decode};
pub use server::{Server, Settings, Sink, SyslogError};
