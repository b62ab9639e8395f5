//! The files a firmware or loader may ask for by name, over TFTP or HTTP.
//! Names are looked up in a list, never joined to a path, so no name leads
//! anywhere else.

use super::script::Scripts;
use super::{BootNode, Boots, Fetch};
use crate::image::installer::MEDIUM;
use crate::model::Mac;
use bytes::Bytes;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A loader that is served, and where its package has it.
struct Known {
    /// As it is asked for, and as it lies in the configured directory.
    name: &'static str,
    /// The package's file.
    at: &'static str,
    /// Who brings it.
    package: &'static str,
    /// What cannot boot without it.
    needed_for: &'static str,
}

const fn known(
    name: &'static str,
    at: &'static str,
    package: &'static str,
    needed_for: &'static str,
) -> Known {
    Known { name, at, package, needed_for }
}

const SIGNED_GRUB: &str = "grub-efi-amd64-signed";
const SECURE_BOOT: &str = "nodes with Secure Boot";
const LABELLED: &str = "nodes with the label loader=pxelinux";

/// All that are served, and nothing else is. The one that was built for the
/// network of GRUB's images goes by the name that shim asks for.
const LOADERS: &[Known] = &[
    known("undionly.kpxe", "/usr/lib/ipxe/undionly.kpxe", "ipxe", "BIOS nodes"),
    known("snponly.efi", "/usr/lib/ipxe/snponly.efi", "ipxe", "UEFI nodes"),
    known("ipxe.efi", "/usr/lib/ipxe/ipxe.efi", "ipxe", ""),
    known("snponly-arm64.efi", "/usr/lib/ipxe/snponly-arm64.efi", "", ""),
    known("lpxelinux.0", "/usr/lib/PXELINUX/lpxelinux.0", "pxelinux", LABELLED),
    known("pxelinux.0", "/usr/lib/PXELINUX/pxelinux.0", "pxelinux", ""),
    known("ldlinux.c32", "/usr/lib/syslinux/modules/bios/ldlinux.c32", "syslinux-common", LABELLED),
    known("shimx64.efi", "/usr/lib/shim/shimx64.efi.signed", "shim-signed", SECURE_BOOT),
    known(
        "grubx64.efi",
        "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
        SIGNED_GRUB,
        SECURE_BOOT,
    ),
    known("mmx64.efi", "/usr/lib/shim/mmx64.efi.signed", "shim-helpers-amd64-signed", ""),
    known("shimaa64.efi", "/usr/lib/shim/shimaa64.efi.signed", "", ""),
    known("grubaa64.efi", "/usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed", "", ""),
];

/// Where GRUB looks for its configuration: the prefixes of Debian's signed
/// network images.
const GRUB_PREFIXES: [&str; 2] = ["grub/", "debian-installer/amd64/grub/"];

/// A loader that is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// As it is served.
    pub loader: &'static str,
    /// What to install.
    pub package: &'static str,
    /// What cannot boot without it.
    pub needed_for: &'static str,
}

impl Missing {
    /// Whether nodes cannot do without it whose operator asked for nothing
    /// special.
    pub fn is_grave(&self, uefi: crate::model::Loader) -> bool {
        match self.needed_for {
            SECURE_BOOT => uefi == crate::model::Loader::Grub,
            LABELLED => false,
            _ => true,
        }
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { loader, package, needed_for } = self;
        write!(
            f,
            "loader {loader} is not there, and {needed_for} cannot boot: apt install {package}"
        )
    }
}

/// Where a loader is, if its name is one that is served and it is there: the
/// configured directory goes before the files of the image that the node is
/// given, and those before the host's packages.
pub fn find(loaders_dir: &Path, node: Option<&BootNode>, name: &str) -> Option<PathBuf> {
    let l = LOADERS.iter().find(|l| l.name == name)?;
    // A shim knows the keys of its own distribution's kernels.
    let image = node.and_then(|n| n.installing.as_ref()?.kernel.parent());
    let own = image.map(|dir| dir.join(l.name));
    let all = [Some(loaders_dir.join(l.name)), own, Some(l.at.into())];
    all.into_iter().flatten().find(|p| p.is_file())
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A file on our disk.
    File(PathBuf),
    /// A text made for this client.
    Text(String),
    /// The agent's ramdisk.
    Agent(Bytes),
}

impl Found {
    fn is_there(&self) -> bool {
        !matches!(self, Self::File(path) if !path.is_file())
    }
}

/// Answers names.
#[derive(Clone)]
pub struct BootFiles {
    loaders_dir: PathBuf,
    scripts: Scripts,
    boots: Arc<dyn Boots>,
    agent: Bytes,
}

