//! Builds a real image, twice. Takes two minutes, a network and root, so it
//! runs only when asked for: `cargo test --release --test image_build --
//! --ignored`.

use provision::image::{BakeProfile, BuildRequest, Image, Silent, build_image};
use provision::profile::Profiles;
use std::path::Path;

fn build(dir: &Path) -> Image {
    let known = Profiles::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles"));
    let docker = known.get(&"docker".parse().unwrap()).unwrap();
    let request = BuildRequest {
        name: "debian-12".parse().unwrap(),
        recipe: "debian-12".to_owned(),
        through: Vec::new(),
        mirror: None,
        components: None,
        packages: Vec::new(),
        profiles: vec![BakeProfile {
            name: docker.name,
            digest: docker.digest,
            scripts: docker.scripts,
        }],
        images: dir.join("images"),
        cache: dir.join("cache"),
    };
    build_image(&request, &mut Silent).unwrap()
}

#[test]
#[ignore = "two minutes, a network and root"]
fn two_builds_from_one_state_of_the_mirror_are_the_same_to_the_last_bit() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (build(one.path()), build(two.path()));
    assert_eq!(first.digest, second.digest);
    let docker = "docker".parse().unwrap();
    let index = |image: &Image| image.baked[&docker].description.files["rootfs.idx"].sha256;
    assert_eq!(index(&first), index(&second));
    // Nothing but the image is left, and nothing names this host.
    let left: Vec<_> = std::fs::read_dir(one.path().join("images"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n != ".build.lock")
        .collect();
    assert_eq!(left, ["debian-12"]);
}
