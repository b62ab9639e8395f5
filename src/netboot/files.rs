//! The files a firmware or loader may ask for by name, over TFTP or HTTP.
//! Names are looked up in a list, never joined to a path, so no name leads
//! anywhere else.

use super::script::Scripts;
use super::{BootNode, Boots, Fetch};
use crate::model::Mac;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Loaders by file name, and where Debian's packages put each, after the
/// configured directory was tried.
const LOADERS: &[(&str, &str)] = &[
    ("undionly.kpxe", "/usr/lib/ipxe"),
    ("snponly.efi", "/usr/lib/ipxe"),
    ("ipxe.efi", "/usr/lib/ipxe"),
    ("snponly-arm64.efi", "/usr/lib/ipxe"),
    ("lpxelinux.0", "/usr/lib/PXELINUX"),
    ("pxelinux.0", "/usr/lib/PXELINUX"),
    ("ldlinux.c32", "/usr/lib/syslinux/modules/bios"),
];

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A file on our disk.
    File(PathBuf),
    /// A text made for this client.
    Text(String),
}

/// Answers names.
#[derive(Clone)]
pub struct BootFiles {
    loaders_dir: PathBuf,
    scripts: Scripts,
    boots: Arc<dyn Boots>,
}

impl BootFiles {
    /// See the module.
    pub fn new(loaders_dir: PathBuf, scripts: Scripts, boots: Arc<dyn Boots>) -> Self {
        Self { loaders_dir, scripts, boots }
    }

    /// Where a loader is, if its name is one we serve and it is there.
    pub fn loader(&self, name: &str) -> Option<PathBuf> {
        let (name, dir) = LOADERS.iter().find(|(n, _)| *n == name)?;
        [self.loaders_dir.as_path(), Path::new(dir)]
            .into_iter()
            .map(|d| d.join(name))
            .find(|p| p.is_file())
    }

    /// Loaders that a node could be told but that are not installed here.
    pub fn missing(&self) -> Vec<&'static str> {
        ["undionly.kpxe", "snponly.efi"].into_iter().filter(|n| self.loader(n).is_none()).collect()
    }

    /// What TFTP gives for `path` to the client at `peer`.
    pub fn tftp(&self, path: &str, peer: std::net::IpAddr) -> Option<Found> {
        let name = path.trim_start_matches('/');
        let node = match peer {
            std::net::IpAddr::V4(a) => self.boots.by_address(a),
            std::net::IpAddr::V6(_) => None,
        };
        if let Some(file) = name.strip_prefix("pxelinux.cfg/") {
            let node = node?;
            let own = format!("01-{}", node.mac.hyphenated());
            if file != own {
                return None;
            }
            return self.script(&node, "pxelinux.cfg").map(Found::Text);
        }
        let found = self.loader(name)?;
        if let Some(n) = node {
            self.boots.fetched(&n.name, Fetch::Loader(name.to_owned()));
        }
        Some(Found::File(found))
    }

    /// The script for `node`, recorded with its build.
    pub fn script(&self, node: &BootNode, file: &str) -> Option<String> {
        let rendered = match file {
            "script.ipxe" => self.scripts.ipxe(node),
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
    pub fn node_at(&self, mac: Mac, peer: std::net::IpAddr) -> Option<BootNode> {
        let node = self.boots.by_mac(mac)?;
        (std::net::IpAddr::V4(node.address) == peer).then_some(node)
    }

    /// The view.
    pub fn boots(&self) -> &Arc<dyn Boots> {
        &self.boots
    }
}
