//! The configuration as the program uses it: typed, complete, consistent.

use super::link::{DeploymentLink, link};
use super::services::{self, Dns, TimeService};
use super::subnets::{self, Relayed};
use super::wire;
use crate::model::plan::BootMethod;
use crate::model::{Loader, Name, Phase};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::Spanned;

/// How DHCP is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DhcpMode {
    /// We hand out the addresses.
    #[default]
    Authoritative,
    /// Another server does; we only say what to boot (port 4011).
    Proxy,
    /// Not at all.
    Off,
}

/// The link to the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Interface served; no other is answered.
    pub interface: String,
    /// Our address on it.
    pub address: Ipv4Addr,
    /// Network address.
    pub net: Ipv4Addr,
    /// Prefix length, 8 to 30.
    pub prefix: u8,
    /// First and last address for nodes.
    pub range: (Ipv4Addr, Ipv4Addr),
    /// Default route told to nodes.
    pub router: Option<Ipv4Addr>,
    /// Name servers told to nodes.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers told to nodes.
    pub ntp: Vec<Ipv4Addr>,
    /// Domain of the nodes.
    pub domain: String,
    /// Search list told to nodes.
    pub search: Vec<String>,
    /// Relay agents (`giaddr`) that are answered.
    pub relays: Vec<Ipv4Addr>,
    /// Networks behind relay agents.
    pub relayed: Vec<Relayed>,
}

impl Network {
    /// Whether `a` can be a host's address in the subnet.
    pub fn is_host(&self, a: Ipv4Addr) -> bool {
        let (first, last) = self.hosts();
        (first..=last).contains(&a)
    }

    /// First and last host address of the subnet.
    pub fn hosts(&self) -> (Ipv4Addr, Ipv4Addr) {
        subnets::hosts(self.net, self.prefix)
    }
}

/// Seconds a phase may take, and how often a boot is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlines {
    /// Boots tried in all, 1 to 10.
    pub attempts: u32,
    seconds: [u32; 11],
}

impl Deadlines {
    /// How long `phase` may take (for `image`: may stand still).
    pub fn of(&self, phase: Phase) -> SignedDuration {
        SignedDuration::from_secs(i64::from(self.seconds[phase as usize]))
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        // A Dell's self test takes three to five minutes, and a switch port
        // without portfast forty seconds after that.
        let seconds = [120, 600, 180, 300, 300, 300, 300, 1800, 300, 900, 600];
        Self { attempts: 3, seconds }
    }
}

/// Defaults of every install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// Image when none is named.
    pub image: Name,
    /// User with sudo.
    pub user: String,
    /// Their keys.
    pub ssh_keys: Vec<String>,
    /// Their password's hash.
    pub password_hash: Option<String>,
    /// Time zone.
    pub timezone: String,
    /// Restart method.
    pub boot: BootMethod,
    /// Added to the kernel's arguments, in the installer and on the disk.
    pub kernel_args: String,
    /// Whether consoles are listened to, through the BMCs.
    pub console: bool,
    /// The agent's binary.
    pub agent: PathBuf,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// Images.
    pub images_dir: PathBuf,
    /// Profiles.
    pub profiles_dir: PathBuf,
    /// A site's own boot templates.
    pub templates_dir: PathBuf,
    /// Directory of the configuration file: its git commit is recorded.
    pub config_dir: PathBuf,
    /// Store URL; may hold a password.
    pub store: String,
    /// Link.
    pub network: Network,
    /// DHCP mode.
    pub dhcp_mode: DhcpMode,
    /// Lease time.
    pub lease_seconds: u32,
    /// Start although another DHCP server answers.
    pub allow_other_servers: bool,
    /// Serve TFTP.
    pub tftp: bool,
    /// Where iPXE's and pxelinux's files are.
    pub loaders_dir: PathBuf,
    /// What UEFI nodes are given whose firmware takes either: iPXE or GRUB.
    pub uefi_loader: Loader,
    /// Port of the boot network's HTTP.
    pub http_port: u16,
    /// Names.
    pub dns: Dns,
    /// Time.
    pub time: TimeService,
    /// UDP port for the installers' logs; `None`: they are not taken.
    pub syslog: Option<u16>,
    /// API over TLS.
    pub api_listen: SocketAddr,
    /// API for root on this host.
    pub api_socket: PathBuf,
    /// Names and addresses in the API's certificate.
    pub api_names: Vec<String>,
    /// Install defaults.
    pub install: Install,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// The deployment server.
    pub deployment: Option<DeploymentLink>,
    /// The package cache.
    pub cache: Option<super::cache::CacheConfig>,
}

