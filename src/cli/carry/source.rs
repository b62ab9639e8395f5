//! Where an image is read from. An archive is not unpacked: one look at its
//! headers says where each file begins.

use super::wrong;
use crate::cli::Fail;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

/// Most files of an archive.
const MOST: usize = 200_000;
/// Bytes read at a time.
const PIECE: usize = 256 * 1024;

/// A layout.
pub enum Source {
    /// A directory.
    Dir(PathBuf),
    /// An archive: where in it each file begins, and its bytes.
    Tar(PathBuf, BTreeMap<String, (u64, u64)>),
}

impl Source {
    /// A directory, or a file that is a tar archive.
    pub fn open(path: &Path) -> Result<Self, Fail> {
        let at = |e: std::io::Error| Fail::Use(format!("{}: {e}", path.display()));
        if std::fs::metadata(path).map_err(at)?.is_dir() {
            return Ok(Self::Dir(path.to_owned()));
        }
        let mut archive = tar::Archive::new(File::open(path).map_err(at)?);
        let mut files = BTreeMap::new();
        for e in archive.entries_with_seek().map_err(at)? {
            let e = e.map_err(at)?;
            if e.header().entry_type() != tar::EntryType::Regular {
                continue;
            }
            let name = e.path().map_err(at)?.to_string_lossy().into_owned();
            let name = name.trim_start_matches("./").to_owned();
            files.insert(name, (e.raw_file_position(), e.size()));
            if files.len() > MOST {
                return Err(Fail::Use(format!("{}: more than {MOST} files", path.display())));
            }
        }
        Ok(Self::Tar(path.to_owned(), files))
    }

    fn find(&self, name: &str) -> Option<(PathBuf, u64, u64)> {
        match self {
            Self::Dir(d) => {
                let path = d.join(name);
                let size = std::fs::metadata(&path).ok().filter(|m| m.is_file())?.len();
                Some((path, 0, size))
            }
            Self::Tar(path, files) => files.get(name).map(|(at, size)| (path.clone(), *at, *size)),
        }
    }

    /// A file that has at most `most` bytes.
    pub fn small(&self, name: &str, most: u64) -> Result<Vec<u8>, Fail> {
        let (path, at, size) = self.find(name).ok_or_else(|| {
            Fail::Use(format!("there is no {name} in it: is it an OCI layout, and whole?"))
        })?;
        if size > most {
            return Err(wrong(format!("{name} has {size} bytes, more than {most}")));
        }
        let mut all = Vec::new();
        File::open(&path)
            .and_then(|mut f| {
                f.seek(SeekFrom::Start(at))?;
                f.take(size).read_to_end(&mut all)
            })
            .map_err(|e| wrong(format!("{}: {e}", path.display())))?;
        Ok(all)
    }

    /// A file piece by piece, and its size.
    pub async fn stream(
        &self,
        name: &str,
    ) -> Result<Option<(ReaderStream<tokio::io::Take<tokio::fs::File>>, u64)>, Fail> {
        let Some((path, at, size)) = self.find(name) else { return Ok(None) };
        let failed = |e: std::io::Error| wrong(format!("{}: {e}", path.display()));
        let mut f = tokio::fs::File::open(&path).await.map_err(failed)?;
        f.seek(SeekFrom::Start(at)).await.map_err(failed)?;
        Ok(Some((ReaderStream::with_capacity(f.take(size), PIECE), size)))
    }
}
