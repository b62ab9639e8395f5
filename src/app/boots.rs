//! The rack as DHCP and booting see it: from memory, at once.

use super::observer::{Observer, Seen};
use crate::auth::MasterKey;
use crate::config::Config;
use crate::dhcp;
use crate::lifecycle::machine::boots_its_disk;
use crate::lifecycle::{NextLoader, Rack};
use crate::model::{BuildOutcome, ClientHints, ClientKind, LifeCycle, Loader, Mac, Node, NodeName};
use crate::netboot::decide::{Choice, Server, boot_file};
use crate::netboot::files::find;
use crate::netboot::grub::Grubs;
use crate::netboot::refusal::{Sign, Watch};
use crate::netboot::{BootNode, Boots, Fetch, Installing};
use crate::tftp;
use async_trait::async_trait;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// What the signed GRUBs here can do.
    pub grubs: Grubs,
    /// Which firmware does not start what it fetches.
    pub refusals: Refusals,
}

impl RackView {
    /// Our end of the boot network.
    pub fn server(&self) -> Server {
        Server { address: self.config.network.address, http_port: self.config.http_port }
    }

    fn boot_node(&self, n: &Node, mac: Mac) -> BootNode {
        let mut node = BootNode {
            name: n.spec.name.clone(),
            mac,
            address: n.spec.address,
            firmware: n.spec.firmware,
            arch: n.spec.arch,
            choice: Choice {
                label: n.loader(),
                uefi: self.config.uefi_loader,
                secure_boot: n.status.secure_boot,
                grub_http: false,
            },
            installing: self.installing(&n.spec.name),
        };
        let grub = find(&self.config.loaders_dir, Some(&node), "grubx64.efi");
        node.choice.grub_http = grub.is_some_and(|g| self.grubs.speaks_http(&g));
        node
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
        match &what {
            Fetch::File { name, whole: true, .. } => self.refusals.see(node, Sign::Whole(name)),
            Fetch::Script => self.refusals.see(node, Sign::Runs),
            _ => None,
        };
        self.observer.send(Seen::Fetch(node.clone(), what));
    }

    fn rendered(&self, build: &crate::model::BuildId, file: &str, text: &str) {
        self.observer.send(Seen::Rendered(build.clone(), file.to_owned(), text.to_owned()));
    }
}

impl RackView {
    /// Looks whether this packet means that the firmware did not start the
    /// loader it fetched; then the very answer to it is another loader.
    fn watch(&self, node: &mut BootNode, hints: &ClientHints) {
        let sign = match hints.kind {
            ClientKind::Ipxe => Sign::Runs,
            ClientKind::Pxe | ClientKind::HttpBoot => Sign::Firmware,
            ClientKind::Os => return,
        };
        let Some(loader) = self.refusals.see(&node.name, sign) else { return };
        let dir = &self.config.loaders_dir;
        let signed = ["shimx64.efi", "grubx64.efi"];
        let here = signed.iter().all(|f| find(dir, Some(node), f).is_some());
        let may = node.choice.label != Loader::Ipxe;
        if here && may {
            // In memory at once; written with what the recorder makes of it.
            self.rack.note(&node.name, |n| n.status.secure_boot = Some(true));
            node.choice.secure_boot = Some(true);
        }
        let next = match (may, here) {
            (true, true) if hints.kind == ClientKind::HttpBoot && !node.choice.grub_http => {
                NextLoader::Restart
            }
            (true, true) => NextLoader::Signed,
            (true, false) => NextLoader::Missing,
            (false, _) => NextLoader::Forbidden,
        };
        self.observer.send(Seen::Refused(node.name.clone(), loader, next));
    }
}

/// By the node's address: TFTP knows no names.
impl tftp::Sink for RackView {
    fn seen(&self, s: tftp::Sighting) {
        if s.kind == tftp::SightingKind::Done
            && let std::net::IpAddr::V4(a) = s.peer.ip()
            && let Some(n) = self.rack.view().inventory.by_address(a).map(|n| n.spec.name.clone())
        {
            self.refusals.see(&n, Sign::Whole(&s.path));
            // A GRUB that came by TFTP fetches the build's files so as well.
            let own = s.path.strip_prefix("boot/").and_then(|r| r.split_once('/'));
            if let (Some((_, file)), Some(i)) = (own, self.installing(&n)) {
                let last = i.ramdisks().last() == Some(&file);
                self.observer.send(Seen::Sent(n, file.to_owned(), last));
            }
        }
        self.observer.send(Seen::Tftp(s));
    }
}

/// What was seen of the boots of known nodes.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<NodeName, Watch>>);

impl Refusals {
    fn see(&self, node: &NodeName, sign: Sign) -> Option<&'static str> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = all.entry(node.clone()).or_default();
        let refused = watch.see(sign);
        if watch.is_idle() {
            all.remove(node);
        }
        refused
    }
}

impl dhcp::Directory for RackView {
    fn lookup(&self, hints: &ClientHints) -> Option<dhcp::Host> {
        let n = self.rack.view().inventory.by_mac(hints.mac).cloned()?;
        if n.status.life == LifeCycle::Retired {
            return None;
        }
        let mut node = self.boot_node(&n, hints.mac);
        if node.installing.is_some() {
            self.watch(&mut node, hints);
        }
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
            Some(Found::Agent(a)) => Ok(tftp::Opened::bytes(a)),
            Some(Found::File(p)) => {
                let file = tokio::fs::File::open(p).await?;
                let size = file.metadata().await?.len();
                Ok(tftp::Opened { size, reader: Box::new(file) })
            }
        }
    }
}
