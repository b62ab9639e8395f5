//! The new system's root while it is being finished: mounted, with the file
//! systems a chroot needs, files written into it, and unmounted at the end.

use super::journal::say;
use super::manifest::Manifest;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the new root is mounted.
pub const ROOT: &str = "/mnt";

/// The mounted root.
#[derive(Debug)]
pub struct Target {
    root: PathBuf,
    mounted: Vec<PathBuf>,
    /// What was written, identity left out.
    pub manifest: Manifest,
}

/// Whether a file belongs to this one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The same on every node with these inputs: goes into the manifest.
    Common,
    /// Name, address, keys, UUIDs.
    Identity,
}

impl Target {
    /// Mounts `device` at [`ROOT`].
    pub fn mount(device: &Path) -> io::Result<Self> {
        let root = PathBuf::from(ROOT);
        fs::create_dir_all(&root)?;
        // The image's own inode tables are written; those of the grown part
        // can be initialised by the installed system at leisure.
        mount(
            device,
            &root,
            c"ext4",
            MountFlags::empty(),
            c"noinit_itable,barrier=0,noauto_da_alloc",
        )?;
        Ok(Self { mounted: vec![root.clone()], root, manifest: Manifest::default() })
    }

    /// A root that is there already.
    pub fn here(root: &Path) -> Self {
        Self { root: root.to_owned(), mounted: Vec::new(), manifest: Manifest::default() }
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path inside, from one that begins with `/`.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Mounts what programs in the chroot need.
    pub fn mount_inside(&mut self) -> io::Result<()> {
        for dir in ["dev", "proc", "sys"] {
            let at = self.root.join(dir);
            mount_bind(Path::new("/").join(dir), &at)?;
            self.mounted.push(at);
        }
        if Path::new("/sys/firmware/efi/efivars").exists() {
            let at = self.root.join("sys/firmware/efi/efivars");
            mount_bind("/sys/firmware/efi/efivars", &at)?;
            self.mounted.push(at);
        }
        for dir in ["run", "tmp"] {
            let at = self.root.join(dir);
            mount(c"tmpfs", &at, c"tmpfs", MountFlags::empty(), c"mode=1777")?;
            self.mounted.push(at);
        }
        Ok(())
    }

    /// Mounts the EFI system partition where the installed system has it.
    pub fn mount_esp(&mut self, esp: &Path) -> io::Result<()> {
        let at = self.root.join("boot/efi");
        fs::create_dir_all(&at)?;
        mount(esp, &at, c"vfat", MountFlags::empty(), c"umask=0077")?;
        self.mounted.push(at);
        Ok(())
    }

    /// Writes a file in one step: complete or as it was before.
    pub fn write(&mut self, path: &str, mode: u32, kind: Kind, content: &str) -> io::Result<()> {
        self.write_bytes(path, mode, kind, content.as_bytes())
    }

    /// The same for bytes.
    pub fn write_bytes(
        &mut self,
        path: &str,
        mode: u32,
        kind: Kind,
        content: &[u8],
    ) -> io::Result<()> {
        let at = self.path(path);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent)?;
        }
        // A link in the image (resolv.conf) is replaced, never followed.
        match fs::remove_file(&at) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&at)?;
        file.write_all(content)?;
        fs::set_permissions(&at, fs::Permissions::from_mode(mode))?;
        if kind == Kind::Common {
            self.manifest.file(path, mode, content);
        }
        Ok(())
    }

    /// Makes a symbolic link, in place of whatever is there.
    pub fn link(&mut self, path: &str, to: &str) -> io::Result<()> {
        let at = self.path(path);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::remove_file(&at) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::os::unix::fs::symlink(to, &at)?;
        self.manifest.note(path, to);
        Ok(())
    }

    /// Writes everything to the disk and unmounts.
    pub fn finish(mut self) -> io::Result<()> {
        let root = rustix::fs::open(&self.root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        rustix::fs::syncfs(&root)?;
        drop(root);
        while let Some(at) = self.mounted.pop() {
            if let Err(e) = unmount(&at, UnmountFlags::empty()) {
                // Something still runs in there; its files are synced already.
                say(format_args!("unmounting {}: {e}; detaching it", at.display()));
                unmount(&at, UnmountFlags::DETACH)?;
            }
        }
        Ok(())
    }
}

/// Reads a file inside, trimmed; empty when it is not there.
pub fn read(target: &Target, path: &str) -> String {
    fs::read_to_string(target.path(path)).unwrap_or_default().trim().to_owned()
}

/// Size of a block device.
pub fn device_bytes(device: &Path) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    File::open(device)?.seek(SeekFrom::End(0))
}