/// A fault and where in the file it is.
pub struct Fault {
    /// Byte offset.
    pub at: Option<usize>,
    /// What is wrong and what would be right.
    pub message: String,
}

pub(super) fn fault<T>(at: Range<usize>, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { at: Some(at.start), message: message.into() })
}

fn parsed<T: FromStr>(s: Spanned<String>) -> Result<T, Fault>
where
    T::Err: std::fmt::Display,
{
    let at = s.span();
    s.into_inner().parse().or_else(|e: T::Err| fault(at, e.to_string()))
}

/// Checks the file against itself and fills in defaults.
pub fn resolve(w: wire::Wire, base: &Path) -> Result<Config, Fault> {
    let state_dir = base.join(w.state_dir.unwrap_or_else(|| "/var/lib/provision".into()));
    let under = |given: Option<PathBuf>, name: &str| match given {
        Some(p) => base.join(p),
        None => state_dir.join(name),
    };
    let dns = services::dns(w.dns, *w.network.address.get_ref())?;
    let time = services::time(w.time)?;
    let mut network = network(w.network, &dns, &time)?;
    for s in w.subnets {
        let at = s.subnet.span();
        network.relay(s.subnet.get_ref(), s.router).or_else(|m| fault(at, m))?;
    }
    let lease_seconds = match w.dhcp.lease_seconds {
        Some(s) if *s.get_ref() < 60 => {
            return fault(s.span(), "lease_seconds must be at least 60");
        }
        Some(s) => s.into_inner(),
        None => 86_400,
    };
    let store = match w.store {
        None => format!("sqlite:{}", state_dir.join("provision.db").display()),
        Some(s) => match s.strip_prefix("sqlite:") {
            Some(p) => format!("sqlite:{}", base.join(p).display()),
            None => s,
        },
    };
    Ok(Config {
        images_dir: under(w.images_dir, "images"),
        profiles_dir: under(w.profiles_dir, "profiles"),
        templates_dir: under(w.templates_dir, "pxe"),
        config_dir: base.to_owned(),
        store,
        dhcp_mode: w.dhcp.mode.unwrap_or_default(),
        lease_seconds,
        allow_other_servers: w.dhcp.allow_other_servers.unwrap_or(false),
        tftp: w.tftp.enabled.unwrap_or(true),
        loaders_dir: w.tftp.loaders_dir.map_or_else(|| "/usr/lib/ipxe".into(), |p| base.join(p)),
        uefi_loader: super::netboot::uefi_loader(w.netboot)?,
        http_port: w.http.port.unwrap_or(8080),
        syslog: services::syslog(w.syslog)?,
        dns,
        time,
        api_listen: w.api.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 8443))),
        api_socket: w.api.socket.map_or_else(|| "/run/provision/api.sock".into(), |p| base.join(p)),
        api_names: w.api.names,
        install: install(w.install, base)?,
        deadlines: deadlines(w.deadlines)?,
        cache: super::cache::cache(w.cache, base, &state_dir)?,
        deployment: w.deployment.map(|d| link(d, base)).transpose()?,
        network,
        state_dir,
    })
}

fn network(n: wire::Network, dns: &Dns, time: &TimeService) -> Result<Network, Fault> {
    let ours = *n.address.get_ref();
    let at = n.subnet.span();
    let (net, prefix) = subnets::cidr(n.subnet.get_ref()).or_else(|m| fault(at, m))?;
    let out = Network {
        interface: n.interface,
        address: *n.address.get_ref(),
        net,
        prefix,
        range: *n.range.get_ref(),
        router: n.router.as_ref().map(|r| *r.get_ref()),
        dns: n.dns.unwrap_or_else(|| dns.told(ours)),
        ntp: n.ntp.unwrap_or_else(|| time.told(ours)),
        domain: n.domain.map(services::domain).transpose()?.unwrap_or_default(),
        search: n.search,
        relays: n.relays,
        relayed: Vec::new(),
    };
    let (first, last) = out.hosts();
    let hosts = format!("the subnet's hosts are {first} to {last}");
    if !out.is_host(out.address) {
        return fault(n.address.span(), format!("address {} is outside; {hosts}", out.address));
    }
    if let Some(r) = n.router
        && !out.is_host(*r.get_ref())
    {
        return fault(r.span(), format!("router {} is outside; {hosts}", r.get_ref()));
    }
    let (lo, hi) = out.range;
    if !out.is_host(lo) || !out.is_host(hi) {
        return fault(n.range.span(), format!("range {lo} to {hi} leaves the subnet; {hosts}"));
    }
    if lo > hi {
        return fault(n.range.span(), format!("range {lo} to {hi} ends before it begins"));
    }
    if let Some(r) = out.router.filter(|r| (lo..=hi).contains(r) && *r != out.address) {
        return fault(n.range.span(), format!("the router {r} is inside the range; leave it out"));
    }
    if (lo..=hi).contains(&out.address) {
        let m = format!("the server's own address {} is inside the range", out.address);
        return fault(n.range.span(), format!("{m} {lo} to {hi}; leave it out"));
    }
    Ok(out)
}

