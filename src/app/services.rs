//! Names, time and logs: from the configuration to servers that run, and what
//! is said when a port is somebody else's already.

use super::installer_log::{self, InstallerLog};
use super::names::{RackNames, server_label};
use crate::auth::MasterKey;
use crate::config::Config;
use crate::lifecycle::Rack;
use crate::{dns, syslog, time};
use anyhow::{Error, Result};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Where the host says whom it asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The servers, bound and not yet running.
pub struct Services {
    names: Arc<RackNames>,
    dns: Option<dns::Server>,
    time: Option<time::Server>,
    syslog: Option<syslog::Server>,
    lines: installer_log::Lines,
    log: InstallerLog,
    written: mpsc::Receiver<(Ipv4Addr, syslog::Line)>,
}

/// The networks of nodes.
fn networks(c: &Config) -> Vec<(Ipv4Addr, u8)> {
    let behind = c.network.relayed.iter().map(|r| (r.net, r.prefix));
    std::iter::once((c.network.net, c.network.prefix)).chain(behind).collect()
}

fn upstreams(c: &Config) -> dns::Upstreams {
    match &c.dns.forward {
        Some(all) => dns::Upstreams::Fixed(all.clone()),
        None => dns::Upstreams::Listed(RESOLV_CONF.into()),
    }
}

impl Services {
    /// Opens the ports that the configuration asks for.
    pub fn bind(c: &Config, rack: &Arc<Rack>, key: &Arc<MasterKey>) -> Result<Self> {
        let names = Arc::new(RackNames::new(rack.clone(), c));
        let at = |port| SocketAddrV4::new(c.network.address, port);
        let dns = if c.dns.enabled {
            let now = crate::model::Time::now().as_second();
            let serial = u32::try_from(now).unwrap_or(1);
            let zone = dns::Zone::new(&c.network.domain, &networks(c), &server_label(), serial)?;
            let settings = dns::Settings { listen: at(c.dns.port), zone, upstreams: upstreams(c) };
            let server = dns::Server::bind(settings, names.clone());
            Some(server.map_err(|e| taken(e.into(), "dns", c.dns.port))?)
        } else {
            None
        };
        let time = if c.time.enabled {
            let settings = time::Settings { listen: at(c.time.port), networks: networks(c) };
            let server = time::Server::bind(settings, Arc::new(time::Kernel));
            Some(server.map_err(|e| taken(e.into(), "time", c.time.port))?)
        } else {
            None
        };
        let (lines, written) = installer_log::queue();
        let log =
            InstallerLog { rack: rack.clone(), logs: c.state_dir.join("logs"), key: key.clone() };
        let syslog = match c.syslog {
            Some(port) => {
                let settings = syslog::Settings { listen: at(port) };
                let server = syslog::Server::bind(settings, Arc::new(lines.clone()));
                Some(server.map_err(|e| taken(e.into(), "syslog", port))?)
            }
            None => None,
        };
        Ok(Self { names, dns, time, syslog, lines, log, written })
    }

    /// Their counters, to be kept while they run.
    pub fn counters(&self) -> impl Fn() -> BTreeMap<String, u64> + Send + Sync + use<> {
        let dns = self.dns.as_ref().map(dns::Server::counters);
        let time = self.time.as_ref().map(time::Server::counters);
        let lines = self.lines.clone();
        move || {
            let lost = ("syslog_lost".to_owned(), lines.lost());
            let dns = dns.iter().flat_map(|c| c.snapshot()).map(|(k, n)| ("dns", k, n));
            let time = time.iter().flat_map(|c| c.snapshot()).map(|(k, n)| ("time", k, n));
            let named =
                |(of, k, n): (&str, &str, u64)| (format!("{of}_{}", k.replace('-', "_")), n);
            dns.chain(time).map(named).chain([lost]).collect()
        }
    }

    /// Whether this host's clock is kept; `None` where time is not served.
    pub fn clock(&self) -> impl Fn() -> Option<bool> + Send + Sync + use<> {
        let time = self.time.as_ref().map(time::Server::counters);
        move || time.as_ref().map(|c| c.is_kept())
    }

    /// Runs them.
    pub fn start(self, tasks: &mut JoinSet<(&'static str, Result<()>)>, stop: &CancellationToken) {
        if let Some(server) = self.dns {
            let s = stop.clone();
            tasks.spawn(async move { ("dns", server.run(s).await.map_err(Into::into)) });
            let (names, s) = (self.names, stop.clone());
            tasks.spawn(async move {
                names.follow(s).await;
                ("servers' names", Ok(()))
            });
        }
        if let Some(server) = self.syslog {
            let s = stop.clone();
            tasks.spawn(async move { ("syslog", server.run(s).await.map_err(Into::into)) });
        }
        let (log, written, s) = (self.log, self.written, stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = log.run(written) => s.cancelled().await,
                () = s.cancelled() => {}
            }
            ("installers' logs", Ok(()))
        });
        if let Some(server) = self.time {
            let s = stop.clone();
            tasks.spawn(async move { ("time", server.run(s).await.map_err(Into::into)) });
        }
    }
}

