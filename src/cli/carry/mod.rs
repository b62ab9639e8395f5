//! `provision export` and `provision import`: images as OCI layouts, in a
//! directory or a tar archive, for places without a network between them.
//!
//! Bytes go straight between the registry's own protocol and the file: of a
//! blob no more than a piece is in memory. `sink` writes, `source` reads.

mod sink;
mod source;

use super::output::{Table, bytes};
use super::{Fail, Session};
use crate::api::deployment::promote::image;
use crate::client::ClientError;
use crate::registry::{Descriptor, Digest, Hasher, Kind, Manifest, Reference, RepositoryName};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use sink::Sink;
use source::Source;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// A server that sends nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// Largest manifest, in bytes, as the registry has it.
const LARGEST: u64 = 4 * 1024 * 1024;
/// Most manifests of one image.
const MOST: usize = 10_000;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The annotation that carries a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What we take: as it is stored.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// `provision export`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision export team/app:1.2 app.tar
  provision export team/app@sha256:… app/

A name that ends in .tar becomes an archive, any other a directory. Both are
OCI layouts: skopeo and docker load read them.")]
pub struct ExportArgs {
    /// What: NAME:TAG or NAME@DIGEST
    image: String,
    /// Where to; must not be there yet
    to: PathBuf,
}

/// `provision import`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision import app.tar staging/app:1.2
  provision import app/ staging/app:1.2
  provision import many.tar staging/app:1.2 --name 1.2")]
pub struct ImportArgs {
    /// An OCI layout: a .tar file or a directory
    from: PathBuf,
    /// Under which name: NAME:TAG
    image: String,
    /// Which image of the layout, if there are several: its ref.name
    #[arg(long)]
    name: Option<String>,
}

/// What was carried.
#[derive(Debug, Default, Serialize)]
struct Carried {
    image: String,
    digest: String,
    manifests: u64,
    blobs: u64,
    /// Bytes of blobs that were sent.
    bytes: u64,
}

fn wrong(e: impl std::fmt::Display) -> Fail {
    Fail::Operation(e.to_string())
}

fn named(text: &str) -> Result<(RepositoryName, Reference), Fail> {
    image(text).map_err(|p| Fail::Use(p.detail))
}

fn report(s: &Session, c: &Carried) -> Result<(), Fail> {
    s.out.show(c, |c| {
        let mut t = Table::plain();
        t.row(&["image".into(), c.image.clone()]);
        t.row(&["digest".into(), c.digest.clone()]);
        t.row(&["manifests".into(), c.manifests.to_string()]);
        t.row(&["blobs".into(), format!("{} ({})", c.blobs, bytes(c.bytes))]);
        t
    })
}

pub(super) async fn export(s: &Session, a: ExportArgs) -> Result<(), Fail> {
    let (name, reference) = named(&a.image)?;
    let mut sink = Sink::new(&a.to)?;
    let carried = write(s, &name, &reference, &mut sink).await;
    match carried {
        Ok(mut c) => {
            sink.done()?;
            c.image = a.image;
            report(s, &c)
        }
        Err(e) => {
            sink.abandon();
            Err(e)
        }
    }
}

async fn write(
    s: &Session,
    name: &RepositoryName,
    reference: &Reference,
    sink: &mut Sink,
) -> Result<Carried, Fail> {
    let mut out = Carried::default();
    let (top, text) = manifest(s, name, &reference.to_string()).await?;
    out.digest = Digest::of(&text).to_string();
    if let Reference::Digest(d) = reference {
        out.digest = d.to_string();
    }
    let mut d = json!({ "mediaType": top.media_type, "digest": out.digest, "size": text.len() });
    if let Reference::Tag(t) = reference {
        d["annotations"] = json!({ REF_NAME: t.as_str() });
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [d] });
    sink.whole("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    sink.whole("index.json", index.to_string().as_bytes())?;
    let first: Digest = out.digest.parse().map_err(wrong)?;
    let (mut todo, mut seen) = (vec![first], BTreeSet::new());
    while let Some(d) = todo.pop() {
        if !seen.insert(d.clone()) {
            continue;
        }
        if out.manifests as usize >= MOST {
            return Err(wrong(format!("{name} leads to more than {MOST} manifests")));
        }
        let (m, text) = manifest(s, name, &d.to_string()).await?;
        sink.whole(&place(&d), &text)?;
        out.manifests += 1;
        todo.extend(m.manifests.into_iter().map(|d| d.digest));
        for b in m.blobs {
            if seen.insert(b.digest.clone()) && fetch(s, name, &b, sink).await? {
                out.blobs += 1;
                out.bytes += b.size;
            }
        }
    }
    Ok(out)
}

