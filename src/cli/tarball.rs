//! A folder as a tar that is made while it is sent: memory does not grow with
//! the folder.

use bytes::Bytes;
use futures::Stream;
use std::io::{self, Write};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Bytes handed over at once.
const PIECE: usize = 256 << 10;

struct Pipe {
    to: mpsc::Sender<io::Result<Bytes>>,
    held: Vec<u8>,
}

impl Pipe {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.held, Vec::with_capacity(PIECE));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.to.blocking_send(Ok(piece.into())).map_err(gone)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PIECE - self.held.len());
        self.held.extend_from_slice(&bytes[..n]);
        if self.held.len() == PIECE {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The folder's content, links as links.
pub fn stream(dir: PathBuf) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (to, mut from) = mpsc::channel(4);
    std::thread::spawn(move || {
        let failed = to.clone();
        let made = || -> io::Result<()> {
            let mut tar = tar::Builder::new(Pipe { to, held: Vec::with_capacity(PIECE) });
            tar.follow_symlinks(false);
            tar.mode(tar::HeaderMode::Complete);
            tar.append_dir_all(".", &dir)?;
            tar.into_inner()?.send()
        };
        if let Err(e) = made() {
            // The other end is told, and the request breaks off.
            let _ = failed.blocking_send(Err(e));
        }
    });
    futures::stream::poll_fn(move |c| from.poll_recv(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt as _;

    #[tokio::test]
    async fn a_folder_comes_out_as_it_went_in() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        std::fs::write(dir.path().join("big"), vec![7u8; 700_000]).unwrap();
        std::os::unix::fs::symlink("big", dir.path().join("link")).unwrap();
        let all: Vec<Bytes> = stream(dir.path().to_owned()).try_collect().await.unwrap();
        let tar = all.concat();
        let mut names = Vec::new();
        for e in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            let e = e.unwrap();
            names.push((e.path().unwrap().display().to_string(), e.header().size().unwrap()));
        }
        names.sort();
        assert!(names.contains(&("big".into(), 700_000)), "{names:?}");
        assert!(names.contains(&("link".into(), 0)), "{names:?}");
        let gone = stream("/nowhere/at/all".into()).try_collect::<Vec<_>>().await;
        assert!(gone.is_err());
    }
}
