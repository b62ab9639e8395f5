//! The rack as DHCP and booting see it: from memory, at once.

use super::observer::{Observer, Seen};
use crate::auth::MasterKey;
use crate::config::Config;
use crate::dhcp;
use crate::lifecycle::Rack;
use crate::lifecycle::machine::boots_its_disk;
use crate::model::{BuildOutcome, ClientHints, LifeCycle, Mac, Node, NodeName};
use crate::netboot::decide::{Server, boot_file};
use crate::netboot::{BootNode, Boots, Fetch, Installing};
use crate::tftp;
use async_trait::async_trait;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The view.
pub struct RackView {
    /// The rack.
    pub rack: Arc<Rack>,
    /// Configuration.
    pub config: Arc<Config>,
    /// For build tokens.
    pub key: Arc<MasterKey>,
    /// Where sightings go.
    pub observer: Observer,
}

impl RackView {
    /// Our end of the boot network.
    pub fn server(&self) -> Server {
        Server { address: self.config.network.address, http_port: self.config.http_port }
    }

    fn boot_node(&self, n: &Node, mac: Mac) -> BootNode {
        BootNode {
            name: n.spec.name.clone(),
            mac,
            address: n.spec.address,
            firmware: n.spec.firmware,
            arch: n.spec.arch,
            pxelinux: n.spec.labels.get("loader").is_some_and(|l| l == "pxelinux"),
            installing: self.installing(&n.spec.name),
        }
    }

    /// Only a build that has not written its disk boots the installer.
    fn installing(&self, node: &NodeName) -> Option<Installing> {
        let b = self.rack.running_build(node)?;
        if b.outcome != BuildOutcome::Running || boots_its_disk(&b) {
            return None;
        }
        let dir = self.config.images_dir.join(b.inputs.image.as_str());
        let extra = dir.join("extra");
        Some(Installing {
            build: b.id.clone(),
            image: b.inputs.image.clone(),
            kernel: dir.join("kernel"),
            ramdisk: dir.join("ramdisk"),
            extra: (b.inputs.method.is_installer() && extra.is_file()).then_some(extra),
            method: b.inputs.method,
            log_port: self.config.syslog,
            kernel_args: self.config.install.kernel_args.clone(),
            token: self.key.build_token(&b.id),
        })
    }
}

impl Boots for RackView {
    fn by_mac(&self, mac: Mac) -> Option<BootNode> {
        let n = self.rack.view().inventory.by_mac(mac).cloned()?;
        Some(self.boot_node(&n, mac))
    }

    fn by_address(&self, address: Ipv4Addr) -> Option<BootNode> {
        let n = self.rack.view().inventory.by_address(address).cloned()?;
        let mac = *n.spec.macs.first()?;
        Some(self.boot_node(&n, mac))
    }

    fn fetched(&self, node: &NodeName, what: Fetch) {
        self.observer.send(Seen::Fetch(node.clone(), what));
    }

    fn rendered(&self, build: &crate::model::BuildId, file: &str, text: &str) {
        self.observer.send(Seen::Rendered(build.clone(), file.to_owned(), text.to_owned()));
    }
}

impl dhcp::Directory for RackView {
    fn lookup(&self, hints: &ClientHints) -> Option<dhcp::Host> {
        let n = self.rack.view().inventory.by_mac(hints.mac).cloned()?;
        if n.status.life == LifeCycle::Retired {
            return None;
        }
        let node = self.boot_node(&n, hints.mac);
        let boot = boot_file(&node, hints, self.server());
        Some(dhcp::Host { name: node.name, address: node.address, boot })
    }
}

/// TFTP's files.
pub struct TftpFiles(pub crate::netboot::files::BootFiles);

#[async_trait]
impl tftp::Source for TftpFiles {
    async fn open(&self, path: &str, peer: SocketAddr) -> Result<tftp::Opened, tftp::SourceError> {
        use crate::netboot::files::Found;
        match self.0.tftp(path, peer.ip()) {
            None => Err(tftp::SourceError::NotFound),
            Some(Found::Text(t)) => Ok(tftp::Opened::bytes(t.into_bytes())),
            Some(Found::File(p)) => {
                let file = tokio::fs::File::open(p).await?;
                let size = file.metadata().await?.len();
                Ok(tftp::Opened { size, reader: Box::new(file) })
            }
        }
    }
}
