//! Fetches one commit of a git repository with git as a child process, and
//! asks a folder which commit it is at.

use super::ContextError;
use crate::image::build::Progress;
use crate::image::child::{self, clean_environment};
use crate::model::Invalid;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How a repository may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `https://`
    Https,
    /// `ssh://` and `user@host:path`.
    Ssh,
    /// `http://`: neither private nor safe from changes on the way.
    Http,
    /// `file://`: a repository on the server itself.
    File,
}

impl Protocol {
    fn word(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Ssh => "ssh",
            Self::Http => "http",
            Self::File => "file",
        }
    }
}

/// What may be fetched and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSettings {
    /// Allowed protocols.
    pub protocols: Vec<Protocol>,
    /// File in git's `store` form with user names and passwords for `https`.
    /// They never come in the address.
    pub credentials: Option<PathBuf>,
    /// Key file for `ssh`; otherwise ssh's own.
    pub ssh_key: Option<PathBuf>,
    /// Repositories on this host that may be read although `file` is not
    /// among the protocols: `file:///srv/git/web.git`.
    pub local: Vec<String>,
}

impl Default for GitSettings {
    fn default() -> Self {
        let protocols = vec![Protocol::Https, Protocol::Ssh];
        Self { protocols, credentials: None, ssh_key: None, local: Vec::new() }
    }
}

