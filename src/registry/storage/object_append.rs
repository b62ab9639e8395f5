//! Writing an upload to a bucket: what comes is gathered to pieces of about
//! 8 MiB, and each is an object of its own.

use super::object::{Object, folder, piece};
use super::{Append, CHUNK, Storage as _, StorageError};
use crate::registry::digest::Hasher;
use crate::registry::name::UploadId;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use object_store::PutMode;

/// Size at which a piece is sent, and with one batch more what an upload
/// holds in memory at most.
const PIECE: usize = 8 * CHUNK;

pub(super) struct Appender {
    store: Object,
    id: UploadId,
    stored: u64,
    buffer: BytesMut,
}

impl Appender {
    /// Goes on behind the `stored` bytes that are there.
    pub fn new(store: Object, id: UploadId, stored: u64) -> Self {
        Self { store, id, stored, buffer: BytesMut::new() }
    }
}

#[async_trait]
impl Append for Appender {
    fn length(&self) -> u64 {
        self.stored + self.buffer.len() as u64
    }

    async fn write(
        &mut self,
        batch: Vec<Bytes>,
        mut hasher: Hasher,
    ) -> Result<Hasher, StorageError> {
        for b in batch {
            hasher.update(&b);
            self.buffer.extend_from_slice(&b);
        }
        if self.buffer.len() >= PIECE {
            self.flush().await?;
        }
        Ok(hasher)
    }

    async fn flush(&mut self) -> Result<(), StorageError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = self.buffer.split().freeze();
        let size = bytes.len() as u64;
        let at = piece(self.id, self.stored);
        if !self.store.put(&at, bytes, PutMode::Create).await? {
            return Err(StorageError::Busy);
        }
        self.stored += size;
        Ok(())
    }

    async fn cut(&mut self, length: u64) -> Result<(), StorageError> {
        self.buffer.clear();
        // Requests end where pieces end, and only those are cut back to.
        for (name, _) in self.store.children(&folder(self.id)).await?.documents {
            let offset = name.strip_prefix("c-").and_then(|o| o.parse::<u64>().ok());
            if offset.is_some_and(|o| o >= length && o < self.stored) {
                self.store.remove(&format!("{}/{name}", folder(self.id))).await?;
            }
        }
        self.stored = length;
        Ok(())
    }
}
