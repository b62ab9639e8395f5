//! What the templates are told of a node, and what each value must be.

use crate::model::plan::ScriptPlan;
use crate::model::{BuildId, DiskHint, Mac, NodeName, Secret};
use crate::template::is_password_hash;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The smallest disk that a base system with a profile fits on, in bytes.
const SMALLEST_DISK: u64 = 4_000_000_000;

/// A value that cannot stand in a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {shown}is not valid; it must be {right}")]
pub struct InvalidValue {
    /// Which.
    pub what: String,
    /// The value and a blank, or nothing for a secret.
    shown: String,
    /// What would be right.
    pub right: String,
}

impl InvalidValue {
    fn new(what: impl Into<String>, value: &str, right: &str) -> Self {
        let value: String = value.chars().take(80).collect();
        Self { what: what.into(), shown: format!("{value:?} "), right: right.to_owned() }
    }

    pub(super) fn hidden(what: &str, right: impl Into<String>) -> Self {
        Self { what: what.to_owned(), shown: String::new(), right: right.into() }
    }
}

/// Which disk may be wiped; empty texts and 0 say nothing. All that is said
/// must fit, and exactly one disk must.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disk {
    /// Serial number.
    pub serial: String,
    /// World Wide Name, with or without `naa.`, `eui.`, `0x`.
    pub wwn: String,
    /// `/dev/sda`, or a link such as `/dev/disk/by-id/…`.
    pub path: String,
    /// Smallest size in bytes.
    pub min_bytes: u64,
    /// Largest size in bytes; 0: any.
    pub max_bytes: u64,
}

impl From<&DiskHint> for Disk {
    fn from(hint: &DiskHint) -> Self {
        Self {
            serial: hint.serial.clone().unwrap_or_default(),
            wwn: hint.wwn.clone().unwrap_or_default(),
            path: hint.path.clone().unwrap_or_default(),
            min_bytes: hint.min_bytes.unwrap_or(0),
            max_bytes: hint.max_bytes.unwrap_or(0),
        }
    }
}

/// Where security updates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// `host` or `host:port`, with the path before `directory` if there is one.
    pub host: String,
    /// Directory, such as `/debian-security`; Debian's installer knows no other.
    pub directory: String,
}

/// Where packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `http` or `https`.
    pub protocol: String,
    /// `host` or `host:port`.
    pub host: String,
    /// Directory, such as `/debian`.
    pub directory: String,
    /// Suite, such as `trixie`.
    pub suite: String,
    /// Suite of the installer's components, where it is another one.
    pub udeb_suite: Option<String>,
    /// Security updates; none: not during the install.
    pub security: Option<Security>,
}

/// What is applied last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileScripts {
    /// Name of the profile.
    pub name: String,
    /// Scripts in order, run in the new system's root.
    pub scripts: Vec<ScriptPlan>,
    /// Groups that the user joins, where they exist by then.
    pub groups: Vec<String>,
}

/// Everything that a template can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    /// Host name.
    pub node: NodeName,
    /// Domain; may be empty.
    pub domain: String,
    /// Address, by DHCP.
    pub address: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
    /// Default route.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers; none: the installer asks nobody.
    pub ntp: Vec<Ipv4Addr>,
    /// Card that boots.
    pub mac: Mac,
    /// Whether it boots by UEFI: decides the partitions.
    pub uefi: bool,
    /// Disk.
    pub disk: Disk,
    /// Packages.
    pub mirror: Mirror,
    /// User with sudo.
    pub user: String,
    /// `$6$` or yescrypt hash; none: no password opens the account.
    pub password_hash: Option<String>,
    /// Lines of `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// Such as `Etc/UTC`.
    pub timezone: String,
    /// Such as `en_US.UTF-8`.
    pub locale: String,
    /// Keyboard layout, such as `us`.
    pub keyboard: String,
    /// Packages beside the base system.
    pub packages: Vec<String>,
    /// Arguments of the installed kernel.
    pub kernel_args: String,
    /// Build.
    pub build: BuildId,
    /// `http://address:port` of the boot network's HTTP.
    pub server: String,
    /// Token of the build.
    pub token: Secret,
    /// Profile.
    pub profile: ProfileScripts,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Text of `/etc/provision/agent.json`.
    pub agent_config: String,
    /// Text of the agent's unit.
    pub agent_unit: String,
    /// Now, in seconds since 1970: a clock that is behind is set to it.
    pub now: i64,
    /// Switch off instead of restarting: for the lab.
    pub poweroff: bool,
}

