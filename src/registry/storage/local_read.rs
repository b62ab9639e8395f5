//! Reading a file as a stream, 1 MiB at a time, the next piece being read
//! while the last one is sent.

use super::{BlobStream, StorageError, failed};
use crate::registry::storage::CHUNK;
use bytes::Bytes;
use futures::StreamExt as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use tokio::task::{JoinHandle, spawn_blocking};

type Piece = JoinHandle<(File, io::Result<Vec<u8>>)>;

fn next(file: File, left: u64) -> Piece {
    spawn_blocking(move || {
        let want = left.min(CHUNK as u64);
        let mut v = Vec::with_capacity(want as usize);
        let r = (&file).take(want).read_to_end(&mut v);
        (file, r.map(|_| v))
    })
}

/// Whether the directory of blobs is there: one that is not mounted is empty.
pub(super) async fn there(blobs: PathBuf) -> Result<(), StorageError> {
    match tokio::fs::metadata(&blobs).await {
        Ok(m) if m.is_dir() => Ok(()),
        // The path is in the log at the start, and nothing for a stranger.
        Ok(_) => Err(StorageError::Away("its directory is not what it was".into())),
        Err(e) => Err(StorageError::Away(format!("its directory is not there: {}", e.kind()))),
    }
}

/// `left` bytes of `file` from where it stands. A file that ends before is an
/// error: the reader was told a length.
pub(super) fn stream(file: File, path: PathBuf, left: u64) -> BlobStream {
    let start = (left > 0).then(|| (next(file, left), left, path));
    futures::stream::unfold(start, |state| async move {
        let (piece, left, path) = state?;
        let (file, read) = match piece.await {
            Ok(p) => p,
            Err(e) => return Some((Err(failed("read", &path, io::Error::other(e))), None)),
        };
        let bytes = match read {
            Ok(v) if v.is_empty() => {
                let e = io::Error::new(io::ErrorKind::UnexpectedEof, "shorter than it was");
                return Some((Err::<Bytes, StorageError>(failed("read", &path, e)), None));
            }
            Ok(v) => Bytes::from(v),
            Err(e) => return Some((Err(failed("read", &path, e)), None)),
        };
        let left = left.saturating_sub(bytes.len() as u64);
        let more = (left > 0).then(|| (next(file, left), left, path));
        Some((Ok(bytes), more))
    })
    .boxed()
}
