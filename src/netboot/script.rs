//! The texts a loader asks for: iPXE scripts, and configuration for pxelinux
//! and GRUB.

use super::decide::Server;
use super::{BootNode, Installing};
use crate::config::Network;
use crate::image::installer::MEDIUM;
use crate::model::{Firmware, Method, Secret};
use crate::template::{Rendered, Syntax, TemplateError, Templates};
use serde_json::json;
use std::path::PathBuf;

/// The shipped templates, see `pxe/`.
pub const SHIPPED: &[(&str, &str)] = &[
    ("install.ipxe", include_str!("../../pxe/install.ipxe")),
    ("local.ipxe", include_str!("../../pxe/local.ipxe")),
    ("pxelinux.cfg", include_str!("../../pxe/pxelinux.cfg")),
    ("grub.cfg", include_str!("../../pxe/grub.cfg")),
];

/// Renders them for one link.
#[derive(Debug, Clone)]
pub struct Scripts {
    templates: Templates,
    server: Server,
    network: Network,
}

impl Scripts {
    /// `site` is the directory of the site's own templates.
    pub fn new(site: PathBuf, server: Server, network: Network) -> Self {
        let templates = Templates::new(site, SHIPPED, Syntax::BootScript);
        Self { templates, server, network }
    }

    /// Our end of the boot network.
    pub fn server(&self) -> Server {
        self.server
    }

    /// The iPXE script for `node` as it now is.
    pub fn ipxe(&self, node: &BootNode) -> Result<Rendered, TemplateError> {
        let name = if node.installing.is_some() { "install.ipxe" } else { "local.ipxe" };
        self.templates.render(name, &self.values(node))
    }

    /// The pxelinux configuration for `node` as it now is.
    pub fn pxelinux(&self, node: &BootNode) -> Result<Rendered, TemplateError> {
        self.templates.render("pxelinux.cfg", &self.values(node))
    }

    /// The GRUB configuration for `node` as it now is.
    pub fn grub(&self, node: &BootNode) -> Result<Rendered, TemplateError> {
        self.templates.render("grub.cfg", &self.values(node))
    }

    /// All templates with example values: what is wrong with them.
    pub fn lint(&self) -> Vec<TemplateError> {
        let of = |method| {
            let node = example(method);
            node.map(|n| self.templates.lint(&self.values(&n))).unwrap_or_default()
        };
        let faults = of(Method::Image);
        if faults.is_empty() { of(Method::Autoinstall) } else { faults }
    }

    /// The digest of a template as it now is.
    pub fn digest(&self, name: &str) -> Option<crate::model::Digest> {
        self.templates.source(name).ok().map(|s| crate::model::Digest::of(s.as_bytes()))
    }

    fn values(&self, node: &BootNode) -> serde_json::Value {
        // Without a server, for a loader that fetches from where it came.
        let path = format!("/boot/{}", node.mac.hyphenated());
        let base = format!("{}{path}", self.server.base());
        let (image, build, args) = match &node.installing {
            Some(i) if i.method.is_installer() => {
                (i.image.to_string(), i.build.to_string(), self.installer_args(node, i, &base))
            }
            Some(i) => (i.image.to_string(), i.build.to_string(), self.kernel_args(node, i)),
            None => Default::default(),
        };
        // The `;` before it means something to GRUB: no value holds one.
        let live = node.installing.as_ref().is_some_and(|i| i.method == Method::Autoinstall);
        let seed = if live { format!("{base}/") } else { String::new() };
        let ramdisks = node.installing.as_ref().map(Installing::ramdisks).unwrap_or_default();
        json!({
            "node": node.name, "mac": node.mac, "address": node.address, "base": base,
            "path": path,
            "installing": node.installing.is_some(), "image": image, "build": build, "args": args,
            "ramdisks": ramdisks, "seed": seed,
        })
    }

    /// What the agent reads from `/proc/cmdline`. The address is given here
    /// so that the ramdisk needs no DHCP client and no second lease.
    fn kernel_args(&self, node: &BootNode, i: &Installing) -> String {
        let around = self.network.around(node.address);
        let gw = around.router.map(|r| format!(" provision.gw={r}")).unwrap_or_default();
        let args = format!(
            "{} provision.server={} provision.mac={} provision.ip={}/{}{gw} provision.token={}",
            i.kernel_args,
            self.server.base(),
            node.mac,
            node.address,
            around.prefix,
            i.token.expose()
        );
        args.trim().to_owned()
    }
}

