//! Ubuntu's installers: up to 20.04 Debian's, later one that runs from an ISO
//! image which the machine fetches into its memory. Kernel and ramdisk come
//! from files; components and packages from Ubuntu's archive, as it is, through
//! the package cache (`[[cache.origins]]`, named `ubuntu`). Its own keyring is
//! in the ramdisk.

use super::add::{AddRequest, pad};
use super::digests::Signed;
use super::files::{self, Files, Places};
use crate::image::build::{BuildError, Progress, write};
use crate::image::catalogue::{Catalogue, Image};
use crate::image::cpio::Cpio;
use crate::image::description::{Description, FORMAT, Installer, Method, Provenance};
use crate::image::publish::{self, Workplace, file_entry};
use crate::image::recipe::{Recipe, UBUNTU};
use crate::model::{Arch, Digest};
use std::collections::BTreeMap;
use std::fs;

/// Of the Debian installer: as `netboot.tar.gz` has it, on the server's CD, at
/// the top of `mini.iso`.
const NETBOOT: &Places = &[
    ("ubuntu-installer/amd64/", "linux", "initrd.gz"),
    ("netboot/ubuntu-installer/amd64/", "linux", "initrd.gz"),
    ("install/netboot/ubuntu-installer/amd64/", "linux", "initrd.gz"),
    ("", "linux", "initrd.gz"),
];
/// Of the live server.
const LIVE: &Places = &[("casper/", "vmlinuz", "initrd")];

/// The live server's ISO image, in the image's directory.
pub const MEDIUM: &str = "medium.iso";
/// Its bytes at most: the machine holds all of it in memory.
const LONGEST: u64 = 16 << 30;

/// Adds Ubuntu's installer.
pub(super) fn add(
    request: &AddRequest,
    recipe: &Recipe,
    progress: &mut dyn Progress,
) -> Result<Image, BuildError> {
    let live = !matches!(recipe.release, "16.04" | "18.04" | "20.04");
    let needs = |what: &str| BuildError::Needs(recipe.name.to_owned(), what.to_owned());
    let files = match &request.files {
        Some(Files::Dir(_)) | None if live => {
            return Err(needs("the live server's ISO image (--iso FILE)"));
        }
        Some(files) => files,
        None => return Err(needs("netboot files (--dir DIR, or --iso FILE)")),
    };
    let mut here = request.through.iter().filter_map(|(_, here)| here.rsplit('/').next());
    if !here.any(|name| name == UBUNTU) {
        return Err(needs(
            "Ubuntu's archive in the package cache: [[cache.origins]] with name = \"ubuntu\" and \
             its url, in the configuration, beside the others",
        ));
    }
    let work = Workplace::open(&request.images, &request.name)?;
    let out = work.path().join("image");
    fs::create_dir(&out).map_err(BuildError::io(&out))?;

    progress.step("kernel and ramdisk");
    let places = if live { LIVE } else { NETBOOT };
    let taken = files.take((work.path(), &out), places, &Signed::default(), progress)?;
    let ramdisk = out.join("ramdisk");
    pad(&ramdisk).map_err(BuildError::io(&ramdisk))?;
    let mut names = vec!["kernel", "ramdisk", "packages.txt"];
    if let (true, Files::Iso(iso)) = (live, files) {
        progress.step("medium");
        let medium = out.join(MEDIUM);
        // A copy: the original may be written to, and an image never is.
        files::copy(iso, &medium, LONGEST, progress)?;
        if Some(file_entry(&medium)?.sha256) != taken.iso {
            let why = "was written to while it was read".to_owned();
            return Err(BuildError::Files(iso.clone(), why));
        }
        names.push(MEDIUM);
    }
    if let Some(dir) = &request.firmware {
        let mut extra = Cpio::default();
        // Its ramdisks have /lib as a link or as a directory, by release.
        files::firmware(dir, if live { "usr/lib" } else { "lib" }, &mut extra)?;
        write(&out.join("extra"), &extra.finish())?;
        names.push("extra");
    }
    write(&out.join("packages.txt"), b"")?;

    progress.step("image");
    let mut entries = BTreeMap::new();
    for name in names {
        entries.insert(name.to_owned(), file_entry(&out.join(name))?);
    }
    let mut unchecked = taken.unchecked;
    unchecked.push("what it installs: that is checked by the installer alone".to_owned());
    let description = Description {
        format: FORMAT,
        name: request.name.clone(),
        os: recipe.os.to_owned(),
        release: recipe.release.to_owned(),
        version: recipe.release.to_owned(),
        arch: Arch::X86_64,
        method: if live { Method::Autoinstall } else { Method::Preseed },
        // Those that it always wants are in its boot script.
        kernel_args: String::new(),
        kernel: files::kernel_release(&out.join("kernel")),
        rootfs: None,
        installer: Some(Installer {
            suite: recipe.suite.to_owned(),
            udeb_suite: None,
            origin: Some(UBUNTU.to_owned()),
            netboot: "files".to_owned(),
            release_date: 0,
            key: String::new(),
            unchecked,
            left_out: Vec::new(),
            repacked: BTreeMap::new(),
            files: BTreeMap::new(),
        }),
        provenance: Provenance {
            source_date_epoch: 0,
            suite: recipe.suite.to_owned(),
            components: vec!["main".to_owned(), "universe".to_owned()],
            packages: Digest::of(b""),
            package_count: 0,
            builder: env!("CARGO_PKG_VERSION").to_owned(),
        },
        files: entries,
    };
    let path = out.join("image.toml");
    write(&path, publish::toml_text(&description, &path)?.as_bytes())?;
    progress.step("publish");
    work.publish(&out, &request.images.join(request.name.as_str()))?;
    Ok(Catalogue::open(&request.images).get(&request.name)?)
}