/// Where a layout has it.
fn place(d: &Digest) -> String {
    format!("blobs/{}/{}", d.algorithm().name(), d.hex())
}

async fn manifest(
    s: &Session,
    name: &RepositoryName,
    reference: &str,
) -> Result<(Manifest, Vec<u8>), Fail> {
    let path = format!("/v2/{name}/manifests/{reference}");
    let mut r =
        s.client.raw(Method::GET, &path, |r| r.header("accept", ACCEPT).timeout(IDLE)).await?;
    let mut all = Vec::new();
    while let Some(b) = r.chunk().await.map_err(wrong)? {
        all.extend_from_slice(&b);
        if all.len() as u64 > LARGEST {
            return Err(wrong(format!("the manifest {reference} has more than {LARGEST} bytes")));
        }
    }
    if let Ok(d) = reference.parse::<Digest>()
        && Digest::with(d.algorithm(), &all) != d
    {
        return Err(wrong(format!("the server sent something else for the manifest {d}")));
    }
    let m = Manifest::parse(&all, None).map_err(|f| wrong(f.message))?;
    Ok((m, all))
}

/// Whether it was there to be had.
async fn fetch(
    s: &Session,
    name: &RepositoryName,
    b: &Descriptor,
    sink: &mut Sink,
) -> Result<bool, Fail> {
    let path = format!("/v2/{name}/blobs/{}", b.digest);
    let answer = tokio::time::timeout(IDLE, s.client.raw(Method::GET, &path, |r| r)).await;
    let mut r = match answer {
        Ok(Ok(r)) => r,
        Ok(Err(ClientError::Wrong(_))) if b.may_be_elsewhere() => return Ok(false),
        Ok(Err(e)) => return Err(e.into()),
        Err(_) => return Err(silent(&b.digest)),
    };
    sink.begin(&place(&b.digest), b.size)?;
    let (mut hasher, mut left) = (Hasher::new(b.digest.algorithm()), b.size);
    while let Some(piece) = tokio::time::timeout(IDLE, r.chunk())
        .await
        .map_err(|_| silent(&b.digest))?
        .map_err(wrong)?
    {
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| {
            wrong(format!("the blob {} has more bytes than its manifest says", b.digest))
        })?;
        hasher.update(&piece);
        sink.piece(&piece)?;
    }
    if left > 0 || hasher.finish() != b.digest {
        return Err(wrong(format!("what came for the blob {} is not it", b.digest)));
    }
    sink.end()?;
    Ok(true)
}

fn silent(d: &Digest) -> Fail {
    Fail::Server(format!("the server sent nothing of {d} for {} s", IDLE.as_secs()))
}

