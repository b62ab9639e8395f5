//! Images of the Debian installer whose kernel and ramdisk come from files on
//! the build host [M25], and what of them is checked.

#[path = "common/archive.rs"]
mod archive;

use archive::{Archive, INSTALLER, KERNEL, visible};
use provision::image::description::Method;
use provision::image::{AddRequest, Files, Image, Silent, add_installer};
use provision::model::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Bench {
    archive: Archive,
    dir: tempfile::TempDir,
}

/// The header of a kernel, and nothing behind it.
fn kernel() -> Vec<u8> {
    let mut bytes = vec![0; 0x400];
    bytes[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes
}

impl Bench {
    fn new() -> Self {
        Self { archive: Archive::whole(), dir: tempfile::tempdir().unwrap() }
    }

    fn request(&self) -> AddRequest {
        self.archive.request(self.dir.path())
    }

    /// Netboot files as they come: those of the archive's package, with a
    /// kernel of our own, below `images/netboot`.
    fn netboot(&self) -> PathBuf {
        let image = add_installer(&self.request(), &mut Silent).unwrap();
        let top = self.dir.path().join("images.d");
        let at = top.join("netboot/debian-installer/amd64");
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("linux"), kernel()).unwrap();
        fs::copy(image.dir.join("ramdisk"), at.join("initrd.gz")).unwrap();
        top
    }

    fn add(&self, files: Files) -> Result<Image, String> {
        let r = AddRequest { files: Some(files), ..self.request() };
        add_installer(&r, &mut Silent).map_err(|e| e.to_string())
    }
}

/// Lines of a `SHA256SUMS` for these, as seen from `top`.
fn sums(top: &Path, files: &[&str]) -> String {
    let digest = |f: &&str| Digest::of(&fs::read(top.join(f)).unwrap()).to_hex();
    files.iter().map(|f| format!("{}  ./{f}\n", digest(f))).collect()
}

fn unchecked(image: &Image) -> Vec<String> {
    image.description.installer.as_ref().unwrap().unchecked.clone()
}

const BOTH: [&str; 2] =
    ["netboot/debian-installer/amd64/linux", "netboot/debian-installer/amd64/initrd.gz"];

#[test]
fn files_in_a_directory_are_held_against_what_the_archive_signs() {
    let mut b = Bench::new();
    let top = b.netboot();
    let dir = || Files::Dir(top.join("netboot"));
    // The archive signs no list, and there is none beside them.
    let image = b.add(dir()).unwrap();
    assert_eq!(fs::read(image.dir.join("kernel")).unwrap(), kernel());
    let said = unchecked(&image);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("linux is in no list") && said[1].contains("initrd.gz is in no list"));
    assert_eq!(image.description.version, "of unknown version");

    // One beside them, which nobody signed.
    let list = top.join("SHA256SUMS");
    fs::write(&list, sums(&top, &BOTH)).unwrap();
    let said = unchecked(&b.add(dir()).unwrap());
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("images.d/SHA256SUMS says, which no key"), "{said:?}");

    // The archive's own.
    b.archive.sums = sums(&top, &BOTH);
    b.archive.write();
    let good = b.add(dir()).unwrap();
    assert_eq!(unchecked(&good), [""; 0]);
    assert_eq!(good.description.version, INSTALLER);
    assert_eq!(good.description.installer.as_ref().unwrap().netboot, format!("files {INSTALLER}"));

    // Another kernel than the list beside them has: the image stays as it was.
    let mut other = kernel();
    other.push(1);
    fs::write(top.join(BOTH[0]), &other).unwrap();
    let said = b.add(dir()).unwrap_err();
    assert!(said.contains("amd64/linux: is not as ") && said.contains("damaged"), "{said}");
    let kept = provision::image::Catalogue::open(&b.request().images);
    assert_eq!(kept.get(&b.request().name).unwrap().digest, good.digest);
    // Without that list it is said which of the two is in none.
    fs::remove_file(&list).unwrap();
    let said = unchecked(&b.add(dir()).unwrap());
    assert!(said.len() == 1 && said[0].starts_with("linux is in no list"), "{said:?}");
}

