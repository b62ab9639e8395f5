//! OCI image layouts: a reference out to a directory or a tar archive, and in
//! from a directory. As the OCI image specification writes them
//! (`oci-layout`, `index.json`, `blobs/<algorithm>/<hex>`).

use super::digest::{Digest, Hasher};
use super::error::{Fault, RegistryError};
use super::manifest::{self, Descriptor, LARGEST, Manifest};
use super::name::{Reference, RepositoryName};
use super::storage::CHUNK;
use super::{Registry, keys};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;

/// The annotation that carries a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

fn io(path: &Path) -> impl Fn(std::io::Error) -> RegistryError + '_ {
    move |source| RegistryError::Io { path: path.to_owned(), source }
}

fn place(dir: &Path, d: &Digest) -> PathBuf {
    dir.join("blobs").join(d.algorithm().name()).join(d.hex())
}

impl Registry {
    /// Writes `reference`, with everything it names, into `dir`, which must be
    /// empty or not there. Returns the digest of its manifest.
    ///
    /// # Errors
    /// When something is missing here or cannot be written there.
    pub async fn export_layout(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        dir: &Path,
    ) -> Result<Digest, RegistryError> {
        fs::create_dir_all(dir).map_err(io(dir))?;
        if fs::read_dir(dir).map_err(io(dir))?.next().is_some() {
            return Err(RegistryError::Content(format!("{} is not empty", dir.display())));
        }
        let first = self.manifest(repository, reference).await?;
        let (mut todo, mut done) = (vec![first.digest.clone()], BTreeSet::new());
        while let Some(d) = todo.pop() {
            if !done.insert(d.clone()) {
                continue;
            }
            let found = self.manifest(repository, &Reference::Digest(d.clone())).await?;
            let m = Manifest::parse(&found.bytes, None)?;
            let to = place(dir, &d);
            make_parent(&to)?;
            fs::write(&to, &found.bytes).map_err(io(&to))?;
            todo.extend(m.manifests.into_iter().map(|d| d.digest));
            for b in m.blobs {
                if done.insert(b.digest.clone()) {
                    self.export_blob(repository, &b, dir).await?;
                }
            }
        }
        let mut d = json!({
            "mediaType": first.media_type, "digest": first.digest, "size": first.bytes.len(),
        });
        if let Reference::Tag(t) = reference {
            d["annotations"] = json!({ REF_NAME: t.as_str() });
        }
        let index = json!({
            "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": [d],
        });
        for (name, text) in [("oci-layout", MARKER.to_owned()), ("index.json", index.to_string())] {
            let to = dir.join(name);
            fs::write(&to, text).map_err(io(&to))?;
        }
        Ok(first.digest)
    }

