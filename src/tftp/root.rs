//! A directory as a source of files.

use super::{Opened, Source, SourceError};
use async_trait::async_trait;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// Serves the regular files below a directory. The kernel itself resolves
/// names with RESOLVE_BENEATH, so that no symbolic link and no rename under
/// way leads out.
#[derive(Debug, Clone)]
pub struct Root {
    directory: Arc<OwnedFd>,
}

impl Root {
    /// Opens the directory.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        Ok(Self { directory: Arc::new(directory) })
    }

    fn file(&self, path: &str) -> Result<(File, u64), SourceError> {
        // NONBLOCK: opening a FIFO must not hang.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let fd = rustix::fs::openat2(&*self.directory, path, flags, Mode::empty(), beneath);
        let file = match fd {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP) => {
                return Err(SourceError::Refused("leads out of the served directory"));
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                return Err(SourceError::NotFound);
            }
            Err(rustix::io::Errno::ACCESS) => return Err(SourceError::Refused("not readable")),
            Err(e) => return Err(SourceError::Io(e.into())),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(SourceError::Refused("not a regular file"));
        }
        Ok((file, meta.len()))
    }
}

#[async_trait]
impl Source for Root {
    async fn open(&self, path: &str, _peer: SocketAddr) -> Result<Opened, SourceError> {
        let (root, path) = (self.clone(), path.to_owned());
        let opened = tokio::task::spawn_blocking(move || root.file(&path)).await;
        let (file, size) = opened.map_err(io::Error::other)??;
        let file = tokio::fs::File::from_std(file);
        Ok(Opened { size, reader: Box::new(file) })
    }
}