pub(super) async fn import(s: &Session, a: ImportArgs) -> Result<(), Fail> {
    let (name, reference) = named(&a.image)?;
    let Reference::Tag(tag) = reference else {
        return Err(Fail::Use(format!("{:?}: an import needs a tag: NAME:TAG", a.image)));
    };
    let source = Source::open(&a.from)?;
    let top = chosen(&source, a.name.as_deref())?;
    let (mut todo, mut order) = (vec![top.clone()], Vec::new());
    while let Some(d) = todo.pop() {
        let text = source.small(&place(&d.digest), LARGEST)?;
        let m = Manifest::parse(&text, Some(&d.media_type)).map_err(|f| wrong(f.message))?;
        if order.len() >= MOST {
            return Err(wrong(format!("more than {MOST} manifests")));
        }
        if m.kind == Kind::Index {
            todo.extend(m.manifests.iter().cloned());
        }
        order.push((d, m));
    }
    let mut out = Carried { image: a.image, digest: top.digest.to_string(), ..Carried::default() };
    let mut seen = BTreeSet::new();
    // Children before parents: a manifest is only taken when what it names
    // is there.
    for (d, m) in order.into_iter().rev() {
        for b in &m.blobs {
            if seen.insert(b.digest.clone()) {
                out.blobs += 1;
                out.bytes += send(s, &name, b, &source).await?;
            }
        }
        // Read again rather than kept: there may be many.
        let text = source.small(&place(&d.digest), LARGEST)?;
        let mut at = vec![d.digest.to_string()];
        if d.digest == top.digest {
            at.push(tag.to_string());
        }
        for at in at {
            let (path, text, kind) =
                (format!("/v2/{name}/manifests/{at}"), text.clone(), m.media_type.clone());
            let put = |r: reqwest::RequestBuilder| {
                r.header("content-type", kind).body(text).timeout(IDLE)
            };
            s.client.raw(Method::PUT, &path, put).await?;
        }
        out.manifests += 1;
    }
    report(s, &out)
}

/// The entry of `index.json` that is meant.
fn chosen(source: &Source, name: Option<&str>) -> Result<Descriptor, Fail> {
    let index: Value = serde_json::from_slice(&source.small("index.json", LARGEST)?)
        .map_err(|e| wrong(format!("index.json: {e}")))?;
    let all = index["manifests"].as_array().cloned().unwrap_or_default();
    let label = |d: &Value| d["annotations"][REF_NAME].as_str().unwrap_or("-").to_owned();
    let mut fit: Vec<&Value> = all.iter().filter(|d| name.is_none_or(|n| label(d) == n)).collect();
    match (fit.pop(), fit.len()) {
        (Some(one), 0) => {
            serde_json::from_value(one.clone()).map_err(|e| wrong(format!("index.json: {e}")))
        }
        _ => {
            let names: Vec<String> = all.iter().map(label).collect();
            let m = format!("say with --name which of these: {}", names.join(", "));
            Err(Fail::Use(m))
        }
    }
}

/// Bytes that were sent: none when the repository has the blob.
async fn send(
    s: &Session,
    name: &RepositoryName,
    b: &Descriptor,
    source: &Source,
) -> Result<u64, Fail> {
    let path = format!("/v2/{name}/blobs/{}", b.digest);
    if s.client.raw(Method::HEAD, &path, |r| r.timeout(IDLE)).await.is_ok() {
        return Ok(0);
    }
    let Some((file, size)) = source.stream(&place(&b.digest)).await? else {
        if b.may_be_elsewhere() {
            return Ok(0);
        }
        return Err(wrong(format!("the layout has no blob {}", b.digest)));
    };
    if size != b.size {
        let m = format!("the blob {} has {size} bytes, its manifest says {}", b.digest, b.size);
        return Err(wrong(m));
    }
    let begin = format!("/v2/{name}/blobs/uploads/");
    let r = s.client.raw(Method::POST, &begin, |r| r.body("").timeout(IDLE)).await?;
    let to = r.headers().get("location").and_then(|l| l.to_str().ok()).unwrap_or_default();
    // Ours, also where a server writes it with its own name.
    let to = to.find("/v2/").map(|i| &to[i..]).ok_or_else(|| wrong("the server gave no place"))?;
    let sign = if to.contains('?') { '&' } else { '?' };
    let to = format!("{to}{sign}digest={}", b.digest);
    // 50 kB/s at least.
    let most = IDLE + Duration::from_secs(size / 50_000);
    let put = |r: reqwest::RequestBuilder| {
        r.header("content-type", "application/octet-stream")
            .header("content-length", size)
            .body(reqwest::Body::wrap_stream(file))
            .timeout(most)
    };
    s.client.raw(Method::PUT, &to, put).await?;
    Ok(size)
}
