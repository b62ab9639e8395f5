//! `provision ingest`, `runs`, `verify`: images from source.

use super::output::{Table, segment};
use super::watch::List;
use super::{Fail, Session, progress, tarball};
use crate::api::deployment::ingest::{Ask, Attestations};
use crate::ingest::context::{folder, git};
use crate::ingest::provenance::{Said, read as read_envelope};
use crate::ingest::{Run, RunState};
use crate::tls::signing::VerifyingKey;
use serde::Serialize;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// `provision ingest`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision ingest ./web
  provision ingest ./web --name shop/web --tag 1.2
  provision ingest https://git.example/shop/web.git --reference v1.2
The image comes to staging/NAME:TAG; `provision promote` takes it further.")]
pub struct IngestArgs {
    /// Folder with a Dockerfile, or URL of a git repository
    source: String,
    /// Name below staging/; else the folder's or repository's
    #[arg(long)]
    name: Option<String>,
    /// Tag; else the commit's first 12 digits, or the time
    #[arg(long)]
    tag: Option<String>,
    /// Branch, tag or commit of the repository
    #[arg(long)]
    reference: Option<String>,
    /// Folder in the repository
    #[arg(long)]
    folder: Option<String>,
    /// Path of the Dockerfile in the folder
    #[arg(long)]
    dockerfile: Option<String>,
    /// Stage to build
    #[arg(long)]
    target: Option<String>,
    /// Let the build use the network, where the server allows it
    #[arg(long)]
    network: bool,
    /// Return at once
    #[arg(long)]
    no_wait: bool,
}

/// `provision runs`
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  provision runs\n  provision runs show RUN\n  provision runs log RUN\n  provision runs cancel RUN"
)]
pub struct RunsArgs {
    #[command(subcommand)]
    what: Option<RunsWhat>,
}

#[derive(clap::Subcommand)]
enum RunsWhat {
    /// All builds of images, the newest last
    List,
    /// One of them
    Show {
        /// Its id
        run: String,
    },
    /// What was said meanwhile, to its end
    Log {
        /// Its id
        run: String,
    },
    /// End it
    Cancel {
        /// Its id
        run: String,
    },
}

/// `provision verify`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision verify staging/web:1.2 --key attestation.pub
  provision verify --envelope web.dsse.json --digest sha256:… --key attestation.pub
The second form asks no server.")]
pub struct VerifyArgs {
    /// Image in the registry
    #[arg(required_unless_present = "envelope", conflicts_with = "envelope")]
    image: Option<String>,
    /// Public key (PEM); else the one the server says it signs with
    #[arg(long, required_unless_present = "image")]
    key: Option<PathBuf>,
    /// A DSSE envelope in a file
    #[arg(long, requires = "digest")]
    envelope: Option<PathBuf>,
    /// The image's digest
    #[arg(long)]
    digest: Option<String>,
}

impl IngestArgs {
    /// A folder under a name and tag.
    pub(super) fn of(folder: &Path, name: &str, tag: &str) -> Self {
        Self {
            source: folder.display().to_string(),
            name: Some(name.into()),
            tag: Some(tag.into()),
            reference: None,
            folder: None,
            dockerfile: None,
            target: None,
            network: false,
            no_wait: false,
        }
    }
}

impl VerifyArgs {
    /// An image in the registry, against the server's own key.
    pub(super) fn of(image: &str) -> Self {
        Self { image: Some(image.into()), key: None, envelope: None, digest: None }
    }
}

