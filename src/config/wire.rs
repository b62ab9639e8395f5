//! The configuration file as written. Every field here is a key somebody may
//! have in a file: removing or renaming one breaks them.

use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use toml::Spanned;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Wire {
    pub state_dir: Option<PathBuf>,
    pub images_dir: Option<PathBuf>,
    pub profiles_dir: Option<PathBuf>,
    pub templates_dir: Option<PathBuf>,
    pub store: Option<String>,
    pub network: Network,
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    #[serde(default)]
    pub dhcp: Dhcp,
    #[serde(default)]
    pub tftp: Tftp,
    #[serde(default)]
    pub http: Http,
    #[serde(default)]
    pub netboot: Netboot,
    #[serde(default)]
    pub dns: Dns,
    #[serde(default)]
    pub time: Time,
    #[serde(default)]
    pub syslog: Syslog,
    #[serde(default)]
    pub api: Api,
    #[serde(default)]
    pub install: Install,
    #[serde(default)]
    pub deadlines: Deadlines,
    #[serde(default)]
    pub cache: super::cache::WireCache,
    pub deployment: Option<Deployment>,
}

/// `[deployment]`: the deployment server, if there is one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Deployment {
    pub url: Spanned<String>,
    pub ca_file: PathBuf,
    pub token_file: PathBuf,
}

/// `[network]`: the link to the nodes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Network {
    pub interface: String,
    pub address: Spanned<Ipv4Addr>,
    pub subnet: Spanned<String>,
    pub range: Spanned<(Ipv4Addr, Ipv4Addr)>,
    pub router: Option<Spanned<Ipv4Addr>>,
    pub dns: Option<Vec<Ipv4Addr>>,
    pub ntp: Option<Vec<Ipv4Addr>>,
    pub domain: Option<Spanned<String>>,
    #[serde(default)]
    pub search: Vec<String>,
    #[serde(default)]
    pub relays: Vec<Ipv4Addr>,
}

/// `[[subnets]]`: a network behind a relay agent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Subnet {
    pub subnet: Spanned<String>,
    pub router: Ipv4Addr,
}

/// `[dhcp]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Dhcp {
    pub mode: Option<super::resolved::DhcpMode>,
    pub lease_seconds: Option<Spanned<u32>>,
    pub allow_other_servers: Option<bool>,
}

/// `[tftp]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Tftp {
    pub enabled: Option<bool>,
    pub loaders_dir: Option<PathBuf>,
}

/// `[netboot]`: which boot loader.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Netboot {
    pub uefi_loader: Option<Spanned<String>>,
}

/// `[http]`: the boot network's plain HTTP.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Http {
    pub port: Option<u16>,
}

/// `[dns]`: names for the boot network.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Dns {
    pub enabled: Option<bool>,
    pub port: Option<Spanned<u16>>,
    pub forward: Option<Vec<Spanned<String>>>,
}

/// `[time]`: time for the boot network.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Time {
    pub enabled: Option<bool>,
    pub port: Option<Spanned<u16>>,
}

/// `[syslog]`: the installers' logs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Syslog {
    pub enabled: Option<bool>,
    pub port: Option<Spanned<u16>>,
}

/// `[api]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Api {
    pub listen: Option<SocketAddr>,
    pub socket: Option<PathBuf>,
    #[serde(default)]
    pub names: Vec<String>,
}

/// `[install]`: defaults of every install.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Install {
    pub image: Option<Spanned<String>>,
    pub user: Option<Spanned<String>>,
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    #[serde(default)]
    pub ssh_key_files: Vec<Spanned<PathBuf>>,
    pub password_hash: Option<Spanned<String>>,
    pub timezone: Option<Spanned<String>>,
    pub boot: Option<crate::model::plan::BootMethod>,
    pub kernel_args: Option<Spanned<String>>,
    pub console: Option<bool>,
    pub agent: Option<PathBuf>,
}

/// `[deadlines]`, seconds a phase; and how often a boot is tried.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented key by key in docs/operations.md")]
pub struct Deadlines {
    pub attempts: Option<Spanned<u32>>,
    pub power: Option<u32>,
    pub dhcp: Option<u32>,
    pub loader: Option<u32>,
    pub kernel: Option<u32>,
    pub installer: Option<u32>,
    pub disk: Option<u32>,
    pub image: Option<u32>,
    pub profile: Option<u32>,
    pub bootloader: Option<u32>,
    pub first_boot: Option<u32>,
    pub verify: Option<u32>,
}
