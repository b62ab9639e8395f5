//! Where an image is written to. Nothing of the final name is there before
//! all of it is.

use super::wrong;
use crate::cli::Fail;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Of a tar archive, in bytes.
const BLOCK: u64 = 512;

/// A directory or archive that is being made.
pub struct Sink {
    to: PathBuf,
    part: PathBuf,
    archive: Option<BufWriter<File>>,
    /// The file that is being written, or its bytes so far in an archive.
    file: Option<BufWriter<File>>,
    size: u64,
}

impl Sink {
    /// Beside `to`, which must not be there.
    pub fn new(to: &Path) -> Result<Self, Fail> {
        if to.exists() {
            return Err(Fail::Use(format!("{} is there already", to.display())));
        }
        let mut part = to.as_os_str().to_owned();
        // `app/` is `app`.
        while part.as_encoded_bytes().ends_with(b"/") {
            part = PathBuf::from(part).components().as_path().as_os_str().to_owned();
        }
        part.push(".part");
        let part = PathBuf::from(part);
        let at = |e: std::io::Error| wrong(format!("{}: {e}", part.display()));
        let archive = match to.extension().is_some_and(|x| x == "tar") {
            true => Some(BufWriter::new(File::create(&part).map_err(at)?)),
            false => {
                let _ = fs::remove_dir_all(&part);
                fs::create_dir_all(&part).map_err(at)?;
                None
            }
        };
        Ok(Self { to: to.to_owned(), part, archive, file: None, size: 0 })
    }

    fn failed(&self, e: std::io::Error) -> Fail {
        wrong(format!("{}: {e}", self.part.display()))
    }

    /// Begins a file of `size` bytes.
    pub fn begin(&mut self, name: &str, size: u64) -> Result<(), Fail> {
        self.size = size;
        let begun = match &mut self.archive {
            Some(a) => {
                let mut h = tar::Header::new_gnu();
                h.set_size(size);
                h.set_mode(0o644);
                h.set_entry_type(tar::EntryType::Regular);
                // Names of a layout have at most 100 bytes but for SHA-512.
                let long = name.len() > 100;
                let set = if long { long_name(a, name) } else { h.set_path(name) };
                h.set_cksum();
                set.and_then(|()| a.write_all(h.as_bytes()))
            }
            None => {
                let path = self.part.join(name);
                path.parent()
                    .map_or(Ok(()), fs::create_dir_all)
                    .and_then(|()| File::create(&path))
                    .map(|f| self.file = Some(BufWriter::new(f)))
            }
        };
        begun.map_err(|e| self.failed(e))
    }

    /// Adds to it.
    pub fn piece(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        let to = self.archive.as_mut().or(self.file.as_mut());
        let written = to.map_or(Ok(()), |t| t.write_all(bytes));
        written.map_err(|e| self.failed(e))
    }

    /// Ends it.
    pub fn end(&mut self) -> Result<(), Fail> {
        let ended = match (&mut self.archive, self.file.take()) {
            (Some(a), _) => a.write_all(&padding(self.size)),
            (None, Some(mut f)) => f.flush().and_then(|()| f.get_ref().sync_all()),
            (None, None) => Ok(()),
        };
        ended.map_err(|e| self.failed(e))
    }

    /// A small file.
    pub fn whole(&mut self, name: &str, bytes: &[u8]) -> Result<(), Fail> {
        self.begin(name, bytes.len() as u64)?;
        self.piece(bytes)?;
        self.end()
    }

    /// Gives it its name.
    pub fn done(mut self) -> Result<(), Fail> {
        let ended = match self.archive.take() {
            // Two empty blocks end an archive.
            Some(mut a) => a
                .write_all(&[0; 2 * BLOCK as usize])
                .and_then(|()| a.flush())
                .and_then(|()| a.get_ref().sync_all()),
            None => Ok(()),
        };
        ended.and_then(|()| fs::rename(&self.part, &self.to)).map_err(|e| self.failed(e))
    }

    /// Takes away what was written.
    pub fn abandon(self) {
        let _ = match self.archive {
            Some(_) => fs::remove_file(&self.part),
            None => fs::remove_dir_all(&self.part),
        };
    }
}

fn padding(size: u64) -> Vec<u8> {
    vec![0; (size.next_multiple_of(BLOCK) - size) as usize]
}

/// GNU's entry in front of one whose name is too long for its header.
fn long_name(a: &mut impl std::io::Write, name: &str) -> std::io::Result<()> {
    let mut h = tar::Header::new_gnu();
    h.set_path("././@LongLink")?;
    h.set_size(name.len() as u64 + 1);
    h.set_mode(0o644);
    h.set_entry_type(tar::EntryType::GNULongName);
    h.set_cksum();
    a.write_all(h.as_bytes())?;
    a.write_all(name.as_bytes())?;
    a.write_all(&[0])?;
    a.write_all(&padding(name.len() as u64 + 1))
}
