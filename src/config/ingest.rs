//! `[[ingest.hooks]]`: whose pushes become images; `[ingest.git]`: how
//! repositories are reached; `[[ingest.import]]`: from which other registries
//! base images may come. Checked here as far as no file is read.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookKind {
    /// GitHub.
    Github,
    /// GitLab.
    Gitlab,
    /// Gitea, Forgejo.
    Gitea,
    /// `provision hook install` in a bare repository.
    Git,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireHook {
    name: String,
    kind: HookKind,
    secret_file: PathBuf,
    repositories: Vec<String>,
    #[serde(default)]
    branches: Vec<String>,
    #[serde(default)]
    tags: Vec<String>,
    image: Option<String>,
    tag: Option<String>,
}

/// One webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookConfig {
    /// Last part of its address: `/v1/hooks/NAME`.
    pub name: String,
    /// Who sends.
    pub kind: HookKind,
    /// File with what both sides know, 0600.
    pub secret_file: PathBuf,
    /// Addresses that may be built from, `*` at the end for all that begin so.
    pub repositories: Vec<String>,
    /// Branches that are built, with `*`.
    pub branches: Vec<String>,
    /// Tags that are built, with `*`.
    pub tags: Vec<String>,
    /// Name of the image below `staging/`; the repository's without it.
    pub image: Option<String>,
    /// The image's tag, with `{commit}` and `{ref}`.
    pub tag: String,
}

/// The usual rule for tags.
pub const TAG: &str = "{commit}";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireGit {
    #[serde(default)]
    http: bool,
    credentials: Option<PathBuf>,
    ssh_key: Option<PathBuf>,
}

/// How repositories are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitConfig {
    /// Also over `http://`, which anybody on the way can change.
    pub http: bool,
    /// File with names and passwords for `https`, in git's `store` form.
    pub credentials: Option<PathBuf>,
    /// Key for `ssh`.
    pub ssh_key: Option<PathBuf>,
}

impl WireGit {
    pub(super) fn resolved(self, base: &Path) -> GitConfig {
        GitConfig {
            http: self.http,
            credentials: self.credentials.map(|f| base.join(f)),
            ssh_key: self.ssh_key.map(|f| base.join(f)),
        }
    }
}

/// Another registry, from which base images may be taken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportConfig {
    /// Of images whose name begins so: `registry.example/team/`.
    pub prefix: String,
    /// Directory with its `ca.crt`, and `client.cert` and `client.key` where
    /// it wants them; without it, what the host trusts.
    pub certificates: Option<PathBuf>,
    /// Login, as `docker login` writes it (`config.json`).
    pub auth_file: Option<PathBuf>,
}

/// Which program builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuilderConfig {
    /// Buildah where it is, otherwise the docker engine.
    #[default]
    Auto,
    /// Buildah.
    Buildah,
    /// The docker engine.
    Docker,
}

/// What is resolved here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngestConfig {
    /// Webhooks.
    pub hooks: Vec<HookConfig>,
    /// Git.
    pub git: GitConfig,
    /// Other registries.
    pub import: Vec<ImportConfig>,
    /// Builder.
    pub builder: BuilderConfig,
    /// Docker engine, such as `unix:///run/docker.sock`.
    pub docker_host: Option<String>,
}

pub(super) fn imports(
    all: Vec<Spanned<ImportConfig>>,
    base: &Path,
) -> Result<Vec<ImportConfig>, (usize, String)> {
    let one = |w: Spanned<ImportConfig>| {
        let at = w.span().start;
        let i = w.into_inner();
        // With a slash: `registry.example` would also begin `registry.example.org`.
        let host = i.prefix.split('/').next().unwrap_or_default();
        if !i.prefix.contains('/') || !host.contains(['.', ':']) {
            let m = format!(
                "ingest.import: prefix {:?}: a host and a slash, such as registry.example/team/",
                i.prefix
            );
            return Err((at, m));
        }
        Ok(ImportConfig {
            certificates: i.certificates.map(|f| base.join(f)),
            auth_file: i.auth_file.map(|f| base.join(f)),
            prefix: i.prefix,
        })
    };
    all.into_iter().map(one).collect()
}

/// Checks all; a fault comes with where it is in the file.
pub(super) fn resolve(
    all: Vec<Spanned<WireHook>>,
    base: &Path,
) -> Result<Vec<HookConfig>, (usize, String)> {
    let mut out: Vec<HookConfig> = Vec::new();
    for w in all {
        let at = w.span().start;
        let h = one(w.into_inner(), base).map_err(|m| (at, format!("ingest.hooks: {m}")))?;
        if out.iter().any(|o| o.name == h.name) {
            return Err((at, format!("ingest.hooks: there are two named {:?}", h.name)));
        }
        out.push(h);
    }
    Ok(out)
}

