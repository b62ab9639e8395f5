//! Where a registry keeps its things: documents by key, and blobs by digest.
//! `local` is a directory (also on NFS, one server at a time); `object` is a
//! bucket that several servers share, `s3` opens one.
//!
//! What a storage promises: a document or blob that a call reported as written
//! is there after a power cut; a document is seen whole or not at all; what
//! was written is seen by the next read, of every server. Nothing else is
//! promised, above all no transaction: `gc` says how the rest gets by.

pub mod lease;
pub mod local;
pub mod object;
mod object_append;
mod object_fault;
pub mod s3;

pub use lease::Lease;

use super::digest::{Digest, Hasher};
use super::name::UploadId;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// Bytes of a blob read or written at a time.
pub const CHUNK: usize = 1024 * 1024;

/// Why a storage did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No room, or over quota.
    #[error("no room left: {what}")]
    Full {
        /// What was being written.
        what: String,
    },
    /// The file system.
    #[error("{what}: {source}")]
    Io {
        /// What was being done to what.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// What is in the object store is not as it must be.
    #[error("object store: {0}")]
    Object(String),
    /// The storage does not answer, or refuses.
    #[error("where images are kept cannot be used: {0}")]
    Away(String),
    /// Another request writes to the same upload.
    #[error("another request is writing to this upload")]
    Busy,
    /// The upload is not there, or was finished or given up.
    #[error("no such upload")]
    NoUpload,
    /// A document is larger than its reader allows.
    #[error("{key} has {size} bytes, more than {limit}")]
    TooLarge {
        /// Which.
        key: String,
        /// Its bytes.
        size: u64,
        /// Most bytes.
        limit: u64,
    },
}

/// Of a document or blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// Last written or touched.
    pub modified: SystemTime,
}

impl Stat {
    /// How long ago it was written or touched; zero when the clock went back.
    pub fn age(&self) -> Duration {
        SystemTime::now().duration_since(self.modified).unwrap_or_default()
    }
}

/// What is directly below a key.
#[derive(Debug, Default)]
pub struct Children {
    /// Keys that have more below them, sorted.
    pub folders: Vec<String>,
    /// Documents, sorted.
    pub documents: Vec<(String, Stat)>,
}

/// Bytes of a blob as they come.
pub type BlobStream = BoxStream<'static, Result<Bytes, StorageError>>;

/// Where a blob stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Where it is served from.
    Placed,
    /// Set aside by garbage collection; served all the same until purged.
    Trash,
}

/// Writes to one upload; held, it keeps every other writer out.
#[async_trait]
pub trait Append: Send {
    /// Bytes that are there.
    fn length(&self) -> u64;
    /// Adds `batch` and hashes it on the way. After an error, what was there
    /// before the batch is still there.
    async fn write(&mut self, batch: Vec<Bytes>, hasher: Hasher) -> Result<Hasher, StorageError>;
    /// All that was written is stored, so that a length may be promised.
    async fn flush(&mut self) -> Result<(), StorageError>;
    /// Back to `length` bytes, as before a request that failed.
    async fn cut(&mut self, length: u64) -> Result<(), StorageError>;
}

/// See the module.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// A document; `None` when there is none. More than `limit` bytes is an error.
    async fn read(&self, key: &str, limit: u64) -> Result<Option<Bytes>, StorageError>;
    /// Size and age of a document.
    async fn stat(&self, key: &str) -> Result<Option<Stat>, StorageError>;
    /// Writes a document, over an older one if there is one.
    async fn write(&self, key: &str, bytes: Bytes) -> Result<(), StorageError>;
    /// Writes a document unless there is one; says whether it did.
    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool, StorageError>;
    /// Makes a document look new; says whether there is one.
    async fn touch(&self, key: &str) -> Result<bool, StorageError>;
    /// Takes a document away; says whether there was one.
    async fn remove(&self, key: &str) -> Result<bool, StorageError>;
    /// What is directly below `key`.
    async fn children(&self, key: &str) -> Result<Children, StorageError>;

    /// Begins an upload.
    async fn begin(&self, id: UploadId) -> Result<(), StorageError>;
    /// To write to an upload.
    async fn append(&self, id: UploadId) -> Result<Box<dyn Append>, StorageError>;
    /// What an upload has so far.
    async fn uploaded(&self, id: UploadId) -> Result<Option<u64>, StorageError>;
    /// Reads an upload, to hash it again.
    async fn read_upload(&self, id: UploadId) -> Result<BlobStream, StorageError>;
    /// The upload, whose first `length` bytes have `digest`, becomes the blob,
    /// durably.
    async fn place(&self, id: UploadId, digest: &Digest, length: u64) -> Result<(), StorageError>;
    /// Forgets an upload and its bytes.
    async fn discard(&self, id: UploadId) -> Result<(), StorageError>;
    /// All uploads that hold room, also those without a session.
    async fn uploads(&self) -> Result<Vec<(UploadId, Stat)>, StorageError>;

    /// A blob, on either shelf.
    async fn blob(&self, digest: &Digest) -> Result<Option<(Stat, Shelf)>, StorageError>;
    /// Reads `range` of a blob, on either shelf.
    async fn open(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>, StorageError>;
    /// All blobs on a shelf.
    async fn blobs(&self, shelf: Shelf) -> Result<Vec<(Digest, Stat)>, StorageError>;
    /// To the trash, whose clock starts now.
    async fn set_aside(&self, digest: &Digest) -> Result<(), StorageError>;
    /// Back from the trash.
    async fn restore(&self, digest: &Digest) -> Result<(), StorageError>;
    /// Out of the trash, for good.
    async fn purge(&self, digest: &Digest) -> Result<(), StorageError>;

    /// The right to collect garbage; `None` when another process has it.
    async fn lease(&self) -> Result<Option<Lease>, StorageError>;
    /// Whether it can be used now: asked for something small.
    async fn health(&self) -> Result<(), StorageError>;
    /// Removes what a crash left half-written and nothing refers to, older
    /// than `age`; says how many bytes.
    async fn tidy(&self, age: Duration) -> Result<u64, StorageError>;
}
