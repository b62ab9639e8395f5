//! Which installer components an unattended install loads: a few named here,
//! and what they depend on. The installer itself would take every component of
//! priority `standard`, the drivers for FireWire and PCMCIA among them; what
//! is left out costs nothing but is of no use on a server's disk.

use super::ramdisk::Ramdisk;
use crate::archive::index::{Index, Package, groups};
use std::collections::BTreeMap;

/// What is asked for by name; `{kernel}` is the kernel's release. Partitions
/// with ext4, both boot loaders' ways, drivers of disks.
pub const COMPONENTS: [&str; 32] = [
    "apt-mirror-setup",
    "apt-setup-udeb",
    "base-installer",
    "bootstrap-base",
    "clock-setup",
    "di-utils-exit-installer",
    "di-utils-mapdevfs",
    "disk-detect",
    "finish-install",
    "grub-installer",
    "nobootloader",
    "parted-udeb",
    "partman-auto",
    "partman-base",
    "partman-basicfilesystems",
    "partman-basicmethods",
    "partman-efi",
    "partman-ext3",
    "partman-partitioning",
    "partman-target",
    "partman-utils",
    "pkgsel",
    "tzsetup-udeb",
    "user-setup-udeb",
    "ata-modules-{kernel}-di",
    "cdrom-core-modules-{kernel}-di",
    "ext4-modules-{kernel}-di",
    "isofs-modules-{kernel}-di",
    "loop-modules-{kernel}-di",
    "pata-modules-{kernel}-di",
    "sata-modules-{kernel}-di",
    "scsi-modules-{kernel}-di",
];

/// What an install can do without: helpers to look into other systems' disks.
/// Where the archive does not have one, it is left out.
pub const DISPENSABLE: [&str; 6] = [
    "fuse3-udeb",
    "grub-mount-udeb",
    "libfuse3-3-udeb",
    "libfuse3-4-udeb",
    "ntfs-3g-udeb",
    "os-prober-udeb",
];

/// What an install loads.
#[derive(Debug, Default)]
pub struct Choice {
    /// Components that are fetched, by name. Their dependencies name nothing
    /// that is not among them or in the ramdisk.
    pub packages: BTreeMap<String, Package>,
    /// Names that the index does not have.
    pub unknown: Vec<String>,
}

impl Choice {
    /// Leaves a component out: nothing depends on it any more.
    pub fn leave_out(&mut self, name: &str) {
        let Some(gone) = self.packages.remove(name) else { return };
        let mut names = vec![name.to_owned()];
        let provides = groups(gone.fields.get("Provides").unwrap_or_default());
        names.extend(provides.into_iter().flat_map(|(_, n)| n));
        for p in self.packages.values_mut() {
            let Some(depends) = p.fields.get("Depends") else { continue };
            let kept: Vec<String> = groups(depends)
                .into_iter()
                .filter(|(_, any)| !any.iter().all(|n| names.contains(n)))
                .map(|(text, _)| text)
                .collect();
            match kept.is_empty() {
                true => p.fields.remove("Depends"),
                false => p.fields.set("Depends", kept.join(", ")),
            }
        }
    }
}

/// Chooses from the archive's index, for this ramdisk.
pub fn choose(index: &Index, ramdisk: &Ramdisk) -> Choice {
    let mut choice = Choice::default();
    let fits = |p: &&Package| p.kernel().is_none_or(|k| k == ramdisk.kernel);
    let here = |name: &str| ramdisk.provided.contains(name);
    let mut todo: Vec<String> =
        COMPONENTS.iter().rev().map(|c| c.replace("{kernel}", &ramdisk.kernel)).collect();
    let named = todo.clone();
    while let Some(name) = todo.pop() {
        if here(&name) || choice.packages.contains_key(&name) {
            continue;
        }
        let Some(p) = index.newest(&name).filter(fits) else {
            choice.unknown.push(name);
            continue;
        };
        let mut p = p.clone();
        let mut kept = Vec::new();
        for (text, names) in groups(p.fields.get("Depends").unwrap_or_default()) {
            if names.iter().any(|n| here(n)) {
                continue;
            }
            let real = names.iter().find(|n| index.newest(n).filter(fits).is_some());
            // One that is asked for anyway goes before another.
            let provider = || {
                let all = names.iter().flat_map(|n| index.providers(n));
                let mut all: Vec<&str> =
                    all.filter(|n| index.newest(n).filter(fits).is_some()).collect();
                all.sort_by_key(|n| !named.iter().any(|m| m == n));
                all.first().map(|n| (*n).to_owned())
            };
            match real.cloned().or_else(provider) {
                Some(found) => {
                    todo.push(found);
                    kept.push(text);
                }
                None => choice.unknown.push(names.join(" or ")),
            }
        }
        match kept.is_empty() {
            true => p.fields.remove("Depends"),
            false => p.fields.set("Depends", kept.join(", ")),
        }
        choice.packages.insert(name, p);
    }
    choice.unknown.sort();
    choice.unknown.dedup();
    choice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::deb822::Reader;

    fn index(text: &str) -> Index {
        let mut all = Index::default();
        let mut r = Reader::new(text.as_bytes());
        while let Some(mut p) = r.next_paragraph().unwrap() {
            p.set("Filename", format!("pool/{}", p.get("Package").unwrap()));
            p.set("Size", "1".to_owned());
            p.set("SHA256", "0".repeat(64));
            all.add(Package::of(p).unwrap());
        }
        all
    }

    #[test]
    fn what_is_asked_for_comes_with_what_it_needs_and_the_ramdisk_lacks() {
        let index = index(
            "Package: partman-base\nVersion: 2\nDepends: libc6-udeb (>= 2), harddrive-detection, gone\n\n\
             Package: disk-detect\nVersion: 1\nProvides: harddrive-detection\nDepends: anna\n\n\
             Package: aaa-detect\nVersion: 1\nProvides: harddrive-detection\n\n\
             Package: partman-ext3\nVersion: 1\nDepends: ext4-modules\n\n\
             Package: ext4-modules-6-di\nVersion: 1\nKernel-Version: 6\nProvides: ext4-modules\n\n\
             Package: ext4-modules-5-di\nVersion: 1\nKernel-Version: 5\nProvides: ext4-modules\n\n",
        );
        let mut ramdisk = Ramdisk { kernel: "6".to_owned(), ..Ramdisk::default() };
        ramdisk.provided.extend(["anna", "libc6-udeb"].map(str::to_owned));
        let c = choose(&index, &ramdisk);
        let names: Vec<&str> = c.packages.keys().map(String::as_str).collect();
        assert_eq!(names, ["disk-detect", "ext4-modules-6-di", "partman-base", "partman-ext3"]);
        assert_eq!(c.packages["partman-base"].fields.get("Depends"), Some("harddrive-detection"));
        assert_eq!(c.packages["disk-detect"].fields.get("Depends"), None);
        let mut less = choose(&index, &ramdisk);
        less.leave_out("disk-detect");
        assert_eq!(less.packages["partman-base"].fields.get("Depends"), None);
        assert!(c.unknown.contains(&"gone".to_owned()) && c.unknown.len() > 20, "{:?}", c.unknown);
    }
}
