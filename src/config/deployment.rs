//! `deployment-server.toml`: the file as written and as used. Every key has a
//! default, so that an empty file is a whole configuration.

use super::bucket::{self, S3};
use super::follow::{self, Follow};
use super::ingest::{self, IngestConfig};
use super::resolved::Fault;
use super::{ConfigError, from_toml, line_of};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    state_dir: Option<PathBuf>,
    store: Option<String>,
    listen: Option<SocketAddr>,
    socket: Option<PathBuf>,
    #[serde(default)]
    names: Vec<Spanned<String>>,
    #[serde(default)]
    tls: WireTls,
    #[serde(default)]
    registry: WireRegistry,
    #[serde(default)]
    nodes: WireNodes,
    #[serde(default)]
    ingest: WireIngest,
    follow: Option<follow::WireFollow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTls {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRegistry {
    storage: Option<Spanned<PathBuf>>,
    s3: Option<bucket::WireS3>,
    #[serde(default)]
    anonymous: Vec<String>,
    grace_hours: Option<Spanned<u32>>,
    gc_hours: Option<Spanned<u32>>,
    #[serde(default)]
    rules: Vec<Rule>,
}

/// What an image must have before it is promoted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Requirement {
    /// `attestation`: a signed statement of where it came from.
    Attestation,
    /// `check:NAME`: the latest word on that check is that it passed.
    Check(String),
}

impl TryFrom<String> for Requirement {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        match s.strip_prefix("check:") {
            Some(name) if !name.is_empty() => Ok(Self::Check(name.to_owned())),
            None if s == "attestation" => Ok(Self::Attestation),
            _ => Err(format!("{s:?} is neither \"attestation\" nor \"check:NAME\"")),
        }
    }
}

/// What must be true of an image that is promoted to a repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Of repositories whose name begins so; empty for all.
    #[serde(default)]
    pub prefix: String,
    /// All of these.
    pub require: Vec<Requirement>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireNodes {
    rights: Option<Vec<String>>,
    certificate_days: Option<Spanned<u32>>,
    lost_seconds: Option<Spanned<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireIngest {
    at_once: Option<Spanned<u32>>,
    minutes: Option<Spanned<u32>>,
    network: Option<bool>,
    #[serde(default)]
    builder: ingest::BuilderConfig,
    docker_host: Option<String>,
    #[serde(default)]
    git: ingest::WireGit,
    #[serde(default)]
    hooks: Vec<Spanned<ingest::WireHook>>,
    #[serde(default)]
    import: Vec<Spanned<ingest::ImportConfig>>,
}

/// The configuration of a deployment server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// State, keys, logs.
    pub state_dir: PathBuf,
    /// Store URL.
    pub store: String,
    /// Registry and API, over TLS.
    pub listen: SocketAddr,
    /// The API for root on this host.
    pub socket: PathBuf,
    /// Names and addresses that clients use for this host; they stand in its
    /// certificate, the first one in what nodes are told.
    pub names: Vec<String>,
    /// Certificate chain and key of one's own, in place of ours.
    pub own_certificate: Option<(PathBuf, PathBuf)>,
    /// Where images are kept, unless in a bucket.
    pub storage: PathBuf,
    /// The bucket in which images are kept.
    pub s3: Option<S3>,
    /// Whose images this server has, too.
    pub follow: Option<Follow>,
    /// `PREFIX:pull` for everybody, without login.
    pub anonymous: Vec<String>,
    /// What nodes may do.
    pub node_rights: Vec<String>,
    /// How long a node's certificate is good.
    pub certificate_life: Duration,
    /// A node that told nothing for so long is lost; it speaks every half minute.
    pub node_lost: Duration,
    /// What nothing refers to is kept so long.
    pub grace: Duration,
    /// Between two collections of garbage; `None` for never.
    pub gc_every: Option<Duration>,
    /// What promotion asks for.
    pub rules: Vec<Rule>,
    /// Images built at once, 1 to 16.
    pub ingest_at_once: u32,
    /// How long a build of an image may take.
    pub ingest_limit: Duration,
    /// Whether builds may use the network when they ask for it.
    pub ingest_network: bool,
    /// The rest of `[ingest]`.
    pub ingest: IngestConfig,
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// With file, line, and what would be right.
pub fn load(path: &Path) -> Result<Deployment, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let base = path.parent().unwrap_or(Path::new("/"));
    parse(&text, &path.display().to_string(), base)
}

