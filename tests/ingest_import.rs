//! `provision base import`: files as skopeo and buildah make them, and images
//! of another registry; a build on what was imported. And what a folder sends.
//! Needs root, skopeo and buildah (scripts/deps.sh).

mod deployd;

use deployd::{Ended, Server, run};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn sh(dir: &Path, script: &str) -> Ended {
    run(Command::new("sh").args(["-euc", script]).current_dir(dir), "")
}

/// One image with the file `/from`, made by buildah, as all kinds of files.
fn images(dir: &Path) -> PathBuf {
    sh(
        dir,
        "mkdir tmp; export TMPDIR=$PWD/tmp
        b=\"buildah --root $PWD/root --runroot $PWD/run --storage-driver vfs\"
        echo buildah > from; c=$($b from scratch); $b copy -q $c from /from >/dev/null
        $b commit -q $c made >/dev/null
        $b push -q made oci-archive:$PWD/box.oci.tar
        $b push -q made oci:$PWD/layout:one
        $b push -q made docker-archive:$PWD/box.docker.tar:tools/box:1
        gzip -k box.docker.tar
        skopeo copy -q docker-archive:box.docker.tar docker-archive:$PWD/again.tar:tools/again:2
        $b rm -a >/dev/null; $b rmi -a -f >/dev/null; rm -rf root run tmp",
    )
    .ok();
    dir.to_owned()
}

fn last(s: &Server) -> Value {
    s.json(&["runs"])[0].clone()
}

#[test]
fn a_file_becomes_a_base_and_a_folder_is_built_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    images(&files);
    let s = Server::started(dir.path(), "gc_hours = 0\n");
    let import = |file: &str, name: &[&str]| {
        let file = files.join(file);
        s.cli(&[&["base", "import", file.to_str().unwrap()], name].concat())
    };
    let mut layers = Vec::new();
    for (file, name, want) in [
        ("box.docker.tar", None, "base/tools/box:1"),
        ("again.tar", None, "base/tools/again:2"),
        ("box.oci.tar", Some("oci:3"), "base/oci:3"),
        ("layout", Some("docker.io/library/layout"), "base/layout:latest"),
        ("box.docker.tar.gz", Some("zipped:1"), "base/zipped:1"),
    ] {
        let ended = import(file, &name.map_or(vec![], |n| vec!["--name", n]));
        assert_eq!(ended.code, 0, "{file}: {}", ended.err);
        assert!(ended.err.contains(&format!("sent {file}: ")), "{}", ended.err);
        let run = last(&s);
        assert_eq!(
            format!("{}:{}", run["repository"].as_str().unwrap(), run["tag"].as_str().unwrap()),
            want
        );
        assert_eq!(run["source"]["label"], file);
        assert_eq!(run["builder"]["name"], "skopeo");
        assert!(run["attestation_digest"].is_string() && run["context_digest"].is_string());
        layers.push(run["image_digest"].clone());
    }
    assert_eq!(layers[0], layers[4], "the same, compressed");
    let folder = dir.path().join("app");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("Dockerfile"), "FROM tools/box:1\nCOPY page /page\n").unwrap();
    fs::write(folder.join("page"), "x").unwrap();
    s.cli(&["ingest", folder.to_str().unwrap()]).ok();
    assert_eq!(last(&s)["bases"][0]["digest"], layers[0]);
    // A working copy says what it is a copy of.
    let git = "git init -q . && git add . && \
               git -c user.name=a -c user.email=a@b commit -q -m one --date '2026-11-01T00:00:00Z'";
    sh(&folder, git).ok();
    s.cli(&["ingest", folder.to_str().unwrap()]).ok();
    let run = last(&s);
    let commit = sh(&folder, "git rev-parse HEAD").ok().trim().to_owned();
    assert_eq!((&run["commit"], &run["dirty"]), (&json!(commit), &json!(false)));
    assert_eq!(run["tag"], commit[..12]);
    assert!(run["committed"].is_string());
    fs::write(folder.join("page"), "y").unwrap();
    s.cli(&["ingest", folder.to_str().unwrap(), "--tag", "2"]).ok();
    assert_eq!((&last(&s)["commit"], &last(&s)["dirty"]), (&json!(commit), &json!(true)));
    let said = s.json(&["verify", "staging/app:2"]);
    assert_eq!(said["statements"][0]["commit"], commit);

    import("box.oci.tar", &[]).fails(2, "does not say what it is called");
    import("from", &["--name", "x:1"]).fails(1, "neither an OCI archive nor");
    import("box.oci.tar", &["--name", "UPPER"]).fails(2, "base image");
    s.cli(&["base", "import", "./nowhere"]).fails(2, "neither a file here nor HOST/NAME:TAG");
    // Half of a file.
    let half = fs::read(files.join("box.docker.tar")).unwrap();
    fs::write(files.join("half.tar"), &half[..half.len() / 2]).unwrap();
    let ended = import("half.tar", &["--name", "half:1"]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    // Nothing of it stays; its run's task tidies up after the answer.
    let left = |d: &str| fs::read_dir(s.state().join("ingest").join(d)).unwrap().count();
    s.until("nothing is left", |_| (left("uploads"), left("runs")) == (0, 0));
}

