//! Which file each name leads to, and whom it is given.

use super::*;
use crate::model::{Arch, BuildId, Firmware, NodeName, Secret};
use crate::netboot::decide::Server;
use crate::netboot::{Fetch, Installing};
use std::net::Ipv4Addr;
use std::sync::Mutex;

/// A rack of one node.
struct One {
    node: BootNode,
    seen: Mutex<Vec<Fetch>>,
}

impl Boots for One {
    fn by_mac(&self, mac: Mac) -> Option<BootNode> {
        (mac == self.node.mac).then(|| self.node.clone())
    }
    fn by_address(&self, address: Ipv4Addr) -> Option<BootNode> {
        (address == self.node.address).then(|| self.node.clone())
    }
    fn fetched(&self, _: &NodeName, what: Fetch) {
        self.seen.lock().unwrap().push(what);
    }
    fn rendered(&self, _: &BuildId, _: &str, _: &str) {}
}

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 10));

fn files(dir: &Path) -> (BootFiles, Arc<One>) {
    let image = dir.join("images/debian-12");
    std::fs::create_dir_all(&image).unwrap();
    std::fs::create_dir_all(dir.join("loaders")).unwrap();
    let node = BootNode {
        name: "node01".parse().unwrap(),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        address: [10, 0, 0, 9].into(),
        firmware: Firmware::Auto,
        arch: Arch::X86_64,
        choice: Default::default(),
        installing: Some(Installing {
            build: BuildId::generate(),
            image: "debian-12".parse().unwrap(),
            kernel: image.join("kernel"),
            ramdisk: image.join("ramdisk"),
            extra: None,
            method: crate::model::Method::Image,
            log_port: None,
            kernel_args: "quiet".into(),
            token: Secret::new("t0ken"),
        }),
    };
    let one = Arc::new(One { node, seen: Mutex::default() });
    let text = "[network]\ninterface='e'\naddress='10.0.0.1'\nsubnet='10.0.0.0/24'\n\
                range=['10.0.0.9','10.0.0.12']\n";
    let config = crate::config::parse(text, "f", Path::new("/")).unwrap();
    let server = Server { address: [10, 0, 0, 1].into(), http_port: 80 };
    let scripts = Scripts::new("/nonexistent".into(), server, config.network);
    let files = BootFiles::new(dir.join("loaders"), scripts, one.clone());
    (files.with_agent(Bytes::from_static(b"agent")), one)
}

#[test]
fn a_loader_comes_from_the_configured_directory_then_from_the_node_s_image() {
    let dir = tempfile::tempdir().unwrap();
    let (files, one) = files(dir.path());
    let image = dir.path().join("images/debian-12/shimx64.efi");
    std::fs::write(&image, b"the image's").unwrap();
    assert_eq!(files.loader("shimx64.efi", Some(&one.node)), Some(image.clone()));
    assert_ne!(files.loader("shimx64.efi", None), Some(image), "another's image");
    let own = dir.path().join("loaders/shimx64.efi");
    std::fs::write(&own, b"the site's").unwrap();
    assert_eq!(files.loader("shimx64.efi", Some(&one.node)), Some(own));
    std::fs::write(dir.path().join("loaders/other.efi"), b"x").unwrap();
    for name in ["other.efi", "../loaders/shimx64.efi", "shimx64.efi/", ""] {
        assert_eq!(files.loader(name, None), None, "{name}");
    }
}

#[test]
fn grub_gets_its_configuration_by_every_name_it_asks_for_and_nobody_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let (files, one) = files(dir.path());
    for name in [
        "grub/grub.cfg",
        "/grub/grub.cfg",
        "grub/grub.cfg-01-52-54-00-00-00-01",
        "debian-installer/amd64/grub/grub.cfg",
    ] {
        let Some(Found::Text(text)) = files.tftp(name, OWN) else { panic!("{name}") };
        assert!(text.contains("linux /boot/52-54-00-00-00-01/kernel quiet "), "{text}");
        assert_eq!(files.tftp(name, OTHER), None, "the token is the node's");
    }
    assert!(one.seen.lock().unwrap().contains(&Fetch::Script));
    for name in [
        "grub/x86_64-efi/grub.cfg",
        "grub/grub.cfg-01-52-54-00-00-00-02",
        "grub/x86_64-efi/command.lst",
        "x/grub/grub.cfg",
    ] {
        assert_eq!(files.tftp(name, OWN), None, "{name}");
    }
}

#[test]
fn the_medium_of_ubuntus_installer_is_its_node_s_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let (files, _) = files(dir.path());
    let path = "boot/52-54-00-00-00-01/medium.iso";
    assert_eq!(files.tftp(path, OWN), None);
    let medium = dir.path().join("images/debian-12/medium.iso");
    std::fs::write(&medium, b"iso").unwrap();
    assert_eq!(files.tftp(path, OWN), Some(Found::File(medium)));
    assert_eq!(files.tftp(path, OTHER), None);
}

#[test]
fn a_build_s_files_go_to_its_node_by_tftp_as_well_and_its_failure_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let (files, one) = files(dir.path());
    let at = |file: &str| format!("boot/52-54-00-00-00-01/{file}");
    let kernel = dir.path().join("images/debian-12/kernel");
    assert_eq!(files.tftp(&at("kernel"), OWN), Some(Found::File(kernel)));
    let agent = Found::Agent(Bytes::from_static(b"agent"));
    assert_eq!(files.tftp(&at("agent"), OWN), Some(agent));
    for (name, peer) in [
        (at("kernel"), OTHER),
        (at("failed.cfg"), OTHER),
        (at("../../../etc/passwd"), OWN),
        ("boot/52-54-00-00-00-02/kernel".into(), OWN),
        ("boot/kernel".into(), OWN),
    ] {
        assert_eq!(files.tftp(&name, peer), None, "{name}");
    }
    assert!(!one.seen.lock().unwrap().contains(&Fetch::Failed));
    assert!(matches!(files.tftp(&at("failed.cfg"), OWN), Some(Found::Text(_))));
    assert!(one.seen.lock().unwrap().contains(&Fetch::Failed));
}

#[test]
fn what_is_missing_says_its_package_and_is_grave_where_it_is_the_default() {
    use crate::model::Loader;
    let m = Missing { loader: "shimx64.efi", package: "shim-signed", needed_for: SECURE_BOOT };
    assert!(m.to_string().ends_with("nodes with Secure Boot cannot boot: apt install shim-signed"));
    assert!(m.is_grave(Loader::Grub) && !m.is_grave(Loader::Ipxe));
    assert!(Missing { needed_for: "UEFI nodes", ..m }.is_grave(Loader::Ipxe));
    assert!(!Missing { needed_for: LABELLED, ..m }.is_grave(Loader::Grub));
}