/// The same from a text; relative paths start at `base`.
///
/// # Errors
/// See [`load`].
pub fn parse(text: &str, file: &str, base: &Path) -> Result<Deployment, ConfigError> {
    let w: Wire = from_toml(text, file)?;
    let at = |offset: Option<usize>, message: String| ConfigError::At {
        file: file.to_owned(),
        line: offset.map_or(0, |o| line_of(text, o)),
        message,
    };
    let number = |n: &Option<Spanned<u32>>, name: &str, usual: u32, most: u32| match n {
        None => Ok(usual),
        Some(n) if (1..=most).contains(n.as_ref()) => Ok(*n.as_ref()),
        Some(n) => {
            Err(at(Some(n.span().start), format!("{name} = {} must be 1 to {most}", n.as_ref())))
        }
    };
    let state_dir =
        base.join(w.state_dir.unwrap_or_else(|| "/var/lib/provision-deployment".into()));
    let own_certificate = match (w.tls.certificate, w.tls.key) {
        (Some(c), Some(k)) => Some((base.join(c), base.join(k))),
        (None, None) => None,
        _ => {
            let m = "[tls] needs both `certificate` and `key`, or neither: then our own authority signs one";
            return Err(at(None, m.into()));
        }
    };
    for n in &w.names {
        let name = n.as_ref();
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
        if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
            let m = format!("names: {name:?} is neither a host name nor an address");
            return Err(at(Some(n.span().start), m));
        }
    }
    let placed = |f: Fault| at(f.at, f.message);
    if let (Some(dir), Some(_)) = (&w.registry.storage, &w.registry.s3) {
        let m = "storage is a directory and [registry.s3] a bucket: one of the two";
        return Err(at(Some(dir.span().start), m.into()));
    }
    let s3 = w.registry.s3.map(|b| bucket::s3(b, base)).transpose().map_err(placed)?;
    let follow = w.follow.map(|f| follow::follow(f, base)).transpose().map_err(placed)?;
    let gc_hours = match &w.registry.gc_hours {
        // Zero stands for never.
        Some(n) if *n.as_ref() == 0 => None,
        n => Some(number(n, "gc_hours", 6, 8760)?),
    };
    let hours = |h: u32| Duration::from_secs(u64::from(h) * 3600);
    let store = match w.store {
        None => format!("sqlite:{}", state_dir.join("deployment.db").display()),
        Some(s) => match s.strip_prefix("sqlite:") {
            Some(p) => format!("sqlite:{}", base.join(p).display()),
            None => s,
        },
    };
    let placed = |(o, m): (usize, String)| at(Some(o), m);
    let ingest = IngestConfig {
        hooks: ingest::resolve(w.ingest.hooks, base).map_err(placed)?,
        git: w.ingest.git.resolved(base),
        import: ingest::imports(w.ingest.import, base).map_err(placed)?,
        builder: w.ingest.builder,
        docker_host: w.ingest.docker_host,
    };
    Ok(Deployment {
        ingest,
        store,
        listen: w.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 5000))),
        socket: base.join(w.socket.unwrap_or_else(|| "/run/provision-deployment/api.sock".into())),
        names: w.names.into_iter().map(Spanned::into_inner).collect(),
        own_certificate,
        storage: state_dir
            .join(w.registry.storage.map_or_else(|| "registry".into(), Spanned::into_inner)),
        s3,
        follow,
        anonymous: w.registry.anonymous,
        node_rights: w.nodes.rights.unwrap_or_else(|| vec!["*:pull".into()]),
        certificate_life: hours(
            24 * number(&w.nodes.certificate_days, "certificate_days", 90, 3650)?,
        ),
        node_lost: Duration::from_secs(u64::from(number(
            &w.nodes.lost_seconds,
            "lost_seconds",
            90,
            86_400,
        )?)),
        grace: hours(number(&w.registry.grace_hours, "grace_hours", 24, 8760)?),
        gc_every: gc_hours.map(hours),
        rules: w.registry.rules,
        ingest_at_once: number(&w.ingest.at_once, "at_once", 1, 16)?,
        ingest_limit: Duration::from_secs(
            60 * u64::from(number(&w.ingest.minutes, "minutes", 60, 1440)?),
        ),
        ingest_network: w.ingest.network.unwrap_or(false),
        state_dir,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Deployment, ConfigError> {
        parse(text, "deployment-server.toml", Path::new("/etc/provision"))
    }

    #[test]
    fn an_empty_file_is_a_whole_configuration() {
        let c = read("").unwrap();
        assert_eq!(c.listen.port(), 5000);
        assert_eq!(c.storage, Path::new("/var/lib/provision-deployment/registry"));
        assert!(c.anonymous.is_empty() && !c.ingest_network);
        assert_eq!(c.gc_every, Some(Duration::from_secs(6 * 3600)));
    }

    #[test]
    fn the_registry_is_kept_as_it_is_written() {
        let c = read(
            "[registry]\ngc_hours = 0\n\
             [[registry.rules]]\nprefix = \"prod/\"\nrequire = [\"attestation\", \"check:smoke\"]",
        )
        .unwrap();
        assert_eq!(c.gc_every, None);
        let smoke = Requirement::Check("smoke".into());
        assert_eq!(c.rules[0].require, [Requirement::Attestation, smoke]);
    }

    #[test]
    fn faults_name_the_line_and_what_would_be_right() {
        let f = |t: &str| read(t).unwrap_err().to_string();
        assert!(f("[nodes]\ncertificate_days = 0").starts_with("deployment-server.toml:2:"));
        assert!(f("names = [\"a b\"]").contains("neither a host name"));
        let rule = f("[[registry.rules]]\nrequire = [\"signed\"]");
        assert!(rule.contains("neither \"attestation\" nor"), "{rule}");
        assert!(f("[tls]\nkey = \"k\"").contains("both"));
        assert!(f("lisen = \"x\"").contains("did you mean `listen`"));
    }
}
