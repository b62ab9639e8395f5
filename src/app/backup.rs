//! `deployment-server backup` and `restore`: everything that cannot be had
//! again, in a directory. Blobs are kept once; each backup is a directory of
//! its own beside them, which has its name when it is complete.
//!
//! ```text
//! DIR/blobs/sha256/<hh>/<hex>        of all backups together
//! DIR/<time>/repos/…                 tags, manifests, links
//! DIR/<time>/state/…                 keys, authority, admin token (0600)
//! DIR/<time>/deployment.db           people, certificates, tokens, record
//! DIR/<time>/backup.json             what it holds
//! ```

use super::images_at;
use crate::config::deployment::Deployment;
use crate::model::Time;
use crate::registry::{BackupReport, Registry, RegistryError};
use crate::store::sqlite;
use crate::tls;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Directories of the state that hold keys.
const KEPT: [&str; 2] = ["tls", "keys"];
/// Files of the state that are another server's or are made anew.
const LEFT: [&str; 2] = ["lock", "instance"];
/// Nothing that is a key is larger.
const LARGEST: u64 = 1 << 20;
/// How long a collection of garbage is waited for.
const PATIENCE: Duration = Duration::from_secs(600);
const DATABASE: &str = "deployment.db";
const CONTENT: &str = "backup.json";

/// `deployment-server backup`
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  deployment-server backup /srv/backup/registry\n\n\
The server may run. A second backup to the same directory writes only the blobs that are new.")]
pub struct BackupArgs {
    /// Where to; on another disk
    dir: PathBuf,
}

/// `deployment-server restore`
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  deployment-server restore /srv/backup/registry\n  \
deployment-server restore /srv/backup/registry --backup 20261121T090000.000Z")]
pub struct RestoreArgs {
    /// What `backup` was given
    dir: PathBuf,
    /// Which; the newest without it
    #[arg(long)]
    backup: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    made: Time,
    /// Not in it, since it is no file of ours: Redis.
    database: bool,
    registry: BackupReport,
}

fn private_dir(dir: &Path) -> Result<()> {
    let mut b = fs::DirBuilder::new();
    b.recursive(true).mode(0o700).create(dir).with_context(|| dir.display().to_string())
}

fn database(c: &Deployment) -> Option<PathBuf> {
    c.store.strip_prefix("sqlite:").map(PathBuf::from)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Runtime::new()?)
}

/// Writes a backup; says what is new in it.
///
/// # Errors
/// What cannot be read or written; and what is rotten or missing, after all
/// the rest was backed up.
pub fn backup(c: &Deployment, a: &BackupArgs) -> Result<()> {
    if !c.state_dir.join("secret.key").exists() {
        bail!("{} holds no deployment server: nothing to back up", c.state_dir.display());
    }
    private_dir(&a.dir)?;
    let name = Time::now().strftime("%Y%m%dT%H%M%S%.3fZ").to_string();
    let (done, part) = (a.dir.join(&name), a.dir.join(format!("{name}.part")));
    private_dir(&part.join("state"))?;
    // The record first: it may know less than the registry has, never more.
    let database = database(c);
    if let Some(from) = &database {
        sqlite::copy(from, &part.join(DATABASE))?;
    }
    let mut keys = Vec::new();
    keys_of(&c.state_dir, database.as_deref(), &mut keys)?;
    for file in keys {
        carry(&c.state_dir.join(&file), &part.join("state").join(&file))?;
    }
    let settings = images_at::settings(c)?;
    let report = runtime()?.block_on(async {
        let registry = Registry::open(settings).await?;
        let until = Instant::now() + PATIENCE;
        loop {
            match registry.back_up(&part.join("repos"), &a.dir.join("blobs")).await {
                Err(RegistryError::Collecting) if Instant::now() < until => {
                    tracing::info!("garbage is being collected: waiting for its end");
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                r => break r,
            }
        }
    })?;
    let content =
        Content { version: 1, made: Time::now(), database: database.is_some(), registry: report };
    fs::write(part.join(CONTENT), serde_json::to_vec_pretty(&content)?)?;
    // All of it is on the disk before it has its name.
    rustix::fs::syncfs(fs::File::open(&part)?).context("sync")?;
    fs::rename(&part, &done)?;
    fs::File::open(&a.dir)?.sync_all()?;
    let r = &content.registry;
    println!("backup       {}", done.display());
    println!("images       {} repositories, {} blobs, {} bytes", r.repositories, r.blobs, r.bytes);
    println!("new          {} blobs, {} bytes", r.new_blobs, r.new_bytes);
    if !content.database {
        println!("not in it    the database: back up Redis by its own means");
    }
    lacking(&r.lacking)
}

fn lacking(all: &[String]) -> Result<()> {
    for l in all.iter().take(100) {
        println!("lacking      {l}");
    }
    match all.len() {
        0 => Ok(()),
        n => bail!("{n} things are rotten or missing; the rest is there"),
    }
}

/// Small files of the state, as paths from `dir`.
fn keys_of(dir: &Path, database: Option<&Path>, out: &mut Vec<PathBuf>) -> Result<()> {
    let db = database.and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    let mut folders = vec![PathBuf::new()];
    folders.extend(KEPT.map(PathBuf::from));
    for folder in folders {
        let at = dir.join(&folder);
        let Ok(entries) = fs::read_dir(&at) else { continue };
        for e in entries {
            let e = e?;
            let (name, meta) = (e.file_name().to_string_lossy().into_owned(), e.metadata()?);
            // The database with its -wal, -shm and .lock.
            let of_database = db.as_ref().is_some_and(|d| name.starts_with(d.as_str()));
            if !meta.is_file() || LEFT.contains(&name.as_str()) || of_database {
                continue;
            }
            if meta.len() > LARGEST {
                tracing::warn!(file = %e.path().display(), "too large for a key: not backed up");
                continue;
            }
            out.push(folder.join(name));
        }
    }
    Ok(())
}

/// Copies a small file, with mode 0600.
fn carry(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| from.display().to_string())?;
    if let Some(dir) = to.parent() {
        private_dir(dir)?;
    }
    Ok(tls::write_private(to, &bytes)?)
}

