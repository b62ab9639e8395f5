//! `provision hook`: `git push` to a bare repository ends in an image. `install`
//! writes its `post-receive`, which calls `send`, which tells the deployment
//! server of each reference, signed with the secret that both know.

use super::output::{Table, segment};
use super::watch::List;
use super::{Fail, Session};
use crate::api::deployment::hooks::{HookAnswer, ShownHook};
use crate::ingest::webhook::{Announcement, EVENT, SIGNATURE};
use crate::model::{Secret, Time};
use std::fs;
use std::io::{BufRead as _, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the server has to say that it has the push.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most references of one push that are told of.
const MOST: usize = 100;
/// How we know our own script again.
const MARK: &str = "# Written by `provision hook install`.";

/// `provision hook`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision hook list
  provision --deployment https://registry.lab:5000 --ca ca.pem \\
    hook install /srv/git/web.git --name web --secret-file /etc/provision/web.secret
Afterwards every `git push` to /srv/git/web.git is built. GitHub, GitLab and
Gitea send to https://registry.lab:5000/v1/hooks/NAME themselves.")]
pub struct HookArgs {
    #[command(subcommand)]
    what: Option<HookWhat>,
}

#[derive(clap::Subcommand)]
enum HookWhat {
    /// The webhooks of the deployment server
    List,
    /// Write the post-receive hook of a bare repository
    Install {
        /// The bare repository
        repository: PathBuf,
        #[command(flatten)]
        told: Told,
    },
    /// Tell of a push; called by the hook, with git's lines on standard input
    Send {
        #[command(flatten)]
        told: Told,
    },
}

#[derive(clap::Args)]
struct Told {
    /// Name of the webhook on the deployment server
    #[arg(long)]
    name: String,
    /// Where the deployment server gets the repository; else file:// and its path
    #[arg(long)]
    url: Option<String>,
    /// File with the secret; made by `install` if it is not there
    #[arg(long)]
    secret_file: PathBuf,
}

pub(super) async fn run(s: &Session, a: HookArgs) -> Result<(), Fail> {
    match a.what.unwrap_or(HookWhat::List) {
        HookWhat::List => {
            let l: List<ShownHook> = s.deployment.get("/v1/hooks").await?;
            s.out.show(&l.items, |all| {
                let mut t = Table::new(&["name", "kind", "address", "repositories", "refs", "tag"]);
                for h in all {
                    let refs = [h.branches.join(" "), h.tags.join(" ")].join(" ");
                    let refs = if refs.trim().is_empty() { "all".into() } else { refs };
                    let from = h.repositories.join(" ");
                    let (kind, path) = (h.kind.clone(), h.path.clone());
                    t.row(&[h.name.clone(), kind, path, from, refs, h.tag.clone()]);
                }
                t
            })
        }
        HookWhat::Install { repository, told } => install(s, &repository, &told),
        HookWhat::Send { told } => send(s, &told).await,
    }
}

/// A word of a shell script.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn install(s: &Session, repository: &Path, told: &Told) -> Result<(), Fail> {
    let at = |p: &Path, e: std::io::Error| Fail::Use(format!("{}: {e}", p.display()));
    let repository = repository.canonicalize().map_err(|e| at(repository, e))?;
    if !repository.join("objects").is_dir() || !repository.join("HEAD").is_file() {
        let m = format!("{} is no bare git repository", repository.display());
        return Err(Fail::Use(m));
    }
    let hook = repository.join("hooks/post-receive");
    match fs::read_to_string(&hook) {
        Ok(text) if !text.contains(MARK) => {
            let m = format!(
                "{} is there and is not ours: call `provision hook send` from it, with git's \
                 lines on its standard input",
                hook.display()
            );
            return Err(Fail::Use(m));
        }
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(at(&hook, e)),
        _ => {}
    }
    let secret_file = std::path::absolute(&told.secret_file)?;
    let owner = repository.metadata().map_err(|e| at(&repository, e))?;
    if !secret_file.exists() {
        make_secret(&secret_file, owner.uid(), owner.gid())?;
    }
    let url = told.url.clone().unwrap_or_else(|| format!("file://{}", repository.display()));
    let program = std::env::current_exe()?;
    let mut words = vec![program.display().to_string(), "--deployment".into()];
    words.push(s.deployment_at.server.clone());
    if let Some(ca) = &s.deployment_at.ca {
        words.extend(["--ca".into(), std::path::absolute(ca)?.display().to_string()]);
    }
    let secret = secret_file.display().to_string();
    words.extend(["hook", "send", "--name", &told.name, "--url", &url].map(str::to_owned));
    words.extend(["--secret-file".into(), secret.clone()]);
    let words: Vec<String> = words.iter().map(|w| quoted(w)).collect();
    let script = format!("#!/bin/sh\n{MARK}\nexec {}\n", words.join(" "));
    let part = hook.with_extension("new");
    fs::create_dir_all(repository.join("hooks")).map_err(|e| at(&hook, e))?;
    fs::write(&part, script).map_err(|e| at(&part, e))?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755)).map_err(|e| at(&part, e))?;
    fs::rename(&part, &hook).map_err(|e| at(&hook, e))?;
    s.out.say(format!(
        "{} is written. The deployment server needs a copy of {secret} and this:\n\n\
         [[ingest.hooks]]\nname = \"{}\"\nkind = \"git\"\nsecret_file = {secret:?}\n\
         repositories = [{url:?}]",
        hook.display(),
        told.name
    ))
}

