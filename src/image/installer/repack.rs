//! Components that the archive lists and does not have, made from its ordinary
//! packages: kernel modules from the `linux-image` of the very same version,
//! with the file list of an older build of the component; `e2fsprogs-udeb`
//! from e2fsprogs and its libraries. What the index says of the missing one is
//! kept, so that the installer finds it as it expects it.

use super::ramdisk::Ramdisk;
use crate::archive::deb::{self, Entry};
use crate::archive::index::{Index, Package};
use crate::archive::version;
use crate::image::apt::Apt;
use crate::image::build::{BuildError, Progress};
use crate::model::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where our packages are in our suite.
pub(super) const POOL: &str = "pool/provision";

/// `e2fsprogs-udeb`: the ordinary package, and the files taken out of it, by
/// name of the program or beginning of the library's.
const E2FSPROGS: [(&str, &[&str]); 3] = [
    (
        "e2fsprogs",
        &[
            "badblocks",
            "e2fsck",
            "fsck.ext2",
            "fsck.ext3",
            "fsck.ext4",
            "mke2fs",
            "mkfs.ext2",
            "mkfs.ext3",
            "mkfs.ext4",
            "mke2fs.conf",
            "resize2fs",
            "tune2fs",
        ],
    ),
    ("libext2fs2t64|libext2fs2", &["libe2p.so.2", "libext2fs.so.2"]),
    ("libcom-err2", &["libcom_err.so.2"]),
];

/// A component that was made here.
#[derive(Debug)]
pub(super) struct Made {
    /// As our index lists it.
    pub package: Package,
    /// What from, for people and the record.
    pub from: String,
}

/// What it takes.
pub(super) struct Bench<'a> {
    pub apt: &'a Apt,
    pub uri: &'a str,
    pub components: &'a Index,
    pub packages: &'a Index,
    pub ramdisk: &'a Ramdisk,
    pub epoch: u64,
    /// Empty, for trees.
    pub work: &'a Path,
    /// The suite's directory.
    pub suite: &'a Path,
}

