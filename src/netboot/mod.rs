//! What a node gets at each step of its boot.
//!
//! `decide` is pure: from what the firmware says of itself, the node's label
//! and what was seen of it, to a boot file. `refusal` is pure as well: when a
//! firmware has refused an unsigned loader. `grub` knows what a signed GRUB can
//! do. `script` renders the templates of
//! `pxe/`. `files` are the files themselves: loaders by TFTP and HTTP, kernel,
//! ramdisk and agent for the node's own build. `http` is the boot network's
//! HTTP server for them, with Range, ETag and no buffering. `ra` spares iPXE
//! its wait for an IPv6 router.
//!
//! A node that is not being installed is told to boot its disk, at every
//! step, so a BMC that keeps asking for the network never reinstalls a node.
//! The view of the nodes comes through [`Boots`]; sightings go out through it.

pub mod decide;
pub mod files;
pub mod grub;
pub mod http;
pub mod mirror;
pub mod ra;
pub mod refusal;
pub mod script;

use crate::model::{Arch, BuildId, Firmware, Mac, Method, Name, NodeName, Secret};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// A node that is being installed: what to boot it with.
#[derive(Debug, Clone)]
pub struct Installing {
    /// Build.
    pub build: BuildId,
    /// Image, for the screen.
    pub image: Name,
    /// Kernel file.
    pub kernel: PathBuf,
    /// Ramdisk file.
    pub ramdisk: PathBuf,
    /// What is laid over the ramdisk: the installers' keyring and certificate.
    pub extra: Option<PathBuf>,
    /// Who installs.
    pub method: Method,
    /// Where the installer's log goes: UDP port on our address.
    pub log_port: Option<u16>,
    /// Kernel arguments before ours.
    pub kernel_args: String,
    /// The build's token, for the kernel's command line.
    pub token: Secret,
}

impl Installing {
    /// The ramdisks in the order in which the kernel must find them. The
    /// agent's first: UEFI joins them without padding, its length is a
    /// multiple of 512 and the ramdisk's is not, and the kernel wants the next
    /// to begin at a multiple of 4. An installer's own is padded, and what
    /// comes after it takes the place of files in it. The last one fetched is
    /// the end of the step.
    pub fn ramdisks(&self) -> &'static [&'static str] {
        match (self.method, &self.extra) {
            (Method::Image, _) => &["agent", "ramdisk"],
            (_, Some(_)) => &["ramdisk", "extra"],
            (_, None) => &["ramdisk"],
        }
    }
}

/// A node as booting sees it.
#[derive(Debug, Clone)]
pub struct BootNode {
    /// Name.
    pub name: NodeName,
    /// The card that boots.
    pub mac: Mac,
    /// Address.
    pub address: Ipv4Addr,
    /// Firmware said by the operator.
    pub firmware: Firmware,
    /// Processor.
    pub arch: Arch,
    /// What decides over its loader, beside the firmware.
    pub choice: decide::Choice,
    /// What to install; `None`: boot the disk.
    pub installing: Option<Installing>,
}

/// What a node has just fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetch {
    /// A loader, begun.
    Loader(String),
    /// The script, or the configuration of pxelinux or GRUB.
    Script,
    /// GRUB could not start what it was told to.
    Failed,
    /// One of the installer's files; `whole` when its last byte went out.
    File {
        /// `kernel`, `ramdisk`, `agent`, `extra` or a loader's.
        name: String,
        /// Bytes sent.
        bytes: u64,
        /// Milliseconds it took.
        millis: u64,
        /// To the end.
        whole: bool,
        /// The last one: what was fetched can be started.
        last: bool,
    },
}

/// The rest of the house, as booting sees it. All calls return at once.
pub trait Boots: Send + Sync {
    /// The node with this MAC.
    fn by_mac(&self, mac: Mac) -> Option<BootNode>;
    /// The node with this address.
    fn by_address(&self, address: Ipv4Addr) -> Option<BootNode>;
    /// A node fetched something.
    fn fetched(&self, node: &NodeName, what: Fetch);
    /// A text was rendered for a build: kept with it, token left out.
    fn rendered(&self, build: &BuildId, file: &str, text: &str);
}
