//! A suite of our own with the components of one install, and the second
//! ramdisk that makes the installer believe it.

use super::ramdisk::Ramdisk;
use super::repack::Made;
use crate::archive::suite::Suite;
use crate::archive::{ArchiveError, Package, SigningKey};
use crate::image::cpio::Cpio;
use std::collections::BTreeMap;
use std::path::Path;

/// Where the installer looks for keys.
const KEYRING: &str = "usr/share/keyrings/archive.gpg";
/// A keyring that signs nothing else, for the installed system's apt.
pub(super) const OWN_KEY: &str = "archive-key.gpg";

/// Gives `/target` our key before its apt is asked for anything: base-installer
/// runs what is in this directory between debootstrap and apt.
const HOOK: &str = "usr/lib/base-installer.d/05provision-key";
const HOOK_TEXT: &str = "#!/bin/sh
mkdir -p /target/etc/apt/trusted.gpg.d
cp /usr/share/keyrings/provision.gpg /target/etc/apt/trusted.gpg.d/provision.gpg
";

/// The index of the components, those made here in place of the archive's.
pub(super) fn index(chosen: &BTreeMap<String, Package>, made: &[Made]) -> String {
    let own: BTreeMap<&str, &Package> =
        made.iter().map(|m| (m.package.name.as_str(), &m.package)).collect();
    let listed = chosen.iter().map(|(n, p)| own.get(n.as_str()).copied().unwrap_or(p));
    listed.map(|p| p.fields.text()).collect()
}

/// Writes the suite with this index below `root`.
pub(super) fn write(
    root: &Path,
    name: &str,
    epoch: u64,
    text: String,
    key: &SigningKey,
) -> Result<(), ArchiveError> {
    let suite = Suite {
        name,
        description: "Installer components, completed by Provision",
        date: epoch,
        components: &["main"],
        indices: vec![("main/debian-installer/binary-amd64/Packages".to_owned(), text)],
    };
    suite.write(root, key)
}

/// The second ramdisk: the distribution's keys and ours, in one keyring, for
/// the installer; ours alone for the system that it installs.
pub(super) fn extra(ramdisk: &Ramdisk, key: &SigningKey) -> Cpio {
    let mut cpio = Cpio::default();
    let own = key.public();
    cpio.file(KEYRING, 0o644, &[&ramdisk.keyring[..], &own].concat());
    cpio.file("usr/share/keyrings/provision.gpg", 0o644, &own);
    cpio.file(HOOK, 0o755, HOOK_TEXT.as_bytes());
    cpio
}
