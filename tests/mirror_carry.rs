//! Mirrors [M41] as one file: with their images, and nothing else.

#[path = "common/archive.rs"]
mod archive;
mod mirrors;

use archive::visible;
use mirrors::{faults, house, name};
use provision::image::{Catalogue, Silent};
use provision::mirror::{self, Accept, ImageHere, Imported, MirrorError, Mirrors, OtherImage};
use std::fs;
use std::io::Read as _;
use std::path::Path;
use tar::EntryType;

/// Another server, which has no archive.
struct Room {
    dir: tempfile::TempDir,
    shelf: Mirrors,
    images: Catalogue,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Mirrors::open(dir.path().join("mirrors"));
        let images = Catalogue::open(dir.path().join("images"));
        Self { dir, shelf, images }
    }

    fn take(
        &self,
        bytes: &[u8],
        keys: &[String],
        other_image: Option<OtherImage>,
    ) -> Result<Imported, MirrorError> {
        let accept = Accept { believed: keys.to_vec(), other_image };
        mirror::import(&self.shelf, &self.images, bytes, &accept, &mut Silent)
    }

    /// Nothing is there, not even hidden.
    fn is_empty(&self) -> bool {
        ["mirrors", "images"]
            .map(|d| self.dir.path().join(d))
            .iter()
            .all(|d| visible(d).is_empty() && !d.join(".build").exists())
    }
}

/// An exported file with its entries changed, or left out where `change` says
/// `false`, and one more at the end.
fn changed(
    file: &[u8],
    mut change: impl FnMut(&str, &mut Vec<u8>) -> bool,
    more: Option<(&str, EntryType)>,
) -> Vec<u8> {
    let plain = zstd::decode_all(file).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(&plain[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (mut header, mut bytes) = (entry.header().clone(), Vec::new());
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        entry.read_to_end(&mut bytes).unwrap();
        if change(&path, &mut bytes) {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, &path, &bytes[..]).unwrap();
        }
    }
    if let Some((path, kind)) = more {
        // By hand: what writes archives refuses to write such a path.
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..4].copy_from_slice(b"/etc");
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(0);
        header.set_cksum();
        tar.append(&header, &b""[..]).unwrap();
    }
    zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap()
}

#[test]
fn a_mirror_is_carried_into_a_closed_room_and_nothing_else_is_taken_in() {
    let h = house();
    let mut file = Vec::new();
    mirror::export(&h.mirror, None, &mut file).unwrap();
    let mut again = Vec::new();
    mirror::export(&h.mirror, None, &mut again).unwrap();
    assert_eq!(file, again, "the same mirror is the same file");

    let room = Room::new();
    let there = &room.shelf;
    let take = |bytes: &[u8], keys: &[String]| room.take(bytes, keys, None);
    // A room does not know the other server's key until somebody says it.
    let own = h.own();
    match take(&file, &[]) {
        Err(MirrorError::Stranger(print)) => assert_eq!(print, own),
        other => panic!("{other:?}"),
    }
    let keys = [own];
    for cut in [10, file.len() / 3, file.len() - 100] {
        let e = take(&file[..cut], &keys).unwrap_err();
        assert!(matches!(e, MirrorError::Import(_)), "{e}");
    }
    // Every byte counts: plain tar inside, so that the change survives.
    let plain = zstd::decode_all(&file[..]).unwrap();
    let packages: Vec<usize> =
        plain.windows(8).enumerate().filter(|(_, w)| *w == b"!<arch>\n").map(|(n, _)| n).collect();
    // The description, a package's beginning, the middle of the last one.
    for at in [600, packages[3] + 70, packages[packages.len() - 1] + 300] {
        let mut bad = plain.clone();
        bad[at] ^= 1;
        let e = take(&zstd::encode_all(&bad[..], 1).unwrap(), &keys);
        assert!(e.is_err(), "a change at {at} is taken in");
    }
    // Something that was not signed, behind what was.
    let more = changed(&file, |_, _| true, Some(("pool/evil", EntryType::Regular)));
    let e = take(&more, &keys).unwrap_err().to_string();
    assert!(e.contains("pool/evil") && e.contains("not in its description"), "{e}");
    assert!(room.is_empty(), "nothing is left of any of these");
    assert!(there.list().unwrap().0.is_empty());

    let m = take(&file, &keys).unwrap().mirror;
    assert_eq!((m.digest, faults(&m)), (h.mirror.digest, Vec::new()));
    assert_eq!(m.description.image_in(&room.images).0, ImageHere::Absent, "there was none in it");
    assert!(matches!(take(&file, &keys), Err(MirrorError::Taken(_))));
    there.remove(&name("m")).unwrap();
    assert!(there.get(&name("m")).unwrap_err().is_unknown());
    assert_eq!(
        fs::read_dir(there.dir()).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count(),
        0
    );
}