pub(super) async fn run(s: &Session, a: IngestArgs) -> Result<(), Fail> {
    let mut ask = Ask {
        name: a.name,
        tag: a.tag,
        dockerfile: a.dockerfile,
        target: a.target,
        network: a.network,
        ..Ask::default()
    };
    let dir = Path::new(&a.source);
    let run: Run = if dir.is_dir() {
        if a.reference.is_some() || a.folder.is_some() {
            let m = "--reference and --folder are for git repositories";
            return Err(Fail::Use(m.into()));
        }
        let dir = dir.canonicalize()?;
        let dockerfile = ask.dockerfile.as_deref().unwrap_or("Dockerfile");
        if !dir.join(dockerfile).is_file() {
            let m = format!("{} has no {dockerfile}; name it with --dockerfile", dir.display());
            return Err(Fail::Use(m));
        }
        ask.label = dir.file_name().map(|n| n.to_string_lossy().into_owned());
        let choice = choice(&dir, Path::new(dockerfile))?;
        // Without git, or outside a working copy, there is none.
        if let Ok(Some(c)) = git::head(&dir) {
            (ask.commit, ask.committed, ask.dirty) = (Some(c.id), c.time, c.dirty);
        }
        let path = format!("/v1/ingest?{}", query(&ask)?);
        let label = ask.label.unwrap_or_default();
        let body = progress::watched(s, &label, None, tarball::stream(dir, choice));
        s.deployment.upload(&path, "application/x-tar", body).await?
    } else if a.source.contains("://") || a.source.contains('@') {
        (ask.git, ask.reference, ask.folder) = (Some(a.source), a.reference, a.folder);
        let path = format!("/v1/ingest?{}", query(&ask)?);
        s.deployment.post(&path, &serde_json::json!({})).await?
    } else {
        return Err(Fail::Use(format!(
            "{:?} is neither a folder here nor the URL of a git repository",
            a.source
        )));
    };
    finish(s, run, a.no_wait).await
}

/// What of a folder is sent: all but what `.dockerignore` names and what the
/// server would throw away.
fn choice(dir: &Path, dockerfile: &Path) -> Result<tarball::Choice, Fail> {
    let ignore = folder::patterns(dir, dockerfile).map_err(|e| Fail::Use(e.to_string()))?;
    let clean: PathBuf = dockerfile.components().filter(|c| *c != Component::CurDir).collect();
    let mut own = clean.clone().into_os_string();
    own.push(".dockerignore");
    let needed = vec![clean, own.into(), ".dockerignore".into()];
    Ok(tarball::Choice { ignore, needed, without_git: true })
}

/// The fields of `ask` as the query of an URL.
pub(super) fn query(ask: &impl Serialize) -> Result<String, Fail> {
    let v = serde_json::to_value(ask).map_err(|e| Fail::Operation(e.to_string()))?;
    let pairs = v.as_object().into_iter().flatten().map(|(k, v)| {
        let text = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        format!("{k}={}", segment(&text))
    });
    Ok(pairs.collect::<Vec<_>>().join("&"))
}

/// Waits for a run, its log to standard error, unless told not to.
pub(super) async fn finish(s: &Session, run: Run, no_wait: bool) -> Result<(), Fail> {
    let run = if no_wait { run } else { follow(s, run).await? };
    s.out.show(&run, |r| {
        let mut t = Table::plain();
        t.row(&[r.state.to_string(), r.reference(), r.image_digest.clone().unwrap_or_default()]);
        t
    })?;
    match run.state {
        RunState::Failed | RunState::Cancelled => {
            let why = run.reason.unwrap_or_default();
            Err(Fail::Operation(format!("{} {}: {why}", run.repository, run.state)))
        }
        _ => Ok(()),
    }
}

