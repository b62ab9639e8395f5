//! What is inside a package, and packing one. dpkg-deb does the work: it knows
//! every compression there ever was, and it is on every host that has apt.

use super::ArchiveError;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// One file of a package, by its path without `./` at the beginning.
pub enum Entry<'a> {
    /// A regular file: its size and content.
    File(u64, &'a mut dyn Read),
    /// A symbolic link: where to.
    Link(String),
    /// A directory or another kind.
    Other,
}

/// Calls `each` for everything in a package's file tree, in order.
///
/// # Errors
/// The package cannot be read; `each` failed.
pub fn walk(
    package: &Path,
    mut each: impl FnMut(&str, Entry<'_>) -> std::io::Result<()>,
) -> Result<(), ArchiveError> {
    let failed = |reason: String| ArchiveError::Package { path: package.to_owned(), reason };
    let mut child = dpkg_deb()
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(format!("dpkg-deb cannot be started: {e}")))?;
    let outcome = match child.stdout.take() {
        Some(from) => entries(from, &mut each),
        None => Ok(()),
    };
    // Ended early, it would wait for a reader.
    if outcome.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    outcome.map_err(|e| failed(e.to_string()))?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(format!("dpkg-deb cannot unpack it ({status})"))),
    }
}

fn entries(
    from: impl Read,
    each: &mut impl FnMut(&str, Entry<'_>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut tar = tar::Archive::new(from);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let size = entry.size();
            each(&path, Entry::File(size, &mut entry))?;
        } else if kind.is_symlink() {
            let to = entry.link_name_bytes().unwrap_or_default();
            each(&path, Entry::Link(String::from_utf8_lossy(&to).into_owned()))?;
        } else {
            each(&path, Entry::Other)?;
        }
    }
    // What follows the archive's end, or dpkg-deb would fail to write it.
    std::io::copy(&mut tar.into_inner(), &mut std::io::sink()).map(drop)
}

/// Packs `tree`, with its `DEBIAN/control`, into `to`: everything root's, no
/// time later than `epoch`, so that the same files give the same package.
///
/// # Errors
/// dpkg-deb failed.
pub fn build(tree: &Path, to: &Path, epoch: u64) -> Result<(), ArchiveError> {
    let failed = |reason: String| ArchiveError::Package { path: to.to_owned(), reason };
    let done = dpkg_deb()
        .args(["--root-owner-group", "--nocheck", "-Zxz", "--threads-max=1", "--build"])
        .args([tree, to])
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(format!("dpkg-deb cannot be started: {e}")))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned())),
    }
}

fn dpkg_deb() -> Command {
    let mut command = Command::new("dpkg-deb");
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_package_is_packed_the_same_twice_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/x"), "content").unwrap();
        std::os::unix::fs::symlink("x", tree.join("etc/y")).unwrap();
        let control =
            "Package: t\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: y\n";
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        let (one, two) = (dir.path().join("1.udeb"), dir.path().join("2.udeb"));
        build(&tree, &one, 1_700_000_000).unwrap();
        build(&tree, &two, 1_700_000_000).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        let mut seen = Vec::new();
        walk(&one, |path, e| {
            match e {
                Entry::File(n, from) => {
                    let mut text = String::new();
                    from.read_to_string(&mut text)?;
                    seen.push(format!("{path} {n} {text}"));
                }
                Entry::Link(to) => seen.push(format!("{path} -> {to}")),
                Entry::Other => {}
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["etc/x 7 content", "etc/y -> x"]);
        fs::write(&two, "no package").unwrap();
        let said = walk(&two, |_, _| Ok(())).unwrap_err().to_string();
        assert!(said.contains("2.udeb"), "{said}");
    }
}
