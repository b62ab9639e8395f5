//! `provision base`: the images that builds start from.

use super::ingest::{finish, query};
use super::{Fail, Session, progress, tarball};
use crate::api::deployment::bases::{BaseRequest, ImportAsk};
use crate::ingest::Run;
use serde_json::Value;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use tokio_util::io::ReaderStream;

/// Bytes read at a time.
const PIECE: usize = 256 << 10;
/// Largest file that is looked into for a name.
const LARGEST: u64 = 4 << 20;

/// `provision base`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision base build debian:12
  provision base import alpine.tar --name alpine:3.20
  provision base import layout/ --name tools/box:1
  provision base import registry.example/team/base:2
The last needs that registry in the server's [[ingest.import]].")]
pub struct BaseArgs {
    #[command(subcommand)]
    what: BaseWhat,
}

#[derive(clap::Subcommand)]
enum BaseWhat {
    /// Make a base image from the deployment host's own package mirror
    Build {
        /// debian:12 or debian:13
        image: String,
    },
    /// Take a base image from a file here, or from another registry
    Import {
        /// OCI layout, OCI archive, file of `docker save`; or HOST/NAME:TAG
        from: String,
        /// What Dockerfiles will call it: NAME:TAG; else what the file says
        #[arg(long)]
        name: Option<String>,
    },
}

impl BaseArgs {
    /// `base build IMAGE`
    pub(super) fn build(image: &str) -> Self {
        Self { what: BaseWhat::Build { image: image.into() } }
    }
}

pub(super) async fn run(s: &Session, a: BaseArgs) -> Result<(), Fail> {
    let run: Run = match a.what {
        BaseWhat::Build { image } => s.deployment.post("/v1/bases", &BaseRequest { image }).await?,
        BaseWhat::Import { from, name } => import(s, &from, name).await?,
    };
    finish(s, run, false).await
}

async fn import(s: &Session, from: &str, name: Option<String>) -> Result<Run, Fail> {
    let path = Path::new(from);
    let mut ask = ImportAsk { name, ..ImportAsk::default() };
    let Ok(meta) = path.metadata() else {
        if from.starts_with(['/', '.']) || !from.contains('/') {
            return Err(Fail::Use(format!("{from:?} is neither a file here nor HOST/NAME:TAG")));
        }
        ask.from = Some(from.to_owned());
        let to = format!("/v1/bases/import?{}", query(&ask)?);
        return Ok(s.deployment.post(&to, &()).await?);
    };
    if ask.name.is_none() {
        ask.name = Some(named(path)?.ok_or_else(|| {
            Fail::Use(format!("{from} does not say what it is called: --name NAME:TAG"))
        })?);
    }
    let file = path.canonicalize()?.file_name().map(|n| n.to_string_lossy().into_owned());
    let label = file.unwrap_or_else(|| "image".into());
    ask.label = Some(label.clone());
    let to = format!("/v1/bases/import?{}", query(&ask)?);
    let kind = "application/octet-stream";
    if meta.is_dir() {
        if !path.join("oci-layout").is_file() {
            let m = format!("{from} has no file oci-layout: it is no OCI layout");
            return Err(Fail::Use(m));
        }
        let body = tarball::stream(path.to_owned(), tarball::Choice::default());
        return Ok(s
            .deployment
            .upload(&to, kind, progress::watched(s, &label, None, body))
            .await?);
    }
    let body = ReaderStream::with_capacity(tokio::fs::File::open(path).await?, PIECE);
    let body = progress::watched(s, &label, Some(meta.len()), body);
    Ok(s.deployment.upload(&to, kind, body).await?)
}

/// What an archive or layout calls its image: `RepoTags` of `docker save`, or
/// the annotation of an OCI index, where that is a whole name.
fn named(path: &Path) -> Result<Option<String>, Fail> {
    let at = |e: std::io::Error| Fail::Use(format!("{}: {e}", path.display()));
    if path.is_dir() {
        let mut text = Vec::new();
        let file = File::open(path.join("index.json")).map_err(at)?;
        file.take(LARGEST).read_to_end(&mut text).map_err(at)?;
        return Ok(name_in(&text));
    }
    let mut archive = tar::Archive::new(File::open(path).map_err(at)?);
    let Ok(entries) = archive.entries_with_seek() else { return Ok(None) };
    let mut found = None;
    for e in entries {
        // Compressed, or no archive at all: the server says more.
        let Ok(e) = e else { break };
        let name = e.path().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        if matches!(name.trim_start_matches("./"), "manifest.json" | "index.json") {
            let mut text = Vec::new();
            e.take(LARGEST).read_to_end(&mut text).map_err(at)?;
            found = found.or_else(|| name_in(&text));
        }
    }
    Ok(found)
}

fn name_in(text: &[u8]) -> Option<String> {
    let v: Value = serde_json::from_slice(text).ok()?;
    let manifest = v.pointer("/0/RepoTags/0");
    let annotation = |key: &str| v["manifests"][0]["annotations"].get(key);
    let whole = annotation("io.containerd.image.name");
    let short = annotation("org.opencontainers.image.ref.name");
    let name = [manifest, whole, short].into_iter().flatten().find_map(Value::as_str)?;
    name.contains(':').then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_says_what_it_is_called_or_nothing() {
        for (text, want) in [
            (r#"[{"Config":"x","RepoTags":["tools/box:1"]}]"#, Some("tools/box:1")),
            (r#"[{"Config":"x","RepoTags":null}]"#, None),
            (
                r#"{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"1.2"}}]}"#,
                None,
            ),
            (
                r#"{"manifests":[{"annotations":{"io.containerd.image.name":"docker.io/library/a:1","org.opencontainers.image.ref.name":"1"}}]}"#,
                Some("docker.io/library/a:1"),
            ),
            ("no json", None),
        ] {
            assert_eq!(name_in(text.as_bytes()).as_deref(), want, "{text}");
        }
    }
}
