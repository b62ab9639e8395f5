//! Where a deployment server keeps its images: a directory, or a bucket. Used
//! by the server, and by its backup, restore and check.

use crate::config::bucket::S3;
use crate::config::deployment::Deployment;
use crate::registry::storage::s3::Bucket;
use crate::registry::{self, RegistryError};
use crate::tls;
use anyhow::{Context, Result, anyhow};
use std::sync::Arc;

/// For people.
pub fn describe(c: &Deployment) -> String {
    match &c.s3 {
        Some(s3) => s3.describe(),
        None => c.storage.display().to_string(),
    }
}

/// What the registry is opened with.
///
/// # Errors
/// Files that cannot be read; keys that are missing.
pub fn settings(c: &Deployment) -> Result<registry::Settings> {
    match &c.s3 {
        Some(s3) => {
            tls::install_provider();
            let object =
                bucket(s3)?.open().map_err(RegistryError::from).context("[registry.s3]")?;
            Ok(registry::Settings::on(Arc::new(object)))
        }
        None => {
            registry::Settings::local(&c.storage).with_context(|| c.storage.display().to_string())
        }
    }
}

/// The bucket with its keys.
///
/// # Errors
/// Files that cannot be read; keys that are missing.
pub fn bucket(s3: &S3) -> Result<Bucket> {
    let keys = s3.keys(|name| std::env::var(name).ok()).map_err(|e| anyhow!(e))?;
    let read = |f: &std::path::PathBuf| std::fs::read(f).with_context(|| f.display().to_string());
    Ok(Bucket {
        name: s3.bucket.clone(),
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        prefix: s3.prefix.clone(),
        ca: s3.ca_file.as_ref().map(read).transpose()?,
        key_id: keys.id,
        secret: keys.secret,
        session: keys.session,
    })
}