#[test]
fn another_registry_gives_images_where_the_configuration_says_so() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = there.path().join("files");
    fs::create_dir(&files).unwrap();
    images(&files);
    let other = Server::started(there.path(), "gc_hours = 0\n");
    let anna = other.person("anna", &["team/:pull,push"]);
    other.push(&anna, &files.join("layout"), "team/box:1").ok();
    let certs = other.certs("plain", &[]);
    let auth = {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&anna);
        format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{text}\"}}}}}}", other.at)
    };
    fs::write(there.path().join("auth.json"), auth).unwrap();
    let allow = format!(
        "gc_hours = 0\n[[ingest.import]]\nprefix = \"{}/team/\"\ncertificates = {certs:?}\n\
         auth_file = {:?}\n",
        other.at,
        there.path().join("auth.json")
    );
    let s = Server::started(here.path(), &allow);
    let from = format!("{}/team/box:1", other.at);
    s.cli(&["base", "import", &from]).ok();
    let run = last(&s);
    assert_eq!(run["repository"], format!("base/{}/team/box", other.at.replace(':', "_")));
    assert_eq!(run["source"]["reference"], from);
    s.cli(&["base", "import", &from, "--name", "box:1"]).ok();
    assert_eq!(last(&s)["repository"], "base/box");
    assert_eq!(last(&s)["image_digest"], run["image_digest"]);
    // What is not named there is refused, and what is not there fails.
    let refused = s.cli(&["base", "import", &format!("{}/other/box:1", other.at)]);
    refused.fails(3, "not in a registry that base images may be taken from");
    for odd in ["oci:/etc/passwd/x", "--help/x", "../../etc/passwd/x"] {
        assert_ne!(s.cli(&["base", "import", "--", odd]).code, 0, "{odd}");
    }
    s.cli(&["base", "import", &format!("{}/team/box:2", other.at)]).fails(1, "skopeo copy");
}

#[test]
fn what_is_ignored_does_not_leave_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let s = Server::started(dir.path(), "gc_hours = 0\n");
    let folder = dir.path().join("app");
    for d in ["build", "node_modules", ".git"] {
        fs::create_dir_all(folder.join(d)).unwrap();
    }
    let big = vec![0u8; 30_000_000];
    fs::write(folder.join("node_modules/big"), &big).unwrap();
    fs::write(folder.join(".git/big"), &big).unwrap();
    fs::write(folder.join("page"), "x").unwrap();
    fs::write(folder.join("build/Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    fs::write(folder.join(".dockerignore"), "node_modules\nbuild\n").unwrap();
    let ended = s.cli(&["ingest", folder.to_str().unwrap(), "--dockerfile", "./build/Dockerfile"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let sent = ended.err.lines().find_map(|l| l.strip_prefix("sent app: ")).unwrap().to_owned();
    assert!(sent.ends_with(" B"), "{sent}");
    let anna = s.person("anna", &["*:pull"]);
    let to = dir.path().join("out");
    run(
        Command::new("skopeo")
            .args(["copy", "-q", "--src-creds", &anna, "--src-cert-dir"])
            .arg(s.certs("plain", &[]))
            .arg(s.url(&format!("staging/app:{}", last(&s)["tag"].as_str().unwrap())))
            .arg(format!("dir:{}", to.display())),
        "",
    )
    .ok();
    let manifest: Value =
        serde_json::from_slice(&fs::read(to.join("manifest.json")).unwrap()).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    let names = sh(&to, &format!("tar -tf {layer}")).ok();
    assert!(names.lines().any(|n| n == "page"), "{names}");
    assert!(!names.contains("node_modules") && !names.contains("build"), "{names}");
}
