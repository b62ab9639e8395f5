//! `[cache]`: the package cache, and which archives may be fetched from.

use super::resolved::{Fault, fault};
use crate::model::Secret;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireCache {
    enabled: Option<bool>,
    dir: Option<PathBuf>,
    limit_gib: Option<Spanned<u32>>,
    origins: Option<Vec<WireOrigin>>,
    proxy: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireOrigin {
    name: Spanned<String>,
    url: Spanned<String>,
}

/// The package cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// Where files are kept.
    pub dir: PathBuf,
    /// Bytes, at most.
    pub limit: u64,
    /// Name and address of each archive; `None` for those of the host's apt.
    pub origins: Option<Vec<(String, String)>>,
    /// The way out; `None` for that of the host's apt, which may be none too.
    pub proxy: Option<Secret>,
}

/// `None` when it is switched off.
pub(super) fn cache(w: WireCache, base: &Path, state: &Path) -> Result<Option<CacheConfig>, Fault> {
    if w.enabled == Some(false) {
        return Ok(None);
    }
    let gib = match &w.limit_gib {
        None => 20,
        Some(n) if (1..=65_536).contains(n.get_ref()) => *n.get_ref(),
        Some(n) => {
            return fault(n.span(), format!("limit_gib = {} must be 1 to 65536", n.get_ref()));
        }
    };
    let mut origins: Option<Vec<(String, String)>> = None;
    for o in w.origins.into_iter().flatten() {
        let (name, url) = (o.name.get_ref(), o.url.get_ref().trim_end_matches('/'));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let known = origins.get_or_insert_default();
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            let m = format!("name = {name:?} must be lower-case letters, digits, `-`, `_`, `.`");
            return fault(o.name.span(), m);
        }
        if known.iter().any(|(n, _)| n == name) {
            return fault(o.name.span(), format!("name = {name:?} stands here twice"));
        }
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if host.is_none_or(|h| h.is_empty() || h.starts_with('/')) {
            let m = format!("url = {url:?} must be http://HOST/PATH or https://HOST/PATH");
            return fault(o.url.span(), m);
        }
        known.push((name.clone(), url.to_owned()));
    }
    let dir = w.dir.map_or_else(|| state.join("packages"), |d| base.join(d));
    // It may have a name and a password in it: not shown.
    if let Some(p) = &w.proxy
        && p.get_ref().strip_prefix("http://").is_none_or(|h| h.is_empty() || h.starts_with('/'))
    {
        return fault(p.span(), "proxy must be http://HOST:PORT".to_owned());
    }
    let proxy = w.proxy.map(|p| Secret::new(p.into_inner()));
    Ok(Some(CacheConfig { dir, limit: u64::from(gib) << 30, origins, proxy }))
}
