//! `build-server check`: reads the configuration and all it leads to, and
//! says what would be served, without serving it.

use super::packages;
use crate::config::{Config, DhcpMode};
use crate::image::Catalogue;
use crate::model::{BuildId, NodeName};
use crate::netboot::decide::Server;
use crate::netboot::files::BootFiles;
use crate::netboot::script::Scripts;
use crate::netboot::{BootNode, Boots, Fetch};
use crate::preseed::Preseeds;
use crate::profile::Profiles;
use anyhow::{Result, bail};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A rack without nodes, for looking up loaders.
struct NoNodes;

impl Boots for NoNodes {
    fn by_mac(&self, _: crate::model::Mac) -> Option<BootNode> {
        None
    }
    fn by_address(&self, _: Ipv4Addr) -> Option<BootNode> {
        None
    }
    fn fetched(&self, _: &NodeName, _: Fetch) {}
    fn rendered(&self, _: &BuildId, _: &str, _: &str) {}
}

/// Prints what would be served; an error when something would not work.
pub fn check(c: &Config) -> Result<()> {
    let n = &c.network;
    let mut faults = Vec::new();
    println!("link       {} at {}/{}", n.interface, n.address, n.prefix);
    let dhcp = match c.dhcp_mode {
        DhcpMode::Authoritative => "authoritative",
        DhcpMode::Proxy => "proxy (boot files only, port 4011)",
        DhcpMode::Off => "off",
    };
    println!("dhcp       {dhcp}, {} to {}, known nodes only", n.range.0, n.range.1);
    for r in &n.relayed {
        println!("relayed    {}/{} by router {}", r.net, r.prefix, r.router);
    }
    let server = Server { address: n.address, http_port: c.http_port };
    println!("tftp       {}", if c.tftp { "port 69" } else { "off" });
    for line in super::services::said(c) {
        println!("{line}");
    }
    println!("boot http  {}", server.base());
    match &c.cache {
        Some(cache) => {
            let names: Vec<String> = packages::origins(c).into_iter().map(|o| o.name).collect();
            if names.is_empty() {
                faults.push("[cache]: apt on this host has no Debian archive; name one under [[cache.origins]]".into());
            }
            let (gib, dir) = (cache.limit >> 30, cache.dir.display());
            println!(
                "packages   {}/apt/: {}; up to {gib} GiB in {dir}",
                server.base(),
                names.join(", ")
            );
        }
        None => println!("packages   not kept here"),
    }
    println!("api        https://{} and {}", c.api_listen, c.api_socket.display());
    println!("store      {}", c.store.split('@').next_back().unwrap_or("?"));
    let scripts = Scripts::new(c.templates_dir.clone(), server, n.clone());
    faults.extend(scripts.lint().into_iter().map(|e| e.to_string()));
    let preseeds = Preseeds::new(c.templates_dir.clone());
    faults.extend(preseeds.lint().into_iter().map(|f| f.to_string()));
    let files = BootFiles::new(c.loaders_dir.clone(), scripts, Arc::new(NoNodes));
    for m in files.missing() {
        if m.is_grave(c.uefi_loader) {
            faults.push(m.to_string());
        } else {
            println!("note       {m}");
        }
    }
    if let Some(f) = files.loader("grubx64.efi", None)
        && !crate::netboot::grub::speaks_http(&f)
    {
        println!(
            "note       {} has no HTTP built in: nodes that boot by HTTP under Secure Boot need \
             Debian 13's, as grubx64.efi in {}, or an image of Debian 13",
            f.display(),
            c.loaders_dir.display()
        );
    }
    if !c.install.agent.is_file() {
        faults.push(format!("the agent {} is not there", c.install.agent.display()));
    }
    if std::fs::metadata(format!("/sys/class/net/{}", n.interface)).is_err() {
        faults.push(format!("there is no network interface {:?} on this machine", n.interface));
    }
    for tool in ["mmdebstrap", "mke2fs", "unshare", "busybox"] {
        let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|d| std::path::Path::new(d).join(tool).is_file());
        if !found {
            println!("note       {tool} is not installed: images cannot be built here");
        }
    }
    if !std::path::Path::new("/usr/bin/bsdtar").is_file() {
        println!(
            "note       bsdtar is not installed: installers on ISO images cannot be read here"
        );
    }
    let (good, bad) = Profiles::open(&c.profiles_dir).list()?;
    let names: Vec<&str> = good.iter().map(|p| p.name.as_str()).collect();
    println!("profiles   {}", names.join(", "));
    faults.extend(bad.into_iter().map(|f| f.error.to_string()));
    let (good, bad) = Catalogue::open(&c.images_dir).list()?;
    let names: Vec<&str> = good.iter().map(|i| i.name.as_str()).collect();
    println!("images     {}", if names.is_empty() { "none yet".into() } else { names.join(", ") });
    faults.extend(bad.into_iter().map(|f| f.error.to_string()));
    if c.install.ssh_keys.is_empty() {
        println!("note       no ssh keys: nobody can log in to installed nodes");
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    println!("all good");
    Ok(())
}