/// Lines for `build-server check`.
pub fn said(c: &Config) -> Vec<String> {
    let list = |all: &[Ipv4Addr]| match all {
        [] => "none".to_owned(),
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let names = if c.dns.enabled {
        let own = SocketAddr::from((c.network.address, c.dns.port));
        let rest: Vec<String> =
            upstreams(c).servers(own).iter().map(|a| a.ip().to_string()).collect();
        let from = if c.dns.forward.is_none() { " (resolv.conf)" } else { "" };
        let rest = match rest.as_slice() {
            [] => "nothing else".to_owned(),
            all => format!("the rest from {}{from}", all.join(", ")),
        };
        let domain = match c.network.domain.as_str() {
            "" => "bare names (no domain is set)",
            d => d,
        };
        format!("port {}, {domain}; {rest}", c.dns.port)
    } else {
        "off".into()
    };
    let clock = match time::clock::Source::clock(&time::Kernel) {
        time::Clock::Kept { .. } => "this host's clock is kept",
        time::Clock::Free => "nothing corrects this host's clock: install chrony here",
    };
    let time = match c.time.enabled {
        true => format!("port {}; {clock}", c.time.port),
        false => "off".into(),
    };
    vec![
        format!("names      {names}"),
        format!("time       {time}"),
        format!(
            "told       name servers {}; time servers {}",
            list(&c.network.dns),
            list(&c.network.ntp)
        ),
    ]
}

/// What to do when the port is somebody else's.
fn taken(error: Error, section: &str, port: u16) -> Error {
    let io = error.chain().find_map(|e| e.downcast_ref::<io::Error>());
    if io.is_none_or(|e| e.kind() != io::ErrorKind::AddrInUse) {
        return error;
    }
    let by = holder(port).map(|who| format!(" by {who}")).unwrap_or_default();
    if section == "syslog" {
        return error
            .context(format!("port {port} is taken{by}: choose another with `[syslog] port`"));
    }
    let key = if section == "dns" { "dns" } else { "ntp" };
    error.context(format!(
        "port {port} is taken{by}: stop that, or leave it the work with \
         `[{section}] enabled = false` and say in `[network] {key}` whom the nodes ask"
    ))
}

/// The program that has `port` open, if the system lets us see it.
fn holder(port: u16) -> Option<String> {
    let mut inodes = Vec::new();
    for table in ["udp", "udp6", "tcp", "tcp6"] {
        // proc(5): `sl local_address rem_address st … inode`, in hexadecimal.
        let text = std::fs::read_to_string(Path::new("/proc/self/net").join(table));
        for line in text.unwrap_or_default().lines().skip(1) {
            let field: Vec<&str> = line.split_whitespace().collect();
            let local = field.get(1).and_then(|a| a.rsplit(':').next());
            if local.and_then(|p| u16::from_str_radix(p, 16).ok()) == Some(port) {
                inodes.extend(field.get(9).map(|i| format!("socket:[{i}]")));
            }
        }
    }
    let is_process = |e: &std::fs::DirEntry| {
        e.file_name().to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
    };
    for process in std::fs::read_dir("/proc").ok()?.flatten().filter(is_process) {
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        for file in files.flatten() {
            let Ok(to) = std::fs::read_link(file.path()) else { continue };
            if inodes.iter().any(|i| to == Path::new(i)) {
                let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
                let pid = process.file_name();
                return Some(format!("{} (process {})", name.trim(), pid.display()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_said_with_who_has_it_and_what_to_do() {
        let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let again = std::net::UdpSocket::bind(held.local_addr().unwrap()).unwrap_err();
        let said = format!("{:#}", taken(again.into(), "time", port));
        for word in [
            format!("port {port} is taken by "),
            format!("process {}", std::process::id()),
            "`[time] enabled = false`".into(),
            "`[network] ntp`".into(),
        ] {
            assert!(said.contains(&word), "{word:?} in {said:?}");
        }
        let other = io::Error::from(io::ErrorKind::PermissionDenied);
        let said = format!("{:#}", taken(other.into(), "dns", port));
        assert!(!said.contains("taken"), "{said}");
    }
}
