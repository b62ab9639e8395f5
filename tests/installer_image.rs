//! Images of the Debian installer [M25], from an archive that is complete,
//! from one that is not, and from the one that this host uses.

#[path = "common/archive.rs"]
mod archive;

use archive::{Archive, KERNEL, visible};
use provision::archive::Index;
use provision::archive::deb::{Entry, walk};
use provision::image::description::Method;
use provision::image::{AddRequest, Files, Image, Silent, add_installer};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

fn request(dir: &Path, a: &Archive) -> AddRequest {
    a.request(dir)
}

fn read(image: &Image, file: &str) -> Vec<u8> {
    fs::read(image.dir.join(file)).unwrap()
}

fn gpgv(keyring: &Path, files: [&Path; 2]) -> bool {
    let home = tempfile::tempdir().unwrap();
    let mut gpgv = Command::new("gpgv");
    gpgv.env("GNUPGHOME", home.path()).arg("--keyring").arg(keyring).args(files);
    gpgv.output().unwrap().status.success()
}

/// What the second ramdisk adds to the installer's own.
fn unpacked(image: &Image) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let archive = fs::File::open(image.dir.join("extra")).unwrap();
    let mut cpio = Command::new("cpio");
    let cpio = cpio.args(["-id", "--quiet", "-D"]).arg(dir.path()).stdin(archive);
    assert!(cpio.status().unwrap().success());
    dir
}

#[test]
fn a_complete_archive_needs_no_suite_of_our_own() {
    let (a, dir) = (Archive::whole(), tempfile::tempdir().unwrap());
    let mut r = request(dir.path(), &a);
    r.through = vec![(a.uri.clone(), a.uri.clone())];
    let image = add_installer(&r, &mut Silent).unwrap();
    let d = &image.description;
    assert_eq!((d.method, d.kernel.as_str()), (Method::Preseed, KERNEL));
    assert_eq!((d.os.as_str(), d.release.as_str()), ("debian", "13"));
    let i = d.installer.as_ref().unwrap();
    assert_eq!((i.suite.as_str(), &i.udeb_suite), ("trixie", &None));
    assert_eq!(i.origin.as_deref(), Some("debian"));
    assert!(i.unchecked.is_empty() && i.repacked.is_empty() && i.files.is_empty(), "{i:?}");
    assert_eq!(read(&image, "kernel"), b"a kernel");
    // What the package cache has is not kept twice.
    let cached = dir.path().join("files/debian/pool/main/pkgsel/pkgsel_1.0-1_amd64.udeb");
    fs::create_dir_all(cached.parent().unwrap()).unwrap();
    fs::copy(a.file("pkgsel"), &cached).unwrap();
    fs::remove_dir_all(&r.cache).unwrap();
    r.cache_files = Some(dir.path().join("files"));
    a.served.asked.lock().unwrap().clear();
    add_installer(&r, &mut Silent).unwrap();
    assert_eq!(fs::metadata(&cached).unwrap().nlink(), 2);
    assert!(!a.served.asked.lock().unwrap().iter().any(|p| p.contains("pkgsel")));
    // Both keys are believed by the installer; only ours is given on.
    let extra = unpacked(&image);
    let keys = |n: &str| fs::read(extra.path().join("usr/share/keyrings").join(n)).unwrap();
    assert_eq!(keys("provision.gpg"), read(&image, "archive-key.gpg"));
    assert!(keys("archive.gpg").ends_with(&keys("provision.gpg")));
    assert!(keys("archive.gpg").starts_with(&fs::read(a.dir.path().join("dist.gpg")).unwrap()));
    // The same archive gives the same image.
    assert_eq!(add_installer(&r, &mut Silent).unwrap().digest, image.digest);
    assert_eq!(visible(&r.images), ["debian-13-installer"]);
}