#[test]
fn an_iso_image_is_read_and_checked_as_a_whole() {
    let mut b = Bench::new();
    let top = b.netboot();
    // As in mini.iso, at the top of it.
    let iso = top.join("netboot/mini.iso");
    let mut bsdtar = Command::new("bsdtar");
    bsdtar.args(["-c", "--format", "iso9660", "-f"]).arg(&iso);
    bsdtar.arg("-C").arg(top.join("netboot/debian-installer/amd64")).args(["linux", "initrd.gz"]);
    assert!(bsdtar.status().expect("bsdtar").success());
    let said = unchecked(&b.add(Files::Iso(iso.clone())).unwrap());
    assert_eq!(said.len(), 2, "{said:?}");
    fs::write(top.join("SHA256SUMS"), sums(&top, &["netboot/mini.iso"])).unwrap();
    let said = unchecked(&b.add(Files::Iso(iso.clone())).unwrap());
    assert!(said.len() == 1 && said[0].starts_with("mini.iso is as "), "{said:?}");
    b.archive.sums = sums(&top, &["netboot/mini.iso"]);
    b.archive.write();
    let image = b.add(Files::Iso(iso.clone())).unwrap();
    assert_eq!(unchecked(&image), [""; 0]);
    assert_eq!(fs::read(image.dir.join("kernel")).unwrap(), kernel());
    assert_eq!(visible(&b.request().images), ["debian-13-installer"]);

    // Cut off, and of a CD.
    let bytes = fs::read(&iso).unwrap();
    let cut = b.dir.path().join("cut.iso");
    let at = bytes.windows(4).position(|w| w == b"HdrS").unwrap();
    fs::write(&cut, &bytes[..at]).unwrap();
    let said = b.add(Files::Iso(cut)).unwrap_err();
    assert!(said.contains("the ISO image (bsdtar) failed") && said.contains("Truncated"), "{said}");
    let cd = b.dir.path().join("cd.iso");
    let mut bsdtar = Command::new("bsdtar");
    bsdtar.args(["-c", "--format", "iso9660", "-f"]).arg(&cd).arg("-C").arg(&top).arg(BOTH[1]);
    assert!(bsdtar.status().unwrap().success());
    let said = b.add(Files::Iso(cd)).unwrap_err();
    assert!(said.contains("has no network installer") && said.contains("mini.iso"), "{said}");
}