impl Bench<'_> {
    /// Makes what is missing; the second list names those for which there is no
    /// way, with the reason.
    pub fn make(
        &self,
        missing: &[&Package],
        progress: &mut dyn Progress,
    ) -> Result<(Vec<Made>, Vec<String>), BuildError> {
        let (mut made, mut failed) = (Vec::new(), Vec::new());
        let suffix = format!("-modules-{}-di", self.ramdisk.kernel);
        let (kernel, other): (Vec<&Package>, Vec<&Package>) =
            missing.iter().copied().partition(|p| p.name.ends_with(&suffix));
        if !kernel.is_empty() {
            match self.modules(&kernel, progress)? {
                Ok(all) => made.extend(all),
                Err(why) => {
                    let names: Vec<&str> = kernel.iter().map(|p| p.name.as_str()).collect();
                    failed.push(format!("{} ({why})", names.join(" ")));
                }
            }
        }
        let mut no_rule = Vec::new();
        for p in other {
            match p.name.as_str() {
                "e2fsprogs-udeb" => match self.e2fsprogs(p, progress)? {
                    Ok(m) => made.push(m),
                    Err(why) => failed.push(format!("{} ({why})", p.name)),
                },
                name => no_rule.push(name),
            }
        }
        if !no_rule.is_empty() {
            let why = "there is no rule to make them from other packages";
            failed.push(format!("{} ({why})", no_rule.join(" ")));
        }
        Ok((made, failed))
    }

    /// All module components at once: `linux-image` has 100 MB and is read
    /// one time.
    fn modules(
        &self,
        wanted: &[&Package],
        progress: &mut dyn Progress,
    ) -> Result<Result<Vec<Made>, String>, BuildError> {
        let kernel = &self.ramdisk.kernel;
        let image = format!("linux-image-{kernel}");
        let Some(image) = self.packages.newest(&image) else {
            return Ok(Err(format!("the archive has no {image}")));
        };
        if let Some(p) = wanted.iter().find(|p| p.version != image.version) {
            return Ok(Err(format!(
                "{} is {}, {} is {}: they must be of one version",
                p.name, p.version, image.name, image.version
            )));
        }
        let older: Vec<Option<&Package>> = wanted.iter().map(|p| self.older(p)).collect();
        let mut fetched: Vec<&Package> = older.iter().flatten().copied().collect();
        fetched.push(image);
        if let Some(gone) = self.apt.fetch(self.uri, &fetched, progress)?.first() {
            return Ok(Err(format!("the archive does not have {} either", gone.filename)));
        }
        // Module, below `kernel/`, to the trees it goes into.
        let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for (p, old) in wanted.iter().zip(&older) {
            let Some(old) = old else {
                return Ok(Err("no older build of it tells which modules it has".to_owned()));
            };
            let at = self.work.join(&p.name).join("usr/lib/modules").join(kernel);
            deb::walk(&self.apt.path(old), |path, entry| {
                if let (Some(module), Entry::File(..)) = (below_kernel(path), entry) {
                    places.entry(module.to_owned()).or_default().push(at.join(module));
                }
                Ok(())
            })?;
        }
        let mut found = BTreeSet::new();
        deb::walk(&self.apt.path(image), |path, entry| {
            if let (Some(module), Entry::File(_, from)) = (below_kernel(path), entry)
                && let Some(targets) = places.get(module)
            {
                found.insert(module.to_owned());
                copy_to(from, targets)?;
            }
            Ok(())
        })?;
        let gone: Vec<&str> =
            places.keys().filter(|m| !found.contains(*m)).map(String::as_str).collect();
        if !gone.is_empty() {
            progress.log(&format!("no longer in this kernel: {}", gone.join(" ")));
        }
        let mut all = Vec::new();
        for (p, old) in wanted.iter().zip(older.into_iter().flatten()) {
            let from = format!("{} {}, as {} {}", image.name, image.version, old.name, old.version);
            all.push(self.pack(p, from)?);
        }
        Ok(Ok(all))
    }

    /// The newest build of the same component for another kernel.
    fn older(&self, p: &Package) -> Option<&Package> {
        let kind = p.name.split_once("-modules-")?.0;
        let start = format!("{kind}-modules-");
        let flavour = self.ramdisk.kernel.rsplit('-').next()?;
        self.components
            .all()
            .filter(|o| o.name.starts_with(&start) && o.name != p.name)
            .filter(|o| o.kernel().is_some_and(|k| k.rsplit('-').next() == Some(flavour)))
            .max_by(|a, b| version::compare(&a.version, &b.version))
    }

    fn e2fsprogs(
        &self,
        p: &Package,
        progress: &mut dyn Progress,
    ) -> Result<Result<Made, String>, BuildError> {
        let mut from = Vec::new();
        let mut sources = Vec::new();
        for (names, files) in E2FSPROGS {
            let Some(source) = names.split('|').find_map(|n| self.packages.newest(n)) else {
                return Ok(Err(format!("the archive has no {names}")));
            };
            from.push(format!("{} {}", source.name, source.version));
            sources.push((source, files));
        }
        let fetched: Vec<&Package> = sources.iter().map(|(s, _)| *s).collect();
        if let Some(gone) = self.apt.fetch(self.uri, &fetched, progress)?.first() {
            return Ok(Err(format!("the archive does not have {} either", gone.filename)));
        }
        let tree = self.work.join(&p.name);
        for (source, files) in sources {
            deb::walk(&self.apt.path(source), |path, entry| {
                let name = path.rsplit('/').next().unwrap_or(path);
                let library = name.contains(".so.");
                let wanted = files.iter().any(|f| match library {
                    true => name.starts_with(f),
                    false => name == *f,
                });
                if !wanted || path.starts_with("usr/share/") {
                    return Ok(());
                }
                let to = tree.join(match (library, path.starts_with("etc/")) {
                    (true, _) => format!("usr/lib/{name}"),
                    (false, true) => path.to_owned(),
                    (false, false) => format!("usr/sbin/{name}"),
                });
                match entry {
                    Entry::File(_, from) => {
                        copy_to(from, std::slice::from_ref(&to))?;
                        let mode = if path.starts_with("etc/") || library { 0o644 } else { 0o755 };
                        set_mode(&to, mode)
                    }
                    Entry::Link(target) => {
                        let target = target.rsplit('/').next().unwrap_or(&target);
                        parent(&to)?;
                        std::os::unix::fs::symlink(target, &to)
                    }
                    Entry::Other => Ok(()),
                }
            })?;
        }
        if !tree.join("usr/sbin/mke2fs").exists() {
            return Ok(Err("there is no mke2fs in e2fsprogs".to_owned()));
        }
        Ok(Ok(self.pack(p, from.join(", "))?))
    }

    /// Packs the tree of `p` under its own name and version.
    fn pack(&self, p: &Package, from: String) -> Result<Made, BuildError> {
        let tree = self.work.join(&p.name);
        let mut control = p.fields.clone();
        for field in ["Filename", "Size", "SHA256", "MD5sum", "SHA1", "Description-md5", "Tag"] {
            control.remove(field);
        }
        let at = tree.join("DEBIAN");
        fs::create_dir_all(&at).map_err(BuildError::io(&at))?;
        let path = at.join("control");
        let text = control.text();
        fs::write(&path, text.trim_end_matches('\n').to_owned() + "\n")
            .map_err(BuildError::io(&path))?;
        let filename = format!("{POOL}/{}", p.file());
        let to = self.suite.join(&filename);
        parent(&to).map_err(BuildError::io(&to))?;
        deb::build(&tree, &to, self.epoch)?;
        let bytes = fs::read(&to).map_err(BuildError::io(&to))?;
        let mut package = p.clone();
        package.size = bytes.len() as u64;
        package.sha256 = Digest::of(&bytes);
        package.fields.set("Filename", filename.clone());
        package.fields.set("Size", package.size.to_string());
        package.fields.set("SHA256", package.sha256.to_hex());
        package.fields.remove("MD5sum");
        package.filename = filename;
        Ok(Made { package, from })
    }
}

/// `lib/modules/6.12.94/kernel/fs/ext4/ext4.ko.xz` → `kernel/fs/…`.
fn below_kernel(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("usr/").unwrap_or(path).strip_prefix("lib/modules/")?;
    let (_, below) = rest.split_once('/')?;
    let inside = below.split('/').all(|p| !p.is_empty() && p != "." && p != "..");
    (inside && below.starts_with("kernel/")).then_some(below)
}

fn parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn copy_to(from: &mut dyn io::Read, targets: &[PathBuf]) -> io::Result<()> {
    let Some((first, more)) = targets.split_first() else { return Ok(()) };
    parent(first)?;
    io::copy(from, &mut File::create(first)?)?;
    set_mode(first, 0o644)?;
    for to in more {
        parent(to)?;
        fs::copy(first, to)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::below_kernel;

    #[test]
    fn modules_are_told_by_their_place() {
        let path = "lib/modules/6.12.94+deb13-amd64/kernel/fs/ext4/ext4.ko.xz";
        assert_eq!(below_kernel(path), Some("kernel/fs/ext4/ext4.ko.xz"));
        assert_eq!(below_kernel(&format!("usr/{path}")), Some("kernel/fs/ext4/ext4.ko.xz"));
        assert_eq!(below_kernel("lib/modules/6/kernel/../../../etc/x"), None);
        assert_eq!(below_kernel("lib/modules/6/modules.dep"), None);
    }
}
