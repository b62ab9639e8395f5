//! What the boot loader was told to tell the agent: the kernel's command line.

use crate::model::{Mac, Secret};
use std::net::Ipv4Addr;

/// The agent's part of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// `provision.server=http://10.0.0.1:8080`, without a slash at the end.
    pub server: String,
    /// `provision.token=…`: good for this build.
    pub token: Secret,
    /// `provision.mac=…`: the card that booted.
    pub mac: Mac,
    /// `provision.ip=10.0.0.7/24`.
    pub address: Ipv4Addr,
    /// Prefix length of the address.
    pub prefix: u8,
    /// `provision.gw=10.0.0.1`, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// `provision.rescue`: a shell instead of an install.
    pub rescue: bool,
}

/// What is wrong with the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel command line: {0}")]
pub struct CmdlineError(String);

/// Reads `/proc/cmdline`. When a key stands twice the last one counts, as for
/// the kernel itself.
pub fn parse(line: &str) -> Result<Arguments, CmdlineError> {
    let words = || line.split_ascii_whitespace();
    let get =
        |key: &str| words().filter_map(|w| w.strip_prefix(key)?.strip_prefix('=')).next_back();
    let need = |key: &str, example: &str| {
        get(key)
            .filter(|v| !v.is_empty())
            .ok_or_else(|| CmdlineError(format!("{key} is missing; must be like {key}={example}")))
    };
    let bad = |key: &str, value: &str, example: &str| {
        CmdlineError(format!("{key}={value} is not valid; must be like {key}={example}"))
    };

    let server = need("provision.server", "http://10.0.0.1:8080")?;
    if !server.starts_with("http://") || server.len() == "http://".len() {
        return Err(bad("provision.server", server, "http://10.0.0.1:8080"));
    }
    let token = need("provision.token", "TOKEN")?;
    let mac = need("provision.mac", "52:54:00:00:00:01")?;
    let ip = need("provision.ip", "10.0.0.7/24")?;
    let (address, prefix) = ip
        .split_once('/')
        .and_then(|(a, p)| Some((a.parse().ok()?, p.parse().ok()?)))
        .filter(|(_, p)| (1..=30).contains(p))
        .ok_or_else(|| bad("provision.ip", ip, "10.0.0.7/24"))?;
    let gateway = match get("provision.gw").filter(|g| !g.is_empty()) {
        Some(g) => Some(g.parse().map_err(|_| bad("provision.gw", g, "10.0.0.1"))?),
        None => None,
    };
    Ok(Arguments {
        server: server.trim_end_matches('/').to_owned(),
        token: Secret::new(token),
        mac: mac.parse().map_err(|_| bad("provision.mac", mac, "52:54:00:00:00:01"))?,
        address,
        prefix,
        gateway,
        rescue: words().any(|w| w == "provision.rescue" || w == "provision.rescue=1"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "console=ttyS0 provision.server=http://10.0.0.1:8080/ \
        provision.token=abc provision.mac=52:54:00:aa:bb:cc provision.ip=10.0.0.7/24 \
        provision.gw=10.0.0.1\n";

    #[test]
    fn a_full_command_line_is_read() {
        let a = parse(GOOD).unwrap();
        assert_eq!(a.server, "http://10.0.0.1:8080");
        assert_eq!((a.address, a.prefix), ("10.0.0.7".parse().unwrap(), 24));
        assert_eq!(a.token.expose(), "abc");
        assert!(!a.rescue && a.gateway.is_some());
        assert!(parse(&format!("{GOOD} provision.rescue")).unwrap().rescue);
        assert!(
            parse(&GOOD.replace("provision.gw=10.0.0.1", "provision.gw="))
                .unwrap()
                .gateway
                .is_none()
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_an_example() {
        for (from, to, said) in [
            ("provision.token=abc", "", "provision.token is missing"),
            ("http://10.0.0.1:8080/", "https://x", "must be like provision.server=http://"),
            ("10.0.0.7/24", "10.0.0.7", "must be like provision.ip=10.0.0.7/24"),
            ("10.0.0.7/24", "10.0.0.7/33", "provision.ip"),
            ("52:54:00:aa:bb:cc", "nonsense", "provision.mac=nonsense is not valid"),
            ("provision.gw=10.0.0.1", "provision.gw=x", "provision.gw=x is not valid"),
        ] {
            let e = parse(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(e.contains(said), "{e}");
        }
    }

    #[test]
    fn the_token_is_not_in_debug_output() {
        assert!(!format!("{:?}", parse(GOOD).unwrap()).contains("abc"));
    }
}
