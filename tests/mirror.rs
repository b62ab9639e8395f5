//! Mirrors [M24 M41]: made, read, damaged, killed.

#[path = "common/archive.rs"]
mod archive;
mod mirrors;

use archive::{Archive, KERNEL, visible};
use mirrors::{faults, house, image, name, request};
use provision::image::{AddRequest, Silent, add_installer};
use provision::mirror::{self, MirrorRequest, Mirrors};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// apt with nothing but the mirror at `uri`.
fn apt(root: &Path, uri: &str, key: &Path, arguments: &[&str]) -> (bool, String) {
    for d in ["lists/partial", "archives/partial", "parts"] {
        fs::create_dir_all(root.join(d)).unwrap();
    }
    fs::write(root.join("status"), "").unwrap();
    let line = format!("deb [signed-by={}] {uri} trixie main non-free-firmware\n", key.display());
    fs::write(root.join("sources.list"), line).unwrap();
    let at = |d: &str| root.join(d).display().to_string();
    let mut c = Command::new("apt-get");
    c.env("LC_ALL", "C").args(["-y", "-o", "APT::Sandbox::User=root"]);
    for (key, value) in [
        ("Dir::Etc::sourcelist", at("sources.list")),
        ("Dir::Etc::sourceparts", at("parts")),
        ("Dir::State::lists", at("lists")),
        ("Dir::State::status", at("status")),
        ("Dir::Cache", at("")),
        ("APT::Architecture", "amd64".into()),
        ("APT::Install-Recommends", "false".into()),
    ] {
        c.arg("-o").arg(format!("{key}={value}"));
    }
    let done = c.args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    (done.status.success(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_needs_nothing_but_the_mirror() {
    let h = tokio::task::spawn_blocking(house).await.unwrap();
    let d = &h.mirror.description;
    assert_eq!((d.name.as_str(), d.suite.as_str()), ("m", "trixie"));
    assert_eq!(d.absent, ["dhcpcd-base", "isc-dhcp-client", "docker-cli"]);
    assert_eq!(d.from.len(), 1);
    let has = |p: &str| d.files.keys().any(|f| f.contains(&format!("/{p}_")));
    for there in ["docker.io", "libc++", "grub-pc", "grub-efi-amd64", "first", "e2fsprogs"] {
        assert!(has(there), "{there}");
    }
    assert!(!has("unwanted") && !has("second"), "just what the installs need");
    // The installer's components, with those that were made here.
    assert!(has(&format!("ext4-modules-{KERNEL}-di")) && has("partman-base"));
    assert_eq!(faults(&h.mirror), Vec::<String>::new());

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/mirror", listener.local_addr().unwrap());
    let routes = provision::netboot::mirror::router(h.shelf());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let key = h.mirror.dir.join("key.gpg");
    let uri = format!("{base}/m");
    let root = h.dir.path().join("apt");
    let work = move || {
        let (good, said) = apt(&root, &uri, &key, &["update"]);
        assert!(good && !said.contains("W:") && !said.contains("E:"), "{said}");
        let get = ["install", "--download-only", "docker.io", "grub-pc", "openssh-server"];
        let (good, said) = apt(&root, &uri, &key, &get);
        assert!(good, "{said}");
        visible(&root.join("archives")).iter().filter(|f| f.ends_with(".deb")).count()
    };
    assert_eq!(tokio::task::spawn_blocking(work).await.unwrap(), 4);

    // Nothing else is served.
    provision::tls::install_provider();
    fs::write(h.dir.path().join("secret"), "s").unwrap();
    fs::write(h.dir.path().join("mirrors/m/.hidden"), "s").unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for bad in
        ["m/..%2f..%2fsecret", "m/.hidden", "x/dists/trixie/Release", "m/dists", "..%2fm/key.gpg"]
    {
        let r = http.get(format!("{base}/{bad}")).send().await.unwrap();
        assert_eq!(r.status(), 404, "{bad}");
    }
    let part = http.get(format!("{base}/m/mirror.toml")).header("range", "bytes=0-5");
    assert_eq!(part.send().await.unwrap().bytes().await.unwrap(), "format");
}

#[test]
fn a_flipped_byte_a_lost_file_and_a_stranger_are_found() {
    let h = house();
    let file = h.mirror.description.files.keys().find(|f| f.contains("docker.io")).unwrap();
    let path = h.mirror.dir.join(file);
    let good = fs::read(&path).unwrap();
    // A new file, since this one is linked to the packages downloaded before.
    let put = |bytes: &[u8]| {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    };
    let mut bad = good.clone();
    bad[100] ^= 1;
    put(&bad);
    let found = faults(&h.mirror);
    assert!(found.len() == 1 && found[0].contains("docker.io"), "{found:?}");
    put(&good[..50]);
    assert!(faults(&h.mirror)[0].contains("50 bytes"));
    fs::remove_file(&path).unwrap();
    assert!(faults(&h.mirror)[0].contains("docker.io"));
    fs::write(&path, &good).unwrap();
    fs::write(h.mirror.dir.join("pool/more"), "x").unwrap();
    assert!(faults(&h.mirror)[0].contains("not in mirror.toml"));
    fs::remove_file(h.mirror.dir.join("pool/more")).unwrap();
    // Whoever changes the description has not the key.
    let toml = h.mirror.dir.join("mirror.toml");
    let text = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, text.replace("packages = ", "packages = 1")).unwrap();
    let m = h.shelf().get(&name("m")).unwrap();
    assert!(faults(&m)[0].contains("signature"), "{:?}", faults(&m));
    fs::write(&toml, text).unwrap();
    assert_eq!(faults(&h.mirror), Vec::<String>::new());
}

#[test]
fn what_is_asked_for_and_not_there_is_named() {
    let (a, dir) = (Archive::whole(), tempfile::tempdir().unwrap());
    let image = image(dir.path(), &a);
    let mut r = request(dir.path(), &a, image);
    r.packages = vec!["no-such".into(), "-o=x".into(), "docker.io".into()];
    let said = mirror::build_mirror(&r, &mut Silent).unwrap_err().to_string();
    assert!(said.contains("no-such") && said.contains("not a package's name"), "{said}");
    r.packages = vec!["docker.io".into()];
    a.lose("libc++");
    let said = mirror::build_mirror(&r, &mut Silent).unwrap_err().to_string();
    assert!(said.contains("not in the archive: pool/main/libc++/libc++_1_amd64.deb"), "{said}");
    assert_eq!(visible(&r.mirrors), Vec::<String>::new());
}

/// Run by the test below, in a process of its own.
#[test]
#[ignore = "a helper of the test below"]
fn helper_builds_a_mirror() {
    let Some(dir) = std::env::var_os("MIRROR_DIR").map(PathBuf::from) else { return };
    let text = |k: &str| std::env::var(k).unwrap();
    let sources = vec![provision::image::sources::Source {
        uri: text("MIRROR_URI"),
        suite: "trixie".into(),
        components: vec!["main".into()],
        signed_by: Some(text("MIRROR_KEY")),
    }];
    let catalogue = provision::image::Catalogue::open(dir.join("images"));
    let image = catalogue.get(&name("debian-13-installer")).unwrap();
    let a = Archive::new();
    let r = MirrorRequest { sources: Some(sources), ..request(&dir, &a, image) };
    mirror::build_mirror(&r, &mut Silent).unwrap();
}

#[test]
fn a_build_that_is_killed_leaves_no_half_mirror() {
    let (a, dir) = (Archive::whole(), tempfile::tempdir().unwrap());
    let image = image(dir.path(), &a);
    *a.served.gate.lock().unwrap() = Some("docker.io_".into());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "helper_builds_a_mirror"])
        .env("MIRROR_DIR", dir.path())
        .env("MIRROR_URI", &a.uri)
        .env("MIRROR_KEY", a.dir.path().join("dist.gpg"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !a.served.asked.lock().unwrap().iter().any(|p| p.contains("docker.io_")) {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(std::time::Instant::now() < until, "it never came to the packages");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let r = request(dir.path(), &a, image);
    assert!(r.mirrors.join(".build").exists(), "it was killed in the middle");
    let shelf = Mirrors::open(&r.mirrors);
    assert!(shelf.list().unwrap().0.is_empty() && visible(&r.mirrors).is_empty());
    a.served.open.store(true, std::sync::atomic::Ordering::Relaxed);
    let m = mirror::build_mirror(&r, &mut Silent).unwrap();
    assert_eq!(faults(&m), Vec::<String>::new());
    assert!(!r.mirrors.join(".build").exists());
}

/// Debian 13 and docker from the mirror alone: a network of nothing but
/// loopback, in which mirror, mmdebstrap and the new system's own apt run.
#[test]
#[ignore = "500 MB from the archive, root, two minutes"]
fn a_debian_13_with_docker_is_installed_where_there_is_no_uplink() {
    let (a, dir) = (Archive::new(), tempfile::tempdir().unwrap());
    let add = AddRequest { sources: None, ..a.request(dir.path()) };
    let image = add_installer(&add, &mut Silent).unwrap();
    let profiles =
        provision::profile::Profiles::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles"));
    let docker = profiles.get(&name("docker")).unwrap();
    let r = MirrorRequest {
        sources: None,
        profile: Some((docker.name, docker.digest)),
        packages: docker.packages,
        ..request(dir.path(), &a, image)
    };
    let m = mirror::build_mirror(&r, &mut Silent).unwrap();
    println!("{} packages, {} bytes", m.description.packages, m.description.bytes());
    assert_eq!(faults(&m), Vec::<String>::new());
    let (mirrors, tree, key) = (r.mirrors, dir.path().join("tree"), m.dir.join("key.gpg"));
    // A thread of its own, since a network namespace is a thread's.
    let alone = std::thread::spawn(move || {
        use rustix::thread::UnshareFlags;
        // SAFETY: the thread shares no descriptors or directory that change.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let done = Command::new(program).args(arguments).env("LC_ALL", "C").output().unwrap();
            let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
            assert!(done.status.success(), "{program} {arguments:?}: {said}");
            said
        };
        run("ip", &["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:8099")).unwrap();
        let routes = provision::netboot::mirror::router(Mirrors::open(mirrors));
        runtime.spawn(async move { axum::serve(listener, routes).await });
        let uri = "http://127.0.0.1:8099/mirror/m trixie main non-free-firmware";
        let line = format!("deb [signed-by={}] {uri}", key.display());
        let (tree, include) = (
            tree.to_str().unwrap(),
            "--include=linux-image-amd64,openssh-server,sudo,grub-pc,docker.io,docker-cli,iptables,apparmor",
        );
        let options = "--aptopt=Apt::Install-Recommends \"false\"";
        run("mmdebstrap", &["--variant=important", options, include, "trixie", tree, &line]);
        // As the installer leaves it: our key is in the system, no other option.
        let at = |p: &str| Path::new(tree).join(p);
        fs::copy(&key, at("etc/apt/trusted.gpg.d/provision.gpg")).unwrap();
        fs::write(at("etc/apt/sources.list"), format!("deb {uri}\n")).unwrap();
        let said = run("chroot", &[tree, "apt-get", "update"]);
        assert!(!said.contains("W:") && !said.contains("E:"), "{said}");
        let efi = ["grub-efi-amd64", "grub-efi-amd64-signed", "shim-signed"];
        let get = [tree, "apt-get", "install", "-y", "--no-install-recommends", "--download-only"];
        run("chroot", &[&get[..], &efi].concat());
        assert!(run("chroot", &[tree, "docker", "--version"]).contains("Docker version"));
    });
    alone.join().unwrap();
}

#[test]
fn no_mirror_is_made_for_an_installer_that_would_not_believe_it() {
    let (a, dir) = (Archive::whole(), tempfile::tempdir().unwrap());
    let r = request(dir.path(), &a, image(dir.path(), &a));
    let other = MirrorRequest { key: dir.path().join("other.key"), ..r };
    let e = mirror::build_mirror(&other, &mut Silent).unwrap_err().to_string();
    assert!(e.contains("believes the key") && e.contains("images add"), "{e}");
}