fn empty(dir: &Path) -> Result<()> {
    let first = match fs::read_dir(dir) {
        Ok(mut d) => d.next(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e).with_context(|| dir.display().to_string()),
    };
    if first.is_some() {
        bail!(
            "{} is not empty: a backup is restored into an empty directory only, so that \
             nothing is mixed or lost",
            dir.display()
        );
    }
    Ok(())
}

/// Which backup of `dir` is meant.
fn chosen(dir: &Path, name: Option<&str>) -> Result<PathBuf> {
    let mut all = Vec::new();
    for e in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let e = e?;
        let name = e.file_name().to_string_lossy().into_owned();
        if e.path().join(CONTENT).exists() && !name.ends_with(".part") {
            all.push(name);
        }
    }
    all.sort();
    let found = match name {
        Some(n) => all.iter().find(|a| *a == n),
        None => all.last(),
    };
    match found {
        Some(n) => Ok(dir.join(n)),
        None => bail!(
            "{} holds no such backup; there are: {}",
            dir.display(),
            if all.is_empty() { "none".to_owned() } else { all.join(", ") }
        ),
    }
}

/// Restores a backup into an empty state directory, and checks every digest.
///
/// # Errors
/// A directory that is not empty; what cannot be read or written; what the
/// backup lacks, after all the rest was restored.
pub fn restore(c: &Deployment, a: &RestoreArgs) -> Result<()> {
    let from = chosen(&a.dir, a.backup.as_deref())?;
    let content: Content = serde_json::from_slice(&fs::read(from.join(CONTENT))?)
        .with_context(|| format!("{}: not a backup of this version", from.display()))?;
    if content.version != 1 {
        bail!("{}: version {} is not known here", from.display(), content.version);
    }
    let dirs: Vec<&PathBuf> =
        if c.s3.is_some() { vec![&c.state_dir] } else { vec![&c.state_dir, &c.storage] };
    for dir in &dirs {
        empty(dir)?;
    }
    let database = database(c);
    if let Some(d) = database.as_ref().filter(|d| d.exists()) {
        bail!("{} is there already: move it away", d.display());
    }
    for dir in &dirs {
        private_dir(dir)?;
    }
    let (runtime, settings) = (runtime()?, images_at::settings(c)?);
    let registry = runtime.block_on(async {
        let r = Registry::open(settings).await?;
        if !r.is_empty().await? {
            return Err(RegistryError::Content(format!(
                "{} is not empty: a backup is restored into an empty one only",
                images_at::describe(c)
            )));
        }
        Ok(r)
    })?;
    let mut keys = Vec::new();
    keys_of(&from.join("state"), None, &mut keys)?;
    for file in &keys {
        carry(&from.join("state").join(file), &c.state_dir.join(file))?;
    }
    match database.filter(|_| content.database) {
        Some(to) => sqlite::copy(&from.join(DATABASE), &to)?,
        None => println!("not restored the database: restore Redis by its own means"),
    }
    let (back, checked) = runtime.block_on(async {
        let back = registry.restore(&from.join("repos"), &a.dir.join("blobs")).await?;
        Ok::<_, RegistryError>((back, registry.verify_store().await?))
    })?;
    println!("restored     {} of {}", from.display(), content.made);
    println!(
        "images       {} documents, {} blobs, {} bytes",
        back.documents, back.blobs, back.bytes
    );
    println!("read again   {} blobs, {} manifests", checked.blobs, checked.manifests);
    let mut all = back.lacking;
    all.extend(
        checked
            .damage
            .iter()
            .map(|d| format!("{} {} {}: {}", d.what, d.repository, d.name, d.problem)),
    );
    lacking(&all)
}