#[test]
fn what_is_no_installer_is_refused_with_what_would_be_right() {
    let b = Bench::new();
    let top = b.netboot();
    let fail = |files: Files| b.add(files).unwrap_err();
    let said = fail(Files::Dir("netboot".into()));
    assert!(said.contains("must be an absolute path"), "{said}");
    assert!(fail(Files::Dir(top.join("none"))).contains("No such file"));
    assert!(fail(Files::Iso(top.clone())).contains("is no file"));
    let said = fail(Files::Dir(b.dir.path().join("cache")));
    assert!(
        said.contains("looked for linux and initrd.gz, debian-installer/amd64/linux and"),
        "{said}"
    );
    fs::write(top.join(BOTH[0]), b"MZ no kernel").unwrap();
    let said = fail(Files::Dir(top.clone()));
    assert!(said.contains("is no Linux kernel"), "{said}");
    // A link that leads elsewhere is none of its files.
    fs::remove_file(top.join(BOTH[0])).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", top.join(BOTH[0])).unwrap();
    assert!(fail(Files::Dir(top.clone())).contains("has no network installer"));
    fs::remove_file(top.join(BOTH[0])).unwrap();
    fs::write(top.join(BOTH[0]), kernel()).unwrap();
    let mut other = kernel();
    other[0x20E..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    other[0x300..0x304].copy_from_slice(b"6.1 ");
    fs::write(top.join(BOTH[0]), &other).unwrap();
    let said = fail(Files::Dir(top.clone()));
    assert!(said.contains(&format!("is of kernel 6.1, and the ramdisk of {KERNEL}")), "{said}");
    fs::write(top.join(BOTH[0]), kernel()).unwrap();
    fs::write(top.join(BOTH[1]), b"no ramdisk").unwrap();
    let said = fail(Files::Dir(top));
    assert!(said.contains("ramdisk: "), "{said}");
}

#[test]
fn firmware_lies_where_the_installers_kernel_looks_for_it() {
    let b = Bench::new();
    let firmware = b.dir.path().join("firmware");
    fs::create_dir_all(firmware.join("bnx2")).unwrap();
    let add = || {
        let r = AddRequest { firmware: Some(firmware.clone()), ..b.request() };
        add_installer(&r, &mut Silent).map_err(|e| e.to_string())
    };
    let said = add().unwrap_err();
    assert!(said.contains("laid out in it as in /lib/firmware"), "{said}");
    fs::write(firmware.join("bnx2/bnx2-mips-09-6.2.1b.fw"), b"some code").unwrap();
    std::os::unix::fs::symlink("bnx2/bnx2-mips-09-6.2.1b.fw", firmware.join("other.fw")).unwrap();
    let elsewhere = firmware.join("secret.fw");
    std::os::unix::fs::symlink("/etc/hostname", &elsewhere).unwrap();
    let said = add().unwrap_err();
    assert!(said.contains("secret.fw: leads to no file of this directory"), "{said}");
    fs::remove_file(elsewhere).unwrap();
    let image = add().unwrap();
    let out = tempfile::tempdir().unwrap();
    let mut cpio = Command::new("cpio");
    cpio.args(["-id", "--quiet", "-D"]).arg(out.path());
    cpio.stdin(fs::File::open(image.dir.join("extra")).unwrap());
    assert!(cpio.status().unwrap().success());
    for name in ["bnx2/bnx2-mips-09-6.2.1b.fw", "other.fw"] {
        assert_eq!(fs::read(out.path().join("lib/firmware").join(name)).unwrap(), b"some code");
    }
    assert!(out.path().join("usr/share/keyrings/provision.gpg").is_file());
}

/// Ubuntu's: nothing but files, and an archive that the cache has.
#[test]
fn ubuntus_installers_come_from_files_and_its_archive_through_the_cache() {
    let b = Bench::new();
    let top = b.netboot();
    let tree = b.dir.path().join("ubuntu/install/netboot/ubuntu-installer/amd64");
    fs::create_dir_all(&tree).unwrap();
    let mut linux = kernel();
    linux[0x20E..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    linux[0x300..0x31A].copy_from_slice(b"5.4.0-26-generic (buildd@x");
    fs::write(tree.join("linux"), &linux).unwrap();
    fs::copy(top.join(BOTH[1]), tree.join("initrd.gz")).unwrap();
    let casper = b.dir.path().join("live/casper");
    fs::create_dir_all(&casper).unwrap();
    fs::write(casper.join("vmlinuz"), &linux).unwrap();
    fs::write(casper.join("initrd"), b"a ramdisk").unwrap();
    let iso = b.dir.path().join("ubuntu-24.04.iso");
    let mut bsdtar = Command::new("bsdtar");
    bsdtar.args(["-c", "--format", "iso9660", "-f"]).arg(&iso);
    bsdtar.arg("-C").arg(b.dir.path().join("live")).arg("casper");
    assert!(bsdtar.status().unwrap().success());

    let add = |release: &str, files: Option<Files>, origin: &str| {
        let r = AddRequest {
            name: "ubuntu".parse().unwrap(),
            release: release.into(),
            files,
            through: vec![("http://x/y".into(), format!("http://10.0.0.1/apt/{origin}"))],
            ..b.request()
        };
        add_installer(&r, &mut Silent).map_err(|e| e.to_string())
    };
    let dir = || Some(Files::Dir(b.dir.path().join("ubuntu")));
    for (release, files, origin, wants) in [
        ("ubuntu-20.04", dir(), "debian", "[[cache.origins]] with name = \"ubuntu\""),
        ("ubuntu-20.04", None, "ubuntu", "--dir DIR, or --iso FILE"),
        ("ubuntu-24.04", dir(), "ubuntu", "live server's ISO image (--iso FILE)"),
        ("ubuntu-24.04", None, "ubuntu", "live server's ISO image (--iso FILE)"),
        ("ubuntu-23.10", dir(), "ubuntu", "there are debian-12, debian-13, ubuntu-16.04"),
    ] {
        let said = add(release, files, origin).unwrap_err();
        assert!(said.contains(wants), "{said}");
    }
    let image = add("ubuntu-20.04", dir(), "ubuntu").unwrap();
    let d = &image.description;
    assert_eq!((d.method, d.kernel.as_str()), (Method::Preseed, "5.4.0-26-generic"));
    assert_eq!((d.os.as_str(), d.release.as_str()), ("ubuntu", "20.04"));
    let i = d.installer.as_ref().unwrap();
    assert_eq!((i.suite.as_str(), i.origin.as_deref()), ("focal", Some("ubuntu")));
    assert!(i.unchecked.len() == 3 && i.unchecked[0].starts_with("linux is in no list"), "{i:?}");

    let image = add("ubuntu-24.04", Some(Files::Iso(iso.clone())), "ubuntu").unwrap();
    assert_eq!(image.description.method, Method::Autoinstall);
    assert_eq!(fs::read(image.dir.join("medium.iso")).unwrap(), fs::read(&iso).unwrap());
    assert!(image.description.files.contains_key("medium.iso"));
}