/// Checks an address and says its protocol. One with a password in it is
/// refused: it would be seen in lists of processes, logs and records.
pub fn protocol(url: &str) -> Result<Protocol, Invalid> {
    let bad = |want| Err(Invalid::new("git address", &without_password(url), want));
    if url.len() > 2048 || url.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return bad("an address without blanks, at most 2048 characters");
    }
    let (kind, rest) = match url.split_once("://") {
        Some(("https", r)) => (Protocol::Https, r),
        Some(("http", r)) => (Protocol::Http, r),
        Some(("ssh", r)) => (Protocol::Ssh, r),
        Some(("file", r)) => (Protocol::File, r),
        Some(_) => return bad("https://…, ssh://…, user@host:path or file:///…"),
        None => match url.split_once(':') {
            Some((host, path)) if !host.contains('/') && !path.starts_with(':') => {
                if host.starts_with('-') || !host.contains('@') {
                    return bad("https://…, ssh://…, user@host:path or file:///…");
                }
                return Ok(Protocol::Ssh);
            }
            _ => return bad("https://…, ssh://…, user@host:path or file:///…"),
        },
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if let Some((user, _)) = authority.rsplit_once('@')
        && (kind != Protocol::Ssh || user.contains(':'))
    {
        return bad(
            "an address without user name and password: put them into the credentials file",
        );
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
    if host.starts_with('-') || (host.is_empty() && kind != Protocol::File) {
        return bad("an address with a host");
    }
    Ok(kind)
}

/// For messages.
fn without_password(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => match rest.split_once('@') {
            Some((_, after)) => format!("{scheme}://…@{after}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

/// Checks a branch, tag or commit (git-check-ref-format(1), a little stricter).
pub fn reference(name: &str) -> Result<&str, Invalid> {
    let good = !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(['-', '/', '.'])
        && !name.contains("..")
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+@#".contains(c));
    if good {
        Ok(name)
    } else {
        Err(Invalid::new("git reference", name, "a branch, tag or commit"))
    }
}

/// Name of the repository: the last part of its path.
pub fn repository_name(url: &str) -> &str {
    let path = url.trim_end_matches('/').trim_end_matches(".git");
    path.rsplit(['/', ':']).next().unwrap_or_default()
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// 40 (or 64) hexadecimal digits.
    pub id: String,
    /// Made at, in seconds since 1970.
    pub time: u64,
    /// Files differ from it.
    pub dirty: bool,
}

/// Fetches one commit into `to`, which must not be there. No prompt can come
/// up; `largest` bounds each file that git writes, in bytes.
pub fn fetch(
    url: &str,
    at: Option<&str>,
    to: &Path,
    settings: &GitSettings,
    largest: u64,
    progress: &mut dyn Progress,
) -> Result<Commit, ContextError> {
    let source = |e: Invalid| ContextError::Source(e.to_string());
    let kind = protocol(url).map_err(source)?;
    let local = kind == Protocol::File && settings.local.iter().any(|l| l == url);
    if !local && !settings.protocols.contains(&kind) {
        let allowed: Vec<&str> = settings.protocols.iter().map(|p| p.word()).collect();
        return Err(ContextError::Source(format!(
            "git over {} is not allowed here; allowed: {}",
            kind.word(),
            allowed.join(", ")
        )));
    }
    let at = at.map(reference).transpose().map_err(source)?.unwrap_or("HEAD");
    let mut options = vec!["protocol.allow=never".to_owned()];
    options.push(format!("protocol.{}.allow=always", kind.word()));
    // Nothing of a repository's content may run here, and no object may be
    // broken.
    options.extend(["core.hooksPath=/dev/null", "core.fsmonitor=false"].map(str::to_owned));
    options.extend(
        ["fetch.fsckObjects=true", "gc.auto=0", "maintenance.auto=false"].map(str::to_owned),
    );
    options.extend(["advice.detachedHead=false", "credential.helper="].map(str::to_owned));
    if let Some(file) = &settings.credentials {
        options.push(format!("credential.helper=store --file={}", file.display()));
    }
    let mut command = Command::new("sh");
    command.args(["-euc", include_str!("../scripts/fetch.sh"), "fetch"]);
    command.arg(to).arg(url).arg(at).arg((largest / 512).max(1).to_string());
    command.arg(upload_pack(url));
    for o in &options {
        command.arg("-c").arg(o);
    }
    clean_environment(&mut command);
    let key =
        settings.ssh_key.as_ref().map(|k| format!(" -oIdentitiesOnly=yes -i '{}'", k.display()));
    let ssh = format!("ssh -oBatchMode=yes -oStrictHostKeyChecking=yes{}", key.unwrap_or_default());
    command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "true").env("GIT_SSH_COMMAND", ssh);
    child::run(&format!("git fetch {at}"), command, progress)?;
    let mut commit =
        head(to)?.ok_or_else(|| ContextError::Source("git brought no commit".into()))?;
    commit.dirty = false;
    Ok(commit)
}

/// What gives the objects of a repository on this host: git as its owner,
/// since root would trust what its configuration makes git run.
fn upload_pack(url: &str) -> String {
    let plain = "git-upload-pack".to_owned();
    let Some(path) = url.strip_prefix("file://") else { return plain };
    match std::fs::metadata(path) {
        Ok(m) if m.uid() != 0 && rustix::process::geteuid().is_root() => {
            let (uid, gid) = (m.uid(), m.gid());
            format!("setpriv --reuid={uid} --regid={gid} --clear-groups {plain}")
        }
        _ => plain,
    }
}

/// Commit of a folder that is the top of a working copy; `None` for another.
/// Git runs as the folder's owner: what its configuration makes git run has
/// then no more rights than the owner had anyway.
pub fn head(folder: &Path) -> Result<Option<Commit>, ContextError> {
    let Ok(meta) = std::fs::symlink_metadata(folder.join(".git")) else { return Ok(None) };
    let git = |arguments: &[&str]| -> Result<Option<String>, ContextError> {
        let mut command = Command::new("timeout");
        clean_environment(&mut command);
        command
            .args(["60", "git", "-C"])
            .arg(folder)
            .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
            .arg("--no-optional-locks")
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .env(
                "GIT_CEILING_DIRECTORIES",
                folder.parent().map_or(OsStr::new("/"), Path::as_os_str),
            );
        if rustix::process::geteuid().is_root() && meta.uid() != 0 {
            command.uid(meta.uid()).gid(meta.gid()).env("HOME", "/nonexistent");
        }
        let out = command.output().map_err(ContextError::io(Path::new("git")))?;
        let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        Ok(out.status.success().then_some(text))
    };
    let Some(said) = git(&["log", "-1", "--format=%H %ct"])? else { return Ok(None) };
    let Some((id, time)) = said.split_once(' ') else { return Ok(None) };
    let good = matches!(id.len(), 40 | 64) && id.bytes().all(|b| b.is_ascii_hexdigit());
    if !good {
        return Ok(None);
    }
    // A folder whose state cannot be found is not called clean.
    let dirty = git(&["status", "--porcelain"])?.is_none_or(|s| !s.is_empty());
    Ok(Some(Commit { id: id.to_owned(), time: time.parse().unwrap_or(0), dirty }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::build::Silent;

    #[test]
    fn addresses_are_checked_before_git_sees_them() {
        for (url, want) in [
            ("https://git.lab/a/b.git", Protocol::Https),
            ("ssh://git@git.lab:22/a", Protocol::Ssh),
            ("git@git.lab:a/b.git", Protocol::Ssh),
            ("file:///srv/git/a", Protocol::File),
            ("http://git.lab/a", Protocol::Http),
        ] {
            assert_eq!(protocol(url), Ok(want), "{url}");
        }
        for bad in [
            "",
            "-u",
            "--upload-pack=x:y",
            "ext::sh -c id",
            "ext::sh",
            "git://x/y",
            "/srv/git",
            "https://",
            "https://-x/y",
            "https://u:p@h/x",
            "https://token@h/x",
            "ssh://u:p@h/x",
            "https://h/x y",
            "-oProxyCommand=x@h:y",
            "host:path",
        ] {
            assert!(protocol(bad).is_err(), "{bad:?}");
        }
        let said = protocol("https://me:hunter2@h/x").unwrap_err().to_string();
        assert!(!said.contains("hunter2"), "{said}");
        for bad in ["-x", "a..b", "", "a b", "a:b", "/a", "@{-1}"] {
            assert!(reference(bad).is_err(), "{bad}");
        }
        assert_eq!(repository_name("git@h:team/web.git"), "web");
        assert_eq!(repository_name("https://h/team/web.git/"), "web");
    }

    #[test]
    fn one_commit_is_fetched_and_a_changed_folder_is_dirty() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        let sh = |script: &str| {
            let done =
                Command::new("sh").args(["-euc", script]).current_dir(dir.path()).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap().trim().to_owned()
        };
        let id = sh("git init -qb main repo; cd repo; echo one > f; git add f
            git -c user.name=a -c user.email=a@b commit -qm one; git tag v1
            echo two > f; git -c user.name=a -c user.email=a@b commit -qam two; git rev-parse v1");
        let url = format!("file://{}", repo.display());
        let mut settings = GitSettings::default();
        let to = dir.path().join("to");
        let refused = fetch(&url, None, &to, &settings, 1 << 20, &mut Silent).unwrap_err();
        assert!(refused.to_string().contains("git over file is not allowed here"), "{refused}");
        settings.local.push(url.clone());
        let other = format!("file://{}/other", dir.path().display());
        let refused = fetch(&other, None, &to, &settings, 1 << 20, &mut Silent).unwrap_err();
        assert!(refused.to_string().contains("not allowed here"), "only the one that is named");
        let got = fetch(&url, Some("v1"), &to, &settings, 1 << 20, &mut Silent).unwrap();
        assert_eq!((got.id.as_str(), got.dirty), (id.as_str(), false));
        assert_eq!(std::fs::read_to_string(to.join("f")).unwrap(), "one\n");
        let missing =
            fetch(&url, Some("nope"), &dir.path().join("x"), &settings, 1 << 20, &mut Silent);
        assert!(missing.unwrap_err().to_string().contains("nope"));

        // One of somebody else, read as its owner: git run by root refuses it.
        if rustix::process::geteuid().is_root() {
            sh("chmod 711 .; chown -R 65534:65534 repo");
            let to = dir.path().join("theirs");
            let got = fetch(&url, Some(&id), &to, &settings, 1 << 20, &mut Silent).unwrap();
            assert_eq!(got.id, id);
            sh("chown -R 0:0 repo");
        }

        assert!(!head(&repo).unwrap().unwrap().dirty);
        std::fs::write(repo.join("g"), "").unwrap();
        assert!(head(&repo).unwrap().unwrap().dirty);
        assert_eq!(head(dir.path()).unwrap(), None);
    }
}