impl BootFiles {
    /// See the module.
    pub fn new(loaders_dir: PathBuf, scripts: Scripts, boots: Arc<dyn Boots>) -> Self {
        Self { loaders_dir, scripts, boots, agent: Bytes::new() }
    }

    /// With the agent's ramdisk, for TFTP.
    pub fn with_agent(self, agent: Bytes) -> Self {
        Self { agent, ..self }
    }

    /// Where a loader is, for this client.
    pub fn loader(&self, name: &str, node: Option<&BootNode>) -> Option<PathBuf> {
        find(&self.loaders_dir, node, name)
    }

    /// Loaders that a node could be told but that are not installed here.
    pub fn missing(&self) -> Vec<Missing> {
        LOADERS
            .iter()
            .filter(|l| !l.needed_for.is_empty() && self.loader(l.name, None).is_none())
            .map(|l| Missing { loader: l.name, package: l.package, needed_for: l.needed_for })
            .collect()
    }

    /// The known node at an address.
    pub fn node_by(&self, peer: IpAddr) -> Option<BootNode> {
        match peer {
            IpAddr::V4(a) => self.boots.by_address(a),
            IpAddr::V6(_) => None,
        }
    }

    /// What TFTP gives for `path` to the client at `peer`.
    pub fn tftp(&self, path: &str, peer: IpAddr) -> Option<Found> {
        let name = path.trim_start_matches('/');
        let node = self.node_by(peer);
        if let Some(file) = name.strip_prefix("pxelinux.cfg/") {
            let node = node?;
            let own = format!("01-{}", node.mac.hyphenated());
            if file != own {
                return None;
            }
            return self.script(&node, "pxelinux.cfg").map(Found::Text);
        }
        if name.contains("grub/") {
            return self.grub_config(name, &node?).map(Found::Text);
        }
        if let Some(rest) = name.strip_prefix("boot/") {
            let (mac, file) = rest.split_once('/')?;
            return self.own_file(self.node_at(mac.parse().ok()?, peer)?, file);
        }
        let found = self.loader(name, node.as_ref())?;
        if let Some(n) = node {
            self.boots.fetched(&n.name, Fetch::Loader(name.to_owned()));
        }
        Some(Found::File(found))
    }

    /// GRUB's configuration for `node`, if `name` is one that GRUB gives it.
    pub fn grub_config(&self, name: &str, node: &BootNode) -> Option<String> {
        let file = GRUB_PREFIXES.iter().find_map(|p| name.strip_prefix(p))?;
        let own = || format!("grub.cfg-01-{}", node.mac.hyphenated());
        (file == "grub.cfg" || file == own()).then(|| self.script(node, "grub.cfg"))?
    }

    /// A file of the node's own build.
    pub fn own_file(&self, node: BootNode, file: &str) -> Option<Found> {
        let i = node.installing?;
        match file {
            "kernel" => Some(Found::File(i.kernel)),
            "ramdisk" => Some(Found::File(i.ramdisk)),
            "extra" => i.extra.map(Found::File),
            MEDIUM => Some(Found::File(i.kernel.with_file_name(MEDIUM))).filter(Found::is_there),
            "agent" => Some(Found::Agent(self.agent.clone())),
            // GRUB asks for it when it cannot go on: asking is the message.
            "failed.cfg" => {
                self.boots.fetched(&node.name, Fetch::Failed);
                let said = "echo 'Provision: this did not work; the server says why: provision";
                Some(Found::Text(format!("{said} explain {}'\n", node.name)))
            }
            _ => None,
        }
    }

    /// The script for `node`, recorded with its build.
    pub fn script(&self, node: &BootNode, file: &str) -> Option<String> {
        let rendered = match file {
            "script.ipxe" => self.scripts.ipxe(node),
            "grub.cfg" => self.scripts.grub(node),
            _ => self.scripts.pxelinux(node),
        };
        match rendered {
            Ok(r) => {
                if let Some(i) = &node.installing {
                    let kept = r.text.replace(i.token.expose(), "***");
                    self.boots.rendered(&i.build, file, &kept);
                    self.boots.fetched(&node.name, Fetch::Script);
                }
                Some(r.text)
            }
            Err(e) => {
                tracing::error!(node = %node.name, error = %e, "boot script does not render");
                None
            }
        }
    }

    /// The node behind a `/boot/<mac>/…` URL, if `peer` is that very node: a
    /// build's token is handed to nobody else.
    pub fn node_at(&self, mac: Mac, peer: IpAddr) -> Option<BootNode> {
        let node = self.boots.by_mac(mac)?;
        (IpAddr::V4(node.address) == peer).then_some(node)
    }

    /// The view.
    pub fn boots(&self) -> &Arc<dyn Boots> {
        &self.boots
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