#[test]
fn the_image_is_carried_with_its_mirror_and_never_half_of_it() {
    let (h, room) = (house(), Room::new());
    let (mut file, keys) = (Vec::new(), [h.own()]);
    let (here, image) =
        h.mirror.description.image_in(&Catalogue::open(h.image.dir.parent().unwrap()));
    assert_eq!((here, image.as_ref()), (ImageHere::Same, Some(&h.image)));
    mirror::export(&h.mirror, image.as_ref(), &mut file).unwrap();
    let suite = h.image.description.installer.as_ref().unwrap().files.keys().next().unwrap();
    let suite = format!("image/{suite}");
    for (at, why) in [
        ("image/image.toml", "not of the image that was signed"),
        ("image/kernel", "its content is not"),
        (suite.as_str(), "its content is not"),
    ] {
        let flip = |path: &str, bytes: &mut Vec<u8>| {
            if path == at {
                bytes[3] ^= 1;
            }
            true
        };
        let e = room.take(&changed(&file, flip, None), &keys, None).unwrap_err().to_string();
        assert!(e.contains(at) && e.contains(why), "{e}");
    }
    let longer = |path: &str, bytes: &mut Vec<u8>| {
        if path == "image/kernel" {
            bytes.push(0);
        }
        true
    };
    let less = |path: &str, _: &mut Vec<u8>| path != "image/kernel";
    let all = |_: &str, _: &mut Vec<u8>| true;
    for (bad, why) in [
        (changed(&file, longer, None), "not of the size"),
        (changed(&file, less, None), "image/kernel is missing"),
        (changed(&file, all, Some(("image/evil", EntryType::Regular))), "not in its"),
        (changed(&file, all, Some(("image/image.toml", EntryType::Regular))), "not in its"),
        (changed(&file, all, Some(("image/../../evil", EntryType::Regular))), "not in its"),
        (changed(&file, less, Some(("image/kernel", EntryType::Symlink))), "not in its"),
    ] {
        let e = room.take(&bad, &keys, None).unwrap_err().to_string();
        assert!(e.contains(why), "{why}: {e}");
    }
    assert!(room.is_empty(), "nothing is left of any of these");

    // One that was killed left this.
    fs::create_dir_all(room.images.dir().join(".build/half")).unwrap();
    assert!(room.take(&file, &keys, None).unwrap().took_image);
    let toml = |images: &Path| fs::read(images.join("debian-13-installer/image.toml")).unwrap();
    let came = room.images.get(&h.image.name).unwrap();
    assert_eq!((came.digest, &came.description), (h.image.digest, &h.image.description));
    assert_eq!(toml(room.images.dir()), toml(&h.dir.path().join("images")));
    assert!(!room.images.dir().join(".build").exists());
    let gone = || room.shelf.remove(&name("m")).unwrap();
    gone();
    assert!(!room.take(&file, &keys, None).unwrap().took_image, "it is here");

    // Another one has the name: whoever imports says what becomes of it.
    let path = came.dir.join("image.toml");
    let other = [&toml(room.images.dir())[..], b"\n# another one\n"].concat();
    fs::write(&path, &other).unwrap();
    gone();
    let e = room.take(&file, &keys, None).unwrap_err();
    assert!(matches!(&e, MirrorError::OtherImage(n) if *n == h.image.name), "{e}");
    assert!(visible(room.shelf.dir()).is_empty() && fs::read(&path).unwrap() == other);
    let kept = room.take(&file, &keys, Some(OtherImage::Keep)).unwrap();
    assert_eq!(kept.mirror.description.image_in(&room.images).0, ImageHere::Other);
    assert!(!kept.took_image && fs::read(&path).unwrap() == other);
    gone();
    assert!(room.take(&file, &keys, Some(OtherImage::Replace)).unwrap().took_image);
    assert_eq!(room.images.get(&h.image.name).unwrap().digest, h.image.digest);
    assert!(!room.images.dir().join(".build").exists());

    // A damaged one is not carried away, to be refused there.
    fs::write(h.image.dir.join("kernel"), "a kerneL").unwrap();
    let e = mirror::export(&h.mirror, Some(&h.image), std::io::sink()).unwrap_err().to_string();
    assert!(e.contains("kernel: is not as described"), "{e}");
}