fn plain(text: &str, more: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

fn printable(text: &str) -> bool {
    text.chars().all(|c| matches!(c, ' '..='~'))
}

impl Values {
    /// Host and port of `server`.
    fn server_parts(&self) -> Option<(&str, u16)> {
        let rest = self.server.strip_prefix("http://")?;
        match rest.rsplit_once(':') {
            Some((host, port)) => Some((host, port.parse().ok()?)),
            None => Some((rest, 80)),
        }
        .filter(|(host, _)| plain(host, ".-"))
    }

    /// Whether every value is what it must be.
    pub fn check(&self) -> Result<(), InvalidValue> {
        let bad = |what: &str, value: &str, right: &str| Err(InvalidValue::new(what, value, right));
        let fields: [(&str, &str, bool, &str); 13] = [
            (
                "user",
                &self.user,
                is_user(&self.user),
                "1 to 32 of a-z, 0-9, '-', '_', a letter first, not root",
            ),
            (
                "domain",
                &self.domain,
                self.domain.is_empty() || plain(&self.domain, ".-"),
                "a DNS name",
            ),
            ("timezone", &self.timezone, plain(&self.timezone, "_/+-"), "a name such as Etc/UTC"),
            ("locale", &self.locale, plain(&self.locale, "_.@-"), "a name such as en_US.UTF-8"),
            ("keyboard", &self.keyboard, plain(&self.keyboard, "_-"), "a layout such as us"),
            (
                "kernel_args",
                &self.kernel_args,
                self.kernel_args.is_empty() || plain(&self.kernel_args, " .,:=/_+@[]-"),
                "words of letters, digits and . , : = / _ + @ [ ] -",
            ),
            (
                "mirror protocol",
                &self.mirror.protocol,
                matches!(&*self.mirror.protocol, "http" | "https"),
                "http or https",
            ),
            (
                "mirror host",
                &self.mirror.host,
                plain(&self.mirror.host, ".:-"),
                "host or host:port",
            ),
            (
                "mirror directory",
                &self.mirror.directory,
                is_directory(&self.mirror.directory),
                "a path such as /debian",
            ),
            (
                "mirror suite",
                &self.mirror.suite,
                plain(&self.mirror.suite, ".-"),
                "a name such as trixie",
            ),
            ("server", &self.server, self.server_parts().is_some(), "http://host:port"),
            ("profile", &self.profile.name, plain(&self.profile.name, "._-"), "a profile's name"),
            (
                "disk path",
                &self.disk.path,
                self.disk.path.is_empty() || plain(&self.disk.path, "/._:@+-"),
                "a path such as /dev/disk/by-id/NAME",
            ),
        ];
        for (what, value, ok, right) in fields {
            if !ok {
                return bad(what, value, right);
            }
        }
        if let Some(suite) = self.mirror.udeb_suite.as_ref().filter(|s| !plain(s, ".-")) {
            return bad("mirror udeb_suite", suite, "a name such as trixie");
        }
        if let Some(s) = &self.mirror.security
            && !(plain(&s.host, ".:-/") && is_directory(&s.directory))
        {
            return bad("mirror security", &s.host, "host or host:port and a path");
        }
        for (what, value) in [("disk serial", &self.disk.serial), ("disk wwn", &self.disk.wwn)] {
            if !printable(value) {
                return bad(what, value, "printable ASCII on one line");
            }
        }
        if self.password_hash.as_deref().is_some_and(|h| !is_password_hash(h)) {
            let right = "a $6$ or $y$ hash, as `mkpasswd` makes it; never the password";
            return Err(InvalidValue::hidden("password_hash", right));
        }
        if !plain(self.token.expose(), "._~+/=-") {
            return Err(InvalidValue::hidden("token", "letters, digits and . _ ~ + / = -"));
        }
        if let Some(k) = self.ssh_keys.iter().find(|k| k.chars().any(char::is_control)) {
            return bad("ssh key", k, "one line of authorized_keys");
        }
        let package = |p: &&String| !plain(p, "+.:-") || p.starts_with('-');
        if let Some(p) = self.packages.iter().find(package) {
            return bad("package", p, "a package's name");
        }
        if let Some(s) = self.profile.scripts.iter().find(|s| !is_file_name(&s.name)) {
            return bad("script", &s.name, "a plain file name");
        }
        if let Some(g) = self.profile.groups.iter().find(|g| !plain(g, "_-") || g.starts_with('-'))
        {
            return bad("group", g, "a group's name");
        }
        for (name, value) in &self.labels {
            if [name, value].into_iter().any(|t| t.chars().any(char::is_control)) {
                return bad("label", &format!("{name}={value}"), "text on one line");
            }
        }
        Ok(())
    }

    /// As templates see it.
    pub(super) fn shown(&self) -> Value {
        let (host, port) = self.server_parts().unwrap_or_default();
        let scripts = self.profile.scripts.iter();
        let scripts: Vec<Value> =
            scripts.map(|s| json!({ "name": s.name, "text": s.text })).collect();
        let security = self.mirror.security.as_ref();
        json!({
            "node": self.node, "domain": self.domain, "address": self.address,
            "prefix": self.prefix, "gateway": self.gateway, "dns": self.dns, "ntp": self.ntp,
            "mac": self.mac, "uefi": self.uefi,
            "disk": {
                "serial": self.disk.serial, "wwn": self.disk.wwn, "path": self.disk.path,
                "min_bytes": self.disk.min_bytes.max(SMALLEST_DISK),
                "max_bytes": self.disk.max_bytes,
            },
            "mirror": {
                "protocol": self.mirror.protocol, "host": self.mirror.host,
                "directory": self.mirror.directory, "suite": self.mirror.suite,
                "udeb_suite": self.mirror.udeb_suite,
                "security": security.map(|s| json!({ "host": s.host, "directory": s.directory })),
            },
            "user": self.user, "password_hash": self.password_hash.as_deref().unwrap_or("!"),
            "ssh_keys": self.ssh_keys, "timezone": self.timezone, "locale": self.locale,
            "keyboard": self.keyboard, "packages": self.packages,
            "kernel_args": self.kernel_args, "build": self.build, "server": self.server,
            "server_host": host, "server_port": port, "token": self.token.expose(),
            "profile": {
                "name": self.profile.name, "scripts": scripts, "groups": self.profile.groups,
            },
            "labels": self.labels, "agent_config": self.agent_config,
            "agent_unit": self.agent_unit, "now": self.now, "poweroff": self.poweroff,
        })
    }

    /// A node that looks like one being installed, for the lint; `full` has a
    /// value in every field.
    pub(super) fn example(full: bool) -> Option<Values> {
        let some = |text: &str| if full { text.to_owned() } else { String::new() };
        let one = |text: &str| if full { vec![text.to_owned()] } else { Vec::new() };
        let security =
            Security { host: "192.0.2.254:8080".into(), directory: "/debian-security".into() };
        let script = ScriptPlan { name: "10-one.sh".into(), text: "#!/bin/sh\nexit 0\n".into() };
        Some(Values {
            node: "node01".parse().ok()?,
            domain: some("rack.example"),
            address: [192, 0, 2, 1].into(),
            prefix: 24,
            gateway: full.then(|| [192, 0, 2, 254].into()),
            dns: if full { vec![[192, 0, 2, 254].into()] } else { Vec::new() },
            ntp: if full { vec![[192, 0, 2, 254].into()] } else { Vec::new() },
            mac: "52:54:00:00:00:01".parse().ok()?,
            uefi: full,
            disk: Disk { serial: some("S3RIAL"), wwn: some("naa.5000c500"), ..Disk::default() },
            mirror: Mirror {
                protocol: "http".into(),
                host: "192.0.2.254:8080".into(),
                directory: "/debian".into(),
                suite: "trixie".into(),
                udeb_suite: full.then(|| "trixie-own".into()),
                security: full.then_some(security),
            },
            user: "ops".into(),
            password_hash: full.then(|| format!("$6$salt${}", "x".repeat(86))),
            ssh_keys: one("ssh-ed25519 AAAA ops@desk"),
            timezone: "Etc/UTC".into(),
            locale: "en_US.UTF-8".into(),
            keyboard: "us".into(),
            packages: one("curl"),
            kernel_args: some("console=ttyS0"),
            build: BuildId::generate(),
            server: "http://192.0.2.254:8080".into(),
            token: Secret::new("example"),
            profile: ProfileScripts {
                name: "base".into(),
                scripts: if full { vec![script] } else { Vec::new() },
                groups: one("docker"),
            },
            labels: one("rack").into_iter().map(|k| (k, "r1".to_owned())).collect(),
            agent_config: "{}".into(),
            agent_unit: "[Unit]\n".into(),
            now: 1_800_000_000,
            poweroff: full,
        })
    }
}

fn is_user(user: &str) -> bool {
    (1..=32).contains(&user.len())
        && user.starts_with(|c: char| c.is_ascii_lowercase())
        && user.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        && user != "root"
}

fn is_directory(path: &str) -> bool {
    path.starts_with('/') && plain(path, "/._-") && !path.contains("..")
}

fn is_file_name(name: &str) -> bool {
    plain(name, "._-") && !name.starts_with(['.', '-']) && name.len() <= 64
}
