//! A copy of everything, to go back to. Blobs are kept once for all copies,
//! by digest, so that the second copy writes only what is new; documents are
//! small and written anew each time.
//!
//! ```text
//! <blobs>/sha256/<hh>/<hex>      blobs, as `storage::local` has them
//! <documents>/<repository>/_tags/… _manifests/… _blobs/… _referrers/…
//! ```
//!
//! What refers is copied before what it refers to, and garbage is not
//! collected meanwhile: so a push or a pull may go on. Each blob is hashed on
//! its way, out and back in.

use super::digest::{Digest, Hasher};
use super::error::RegistryError;
use super::manifest::{LARGEST, Manifest};
use super::name::{RepositoryName, UploadId};
use super::storage::CHUNK;
use super::{Registry, keys};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct BackupReport {
    /// Repositories.
    pub repositories: u64,
    /// Tags, manifests, links.
    pub documents: u64,
    /// Blobs in all.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were not in the backup yet.
    pub new_blobs: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// What is not in it, since it is rotten or missing here.
    pub lacking: Vec<String>,
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// Tags, manifests, links.
    pub documents: u64,
    /// Blobs, each with the digest it must have.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the backup has not, or not as it must be.
    pub lacking: Vec<String>,
}

/// A link whose blob is not there is an upload under way, unless a manifest
/// names it.
#[derive(Default)]
struct Blobs {
    linked: BTreeSet<Digest>,
    named: BTreeSet<Digest>,
}

impl Blobs {
    fn name(&mut self, manifest: &[u8]) {
        if let Ok(m) = Manifest::parse(manifest, None) {
            self.named.extend(m.blobs.into_iter().map(|b| b.digest));
        }
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> RegistryError + '_ {
    move |source| RegistryError::Io { path: path.to_owned(), source }
}

fn place(dir: &Path, d: &Digest) -> PathBuf {
    dir.join(d.algorithm().name()).join(&d.hex()[..2]).join(d.hex())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(RegistryError::Content(e.to_string())))
}

impl Registry {
    /// Copies all documents to `documents`, which is made, and the blobs that
    /// are not there yet to `blobs`.
    ///
    /// # Errors
    /// When garbage is being collected; the storage; the backup's disk.
    pub async fn back_up(
        &self,
        documents: &Path,
        blobs: &Path,
    ) -> Result<BackupReport, RegistryError> {
        let lease = self.store.lease().await?.ok_or(RegistryError::Collecting)?;
        let copied = self.back_up_all(documents, blobs).await;
        lease.end().await;
        copied
    }

    async fn back_up_all(
        &self,
        documents: &Path,
        blobs: &Path,
    ) -> Result<BackupReport, RegistryError> {
        let mut report = BackupReport::default();
        let mut all = Blobs::default();
        fs::create_dir_all(documents).map_err(io(documents))?;
        for repo in self.all_repositories().await? {
            report.repositories += 1;
            self.back_up_repository(&repo, documents, &mut report, &mut all).await?;
        }
        for d in &all.linked {
            if let Some(why) = self.back_up_blob(d, blobs, &mut report).await?
                && all.named.contains(d)
            {
                report.lacking.push(format!("the blob {d} is {why}: push it again"));
            }
        }
        Ok(report)
    }

    async fn back_up_repository(
        &self,
        repo: &RepositoryName,
        documents: &Path,
        report: &mut BackupReport,
        blobs: &mut Blobs,
    ) -> Result<(), RegistryError> {
        let mut folders = vec![keys::tags(repo), keys::followed(repo)];
        for s in self.store.children(&keys::all_referrers(repo)).await?.folders {
            folders.push(format!("{}/{s}", keys::all_referrers(repo)));
        }
        folders.extend([keys::manifests(repo), keys::links(repo), keys::released_links(repo)]);
        let linked = [keys::links(repo), keys::released_links(repo)];
        for folder in folders {
            let to = documents.join(folder.trim_start_matches("repos/"));
            for (name, _) in self.store.children(&folder).await?.documents {
                let key = format!("{folder}/{name}");
                // Taken away meanwhile: then what named it was, too.
                let Some(bytes) = self.store.read(&key, LARGEST).await? else { continue };
                let digest = Digest::from_dashed(&name);
                if folder == keys::manifests(repo) {
                    if digest.is_none_or(|d| Digest::with(d.algorithm(), &bytes) != d) {
                        report.lacking.push(format!("{repo}: the manifest {name} is rotten"));
                        continue;
                    }
                    blobs.name(&bytes);
                } else if linked.contains(&folder) {
                    blobs.linked.extend(digest);
                }
                let (dir, file) = (to.clone(), to.join(&name));
                blocking(move || {
                    fs::create_dir_all(&dir).map_err(io(&dir))?;
                    fs::write(&file, &bytes).map_err(io(&file))
                })
                .await?;
                report.documents += 1;
            }
        }
        Ok(())
    }

