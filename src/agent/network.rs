//! Brings up the card that booted, with the address that the server said.

use super::cmdline::Arguments;
use super::journal::say;
use crate::model::Mac;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the card may take to appear: firmware upload, slow buses.
const CARD: Duration = Duration::from_secs(30);
/// How long the way to the server may take: a switch port that runs spanning
/// tree forwards only after 30 to 40 s.
const WAY: Duration = Duration::from_secs(180);

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No such card.
    #[error("no network card has the MAC {mac}; the node has {found} (driver missing?)")]
    NoCard {
        /// What was looked for.
        mac: Mac,
        /// What there is.
        found: String,
    },
    /// busybox's `ip` refused.
    #[error("ip {what}: {reason}")]
    Ip {
        /// Arguments.
        what: String,
        /// Its message.
        reason: String,
    },
    /// The server cannot be reached.
    #[error("no way to {server} from {card} for {seconds} s: {last}")]
    NoWay {
        /// Server.
        server: String,
        /// Card and link state.
        card: String,
        /// How long it was tried.
        seconds: u64,
        /// What came last.
        last: String,
    },
}

/// Waits for the card, configures it, waits until the server answers.
pub fn bring_up(a: &Arguments, mut more_drivers: impl FnMut()) -> Result<(), NetworkError> {
    let start = Instant::now();
    let card = loop {
        if let Some(card) = card_with(&a.mac) {
            break card;
        }
        if start.elapsed() > CARD {
            return Err(NetworkError::NoCard { mac: a.mac, found: cards_in_words() });
        }
        more_drivers();
        std::thread::sleep(Duration::from_millis(100));
    };
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "set", &card, "up"])?;
    ip(&["addr", "add", &format!("{}/{}", a.address, a.prefix), "broadcast", "+", "dev", &card])?;
    if let Some(gateway) = a.gateway {
        ip(&["route", "add", "default", "via", &gateway.to_string(), "dev", &card])?;
    }
    say(format_args!("{card} ({}) has {}/{}", a.mac, a.address, a.prefix));
    wait_for_server(a, &card)
}

fn wait_for_server(a: &Arguments, card: &str) -> Result<(), NetworkError> {
    let start = Instant::now();
    let host = a.server.trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let no_way = |last: String| NetworkError::NoWay {
        server: a.server.clone(),
        card: format!("{card} (link {})", if has_link(card) { "up" } else { "down" }),
        seconds: start.elapsed().as_secs(),
        last,
    };
    let Ok(address) = with_port.parse::<SocketAddr>() else {
        return Err(no_way("provision.server must name an address, not a name".to_owned()));
    };
    let mut told = 0;
    loop {
        let last = match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            Ok(_) => return Ok(()),
            // Refused is an answer: the network is up, the server restarting.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => return Ok(()),
            Err(e) => e.to_string(),
        };
        if start.elapsed() > WAY {
            return Err(no_way(last));
        }
        if start.elapsed().as_secs() / 10 > told {
            told = start.elapsed().as_secs() / 10;
            let link = if has_link(card) { "up" } else { "down" };
            say(format_args!(
                "waiting for {} ({} s): link {link}, {last}; \
                 a switch port may take 40 s to forward",
                a.server,
                start.elapsed().as_secs()
            ));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn has_link(card: &str) -> bool {
    fs::read_to_string(format!("/sys/class/net/{card}/carrier")).is_ok_and(|c| c.trim() == "1")
}

/// Real cards, by kernel name.
pub fn cards() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|e| e.path().join("device").exists())
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// The MAC of a card.
pub fn mac_of(card: &str) -> Option<Mac> {
    let path = Path::new("/sys/class/net").join(card).join("address");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn card_with(mac: &Mac) -> Option<String> {
    cards().into_iter().find(|c| mac_of(c).as_ref() == Some(mac))
}

fn cards_in_words() -> String {
    let all: Vec<String> = cards()
        .iter()
        .map(|c| match mac_of(c) {
            Some(mac) => format!("{c} {mac}"),
            None => c.clone(),
        })
        .collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn ip(arguments: &[&str]) -> Result<(), NetworkError> {
    let failed = |reason: String| NetworkError::Ip { what: arguments.join(" "), reason };
    let done = Command::new("/bin/busybox")
        .arg("ip")
        .args(arguments)
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if done.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
}
