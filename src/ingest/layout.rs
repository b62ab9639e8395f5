//! OCI image layouts, as far as this room writes and reads them: one image,
//! one manifest (OCI image specification 1.1, "Image Layout").

use crate::model::Digest;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

/// Largest `index.json` that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// Digest of the one image in `layout`.
pub fn image(layout: &Path) -> io::Result<Digest> {
    let path = layout.join("index.json");
    let mut text = Vec::new();
    fs::File::open(&path)?.take(LARGEST).read_to_end(&mut text)?;
    let bad = |why: &str| io::Error::other(format!("{}: {why}", path.display()));
    let index: Value = serde_json::from_slice(&text).map_err(|e| bad(&e.to_string()))?;
    match index["manifests"].as_array().map(Vec::as_slice) {
        Some([one]) => one["digest"]
            .as_str()
            .and_then(|d| d.parse().ok())
            .ok_or_else(|| bad("the image's digest is no SHA-256 digest")),
        Some(other) => Err(bad(&format!("has {} images; it must have one", other.len()))),
        None => Err(bad("has no list of images")),
    }
}

/// What a base image says of itself.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// `amd64`.
    pub architecture: String,
    /// Seconds since 1970.
    pub created: u64,
    /// How the layer was made.
    pub created_by: String,
    /// Default command.
    pub cmd: Vec<String>,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Hashes what goes through.
struct Hashing<W> {
    to: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.to.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn hashing<W: Write>(to: W) -> Hashing<W> {
    Hashing { to, hasher: Sha256::new(), bytes: 0 }
}

/// Writes the image with the one layer `tar` into `layout`, which must not be
/// there. The same tar and configuration give the same digest, always: the
/// compressor is ours and writes neither time nor name.
pub fn write(mut tar: impl Read, config: &ImageConfig, layout: &Path) -> io::Result<Digest> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let part = layout.join("layer.part");
    let file = hashing(io::BufWriter::new(fs::File::create_new(&part)?));
    // Fixed operating system byte: 255, unknown (RFC 1952 §2.3.1).
    let gz = GzBuilder::new().mtime(0).operating_system(255).write(file, Compression::new(6));
    let mut plain = hashing(gz);
    io::copy(&mut tar, &mut plain)?;
    let diff_id = Digest::finish(plain.hasher);
    let mut file = plain.to.finish()?;
    file.flush()?;
    let (layer, size) = (Digest::finish(file.hasher), file.bytes);
    drop(file.to);
    fs::rename(&part, blobs.join(layer.to_hex()))?;
    let created = i64::try_from(config.created)
        .ok()
        .and_then(|s| crate::model::Time::from_second(s).ok())
        .unwrap_or(crate::model::Time::UNIX_EPOCH);
    let put = |value: Value| -> io::Result<(String, usize)> {
        let text = value.to_string();
        let digest = Digest::of(text.as_bytes());
        fs::write(blobs.join(digest.to_hex()), &text)?;
        Ok((digest.to_string(), text.len()))
    };
    let (config_digest, config_size) = put(json!({
        "architecture": config.architecture, "os": "linux", "created": created,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": config.cmd, "Labels": config.labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": created, "created_by": config.created_by }],
    }))?;
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let (digest, size) = put(json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest, "size": config_size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": layer, "size": size }],
    }))?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": MANIFEST, "digest": digest, "size": size }] });
    fs::write(layout.join("index.json"), index.to_string())?;
    digest.parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_layer_gives_the_same_image() {
        let dir = tempfile::tempdir().unwrap();
        let config = ImageConfig {
            architecture: "amd64".into(),
            created: 1_700_000_000,
            created_by: "x".into(),
            cmd: vec!["sh".into()],
            labels: Default::default(),
        };
        let tar = vec![7u8; 100_000];
        let a = write(&tar[..], &config, &dir.path().join("a")).unwrap();
        let b = write(&tar[..], &config, &dir.path().join("b")).unwrap();
        assert_eq!(a, b);
        assert_eq!(image(&dir.path().join("a")).unwrap(), a);
        let c = write(&tar[1..], &config, &dir.path().join("c")).unwrap();
        assert_ne!(a, c);
        // Every blob is what its name says.
        for blob in fs::read_dir(dir.path().join("a/blobs/sha256")).unwrap().map(Result::unwrap) {
            let digest = Digest::of(&fs::read(blob.path()).unwrap());
            assert_eq!(blob.file_name().to_str().unwrap(), digest.to_hex());
        }
        assert!(image(dir.path()).is_err());
    }
}
