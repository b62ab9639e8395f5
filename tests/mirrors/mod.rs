//! A mirror as tests make it, from the small archive.

#![allow(dead_code, reason = "each test binary uses some of these")]

use crate::archive::{Archive, KERNEL};
use provision::archive::SigningKey;
use provision::image::{Image, Silent, add_installer};
use provision::mirror::{self, Mirror, MirrorRequest, Mirrors};
use provision::model::Name;
use std::path::Path;

pub fn image(dir: &Path, a: &Archive) -> Image {
    add_installer(&a.request(dir), &mut Silent).unwrap()
}

pub fn request(dir: &Path, a: &Archive, image: Image) -> MirrorRequest {
    MirrorRequest {
        name: name("m"),
        image,
        profile: None,
        packages: ["docker.io", "docker-cli?"].map(str::to_owned).to_vec(),
        sources: a.sources(),
        through: Vec::new(),
        mirrors: dir.join("mirrors"),
        cache: dir.join("cache"),
        cache_files: None,
        key: dir.join("archive.key"),
    }
}

pub fn name(n: &str) -> Name {
    n.parse().unwrap()
}

/// A server with an archive, an image of its installer and a mirror for that.
pub struct House {
    /// Goes when the test has ended.
    _a: Archive,
    pub dir: tempfile::TempDir,
    pub image: Image,
    pub mirror: Mirror,
}

pub fn house() -> House {
    let (a, dir) = (Archive::whole(), tempfile::tempdir().unwrap());
    a.lose(&format!("ext4-modules-{KERNEL}-di"));
    let image = image(dir.path(), &a);
    let r = request(dir.path(), &a, image.clone());
    let mirror = mirror::build_mirror(&r, &mut Silent).unwrap();
    House { _a: a, dir, image, mirror }
}

impl House {
    pub fn shelf(&self) -> Mirrors {
        Mirrors::open(self.dir.path().join("mirrors"))
    }

    pub fn own(&self) -> String {
        SigningKey::open(&self.dir.path().join("archive.key")).unwrap().fingerprint()
    }
}

pub fn faults(m: &Mirror) -> Vec<String> {
    m.verify(|_, _| true).unwrap().faults
}
