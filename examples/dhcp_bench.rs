//! The DHCP server alone, for `benches/dhcp_vs_dnsmasq.sh`: knows every MAC
//! that perfdhcp makes up (00:0c:01:…) and serves until it is killed.
//! Arguments: interface, server address.

use provision::dhcp::{Directory, Host, Server, Settings, Sighting, Sink};
use provision::model::ClientHints;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

struct Everybody;

impl Directory for Everybody {
    fn lookup(&self, hints: &ClientHints) -> Option<Host> {
        let [0, 0x0c, 1, _, a, b] = hints.mac.bytes() else { return None };
        let name = format!("p{a}-{b}").parse().ok()?;
        Some(Host { name, address: Ipv4Addr::new(10, 7, 16 + (a & 15), b), boot: None })
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn seen(&self, _: Sighting) {}
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(interface), Some(address)) = (args.next(), args.next()) else {
        anyhow::bail!("usage: dhcp_bench INTERFACE ADDRESS");
    };
    let mut settings = Settings::new(&interface, address.parse()?, 16);
    settings.allow_other_servers = true;
    settings.dns = vec![settings.server_address];
    settings.subnet.router = Some(settings.server_address);
    let server = Server::bind(settings, Arc::new(Everybody), Arc::new(Nowhere)).await?;
    println!("serving");
    server.run(CancellationToken::new()).await?;
    Ok(())
}