async fn follow(s: &Session, run: Run) -> Result<Run, Fail> {
    let id = run.id.clone();
    eprintln!("run {id}; Ctrl-C leaves it running, `provision runs log {id}` comes back to it");
    let mut offset = 0usize;
    loop {
        // The state first: what was said before it is then in the log.
        let now: Run = s.deployment.get(&format!("/v1/ingest/{id}")).await?;
        loop {
            let path = format!("/v1/ingest/{id}/log?offset={offset}");
            let piece = s.deployment.bytes(&path).await?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len();
            std::io::stderr().lock().write_all(&piece)?;
        }
        if now.state.is_over() {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

pub(super) async fn runs(s: &Session, a: RunsArgs) -> Result<(), Fail> {
    match a.what.unwrap_or(RunsWhat::List) {
        RunsWhat::List => {
            let l: List<Run> = s.deployment.get("/v1/ingest").await?;
            s.out.show(&l.items, |all| {
                let mut t = Table::new(&["run", "image", "state", "asked", "by", "why"]);
                for r in all {
                    let why = r.reason.clone().unwrap_or_default();
                    let why = why.lines().next().unwrap_or_default().chars().take(60).collect();
                    let (id, state) = (r.id.to_string(), r.state.to_string());
                    let asked = r.asked.to_string();
                    t.row(&[id, r.reference(), state, asked, r.asked_by.clone(), why]);
                }
                t
            })
        }
        RunsWhat::Show { run } => {
            let r: Run = s.deployment.get(&format!("/v1/ingest/{}", segment(&run))).await?;
            s.out.show(&r, |r| {
                let mut t = Table::plain();
                let v = serde_json::to_value(r).unwrap_or_default();
                for (k, v) in v.as_object().into_iter().flatten() {
                    let text = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                    t.row(&[k.clone(), text]);
                }
                t
            })
        }
        RunsWhat::Log { run } => {
            let r: Run = s.deployment.get(&format!("/v1/ingest/{}", segment(&run))).await?;
            finish(s, r, false).await
        }
        RunsWhat::Cancel { run } => {
            Ok(s.deployment.delete(&format!("/v1/ingest/{}", segment(&run))).await?)
        }
    }
}

/// What was found true of an image.
#[derive(Serialize)]
struct Verified {
    digest: String,
    statements: Vec<Said>,
}

pub(super) async fn verify(s: &Session, a: VerifyArgs) -> Result<(), Fail> {
    let wrong = |e: &dyn std::fmt::Display| Fail::Use(e.to_string());
    let mut key = None;
    if let Some(file) = &a.key {
        let text = std::fs::read_to_string(file)
            .map_err(|e| Fail::Use(format!("{}: {e}", file.display())))?;
        key = Some(VerifyingKey::from_pem(&text).map_err(|e| wrong(&e))?);
    }
    let (digest, envelopes) = match (&a.image, &a.envelope) {
        (Some(image), _) => {
            let path: Vec<String> = image.split('/').map(segment).collect();
            let at: Attestations =
                s.deployment.get(&format!("/v1/attestations/{}", path.join("/"))).await?;
            if key.is_none() {
                eprintln!(
                    "checked against the key that the server itself names; --key is stronger"
                );
                key = Some(VerifyingKey::from_pem(&at.public_key).map_err(|e| wrong(&e))?);
            }
            (at.digest, at.envelopes)
        }
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .map_err(|e| Fail::Use(format!("{}: {e}", file.display())))?;
            (a.digest.clone().unwrap_or_default(), vec![text])
        }
        (None, None) => return Err(Fail::Use("which image?".into())),
    };
    let key = key.ok_or_else(|| Fail::Use("--key FILE is needed".into()))?;
    let image = digest.parse().map_err(|e| wrong(&e))?;
    if envelopes.is_empty() {
        return Err(Fail::Operation(format!("nothing is signed about {digest}")));
    }
    let mut statements = Vec::new();
    for e in &envelopes {
        let found = read_envelope(e.as_bytes(), &key, &image);
        statements.push(found.map_err(|e| Fail::Operation(format!("{digest}: {e}")))?);
    }
    let verified = Verified { digest, statements };
    s.out.show(&verified, |v| {
        let mut t = Table::plain();
        t.row(&["digest".into(), v.digest.clone()]);
        for one in &v.statements {
            let v = serde_json::to_value(one).unwrap_or_default();
            for (k, v) in v.as_object().into_iter().flatten() {
                let text = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                t.row(&[k.clone(), text]);
            }
        }
        t
    })
}
