//! `provision mirror`.

use super::images::shown_or_watched;
use super::output::{Table, bytes, segment};
use super::watch::watch;
use super::{Fail, Session};
use crate::api::mirrors::BuildMirror;
use crate::model::{Name, Operation};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// A server that sends nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(60);

/// `provision mirror`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision mirror build --image debian-13-installer --profile docker
  provision mirror verify debian-13-installer-docker-20261121
  provision mirror export debian-13-installer-docker-20261121 docker.tar.zst
  provision mirror import docker.tar.zst --key FINGERPRINT")]
pub struct MirrorArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// All mirrors
    List,
    /// Make a mirror of just what the installs of an image and a profile need
    Build {
        /// Image it is for
        #[arg(long)]
        image: Name,
        /// Profile it is for
        #[arg(long)]
        profile: Option<Name>,
        /// What to call it; image, profile and day by default
        #[arg(long)]
        name: Option<Name>,
        /// Packages beside those; NAME? where a release may not have it
        #[arg(long = "package")]
        packages: Vec<String>,
        /// Return at once
        #[arg(long)]
        no_wait: bool,
    },
    /// Read every file and compare it with what was signed
    Verify {
        /// Mirror
        name: Name,
    },
    /// Remove a mirror
    Rm {
        /// Mirror
        name: Name,
    },
    /// Write a mirror and its image to one file, to carry them elsewhere
    Export {
        /// Mirror
        name: Name,
        /// Where to, such as x.tar.zst; must not be there yet
        to: PathBuf,
    },
    /// Take in a mirror that was exported, and its image
    Import {
        /// The file
        from: PathBuf,
        /// Fingerprint of the key that signed it, if it was made elsewhere
        #[arg(long)]
        key: Option<String>,
        /// What becomes of an image here that has the name of the one in the
        /// file and is another one; refused when left out
        #[arg(long, value_name = "WHAT", value_parser = ["keep", "replace"])]
        other_image: Option<String>,
    },
}

pub(super) async fn run(s: &Session, a: MirrorArgs) -> Result<(), Fail> {
    match a.what {
        What::List => list(s).await,
        What::Build { image, profile, name, packages, no_wait } => {
            let build = BuildMirror { image, profile, name, packages };
            let op: Operation = s.client.post("/v1/mirrors", &build).await?;
            shown_or_watched(s, op, no_wait).await
        }
        What::Verify { name } => {
            let path = format!("/v1/mirrors/{}/verify", segment(name.as_str()));
            let op: Operation = s.client.post(&path, &()).await?;
            watch(s, vec![op]).await.map(drop)
        }
        What::Rm { name } => {
            s.client.delete(&format!("/v1/mirrors/{}", segment(name.as_str()))).await?;
            s.out.say(format!("{name} is removed"))
        }
        What::Export { name, to } => export(s, &name, &to).await,
        What::Import { from, key, other_image } => {
            let key = key.map(|k| format!("key={}", segment(&k.replace(' ', ""))));
            let other = other_image.map(|o| format!("other_image={o}"));
            let ask: Vec<String> = [key, other].into_iter().flatten().collect();
            import(s, &from, &ask.join("&")).await
        }
    }
}

async fn list(s: &Session) -> Result<(), Fail> {
    let v: Value = s.client.get("/v1/mirrors").await?;
    for f in v.get("faults").and_then(Value::as_array).into_iter().flatten() {
        eprintln!("cannot be used: {}", f.as_str().unwrap_or_default());
    }
    s.out.show(&v, |v| {
        let head =
            ["name", "image", "profile", "suite", "packages", "components", "size", "digest"];
        let mut t = Table::new(&head);
        for m in v.get("items").and_then(Value::as_array).into_iter().flatten() {
            let text = |k: &str| match m.get(k) {
                Some(Value::String(s)) => s.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
            t.row(&[
                text("name"),
                text("image"),
                text("profile"),
                text("suite"),
                text("packages"),
                text("components"),
                bytes(m.get("bytes").and_then(Value::as_u64).unwrap_or(0)),
                text("digest").chars().take(19).collect(),
            ]);
        }
        t
    })
}

async fn export(s: &Session, name: &Name, to: &Path) -> Result<(), Fail> {
    if to.exists() {
        return Err(Fail::Use(format!("{} is there already", to.display())));
    }
    let path = format!("/v1/mirrors/{}/export", segment(name.as_str()));
    let mut answer = s.client.raw(Method::GET, &path, |r| r).await?;
    let image = answer.headers().get("provision-image").and_then(|i| i.to_str().ok());
    let image = image.map(str::to_owned);
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |e: std::io::Error| Fail::Operation(format!("{}: {e}", part.display()));
    let broken = |why: String| {
        let why = format!("the transfer broke off: {why}; the server's log may say more");
        Fail::Operation(why)
    };
    let receive = async {
        let mut file = tokio::fs::File::create(&part).await.map_err(failed)?;
        let mut size = 0;
        loop {
            let piece = tokio::time::timeout(IDLE, answer.chunk()).await;
            let piece = piece.map_err(|_| broken("nothing came for a minute".to_owned()))?;
            let Some(piece) = piece.map_err(|e| broken(e.to_string()))? else { break };
            size += piece.len() as u64;
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.sync_all().await.map_err(failed)?;
        tokio::fs::rename(&part, to).await.map_err(failed)?;
        Ok(size)
    };
    let done: Result<u64, Fail> = receive.await;
    if done.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    let all = format!("{}: {}", to.display(), bytes(done?));
    match image.as_deref() {
        Some("same") => s.out.say(format!("{all}, with its image")),
        // A server from before this.
        None => s.out.say(all),
        Some(why) => {
            let why = match why {
                "absent" => "there is none of its name here any more",
                _ => "the one of its name here is another one by now, or damaged",
            };
            eprintln!(
                "the image that the mirror was made for is not in it: {why}. Where nobody has \
                 it, make the mirror again (`provision mirror build`)"
            );
            s.out.say(all)
        }
    }
}

async fn import(s: &Session, from: &Path, ask: &str) -> Result<(), Fail> {
    let file = tokio::fs::File::open(from).await;
    let file = file.map_err(|e| Fail::Use(format!("{}: {e}", from.display())))?;
    let stream = tokio_util::io::ReaderStream::with_capacity(file, 256 << 10);
    let v: Value = s
        .client
        .upload(&format!("/v1/mirrors/import?{ask}"), "application/zstd", stream.boxed())
        .await?;
    let text = |k: &str| v.get(k).and_then(Value::as_str).unwrap_or_default();
    let (name, image) = (text("name"), text("image"));
    s.out.say(format!("{name} is here, every file as it was signed"))?;
    let lack = match text("image_here") {
        "same" => return s.out.say(format!("image {image} is here, as the mirror needs it")),
        "other" => "here is another one",
        "absent" => "is not here, and not in the file",
        _ => return Ok(()),
    };
    eprintln!(
        "image {image} {lack}: installs from this mirror need the one that it was made for, which \
         is carried in with a mirror that is exported where that image is"
    );
    Ok(())
}