#[test]
fn what_an_archive_lists_and_does_not_have_is_made_from_its_ordinary_packages() {
    let (a, dir) = (Archive::whole(), tempfile::tempdir().unwrap());
    for kind in ["ext4", "sata"] {
        a.lose(&format!("{kind}-modules-{KERNEL}-di"));
    }
    a.lose("e2fsprogs-udeb");
    a.lose("ntfs-3g-udeb");
    let image = add_installer(&request(dir.path(), &a), &mut Silent).unwrap();
    let i = image.description.installer.clone().unwrap();
    assert_eq!(i.udeb_suite.as_deref(), Some("trixie-provision"));
    assert_eq!(i.left_out, ["ntfs-3g-udeb"]);
    assert_eq!(i.repacked.len(), 3);
    assert!(i.unchecked[0].contains("e2fsprogs-udeb"), "{:?}", i.unchecked);
    assert!(i.repacked["e2fsprogs-udeb"].from.contains("e2fsprogs 1.47"));

    // The installer believes the suite, with the keyring it is given.
    let (extra, suite) = (unpacked(&image), image.dir.join("suite"));
    let dist = suite.join("dists/trixie-provision");
    let keyring = extra.path().join("usr/share/keyrings/archive.gpg");
    assert!(gpgv(&keyring, [&dist.join("Release.gpg"), &dist.join("Release")]));
    let packages = dist.join("main/debian-installer/binary-amd64/Packages");
    let digest = provision::model::Digest::of(&fs::read(&packages).unwrap()).to_hex();
    assert!(fs::read_to_string(dist.join("Release")).unwrap().contains(&digest));

    // Everything it lists is there, here or upstream, and nothing depends on
    // what is not.
    let index = Index::read(&packages, |_| true).unwrap();
    let names: BTreeSet<&str> = index.all().map(|p| p.name.as_str()).collect();
    assert!(names.contains("e2fsprogs-udeb") && !names.contains("ntfs-3g-udeb"), "{names:?}");
    for p in index.all() {
        let ours = suite.join(&p.filename);
        assert!(ours.exists() || a.has(&p.filename), "{}", p.filename);
        assert!(!p.fields.get("Depends").unwrap_or_default().contains("ntfs-3g"));
        if ours.exists() {
            assert_eq!(provision::model::Digest::of(&fs::read(&ours).unwrap()), p.sha256);
        }
    }
    // Modules are the new kernel's, under its name, and no others.
    let mut seen = Vec::new();
    let ext4 = index.newest(&format!("ext4-modules-{KERNEL}-di")).unwrap();
    walk(&suite.join(&ext4.filename), |path, e| {
        if let Entry::File(_, from) = e {
            let mut text = String::new();
            from.read_to_string(&mut text)?;
            seen.push((path.to_owned(), text));
        }
        Ok(())
    })
    .unwrap();
    let path = format!("usr/lib/modules/{KERNEL}/kernel/ext4/ext4.ko.xz");
    assert_eq!(seen, [(path, "new ext4".to_owned())]);
}

#[test]
fn what_cannot_be_had_is_named_and_the_image_before_is_kept() {
    let (a, dir) = (Archive::whole(), tempfile::tempdir().unwrap());
    let r = request(dir.path(), &a);
    let before = add_installer(&r, &mut Silent).unwrap();
    let fail = |r: &AddRequest| {
        fs::remove_dir_all(&r.cache).unwrap();
        add_installer(r, &mut Silent).unwrap_err().to_string()
    };
    // A package that is another than the index says is no missing one.
    let pkgsel = a.file("pkgsel");
    let good = fs::read(&pkgsel).unwrap();
    fs::write(&pkgsel, [&good[..good.len() - 1], b"x"].concat()).unwrap();
    let said = fail(&r);
    assert!(said.contains("Hash Sum mismatch"), "{said}");
    fs::write(&pkgsel, good).unwrap();

    a.lose(&format!("ext4-modules-{KERNEL}-di"));
    let said = fail(&AddRequest { repack: false, ..r.clone() });
    assert!(said.contains("ext4-modules") && said.contains("switched off"), "{said}");
    a.lose("partman-base");
    let said = fail(&r);
    assert!(said.contains("partman-base (there is no rule"), "{said}");
    a.lose(&format!("linux-image-{KERNEL}"));
    let said = fail(&r);
    assert!(said.contains("does not have") && said.contains("linux-image"), "{said}");

    // A signature of somebody else.
    let stranger = provision::archive::SigningKey::open(&dir.path().join("other")).unwrap();
    fs::write(a.dir.path().join("dist.gpg"), stranger.public()).unwrap();
    let said = fail(&r);
    assert!(said.contains("apt-get update") && said.contains("not available"), "{said}");
    let kept = provision::image::Catalogue::open(&r.images).get(&r.name).unwrap();
    assert_eq!(kept.digest, before.digest);
    assert_eq!(visible(&r.images), ["debian-13-installer"]);
    assert!(!r.images.join(".build").exists());
}

