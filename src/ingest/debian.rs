//! Base images of Debian, made from the host's own apt configuration: the
//! smallest root file system that can install packages. Two builds from the
//! same state of the archive are the same to the last bit.

use super::context::ContextError;
use super::layout::{self, ImageConfig};
use super::run::BuilderIdentity;
use crate::image::build::{BuildError, Progress, epoch};
use crate::image::child::{self, isolated_script};
use crate::image::rootfs::package_list;
use crate::image::sources::{self, Source, SourcesError};
use crate::model::Digest;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

/// One that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// `12`
    pub number: &'static str,
    /// `bookworm`
    pub suite: &'static str,
}

/// All that can be made.
pub const RELEASES: [Release; 2] =
    [Release { number: "12", suite: "bookworm" }, Release { number: "13", suite: "trixie" }];

impl Release {
    /// `debian:12` or `debian:bookworm`.
    pub fn of(name: &str) -> Option<Self> {
        let version = name.strip_prefix("debian:")?;
        RELEASES.into_iter().find(|r| r.number == version || r.suite == version)
    }
}

/// Why there is no base image.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// The host's apt.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] BuildError),
    /// mmdebstrap.
    #[error(transparent)]
    Child(#[from] child::ChildError),
    /// A file.
    #[error(transparent)]
    File(#[from] ContextError),
}

/// Address without user name and password, which must not be in the image.
fn public(source: &Source) -> Source {
    let uri = match source.uri.split_once("://") {
        Some((scheme, rest)) => match rest.split_once('/').unwrap_or((rest, "")) {
            (host, path) if host.contains('@') => {
                let host = host.rsplit('@').next().unwrap_or(host);
                format!("{scheme}://{host}/{path}").trim_end_matches('/').to_owned()
            }
            _ => source.uri.clone(),
        },
        None => source.uri.clone(),
    };
    Source { uri, ..source.clone() }
}

/// Makes `release` as an OCI layout in `out`. `work` is an empty directory,
/// `cache` keeps packages between builds. Returns the digest of the list of
/// packages.
pub fn make(
    release: Release,
    apt: &Path,
    work: &Path,
    cache: &Path,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<Digest, DebianError> {
    let sources = sources::for_suite(apt, release.suite)?;
    let epoch = epoch(&sources, work, progress)?;
    let write = |name: &str, text: String| {
        fs::write(work.join(name), text).map_err(ContextError::io(&work.join(name)))
    };
    let shown: Vec<Source> = sources.iter().map(public).collect();
    write("shown.list", sources::text(&shown))?;
    let lines: Vec<String> = sources.iter().map(Source::line).collect();
    let mut arguments: Vec<&OsStr> = vec![work.as_ref(), cache.as_ref(), OsStr::new(release.suite)];
    arguments.extend(lines.iter().map(OsStr::new));
    let mut command = isolated_script(include_str!("scripts/base.sh"), &arguments);
    command.env("SOURCE_DATE_EPOCH", epoch.to_string());
    child::run("mmdebstrap", command, progress)?;
    let read = |name: &str| {
        let path = work.join(name);
        fs::read_to_string(&path).map_err(ContextError::io(&path))
    };
    let packages = package_list(&read("status")?);
    packages.lines().for_each(|l| progress.log(l));
    let tar = work.join("tree.tar");
    let io = |source| ContextError::Io { path: out.to_owned(), source };
    let config = ImageConfig {
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        created: epoch,
        created_by: format!("provision base build debian:{}", release.number),
        cmd: vec!["bash".to_owned()],
        labels: [
            ("org.opencontainers.image.title", "debian"),
            ("org.opencontainers.image.version", release.number),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into(),
    };
    layout::write(fs::File::open(&tar).map_err(io)?, &config, out).map_err(io)?;
    fs::remove_file(&tar).map_err(io)?;
    Ok(Digest::of(packages.as_bytes()))
}

/// The program, for the record.
pub fn identity() -> BuilderIdentity {
    super::builder::identity_of("mmdebstrap", Command::new("mmdebstrap").arg("--version"))
        .unwrap_or(BuilderIdentity { name: "mmdebstrap".into(), version: "unknown".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_the_archive_do_not_get_into_the_image() {
        let source = |uri: &str| Source {
            uri: uri.into(),
            suite: "bookworm".into(),
            components: vec!["main".into()],
            signed_by: None,
        };
        for (uri, want) in [
            ("http://u:p@mirror.lab/debian", "http://mirror.lab/debian"),
            ("http://mirror.lab/debian", "http://mirror.lab/debian"),
            ("http://mirror.lab/a@b", "http://mirror.lab/a@b"),
            ("https://u:p@mirror.lab", "https://mirror.lab"),
        ] {
            assert_eq!(public(&source(uri)).uri, want);
        }
    }

    #[test]
    fn releases_have_two_names() {
        assert_eq!(Release::of("debian:12"), Release::of("debian:bookworm"));
        assert_eq!(Release::of("debian:13").unwrap().suite, "trixie");
        assert_eq!(Release::of("debian:11"), None);
        assert_eq!(Release::of("ubuntu:12"), None);
    }
}
