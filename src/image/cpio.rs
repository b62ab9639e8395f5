//! Writes the `newc` form of cpio, which the kernel reads as a ramdisk
//! (Documentation/driver-api/early-userspace/buffer-format): reproducible, all
//! owned by root, all times zero.

use std::collections::BTreeSet;

/// An archive being written.
#[derive(Debug, Default)]
pub struct Cpio {
    out: Vec<u8>,
    inode: u32,
    seen: BTreeSet<String>,
}

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

impl Cpio {
    /// A regular file, the first time its path is named; directories above it
    /// are made on the way.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.parents(path);
        if self.seen.insert(path.to_owned()) {
            self.entry(path, FILE | mode, (0, 0), content);
        }
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// An empty directory.
    pub fn directory(&mut self, path: &str) {
        self.parents(path);
        if self.seen.insert(path.to_owned()) {
            self.entry(path, DIRECTORY | 0o755, (0, 0), b"");
        }
    }

    /// A character device.
    pub fn character(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.parents(path);
        self.entry(path, CHARACTER | mode, (major, minor), b"");
    }

    /// The finished archive, padded to 512 bytes so that another may follow.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        let padded = self.out.len().next_multiple_of(512);
        self.out.resize(padded, 0);
        self.out
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            let above = &path[..at];
            if !above.is_empty() && self.seen.insert(above.to_owned()) {
                let above = above.to_owned();
                self.entry(&above, DIRECTORY | 0o755, (0, 0), b"");
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inode += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        // A file of 4 GiB has no place in a ramdisk; the field has 32 bits.
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = path.len() as u32 + 1;
        self.out.extend_from_slice(b"070701");
        let fields =
            [self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        for field in fields {
            self.out.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.out.extend_from_slice(path.as_bytes());
        self.out.push(0);
        self.pad();
        self.out.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let padded = self.out.len().next_multiple_of(4);
        self.out.resize(padded, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Cpio;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn the_archive_is_read_by_cpio_itself() {
        let mut cpio = Cpio::default();
        cpio.file("lib/modules/x.ko", 0o644, b"12345");
        cpio.link("bin/sh", "busybox");
        cpio.directory("proc");
        cpio.character("dev/console", 0o600, 5, 1);
        let archive = cpio.finish();
        assert_eq!(archive.len() % 512, 0);
        let mut child = Command::new("cpio")
            .args(["-tv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive).unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let names: Vec<&str> = text.lines().map(|l| l.split_whitespace().last().unwrap()).collect();
        let want = [
            "lib",
            "lib/modules",
            "lib/modules/x.ko",
            "bin",
            "busybox",
            "proc",
            "dev",
            "dev/console",
        ];
        assert_eq!(names, want, "{text}");
        assert!(text.contains("-rw-r--r--") && text.contains("crw-------"), "{text}");
    }
}