/// 32 random bytes for the repository's owner alone.
fn make_secret(path: &Path, uid: u32, gid: u32) -> Result<(), Fail> {
    let at = |e: std::io::Error| Fail::Use(format!("{}: {e}", path.display()));
    let mut random = [0u8; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut open = fs::OpenOptions::new();
    let mut file = open.write(true).create_new(true).mode(0o600).open(path).map_err(at)?;
    writeln!(file, "{}", hex::encode(random)).map_err(at)?;
    // It is who pushes that reads it.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(at)?;
    }
    Ok(())
}

fn secret(path: &Path) -> Result<Secret, Fail> {
    let at = |e: std::io::Error| Fail::Use(format!("{}: {e}", path.display()));
    let mode = path.metadata().map_err(at)?.permissions().mode();
    if mode & 0o077 != 0 {
        let m = format!("{}: others may read it: chmod 600", path.display());
        return Err(Fail::Use(m));
    }
    Ok(Secret::new(fs::read_to_string(path).map_err(at)?.trim()))
}

/// Tells of every line of standard input: `BEFORE AFTER REF` (githooks(5)). The
/// push is done whatever comes of it, so that one failure keeps none of the
/// others back.
async fn send(s: &Session, told: &Told) -> Result<(), Fail> {
    let secret = secret(&told.secret_file)?;
    let repository = match &told.url {
        Some(u) => u.clone(),
        None => format!("file://{}", std::env::current_dir()?.display()),
    };
    let who = ["REMOTE_USER", "USER", "LOGNAME"].iter().find_map(|v| std::env::var(v).ok());
    let pusher = who.filter(|w| !w.is_empty()).unwrap_or_else(|| "somebody".into());
    let mut failed = None;
    for line in std::io::stdin().lock().lines().take(MOST) {
        let line = line?;
        let mut words = line.split_whitespace();
        let (Some(before), Some(after), Some(reference)) =
            (words.next(), words.next(), words.next())
        else {
            let m = format!("{line:?} is not BEFORE AFTER REF, as git writes it for post-receive");
            return Err(Fail::Use(m));
        };
        let said = Announcement {
            repository: repository.clone(),
            reference: reference.to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
            pusher: pusher.clone(),
            sent: u64::try_from(Time::now().as_second()).unwrap_or(0),
            delivery: ulid::Ulid::new().to_string(),
        };
        match tell(s, &told.name, &said, &secret).await {
            Ok(a) => eprintln!("provision: {reference}: {}", text(&a)),
            Err(e) => {
                let e = Fail::from(e);
                eprintln!("provision: {reference} is pushed, and not built: {}", e.text());
                failed = Some(e);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn tell(
    s: &Session,
    name: &str,
    said: &Announcement,
    secret: &Secret,
) -> Result<HookAnswer, crate::client::ClientError> {
    let (body, signature) = said.sealed(secret);
    let shape = |r: reqwest::RequestBuilder| {
        r.header(EVENT, "push")
            .header(SIGNATURE, signature)
            .header("content-type", "application/json")
            .body(body)
            .timeout(PATIENCE)
    };
    let path = format!("/v1/hooks/{}", segment(name));
    let r = s.deployment.raw(reqwest::Method::POST, &path, shape).await?;
    r.json().await.map_err(|e| crate::client::ClientError::Answer(e.to_string()))
}

fn text(a: &HookAnswer) -> String {
    match (&a.ignored, &a.run) {
        (Some(why), _) => format!("not built: {why}"),
        (None, Some(run)) => {
            let image = a.image.as_deref().unwrap_or("an image");
            format!("builds {image}; see `provision runs log {run}`")
        }
        (None, None) => "taken".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_the_script_becomes_two() {
        for word in ["plain", "two words", "it's", "$(id)", "`x`", "a\"b", "-x", ""] {
            let script = format!("printf %s {}", quoted(word));
            let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), word);
        }
    }
}
