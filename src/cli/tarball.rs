//! A folder as a tar that is made while it is sent: memory does not grow with
//! the folder. What `.dockerignore` names is not sent at all, by the same rules
//! as the server's.

use crate::ingest::context::ignore::Ignore;
use bytes::Bytes;
use futures::Stream;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Bytes handed over at once.
const PIECE: usize = 256 << 10;
/// Deepest folder in folders, as the server has it.
const DEEPEST: usize = 64;

/// What of a folder is sent.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// What stays behind.
    pub ignore: Ignore,
    /// What is sent all the same, relative: the server reads the Dockerfile
    /// also where the build may not see it.
    pub needed: Vec<PathBuf>,
    /// Without the folder `.git` at the top.
    pub without_git: bool,
}

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
pub fn stream(
    dir: PathBuf,
    choice: Choice,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (to, mut from) = mpsc::channel(4);
    std::thread::spawn(move || {
        let failed = to.clone();
        let made = || -> io::Result<()> {
            let mut tar = tar::Builder::new(Pipe { to, held: Vec::with_capacity(PIECE) });
            tar.follow_symlinks(false);
            tar.mode(tar::HeaderMode::Complete);
            Packer { root: &dir, choice: &choice, tar: &mut tar }.folder("", 0)?;
            tar.into_inner()?.send()
        };
        if let Err(e) = made() {
            // The other end is told, and the request breaks off.
            let _ = failed.blocking_send(Err(e));
        }
    });
    futures::stream::poll_fn(move |c| from.poll_recv(c))
}

struct Packer<'a> {
    root: &'a Path,
    choice: &'a Choice,
    tar: &'a mut tar::Builder<Pipe>,
}

impl Packer<'_> {
    /// What is in the folder `inner`, in the order of names: the same folder
    /// gives the same tar.
    fn folder(&mut self, inner: &str, depth: usize) -> io::Result<()> {
        let at = |p: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", p.display()));
        let here = self.root.join(inner);
        if depth > DEEPEST {
            let m = format!("{}: folders in folders, more than {DEEPEST} deep", here.display());
            return Err(io::Error::other(m));
        }
        let all = fs::read_dir(&here).and_then(|all| all.collect::<io::Result<Vec<_>>>());
        let mut all = all.map_err(|e| at(&here, e))?;
        all.sort_by_key(fs::DirEntry::file_name);
        for e in all {
            let path = e.path();
            let name = e.file_name().into_string().map_err(|_| {
                io::Error::other(format!(
                    "{}: the name is no UTF-8 text: rename it",
                    path.display()
                ))
            })?;
            if depth == 0 && self.choice.without_git && name == ".git" {
                continue;
            }
            let below = if inner.is_empty() { name } else { format!("{inner}/{name}") };
            let needed = self.choice.needed.iter().any(|n| n == Path::new(&below));
            let ignored = !needed && self.choice.ignore.ignores(&below);
            let kind = e.file_type().map_err(|e| at(&path, e))?;
            if kind.is_dir() {
                let holds = self.choice.needed.iter().any(|n| n.starts_with(&below));
                if !ignored {
                    self.tar.append_dir(&below, &path).map_err(|e| at(&path, e))?;
                }
                // One that is ignored is made anew when something in it is not.
                if !ignored || holds || self.choice.ignore.takes_back() {
                    self.folder(&below, depth + 1)?;
                }
            } else if !ignored && (kind.is_file() || kind.is_symlink()) {
                // Sockets and pipes are nothing that a build could use.
                let put = self.tar.append_path_with_name(&path, &below);
                put.map_err(|e| at(&path, e))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt as _;

    async fn names(dir: &Path, choice: Choice) -> Vec<(String, u64)> {
        let all: Vec<Bytes> = stream(dir.to_owned(), choice).try_collect().await.unwrap();
        let tar = all.concat();
        let mut names = Vec::new();
        for e in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            let e = e.unwrap();
            names.push((e.path().unwrap().display().to_string(), e.header().size().unwrap()));
        }
        names
    }

    #[tokio::test]
    async fn a_folder_comes_out_as_it_went_in() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        fs::write(dir.path().join("big"), vec![7u8; 700_000]).unwrap();
        std::os::unix::fs::symlink("big", dir.path().join("link")).unwrap();
        let names = names(dir.path(), Choice::default()).await;
        assert!(names.contains(&("big".into(), 700_000)), "{names:?}");
        assert!(names.contains(&("link".into(), 0)), "{names:?}");
        let gone = stream("/nowhere/at/all".into(), Choice::default());
        let gone = gone.try_collect::<Vec<_>>().await.unwrap_err().to_string();
        assert!(gone.contains("/nowhere/at/all"), "{gone}");
    }

    #[tokio::test]
    async fn what_is_ignored_is_not_sent_and_the_dockerfile_is() {
        let dir = tempfile::tempdir().unwrap();
        for d in ["logs/old", ".git/objects", "build", "node_modules/x"] {
            fs::create_dir_all(dir.path().join(d)).unwrap();
        }
        for f in [
            "a",
            "b.tmp",
            "logs/keep",
            "logs/old/x",
            ".git/objects/y",
            "build/Dockerfile",
            "build/z",
            "node_modules/x/y",
            ".dockerignore",
        ] {
            fs::write(dir.path().join(f), f).unwrap();
        }
        let choice = Choice {
            ignore: Ignore::parse("*.tmp\nlogs\n!logs/keep\nbuild\nnode_modules\n.dockerignore\n"),
            needed: vec!["build/Dockerfile".into(), ".dockerignore".into()],
            without_git: true,
        };
        let sent: Vec<String> =
            names(dir.path(), choice).await.into_iter().map(|(n, _)| n).collect();
        assert_eq!(sent, [".dockerignore", "a", "build/Dockerfile", "logs/keep"]);
    }
}
