//! Writing an upload: hashing and writing together on a blocking thread, a
//! batch of about 1 MiB at a time, which is twice as fast as an async write
//! for each frame. Between batches no thread is held: a thousand slow clients
//! cost a thousand file handles.

use super::{Append, StorageError, blocking, failed, found};
use crate::registry::digest::Hasher;
use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often and for how long a writer waits for another one, which may be
/// the same client's request whose connection broke a moment ago.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

struct Appender {
    file: Arc<File>,
    path: PathBuf,
    length: u64,
}

pub(super) async fn open(path: PathBuf) -> Result<Box<dyn Append>, StorageError> {
    for _ in 0..TRIES {
        let path = path.clone();
        let got = blocking(move || {
            let f = found("open", &path, OpenOptions::new().write(true).open(&path))?
                .ok_or(StorageError::NoUpload)?;
            match flock(&f, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(failed("lock", &path, e.into())),
            }
            let length = f.metadata().map_err(|e| failed("look at", &path, e))?.len();
            Ok(Some(Appender { file: Arc::new(f), path, length }))
        })
        .await?;
        if let Some(a) = got {
            return Ok(Box::new(a));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(StorageError::Busy)
}

fn write_all(mut f: &File, batch: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|b| IoSlice::new(b)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match f.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut rest, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Lets the kernel begin to write out what just came, so that the sync at the
/// end finds little left to do. Advice: its failure changes nothing.
fn begin_write_out(f: &File, from: u64, bytes: u64) {
    let (Ok(from), Ok(bytes)) = (i64::try_from(from), i64::try_from(bytes)) else { return };
    // SAFETY: a plain system call on a descriptor that is open during it.
    unsafe { libc::sync_file_range(f.as_raw_fd(), from, bytes, libc::SYNC_FILE_RANGE_WRITE) };
}

#[async_trait]
impl Append for Appender {
    fn length(&self) -> u64 {
        self.length
    }

    async fn write(
        &mut self,
        batch: Vec<Bytes>,
        mut hasher: Hasher,
    ) -> Result<Hasher, StorageError> {
        let (file, path, at) = (self.file.clone(), self.path.clone(), self.length);
        let bytes: u64 = batch.iter().map(|b| b.len() as u64).sum();
        let hasher = blocking(move || {
            let written = (&*file)
                .seek(SeekFrom::Start(at))
                .and_then(|_| write_all(&file, &batch))
                .map_err(|e| failed("write", &path, e));
            if let Err(e) = written {
                let _ = file.set_len(at);
                return Err(e);
            }
            begin_write_out(&file, at, bytes);
            batch.iter().for_each(|b| hasher.update(b));
            Ok(hasher)
        })
        .await?;
        self.length += bytes;
        Ok(hasher)
    }

    async fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn cut(&mut self, length: u64) -> Result<(), StorageError> {
        let (file, path) = (self.file.clone(), self.path.clone());
        blocking(move || file.set_len(length).map_err(|e| failed("cut", &path, e))).await?;
        self.length = length;
        Ok(())
    }
}
