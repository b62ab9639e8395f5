//! What the program that holds the registry does in it without HTTP: attaches a
//! statement to an image, reads what is attached.

use super::Registry;
use super::digest::Digest;
use super::error::RegistryError;
use super::manifest::{LARGEST, Manifest, OCI_MANIFEST};
use super::name::{Reference, RepositoryName};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::json;
use std::sync::Arc;

/// The specification's empty configuration (image-spec 1.1, "Guidance for an
/// Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Statements read of one image, at most.
const STATEMENTS: usize = 64;

impl Registry {
    /// Stores `content` as the only layer of an artifact that refers to
    /// `subject`; returns the artifact's digest.
    ///
    /// # Errors
    /// When the subject is not there, or the storage does not take it.
    pub async fn attach(
        self: &Arc<Self>,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: &str,
        media_type: &str,
        content: Bytes,
    ) -> Result<Digest, RegistryError> {
        self.refuse_if_followed(repository)?;
        let of = self.manifest(repository, &Reference::Digest(subject.clone())).await?;
        let empty = Bytes::from_static(b"{}");
        let (config, layer) = (Digest::of(&empty), Digest::of(&content));
        let size = content.len();
        self.put_small(repository, &config, empty).await?;
        self.put_small(repository, &layer, content).await?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": artifact_type,
            "config": { "mediaType": EMPTY, "digest": config, "size": 2 },
            "layers": [{ "mediaType": media_type, "digest": layer, "size": size }],
            "subject": {
                "mediaType": of.media_type, "digest": subject, "size": of.bytes.len(),
            },
        });
        let bytes = Bytes::from(manifest.to_string());
        let by_digest = Reference::Digest(Digest::of(&bytes));
        let (digest, _) =
            self.put_manifest(repository, &by_digest, Some(OCI_MANIFEST), bytes).await?;
        Ok(digest)
    }

    /// The first layers of the artifacts of a type that refer to `subject`,
    /// each with its artifact's digest.
    ///
    /// # Errors
    /// The storage.
    pub async fn attached(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<(Digest, Bytes)>, RegistryError> {
        let (all, _) =
            self.referrers(repository, subject, Some(artifact_type), None, STATEMENTS).await?;
        let mut out = Vec::new();
        for d in all {
            let found = self.manifest(repository, &Reference::Digest(d.digest.clone())).await?;
            let m = Manifest::parse(&found.bytes, None)?;
            // The configuration comes first in what a manifest names.
            let Some(layer) = m.blobs.last() else { continue };
            if let Some(bytes) = self.get_small(repository, &layer.digest).await? {
                out.push((d.digest, bytes));
            }
        }
        Ok(out)
    }

    async fn put_small(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
        content: Bytes,
    ) -> Result<(), RegistryError> {
        if self.use_blob(repository, digest).await?.is_some() {
            return Ok(());
        }
        let length = content.len() as u64;
        let id = self.begin_upload(repository).await?;
        let once = futures::stream::iter([Ok::<_, std::io::Error>(content)]);
        self.append(id, Some(0), Some(length), digest.algorithm(), Box::pin(once)).await?;
        self.finish_upload(repository, id, digest).await?;
        Ok(())
    }

    async fn get_small(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Bytes>, RegistryError> {
        let Some(stat) = self.use_blob(repository, digest).await? else { return Ok(None) };
        if stat.size > LARGEST {
            return Ok(None);
        }
        let Some(mut stream) = self.store.open(digest, 0..stat.size).await? else {
            return Ok(None);
        };
        let mut out = Vec::with_capacity(usize::try_from(stat.size).unwrap_or(0));
        while let Some(piece) = stream.next().await {
            out.extend_from_slice(&piece?);
        }
        if &Digest::of(&out) != digest {
            return Err(RegistryError::Content(format!("the blob {digest} is rotten")));
        }
        Ok(Some(out.into()))
    }
}
