//! Who is called what on the boot network: the nodes, as the inventory has
//! them at that moment, and the two servers. A server's name is never a
//! node's: what is called like the registry is the registry.

use crate::config::Config;
use crate::dns::Names;
use crate::lifecycle::Rack;
use crate::model::LifeCycle;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a look-up of the deployment server may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// How long its address is believed, and how soon it is tried again.
const KEPT: Duration = Duration::from_secs(300);
const AGAIN: Duration = Duration::from_secs(15);

/// A server that has names.
#[derive(Debug)]
struct Host {
    /// In our domain; the first is the one it has in reverse.
    labels: Vec<String>,
    /// In somebody else's.
    full: Option<String>,
    address: RwLock<Option<Ipv4Addr>>,
}

impl Host {
    fn address(&self) -> Option<Ipv4Addr> {
        *self.address.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> Option<String> {
        self.full.as_ref().or(self.labels.first()).cloned()
    }
}

/// The names.
pub struct RackNames {
    rack: Arc<Rack>,
    servers: Vec<Host>,
    /// The deployment server as host and port, where it is given by name.
    to_look_up: Option<String>,
}

impl RackNames {
    /// The names of `rack` and of the servers of `config`.
    pub fn new(rack: Arc<Rack>, config: &Config) -> Self {
        let (servers, to_look_up) = servers(config);
        Self { rack, servers, to_look_up }
    }

    /// Keeps the deployment server's address, where the configuration has its
    /// name: the host's own resolver knows it. Until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        let (Some(what), Some(host)) = (&self.to_look_up, self.servers.get(1)) else {
            return stop.cancelled().await;
        };
        let mut said = false;
        loop {
            let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host(what)).await;
            let address = found.ok().and_then(Result::ok).and_then(|mut all| {
                all.find_map(|a| match a.ip() {
                    std::net::IpAddr::V4(a) => Some(a),
                    std::net::IpAddr::V6(_) => None,
                })
            });
            if address.is_some() {
                *host.address.write().unwrap_or_else(PoisonError::into_inner) = address;
            } else if !said {
                tracing::warn!(
                    host = what,
                    "the deployment server's name is unknown to this host: nodes cannot be told its address"
                );
            }
            said = address.is_none();
            let pause = if address.is_some() { KEPT } else { AGAIN };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

impl Names for RackNames {
    fn address(&self, label: &str) -> Option<Ipv4Addr> {
        if let Some(h) = self.servers.iter().find(|h| h.labels.iter().any(|l| l == label)) {
            return h.address();
        }
        let name = label.parse().ok()?;
        let node = self.rack.view().inventory.get(&name).cloned()?;
        // Answered no more, as by DHCP.
        (node.status.life != LifeCycle::Retired).then_some(node.spec.address)
    }

    fn elsewhere(&self, full: &str) -> Option<Ipv4Addr> {
        let host = self.servers.iter().find(|h| h.full.as_deref() == Some(full))?;
        host.address()
    }

    fn name(&self, address: Ipv4Addr) -> Option<String> {
        if let Some(h) = self.servers.iter().find(|h| h.address() == Some(address)) {
            return h.name();
        }
        let node = self.rack.view().inventory.by_address(address).cloned()?;
        (node.status.life != LifeCycle::Retired).then(|| node.spec.name.to_string())
    }
}

/// The label that a host of `config` has in reverse, and the SOA names.
pub fn server_label() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let label = host.trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
    let ok = label.parse::<crate::model::NodeName>().is_ok() && label != "localhost";
    if ok { label } else { "build-server".into() }
}

/// Build server, then deployment server if there is one; and the latter's name
/// where it has to be looked up.
fn servers(config: &Config) -> (Vec<Host>, Option<String>) {
    let here = Host {
        labels: vec![server_label(), "build-server".into()],
        full: None,
        address: RwLock::new(Some(config.network.address)),
    };
    let Some(link) = &config.deployment else { return (vec![here], None) };
    let host = link.host.rsplit_once(':').map_or(link.host.as_str(), |(h, _)| h);
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.parse::<Ipv4Addr>().ok();
    let inside = host.strip_suffix(&format!(".{}", config.network.domain)).unwrap_or(&host);
    let usual = "deployment-server".to_owned();
    let (labels, full) = match () {
        () if address.is_some() => (vec![usual], None),
        () if !inside.contains('.') => (vec![inside.to_owned(), usual], None),
        () => (vec![usual], Some(host)),
    };
    let to_look_up = address.is_none().then(|| link.host.clone());
    (vec![here, Host { labels, full, address: RwLock::new(address) }], to_look_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(url: &str) -> (Vec<String>, Option<String>, Option<Ipv4Addr>, Option<String>) {
        let text = format!(
            "[network]\ninterface='e'\naddress='10.1.0.1'\nsubnet='10.1.0.0/24'\n\
             range=['10.1.0.10','10.1.0.12']\ndomain='rack.example'\n\
             [deployment]\nurl='{url}'\nca_file='c'\ntoken_file='t'\n"
        );
        let c = crate::config::parse(&text, "f", std::path::Path::new("/")).unwrap();
        let (mut all, look) = servers(&c);
        let d = all.pop().unwrap();
        assert_eq!(all[0].address(), Some([10, 1, 0, 1].into()));
        assert!(all[0].labels.contains(&"build-server".to_owned()));
        let address = d.address();
        (d.labels, d.full, address, look)
    }

    #[test]
    fn the_deployment_server_has_the_name_that_its_url_has_and_a_usual_one() {
        let usual = || "deployment-server".to_owned();
        let by_address = (vec![usual()], None, Some([10, 1, 0, 2].into()), None);
        assert_eq!(labels("https://10.1.0.2:5000"), by_address);
        let (ls, full, address, look) = labels("https://registry.rack.example:5000");
        assert_eq!((ls, full, address), (vec!["registry".into(), usual()], None, None));
        assert_eq!(look.as_deref(), Some("registry.rack.example:5000"));
        let (ls, full, ..) = labels("https://Registry.example.org");
        assert_eq!((ls, full.as_deref()), (vec![usual()], Some("registry.example.org")));
    }
}