/// The archive that this host uses.
#[test]
#[ignore = "260 MB from the archive"]
fn the_installer_of_debian_13_comes_from_this_hosts_archive() {
    let dir = tempfile::tempdir().unwrap();
    let a = Archive::new();
    let r = AddRequest { sources: None, ..request(dir.path(), &a) };
    let image = add_installer(&r, &mut Silent).unwrap();
    let i = image.description.installer.as_ref().unwrap();
    let extra = unpacked(&image);
    let keyring = extra.path().join("usr/share/keyrings/archive.gpg");
    if let Some(name) = &i.udeb_suite {
        let dist = image.dir.join("suite/dists").join(name);
        assert!(gpgv(&keyring, [&dist.join("Release.gpg"), &dist.join("Release")]));
    }
    let magic = &read(&image, "kernel")[0x202..0x206];
    assert_eq!(magic, b"HdrS", "no Linux kernel");
    println!("{} {:?} {:?}", image.description.version, i.left_out, i.repacked.keys());

    // The same files, laid down by the package: in the list that Debian signs.
    let is_netboot = |p: &std::path::PathBuf| {
        let said = Command::new("dpkg-deb").arg("-f").arg(p).arg("Package").output().unwrap();
        said.stdout.starts_with(b"debian-installer-13-netboot")
    };
    let pool = fs::read_dir(r.cache.join("pool")).unwrap().map(|e| e.unwrap().path());
    let deb = pool.filter(|p| p.is_file()).find(is_netboot).unwrap();
    let at = dir.path().join("netboot");
    assert!(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&at).status().unwrap().success());
    let files = Files::Dir(at.join("usr/lib/debian-installer/images/13"));
    let r = AddRequest { files: Some(files), ..r };
    let again = add_installer(&r, &mut Silent).unwrap();
    let j = again.description.installer.as_ref().unwrap();
    assert_eq!(
        (&j.unchecked, &again.description.version),
        (&i.unchecked, &image.description.version)
    );
    assert_eq!(read(&again, "ramdisk"), read(&image, "ramdisk"));
}

/// What the installer of an image is given under one address: the image's own
/// suite over the archive.
#[test]
fn an_images_own_suite_lies_over_the_archive() {
    let (a, dir) = (Archive::whole(), tempfile::tempdir().unwrap());
    a.lose("e2fsprogs-udeb");
    let mut r = request(dir.path(), &a);
    r.through = vec![(a.uri.clone(), a.uri.clone())];
    let image = add_installer(&r, &mut Silent).unwrap();
    assert_eq!(image.description.installer.as_ref().unwrap().origin.as_deref(), Some("debian"));

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(lies_over(&a, &r, &image, dir.path()));
}

async fn lies_over(a: &Archive, r: &AddRequest, image: &Image, dir: &Path) {
    let origin = provision::cache::Origin { name: "debian".into(), url: a.uri.clone() };
    let settings = provision::cache::Settings::new(dir.join("apt"), vec![origin]);
    let state = provision::app::installer_files::InstallerFiles {
        images: provision::image::Catalogue::open(&r.images),
        cache: provision::cache::Cache::open(settings).unwrap(),
    };
    let router = provision::app::installer_files::router(std::sync::Arc::new(state));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/installer", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let get = |path: &str| {
        let url = format!("{base}/{path}");
        async move {
            let r = reqwest::get(url).await.unwrap();
            (r.status().as_u16(), r.bytes().await.unwrap().to_vec())
        }
    };
    let own = "dists/trixie-provision/Release";
    let there = fs::read(image.dir.join("suite").join(own)).unwrap();
    assert_eq!(get(&format!("debian-13-installer/{own}")).await, (200, there));
    let upstream = fs::read(a.file("pkgsel")).unwrap();
    let path = "debian-13-installer/pool/main/pkgsel/pkgsel_1.0-1_amd64.udeb";
    assert_eq!(get(path).await, (200, upstream), "through the cache");
    for nowhere in ["debian-12-installer/dists/x", "..%2f/x", "debian-13-installer/pool/none.deb"] {
        assert_eq!(get(nowhere).await.0, 404, "{nowhere}");
    }
    assert_eq!(get("debian-13-installer/..%2f..%2fimage.toml").await.0, 400);
    server.abort();
}