fn install(i: wire::Install, base: &Path) -> Result<Install, Fault> {
    let mut ssh_keys = i.ssh_keys;
    for file in i.ssh_key_files {
        let path = base.join(file.get_ref());
        match std::fs::read_to_string(&path) {
            Ok(text) => ssh_keys.extend(
                text.lines()
                    .map(str::trim)
                    .filter(|l| !l.is_empty() && !l.starts_with('#'))
                    .map(str::to_owned),
            ),
            Err(e) => return fault(file.span(), format!("{}: {e}", path.display())),
        }
    }
    let user = match i.user {
        None => "ops".to_owned(),
        Some(u) => {
            let ok = (1..=32).contains(&u.get_ref().len())
                && u.get_ref()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
                && u.get_ref().as_bytes()[0].is_ascii_lowercase()
                && u.get_ref() != "root";
            if !ok {
                return fault(
                    u.span(),
                    "user is 1 to 32 of a-z, 0-9, '-', '_', begins with a letter, and is not root",
                );
            }
            u.into_inner()
        }
    };
    if let Some(h) = &i.password_hash
        && !(h.get_ref().starts_with("$6$") || h.get_ref().starts_with("$y$"))
    {
        return fault(
            h.span(),
            "password_hash is a $6$ or $y$ hash, as `mkpasswd` makes it; never the password",
        );
    }
    if let Some(k) = &i.kernel_args
        && k.get_ref().chars().any(|c| c.is_control())
    {
        return fault(k.span(), "kernel_args is one line");
    }
    if let Some(z) = &i.timezone
        && (z.get_ref().contains("..") || z.get_ref().starts_with('/'))
    {
        return fault(z.span(), "timezone is a name such as Etc/UTC or Africa/Johannesburg");
    }
    let zones = Path::new("/usr/share/zoneinfo");
    if let Some(z) = &i.timezone
        && zones.is_dir()
        && !zones.join(z.get_ref()).is_file()
    {
        return fault(
            z.span(),
            format!("there is no time zone {:?}; see `timedatectl list-timezones`", z.get_ref()),
        );
    }
    let agent = i.agent.map_or_else(
        || {
            let beside = std::env::current_exe()
                .ok()
                .and_then(|p| Some(p.parent()?.join("provision-agent")));
            beside.unwrap_or_else(|| "/usr/lib/provision/provision-agent".into())
        },
        |p| base.join(p),
    );
    let default_image =
        || "debian-12".parse().map_err(|_| Fault { at: None, message: String::new() });
    Ok(Install {
        image: i.image.map_or_else(default_image, parsed)?,
        user,
        ssh_keys,
        password_hash: i.password_hash.map(Spanned::into_inner),
        timezone: i.timezone.map_or_else(|| "Etc/UTC".to_owned(), Spanned::into_inner),
        boot: i.boot.unwrap_or_default(),
        kernel_args: i.kernel_args.map_or_else(String::new, Spanned::into_inner),
        console: i.console.unwrap_or(true),
        agent,
    })
}

fn deadlines(d: wire::Deadlines) -> Result<Deadlines, Fault> {
    let mut out = Deadlines::default();
    if let Some(a) = d.attempts {
        if !(1..=10).contains(a.get_ref()) {
            return fault(a.span(), "attempts is 1 to 10");
        }
        out.attempts = a.into_inner();
    }
    let given = [
        d.power,
        d.dhcp,
        d.loader,
        d.kernel,
        d.installer,
        d.disk,
        d.image,
        d.profile,
        d.bootloader,
        d.first_boot,
        d.verify,
    ];
    for (have, given) in out.seconds.iter_mut().zip(given) {
        *have = given.unwrap_or(*have).max(1);
    }
    Ok(out)
}
