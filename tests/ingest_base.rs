//! Base images: made from the archive that apt on this host is set up with,
//! and taken from files. Needs root, mmdebstrap, skopeo, buildah.

mod ingest;

use ingest::{bench, run};
use provision::ingest::{Refused, RunState, Shelf};
use std::path::Path;

#[tokio::test]
async fn a_debian_is_made_twice_the_same_and_can_be_built_on() {
    let b = bench(|s| s.deadline = std::time::Duration::from_secs(500)).await;
    // Packages are kept between runs of this test.
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
    let cache = Path::new(&home).join(".cache/provision/base-packages");
    std::fs::create_dir_all(&cache).unwrap();
    let ours = b.dir.path().join("state/cache");
    std::fs::remove_dir(&ours).unwrap();
    std::os::unix::fs::symlink(&cache, &ours).unwrap();

    assert!(matches!(b.pipeline.base_build("debian:4", "ada").await, Err(Refused::Invalid(_))));
    let mut digests = Vec::new();
    for _ in 0..2 {
        let queued = b.pipeline.base_build("debian:12", "ada").await.unwrap();
        let made = b.pipeline.finished(&queued.id).await.unwrap();
        assert_eq!(made.state, RunState::Done, "{:?}\n{}", made.reason, b.log(&made));
        assert_eq!(made.reference(), "base/debian:12");
        digests.push(made.image_digest.unwrap());
    }
    assert_eq!(digests[0], digests[1]);
    for of_the_host in ["./etc/hostname", "./etc/resolv.conf"] {
        assert_eq!(b.shelf.file(&digests[0], of_the_host), None, "{of_the_host}");
    }
    assert!(b.shelf.file(&digests[0], "./etc/debian_version").unwrap().starts_with("12."));
    let wish = b.wish("on-debian", "FROM debian:12\nRUN dpkg -s apt > /apt\n");
    let done = b.built(wish).await;
    let said = b.shelf.file(&done.image_digest.unwrap(), "apt").unwrap();
    assert!(said.contains("Status: install ok installed"), "{said}");
}

#[tokio::test]
async fn an_image_is_taken_from_archives_and_layouts() {
    let b = bench(|_| {}).await;
    let sources = b.dir.path().join("sources");
    let from = format!("oci:{}", b.dir.path().join("busybox").display());
    for (n, kind) in ["docker-archive", "oci-archive", "oci"].into_iter().enumerate() {
        let file = sources.join(format!("image-{n}"));
        let to = format!("{kind}:{}{}", file.display(), if n == 0 { ":x/y:1" } else { "" });
        run("skopeo", &["--insecure-policy", "copy", "-q", &from, &to].map(AsRef::as_ref));
        let queued = b.pipeline.base_import(&file, &format!("tools/box:{n}"), "ada").await.unwrap();
        let done = b.pipeline.finished(&queued.id).await.unwrap();
        assert_eq!(done.state, RunState::Done, "{kind}: {:?}", done.reason);
        assert_eq!(done.reference(), format!("base/tools/box:{n}"));
        assert!(done.attestation_digest.is_some());
        b.built(b.wish(&format!("uses{n}"), &format!("FROM tools/box:{n}\nRUN busybox true\n")))
            .await;
    }
    std::fs::write(sources.join("text"), "no image").unwrap();
    let queued = b.pipeline.base_import(&sources.join("text"), "x:1", "ada").await.unwrap();
    let why = b.pipeline.finished(&queued.id).await.unwrap().reason.unwrap();
    assert!(why.contains("neither an OCI archive nor"), "{why}");
    assert!(b.shelf.resolve("base/x:1").await.unwrap().is_none());
    assert!(b.pipeline.base_import(Path::new("/etc/passwd"), "x:1", "eve").await.is_err());
}