fn one(w: WireHook, base: &Path) -> Result<HookConfig, String> {
    let word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if w.name.is_empty() || w.name.len() > 32 || !w.name.bytes().all(word) {
        return Err(format!("name {:?}: 1 to 32 of a-z, 0-9 and '-'", w.name));
    }
    let name = &w.name;
    if w.repositories.is_empty() {
        return Err(format!(
            "{name}: `repositories` is empty: name the addresses that may be built from"
        ));
    }
    for r in &w.repositories {
        let known = ["https://", "http://", "ssh://", "file:///"].iter().any(|s| r.starts_with(s))
            || r.split_once(':').is_some_and(|(h, _)| h.contains('@'));
        let stars = r.matches('*').count();
        if !known || stars > 1 || (stars == 1 && !r.ends_with('*')) {
            let m = format!(
                "{name}: repository {r:?}: an address such as https://git.example/team/web.git; \
                 '*' may stand at its end"
            );
            return Err(m);
        }
        if r.starts_with("file:") && stars > 0 {
            return Err(format!(
                "{name}: repository {r:?}: one on this host is named without '*', since whoever \
                 may build can then read it"
            ));
        }
    }
    let many = w.repositories.len() > 1 || w.repositories.iter().any(|r| r.ends_with('*'));
    if w.image.is_some() && many {
        return Err(format!(
            "{name}: `image` goes with one repository: others would overwrite its tags"
        ));
    }
    let tag = w.tag.unwrap_or_else(|| TAG.to_owned());
    let rest = tag.replace("{commit}", "c").replace("{ref}", "r");
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if rest.is_empty() || rest.len() > 128 || !rest.chars().all(plain) {
        return Err(format!(
            "{name}: tag {tag:?}: letters, digits, '.', '_', '-', with {{commit}} and {{ref}}"
        ));
    }
    Ok(HookConfig {
        secret_file: base.join(w.secret_file),
        kind: w.kind,
        repositories: w.repositories,
        branches: w.branches,
        tags: w.tags,
        image: w.image,
        tag,
        name: w.name,
    })
}

#[cfg(test)]
mod tests {
    use super::super::deployment::parse;
    use super::*;

    const GOOD: &str = "[[ingest.hooks]]\nname = \"web\"\nkind = \"gitea\"\nsecret_file = \"s\"\n\
                        repositories = [\"https://git.example/team/web.git\"]\n";

    fn read(text: &str) -> Result<Vec<HookConfig>, String> {
        let c = parse(text, "deployment-server.toml", Path::new("/etc/provision"));
        c.map(|c| c.ingest.hooks).map_err(|e| e.to_string())
    }

    #[test]
    fn a_hook_is_read_with_its_defaults() {
        let all = read(GOOD).unwrap();
        let [h] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((h.kind, h.tag.as_str()), (HookKind::Gitea, "{commit}"));
        assert_eq!(h.secret_file, Path::new("/etc/provision/s"));
    }

    #[test]
    fn faults_name_the_line_and_what_would_be_right() {
        for (from, to, want) in [
            ("\"web\"", "\"We b\"", "1 to 32"),
            ("\"gitea\"", "\"hg\"", "github"),
            ("https://git.example/team/web.git", "/srv/git/web.git", "an address such as"),
            ("https://git.example/team/web.git", "https://*/web.git", "at its end"),
            ("https://git.example/team/web.git", "file:///srv/*", "without '*'"),
            ("[\"https://git.example/team/web.git\"]", "[]", "is empty"),
            ("kind", "tag = \"{date}\"\nkind", "{commit} and {ref}"),
            ("kind", "image = \"x\"\nkind", ""),
            ("secret_file", "secret_fil", "secret_file"),
        ] {
            let said = read(&GOOD.replace(from, to));
            match want {
                "" => assert!(said.is_ok(), "{said:?}"),
                _ => {
                    let said = said.unwrap_err();
                    assert!(said.contains(want), "{said}");
                    assert!(said.starts_with("deployment-server.toml:"), "{said}");
                }
            }
        }
        let import = |p: &str| read(&format!("[[ingest.import]]\nprefix = \"{p}\""));
        assert!(import("registry.example/").is_ok());
        assert!(import("registry.example").unwrap_err().contains("a slash"));
        assert!(import("library/x").unwrap_err().contains("a host"));
        assert!(read(&format!("{GOOD}{GOOD}")).unwrap_err().contains("two named"));
        let wide = GOOD.replace("web.git", "*").replace("kind", "image = \"x\"\nkind");
        assert!(read(&wide).unwrap_err().contains("overwrite"));
    }
}
