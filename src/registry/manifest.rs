//! Manifests: what is accepted, and what each names. OCI image manifests and
//! indexes, Docker schema 2 manifests and lists. The bytes are kept as they
//! came; only what the registry acts on is read.

use super::digest::Digest;
use super::error::{Code, Fault};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest manifest, in bytes: the specification asks for 4 MiB at least.
pub const LARGEST: u64 = 4 * 1024 * 1024;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What a manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Config and layers.
    Image,
    /// Other manifests.
    Index,
}

/// Of what is a manifest by its media type; `None` for any other content.
pub fn kind_of(media_type: &str) -> Option<Kind> {
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => Some(Kind::Image),
        OCI_INDEX | DOCKER_LIST => Some(Kind::Index),
        _ => None,
    }
}

/// Names content: OCI image specification, "Descriptors".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Of the content.
    pub media_type: String,
    /// Of the content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Where else it can be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// In lists of referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// In lists of referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// A layer that need not be here: its licence forbids to hand it on, and
    /// clients fetch it from its `urls`.
    pub fn may_be_elsewhere(&self) -> bool {
        let t = &self.media_type;
        t.contains("nondistributable") || t.contains(".foreign.") || !self.urls.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

/// A manifest that was checked.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Of itself.
    pub media_type: String,
    /// Image or index.
    pub kind: Kind,
    /// Config and layers, or an index's other content.
    pub blobs: Vec<Descriptor>,
    /// An index's manifests.
    pub manifests: Vec<Descriptor>,
    /// What it refers to.
    pub subject: Option<Descriptor>,
    /// `artifactType`, or the config's media type in its absence.
    pub artifact_type: Option<String>,
    /// For lists of referrers.
    pub annotations: Option<BTreeMap<String, String>>,
}

fn bad(why: impl Into<String>) -> Fault {
    Fault::new(Code::ManifestInvalid, why)
}

impl Manifest {
    /// Reads and checks `bytes`; `declared` is the `Content-Type` it came with.
    ///
    /// # Errors
    /// `MANIFEST_INVALID` with what would be right.
    pub fn parse(bytes: &[u8], declared: Option<&str>) -> Result<Self, Fault> {
        let w: Wire = serde_json::from_slice(bytes)
            .map_err(|e| bad(format!("the manifest is not JSON of the right shape: {e}")))?;
        match w.schema_version {
            Some(2) => {}
            Some(1) => return Err(bad("schema 1 manifests are obsolete: convert to OCI")),
            v => return Err(bad(format!("schemaVersion must be 2, not {v:?}"))),
        }
        let declared = declared.map(|d| d.split(';').next().unwrap_or_default().trim());
        let own = w.media_type.as_deref();
        if let (Some(d), Some(o)) = (declared, own)
            && d != o
        {
            return Err(bad(format!("Content-Type says {d:?}, the manifest's mediaType {o:?}")));
        }
        // Only OCI lets mediaType be left out, and then the shape decides; so
        // the stored bytes alone always say what they are.
        let by_shape = if w.manifests.is_some() { OCI_INDEX } else { OCI_MANIFEST };
        let media_type = own.unwrap_or(by_shape);
        if let (Some(d), None) = (declared, own)
            && d != by_shape
        {
            return Err(bad(format!(
                "Content-Type says {d:?}, but without a mediaType this is {by_shape}"
            )));
        }
        let kind = kind_of(media_type).ok_or_else(|| {
            bad(format!(
                "media type {media_type:?} is none of {OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"
            ))
        })?;
        let (mut blobs, mut manifests, mut config_type) = (Vec::new(), Vec::new(), None);
        match kind {
            Kind::Image => {
                if w.manifests.is_some() {
                    return Err(bad("an image manifest has no 'manifests'"));
                }
                let config = w.config.ok_or_else(|| bad("'config' is missing"))?;
                config_type = Some(config.media_type.clone());
                blobs.push(config);
                blobs.extend(w.layers.ok_or_else(|| bad("'layers' is missing"))?);
            }
            Kind::Index => {
                if w.config.is_some() || w.layers.is_some() {
                    return Err(bad("an index has neither 'config' nor 'layers'"));
                }
                let all = w.manifests.ok_or_else(|| bad("'manifests' is missing"))?;
                (manifests, blobs) =
                    all.into_iter().partition(|d| kind_of(&d.media_type).is_some());
            }
        }
        let all = blobs.iter().chain(&manifests).chain(&w.subject);
        if let Some(d) = all.into_iter().find(|d| d.media_type.is_empty()) {
            return Err(bad(format!("the descriptor of {} has no mediaType", d.digest)));
        }
        Ok(Self {
            media_type: media_type.to_owned(),
            kind,
            blobs,
            manifests,
            subject: w.subject,
            artifact_type: w.artifact_type.filter(|t| !t.is_empty()).or(config_type),
            annotations: w.annotations,
        })
    }

    /// As it stands in a list of referrers ("Listing Referrers").
    pub fn described(&self, digest: &Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: digest.clone(),
            size,
            urls: Vec::new(),
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn blob(media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": Digest::of(b"{}").to_string(), "size": 2 })
    }

    fn image() -> Value {
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blob("a/b"), "layers": [blob("c/d")] })
    }

    fn parse(v: &Value, declared: Option<&str>) -> Result<Manifest, String> {
        Manifest::parse(v.to_string().as_bytes(), declared).map_err(|f| f.message)
    }

    #[test]
    fn images_and_indexes_are_told_apart_with_and_without_a_media_type() {
        let mut v = image();
        assert_eq!(parse(&v, Some(OCI_MANIFEST)).unwrap().blobs.len(), 2);
        v.as_object_mut().unwrap().remove("mediaType");
        let m = parse(&v, Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"));
        assert_eq!(m.unwrap().media_type, OCI_MANIFEST);
        let index =
            json!({ "schemaVersion": 2, "manifests": [blob(OCI_MANIFEST), blob("x/cache")] });
        let m = parse(&index, None).unwrap();
        assert_eq!((m.kind, m.manifests.len(), m.blobs.len()), (Kind::Index, 1, 1));
    }

    #[test]
    fn a_manifest_that_is_not_right_says_why() {
        let with = |k: &str, x: Value| {
            let mut v = image();
            v[k] = x;
            v
        };
        for (v, declared, why) in [
            (image(), Some(OCI_INDEX), "Content-Type says"),
            (with("schemaVersion", json!(1)), None, "schema 1"),
            (with("schemaVersion", json!("2")), None, "shape"),
            (with("mediaType", json!("text/plain")), None, "none of"),
            (with("config", Value::Null), None, "'config'"),
            (with("layers", Value::Null), None, "'layers'"),
            (
                with("layers", json!([{ "digest": "sha256:0", "size": 1, "mediaType": "a/b" }])),
                None,
                "shape",
            ),
            (with("layers", json!([blob("")])), None, "no mediaType"),
            (with("manifests", json!([])), None, "no 'manifests'"),
            (json!([]), None, "shape"),
        ] {
            let e = parse(&v, declared).unwrap_err();
            assert!(e.contains(why), "{v}: {e}");
        }
    }

    #[test]
    fn the_artifact_type_falls_back_to_the_config() {
        assert_eq!(parse(&image(), None).unwrap().artifact_type.unwrap(), "a/b");
        let mut v = image();
        v["artifactType"] = json!("x/sbom");
        assert_eq!(parse(&v, None).unwrap().artifact_type.unwrap(), "x/sbom");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(b in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&b, Some(OCI_MANIFEST));
        }
    }
}
