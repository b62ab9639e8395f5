//! Packages for nodes and image builds come through the cache of this host:
//! which archives it has, and how they are called there.

use crate::cache::{Cache, Origin, Settings};
use crate::config::Config;
use crate::image::sources;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where apt's configuration is.
const APT: &str = "/etc/apt";

/// The archives that may be fetched from.
pub fn origins(c: &Config) -> Vec<Origin> {
    let Some(cache) = &c.cache else { return Vec::new() };
    let own = cache.origins.clone().unwrap_or_else(|| named(sources::archives(Path::new(APT))));
    own.into_iter().map(|(name, url)| Origin { name, url }).collect()
}

/// Each archive with the last part of its path for a name.
fn named(urls: Vec<String>) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for url in urls {
        let last = url.rsplit('/').next().unwrap_or_default();
        let plain = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(*c);
        let mut name: String = last.chars().filter(plain).collect();
        if name.trim_start_matches('.').is_empty() {
            "archive".clone_into(&mut name);
        }
        let taken = |n: &str| all.iter().any(|(known, _)| known == n);
        let mut own = name.clone();
        for i in 2.. {
            if !taken(&own) {
                break;
            }
            own = format!("{name}-{i}");
        }
        all.push((own, url));
    }
    all
}

/// What archives are replaced by: address outside, address here.
pub fn through(c: &Config) -> Vec<(String, String)> {
    let base = format!("http://{}:{}/apt", c.network.address, c.http_port);
    origins(c).into_iter().map(|o| (o.url, format!("{base}/{}", o.name))).collect()
}

/// Where the cache keeps the archives' files, a directory for each.
pub fn files(c: &Config) -> Option<PathBuf> {
    c.cache.as_ref().map(|cache| cache.dir.join("files"))
}

/// Opens the cache, if there is one.
///
/// # Errors
/// Its directory cannot be used.
pub fn open(c: &Config) -> io::Result<Option<Arc<Cache>>> {
    let Some(cache) = &c.cache else { return Ok(None) };
    let proxy = cache.proxy.clone().or_else(sources::proxy);
    let usual = Settings::new(cache.dir.clone(), origins(c));
    Cache::open(Settings { limit: cache.limit, proxy, ..usual }).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_called_by_the_end_of_their_path() {
        let urls = ["http://a/debian", "http://b/debian", "https://c/debian-security", "http://d"];
        let names: Vec<String> =
            named(urls.map(str::to_owned).to_vec()).into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["debian", "debian-2", "debian-security", "d"]);
    }
}