/// What a distribution's installer reads from its command line. The token is
/// not on it: the preseed file has it, and the kernel's line is in every log.
impl Scripts {
    fn installer_args(&self, node: &BootNode, i: &Installing, base: &str) -> String {
        if i.method == Method::Autoinstall {
            // It fetches its ISO image for the root; a configuration that
            // leads nowhere keeps cloud-init from taking the image for one.
            let args = format!(
                "{} ip=dhcp url={base}/{MEDIUM} root=/dev/ram0 ramdisk_size=1500000 \
                 cloud-config-url=/dev/null autoinstall",
                i.kernel_args
            );
            return args.trim().to_owned();
        }
        let log = match i.log_port {
            // busybox's syslogd sends each line as one datagram.
            Some(p) => format!(" log_host={} log_port={p}", self.server.address),
            None => String::new(),
        };
        let domain = match self.network.domain.as_str() {
            // Left out, the installer would ask for it.
            "" => " domain=unassigned-domain".to_owned(),
            d => format!(" domain={d}"),
        };
        // Without a router it would ask for one.
        let closed = match self.network.around(node.address).router {
            None => " netcfg/no_default_route=true",
            Some(_) => "",
        };
        let args = format!(
            "{} auto=true priority=critical url={base}/preseed.cfg hostname={}{domain}{closed} \
             BOOTIF=01-{} firmware=never{log} DEBCONF_DEBUG=5",
            i.kernel_args,
            node.name,
            node.mac.hyphenated(),
        );
        args.trim().to_owned()
    }
}

/// A node that looks like one being installed, for the lint.
fn example(method: Method) -> Option<BootNode> {
    Some(BootNode {
        name: "node01".parse().ok()?,
        mac: "52:54:00:00:00:01".parse().ok()?,
        address: [192, 0, 2, 1].into(),
        firmware: Firmware::Auto,
        arch: Default::default(),
        choice: Default::default(),
        installing: Some(Installing {
            build: crate::model::BuildId::generate(),
            image: "debian-12".parse().ok()?,
            kernel: PathBuf::new(),
            ramdisk: PathBuf::new(),
            extra: None,
            method,
            log_port: None,
            kernel_args: "console=ttyS0".into(),
            token: Secret::new("example"),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_templates_render_and_name_the_nodes_own_files() {
        let server = Server { address: [10, 0, 0, 1].into(), http_port: 80 };
        let text = "[network]\ninterface='e'\naddress='10.0.0.1'\nsubnet='10.0.0.0/24'\n\
                    range=['10.0.0.10','10.0.0.12']\n\
                    [[subnets]]\nsubnet='10.8.0.0/16'\nrouter='10.8.0.1'\n";
        let config = crate::config::parse(text, "f", std::path::Path::new("/")).unwrap();
        let s = Scripts::new("/nonexistent".into(), server, config.network);
        assert!(s.lint().is_empty(), "{:?}", s.lint());
        let mut node = example(Method::Image).unwrap();
        let text = s.ipxe(&node).unwrap().text;
        assert!(text.starts_with("#!ipxe\n"));
        assert!(text.contains(
            "http://10.0.0.1:80/boot/52-54-00-00-00-01/kernel initrd=agent initrd=ramdisk"
        ));
        assert!(text.contains("provision.ip=192.0.2.1/24 provision.token=example"));
        assert!(s.pxelinux(&node).unwrap().text.contains("INITRD http://"));
        let grub = s.grub(&node).unwrap().text;
        let linux = "if linux /boot/52-54-00-00-00-01/kernel console=ttyS0 provision.server=";
        assert!(grub.contains(linux) && grub.contains("provision.token=example ; then"), "{grub}");
        // Ubuntu's own installer: its ISO image, and a `;` that GRUB must not read.
        let installing = node.installing.take().unwrap();
        node.installing = Some(Installing { method: Method::Autoinstall, ..installing.clone() });
        let base = "http://10.0.0.1:80/boot/52-54-00-00-00-01";
        let (ipxe, grub) = (s.ipxe(&node).unwrap().text, s.grub(&node).unwrap().text);
        for text in [&ipxe, &grub] {
            assert!(text.contains(&format!(" url={base}/medium.iso ")), "{text}");
        }
        assert!(ipxe.contains(&format!("ds=nocloud-net;s={base}/")), "{ipxe}");
        assert!(grub.contains(&format!("ds=nocloud-net\\;s={base}/ ; then")), "{grub}");
        let pxelinux = s.pxelinux(&node).unwrap().text;
        assert!(
            pxelinux.contains(&format!("autoinstall ds=nocloud-net;s={base}/\n")),
            "{pxelinux}"
        );
        node.installing = Some(installing);
        node.address = [10, 8, 7, 1].into();
        let text = s.ipxe(&node).unwrap().text;
        assert!(text.contains("provision.ip=10.8.7.1/16 provision.gw=10.8.0.1 "), "{text}");
        node.installing = None;
        let text = s.ipxe(&node).unwrap().text;
        assert!(text.contains("sanboot") && !text.contains("kernel "));
        assert!(s.pxelinux(&node).unwrap().text.contains("LOCALBOOT"));
        let grub = s.grub(&node).unwrap().text;
        assert!(grub.contains("chainloader") && !grub.contains("linux /boot"), "{grub}");
    }
}
