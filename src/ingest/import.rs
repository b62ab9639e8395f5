//! Takes an image from a file: an OCI layout, an OCI archive, or what `docker
//! save` writes. Skopeo reads them, without network: an image could name
//! layers that are elsewhere. From another registry it reads with network.

use super::builder::{self, Sandbox};
use super::context::ContextError;
use super::run::BuilderIdentity;
use crate::image::build::Progress;
use crate::image::child;
use crate::model::Digest;
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which form `path` has, as skopeo calls it.
fn transport(path: &Path) -> Result<&'static str, ContextError> {
    let refused = |why| Err(ContextError::refused(path, why));
    if path.is_dir() {
        return if path.join("oci-layout").is_file() {
            Ok("oci")
        } else {
            refused(
                "is a directory without a file 'oci-layout': name an OCI layout, an OCI archive or a file made by 'docker save'",
            )
        };
    }
    let file = fs::File::open(path).map_err(ContextError::io(path))?;
    let mut archive = tar::Archive::new(file);
    let entries = archive.entries().map_err(ContextError::io(path))?;
    let mut found = None;
    // These names stand among a few hundred blobs.
    for entry in entries.take(10_000) {
        let Ok(entry) = entry else { break };
        match entry.path().ok().as_deref().and_then(super::context::inside) {
            Some(p) if p == Path::new("oci-layout") => return Ok("oci-archive"),
            Some(p) if p == Path::new("manifest.json") => found = Some("docker-archive"),
            _ => {}
        }
    }
    match found {
        Some(f) => Ok(f),
        None => refused("is neither an OCI archive nor a file made by 'docker save'"),
    }
}

/// `path`, or what it holds when it is compressed. We unpack that ourselves:
/// skopeo fails on some archives, and would unpack without end.
fn unpacked(path: &Path, work: &Path, largest: u64) -> Result<PathBuf, ContextError> {
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    let io = || ContextError::io(path);
    let mut from = BufReader::new(fs::File::open(path).map_err(io())?);
    let magic = from.fill_buf().map_err(io())?;
    let plain: Box<dyn Read> = if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(from))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut d = zstd::stream::read::Decoder::with_buffer(from).map_err(io())?;
        // At most 128 MiB of memory, whatever the file asks for.
        d.window_log_max(27).map_err(io())?;
        Box::new(d)
    } else {
        return Ok(path.to_owned());
    };
    let to = work.join("image.tar");
    let mut file = fs::File::create(&to).map_err(ContextError::io(&to))?;
    let got = io::copy(&mut plain.take(largest.saturating_add(1)), &mut file).map_err(io())?;
    if got > largest {
        let m = format!("the image has more than {largest} bytes unpacked, which is the limit");
        return Err(ContextError::Source(m));
    }
    Ok(to)
}

/// Copies the one image at `path` into the OCI layout `out`; no file that is
/// written has more than `largest` bytes. Returns the digest of the file (of
/// `index.json` for a layout).
pub fn take(
    path: &Path,
    out: &Path,
    largest: u64,
    progress: &mut dyn Progress,
) -> Result<Digest, ContextError> {
    let work = out.parent().unwrap_or(out);
    let real = unpacked(path, work, largest)?;
    let kind = transport(&real)?;
    let source = if kind == "oci" { path.join("index.json") } else { path.to_owned() };
    let mut hasher = Sha256::new();
    let mut file = fs::File::open(&source).map_err(ContextError::io(&source))?;
    io::copy(&mut file, &mut hasher).map_err(ContextError::io(&source))?;
    let from = format!("{kind}:{}", real.display());
    let skopeo = Skopeo { options: &[], largest, sandbox: Sandbox::NoNetwork };
    skopeo.copy(&from, &format!("oci:{}", out.display()), out.parent(), progress)?;
    Ok(Digest::finish(hasher))
}

/// Copies an image from another registry into the OCI layout `out`, with
/// `options` of skopeo's; of an index the image for this machine. Returns the
/// digest of what came.
pub fn fetch(
    reference: &str,
    options: &[String],
    out: &Path,
    largest: u64,
    progress: &mut dyn Progress,
) -> Result<Digest, ContextError> {
    let skopeo = Skopeo { options, largest, sandbox: Sandbox::Network };
    let (from, to) = (format!("docker://{reference}"), format!("oci:{}", out.display()));
    skopeo.copy(&from, &to, out.parent(), progress)?;
    super::layout::image(out).map_err(ContextError::io(out))
}

/// `skopeo copy` without network.
pub fn copy(from: &str, to: &str, progress: &mut dyn Progress) -> Result<(), ContextError> {
    // As much as a file system holds: both ends are ours.
    let skopeo = Skopeo { options: &[], largest: u64::MAX, sandbox: Sandbox::NoNetwork };
    skopeo.copy(from, to, None, progress)
}

struct Skopeo<'a> {
    options: &'a [String],
    /// Bytes of each file that it writes.
    largest: u64,
    sandbox: Sandbox,
}

impl Skopeo<'_> {
    /// `tmp` is where it unpacks to, if not in the usual place.
    fn copy(
        &self,
        from: &str,
        to: &str,
        tmp: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<(), ContextError> {
        let script = "ulimit -f \"$1\"; shift
            exec skopeo --insecure-policy copy --quiet \"$@\"";
        let blocks = match self.largest {
            u64::MAX => "unlimited".to_owned(),
            n => (n / 512).max(1).to_string(),
        };
        let mut arguments: Vec<&OsStr> = vec![blocks.as_ref()];
        arguments.extend(self.options.iter().map(AsRef::<OsStr>::as_ref));
        arguments.extend([from.as_ref(), to.as_ref()] as [&OsStr; 2]);
        let mut command = builder::sandboxed(script, &arguments, self.sandbox);
        if let Some(tmp) = tmp {
            command.env("TMPDIR", tmp);
        }
        Ok(child::run("skopeo copy", command, progress)?)
    }
}

/// The program, for the record.
pub fn identity() -> Result<BuilderIdentity, String> {
    builder::identity_of("skopeo", Command::new("skopeo").arg("--version"))
        .ok_or_else(|| "skopeo is not installed here: apt-get install skopeo".to_owned())
}