    async fn back_up_blob(
        &self,
        d: &Digest,
        blobs: &Path,
        report: &mut BackupReport,
    ) -> Result<Option<&'static str>, RegistryError> {
        let Some((stat, _)) = self.store.blob(d).await? else { return Ok(Some("missing")) };
        report.blobs += 1;
        report.bytes += stat.size;
        let to = place(blobs, d);
        if fs::metadata(&to).is_ok_and(|m| m.len() == stat.size) {
            return Ok(None);
        }
        let Some(mut stream) = self.store.open(d, 0..stat.size).await? else {
            return Ok(Some("missing"));
        };
        let dir = to.parent().unwrap_or(blobs).to_owned();
        fs::create_dir_all(&dir).map_err(io(&dir))?;
        let part = to.with_extension("part");
        let mut file = File::create(&part).map_err(io(&part))?;
        let mut hasher = Hasher::new(d.algorithm());
        while let Some(piece) = stream.next().await {
            let (piece, at) = (piece?, part.clone());
            (file, hasher) = blocking(move || {
                hasher.update(&piece);
                file.write_all(&piece).map_err(io(&at))?;
                Ok((file, hasher))
            })
            .await?;
        }
        if hasher.finish() != *d {
            let _ = fs::remove_file(&part);
            return Ok(Some("rotten"));
        }
        blocking(move || {
            file.sync_all().map_err(io(&part))?;
            fs::rename(&part, &to).map_err(io(&to))
        })
        .await?;
        report.new_blobs += 1;
        report.new_bytes += stat.size;
        Ok(None)
    }

    /// Takes in what [`Registry::back_up`] wrote; meant for an empty store.
    /// Every blob and manifest is hashed on its way.
    ///
    /// # Errors
    /// The backup cannot be read; the storage.
    pub async fn restore(
        &self,
        documents: &Path,
        blobs: &Path,
    ) -> Result<RestoreReport, RegistryError> {
        let mut report = RestoreReport::default();
        let (mut files, mut todo) = (Vec::new(), vec![documents.to_owned()]);
        while let Some(dir) = todo.pop() {
            for e in fs::read_dir(&dir).map_err(io(&dir))? {
                let path = e.map_err(io(&dir))?.path();
                if path.is_dir() { todo.push(path) } else { files.push(path) }
            }
        }
        let mut all = Blobs::default();
        for file in files {
            let Some(key) = file.strip_prefix(documents).ok().and_then(Path::to_str) else {
                continue;
            };
            let name = key.rsplit('/').next().unwrap_or_default();
            let from = file.clone();
            let bytes: Bytes = blocking(move || fs::read(&from).map_err(io(&from))).await?.into();
            let digest = Digest::from_dashed(name);
            if key.contains("/_manifests/") {
                let right = digest.as_ref().is_some_and(|d| {
                    Digest::with(d.algorithm(), &bytes) == *d
                        && Manifest::parse(&bytes, None).is_ok()
                });
                if !right {
                    report.lacking.push(format!("the manifest {key} is rotten"));
                    continue;
                }
                all.name(&bytes);
            } else if key.contains("/_blobs/") || key.contains("/_released/") {
                all.linked.extend(digest);
            }
            self.store.write(&format!("{}/{key}", keys::REPOS), bytes).await?;
            report.documents += 1;
        }
        for d in &all.linked {
            if let Some(why) = self.restore_blob(d, blobs, &mut report).await?
                && all.named.contains(d)
            {
                report.lacking.push(format!("the blob {d}: {why}"));
            }
        }
        Ok(report)
    }

    async fn restore_blob(
        &self,
        d: &Digest,
        blobs: &Path,
        report: &mut RestoreReport,
    ) -> Result<Option<String>, RegistryError> {
        let from = place(blobs, d);
        let mut file = match File::open(&from) {
            Ok(f) => f,
            Err(e) => return Ok(Some(e.to_string())),
        };
        let id = UploadId::new();
        self.store.begin(id).await?;
        let mut to = self.store.append(id).await?;
        let mut hasher = Hasher::new(d.algorithm());
        loop {
            let at = from.clone();
            let (piece, f) = blocking(move || {
                let mut v = Vec::with_capacity(CHUNK);
                (&mut file).take(CHUNK as u64).read_to_end(&mut v).map_err(io(&at))?;
                Ok((Bytes::from(v), file))
            })
            .await?;
            file = f;
            if piece.is_empty() {
                break;
            }
            hasher = to.write(vec![piece], hasher).await?;
        }
        to.flush().await?;
        let length = to.length();
        if hasher.finish() != *d {
            drop(to);
            self.store.discard(id).await?;
            return Ok(Some("its content in the backup has another digest".into()));
        }
        // Held to the end, as `finish` in `upload` does.
        self.store.place(id, d, length).await?;
        report.blobs += 1;
        report.bytes += length;
        Ok(None)
    }
}
