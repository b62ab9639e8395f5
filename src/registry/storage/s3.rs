//! Opens a bucket of S3 or of what speaks like it. It must have
//! create-if-absent (`If-None-Match: *`) and read-after-write.

use super::StorageError;
use super::object::Object;
use super::object_fault::failed;
use crate::model::Secret;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use std::sync::Arc;
use std::time::Duration;

/// For the bucket's server to take a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// For an answer, and between two parts of one. A piece of 8 MiB must be
/// taken within it.
const SILENCE: Duration = Duration::from_secs(60);
/// A request that failed is tried again so often, and no longer than this:
/// behind it a client waits.
const RETRIES: usize = 4;
const RETRY_FOR: Duration = Duration::from_secs(30);

/// Which bucket, and how it is reached.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// `https://HOST[:PORT]`; `None` for Amazon's own in the region.
    pub endpoint: Option<String>,
    /// Region, such as `us-east-1`.
    pub region: String,
    /// Everything is below this in the bucket; empty for its root.
    pub prefix: String,
    /// Authority of the endpoint's certificate, PEM; without it, those that
    /// the host trusts.
    pub ca: Option<Vec<u8>>,
    /// Access key id.
    pub key_id: Secret,
    /// Secret access key.
    pub secret: Secret,
    /// Session token, with keys that last for a while.
    pub session: Option<Secret>,
}

impl Bucket {
    /// Prepares; nothing is asked yet.
    ///
    /// # Errors
    /// Values that cannot be.
    pub fn open(&self) -> Result<Object, StorageError> {
        let mut client = ClientOptions::new()
            .with_connect_timeout(CONNECT)
            // A slow client may take a blob for an hour.
            .with_timeout_disabled()
            .with_read_timeout(SILENCE)
            .with_allow_http(self.endpoint.as_ref().is_some_and(|e| e.starts_with("http://")));
        for c in
            Certificate::from_pem_bundle(self.ca.as_deref().unwrap_or_default()).map_err(failed)?
        {
            client = client.with_root_certificate(c);
        }
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(1),
                base: 2.0,
            },
            max_retries: RETRIES,
            retry_timeout: RETRY_FOR,
        };
        let mut s3 = AmazonS3Builder::new()
            .with_bucket_name(&self.name)
            .with_region(&self.region)
            .with_access_key_id(self.key_id.expose())
            .with_secret_access_key(self.secret.expose())
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(e) = &self.endpoint {
            s3 = s3.with_endpoint(e);
        }
        if let Some(t) = &self.session {
            s3 = s3.with_token(t.expose());
        }
        let s3 = s3.build().map_err(failed)?;
        if self.prefix.is_empty() {
            return Ok(Object::new(Arc::new(s3)));
        }
        Ok(Object::new(Arc::new(PrefixStore::new(s3, self.prefix.as_str()))))
    }
}
