//! Whether the registry can be used, for `/readyz`.

use super::Registry;
use super::error::RegistryError;
use super::keys;
use super::storage::StorageError;
use std::time::Duration;

/// For the storage to answer. A file system that hangs (NFS) does not say so.
const PATIENCE: Duration = Duration::from_secs(5);

impl Registry {
    /// Whether the storage answers, asked for something small.
    ///
    /// # Errors
    /// Why not.
    pub async fn health(&self) -> Result<(), StorageError> {
        match tokio::time::timeout(PATIENCE, self.store.health()).await {
            Ok(r) => r,
            Err(_) => Err(StorageError::Away(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    /// Whether nothing is kept here yet.
    ///
    /// # Errors
    /// The storage.
    pub async fn is_empty(&self) -> Result<bool, RegistryError> {
        let there = self.store.children(keys::REPOS).await?;
        let blobs = self.store.blobs(super::storage::Shelf::Placed).await?;
        Ok(there.folders.is_empty() && blobs.is_empty())
    }
}