    async fn export_blob(
        &self,
        repository: &RepositoryName,
        b: &Descriptor,
        dir: &Path,
    ) -> Result<(), RegistryError> {
        let missing = || RegistryError::Content(format!("{repository} has no blob {}", b.digest));
        let stat = match self.use_blob(repository, &b.digest).await? {
            Some(s) => s,
            None if b.may_be_elsewhere() => return Ok(()),
            None => return Err(missing()),
        };
        let mut stream = self.store.open(&b.digest, 0..stat.size).await?.ok_or_else(missing)?;
        let to = place(dir, &b.digest);
        make_parent(&to)?;
        let mut file = File::create(&to).map_err(io(&to))?;
        let mut hasher = Hasher::new(b.digest.algorithm());
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            (file, hasher) = tokio::task::spawn_blocking(move || {
                hasher.update(&piece);
                file.write_all(&piece).map(|()| (file, hasher))
            })
            .await
            .map_err(|e| RegistryError::Content(e.to_string()))?
            .map_err(io(&to))?;
        }
        if hasher.finish() != b.digest {
            return Err(RegistryError::Content(format!("the blob {} is rotten", b.digest)));
        }
        Ok(())
    }

    /// The same as a tar archive at `file`, by way of a directory beside it.
    ///
    /// # Errors
    /// As [`Registry::export_layout`].
    pub async fn export_tar(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        file: &Path,
    ) -> Result<Digest, RegistryError> {
        let dir = file.with_extension("layout-being-made");
        let exported = self.export_layout(repository, reference, &dir).await;
        let (from, to) = (dir.clone(), file.to_owned());
        let packed = match exported {
            Ok(d) => tokio::task::spawn_blocking(move || {
                let mut b = tar::Builder::new(File::create(&to).map_err(io(&to))?);
                b.append_dir_all("", &from).map_err(io(&to))?;
                let f = b.into_inner().map_err(io(&to))?;
                f.sync_all().map_err(io(&to))?;
                Ok(d)
            })
            .await
            .unwrap_or_else(|e| Err(RegistryError::Content(e.to_string()))),
            Err(e) => Err(e),
        };
        let _ = fs::remove_dir_all(&dir);
        packed
    }

    /// Takes in what `dir` holds under `name` (its `ref.name` annotation, or
    /// its only entry when there is one alone) as `reference`. Every digest
    /// and size is checked on the way.
    ///
    /// # Errors
    /// When something is missing or not what it says; what was taken in up to
    /// then is garbage, and collected.
    pub async fn import_layout(
        self: &Arc<Self>,
        dir: &Path,
        name: Option<&str>,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Digest, RegistryError> {
        self.refuse_if_followed(repository)?;
        let index: Value = serde_json::from_slice(&small(&dir.join("index.json"))?)
            .map_err(|e| RegistryError::Content(format!("index.json: {e}")))?;
        let all = index["manifests"].as_array().cloned().unwrap_or_default();
        let fits = |d: &&Value| name.is_none_or(|n| d["annotations"][REF_NAME] == n);
        let chosen: Vec<&Value> = all.iter().filter(fits).collect();
        let [one] = chosen.as_slice() else {
            let names: Vec<String> =
                all.iter().map(|d| d["annotations"][REF_NAME].to_string()).collect();
            return Err(RegistryError::Content(format!(
                "index.json has {} entries that fit; name one of {}",
                chosen.len(),
                names.join(", ")
            )));
        };
        let top: Descriptor = serde_json::from_value((*one).clone())
            .map_err(|e| RegistryError::Content(format!("index.json: {e}")))?;
        // Children before parents: a manifest is only taken when what it names
        // is there.
        let (mut todo, mut order) = (vec![top.clone()], Vec::new());
        while let Some(d) = todo.pop() {
            let bytes: Bytes = small(&place(dir, &d.digest))?.into();
            let m = Manifest::parse(&bytes, Some(&d.media_type))?;
            if order.len() > 10_000 {
                return Err(RegistryError::Content("more than 10000 manifests".into()));
            }
            todo.extend(m.manifests.iter().cloned());
            order.push((d, bytes, m));
        }
        for (d, bytes, m) in order.into_iter().rev() {
            for b in &m.blobs {
                self.import_blob(dir, repository, b).await?;
            }
            let by_digest = Reference::Digest(d.digest.clone());
            self.put_manifest(repository, &by_digest, Some(&d.media_type), bytes.clone()).await?;
            if d.digest == top.digest {
                self.put_manifest(repository, reference, Some(&d.media_type), bytes).await?;
            }
        }
        Ok(top.digest)
    }

    async fn import_blob(
        self: &Arc<Self>,
        dir: &Path,
        repository: &RepositoryName,
        b: &Descriptor,
    ) -> Result<(), RegistryError> {
        if self.use_blob(repository, &b.digest).await?.is_some() {
            return Ok(());
        }
        let path = place(dir, &b.digest);
        if b.may_be_elsewhere() && !path.exists() {
            return Ok(());
        }
        let file = tokio::fs::File::open(&path).await.map_err(io(&path))?;
        let stream = futures::stream::unfold(file, |mut f| async move {
            let mut v = Vec::with_capacity(CHUNK);
            match (&mut f).take(CHUNK as u64).read_to_end(&mut v).await {
                Ok(0) => None,
                Ok(_) => Some((Ok(Bytes::from(v)), f)),
                Err(e) => Some((Err(e), f)),
            }
        });
        let id = self.begin_upload(repository).await?;
        let taken =
            self.append(id, Some(0), Some(b.size), b.digest.algorithm(), Box::pin(stream)).await;
        let finished: Result<u64, Fault> = match taken {
            Ok(_) => self.finish_upload(repository, id, &b.digest).await,
            Err(f) => Err(f),
        };
        if let Err(f) = finished {
            self.give_up(id).await?;
            return Err(RegistryError::Content(format!("{}: {}", path.display(), f.message)));
        }
        self.store.touch(&keys::link(repository, &b.digest)).await?;
        Ok(())
    }
}

fn make_parent(path: &Path) -> Result<(), RegistryError> {
    match path.parent() {
        Some(p) => fs::create_dir_all(p).map_err(io(p)),
        None => Ok(()),
    }
}

/// A file that must be small.
fn small(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let size = fs::metadata(path).map_err(io(path))?.len();
    if size > LARGEST {
        return Err(RegistryError::Content(format!(
            "{} has {size} bytes, more than {LARGEST}",
            path.display()
        )));
    }
    fs::read(path).map_err(io(path))
}
