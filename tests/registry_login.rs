//! Real clients over TLS as people use them: skopeo, buildah, podman and curl
//! log in, push, pull, list and delete where they can; without a login, with a
//! wrong one, and without the authority they are refused, and say why.

mod deployd;

use deployd::{Ended, Server, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A client with a storage of its own, which is gone with the directory.
struct Client {
    program: &'static str,
    dir: PathBuf,
    certs: PathBuf,
    /// The authority, where the program takes no directory of certificates.
    trust: Option<PathBuf>,
}

impl Client {
    fn new(program: &'static str, dir: &Path, certs: &Path) -> Self {
        let dir = dir.join(program);
        fs::create_dir_all(dir.join("tmp")).unwrap();
        Self { program, dir, certs: certs.to_owned(), trust: None }
    }

    /// `words`; in them `@` is the directory of certificates and `%` the file
    /// of logins.
    fn run(&self, words: &str, stdin: &str) -> Ended {
        let mut c = Command::new(self.program);
        c.env("TMPDIR", self.dir.join("tmp")).env("HOME", &self.dir).current_dir(&self.dir);
        c.env("XDG_RUNTIME_DIR", self.dir.join("tmp"));
        if let Some(ca) = &self.trust {
            c.env("SSL_CERT_FILE", ca);
        }
        if self.program != "skopeo" {
            c.arg("--root").arg(self.dir.join("root")).arg("--runroot").arg(self.dir.join("run"));
            c.arg("--storage-driver=vfs");
        }
        if self.program == "podman" {
            c.args(["--cgroup-manager=cgroupfs", "--events-backend=file"]);
            c.arg("--tmpdir").arg(self.dir.join("tmp"));
        }
        let auth = self.dir.join("auth.json");
        for w in words.split_whitespace() {
            c.arg(
                w.replace('@', self.certs.to_str().unwrap()).replace('%', auth.to_str().unwrap()),
            );
        }
        run(&mut c, stdin)
    }

    fn refused(&self, words: &str, with: &[&str]) {
        let e = self.run(words, "");
        assert_ne!(e.code, 0, "{} {words}", self.program);
        let said = with.iter().any(|w| e.err.contains(w));
        assert!(said, "{} {words}: none of {with:?} in {}", self.program, e.err);
    }
}

struct Bench {
    dir: tempfile::TempDir,
    server: Server,
    certs: PathBuf,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::started(dir.path(), "gc_hours = 0\n");
    server.person("anna", &["team/:pull,push,delete"]);
    let certs = server.certs("plain", &[]);
    Bench { dir, server, certs }
}

/// What each client must say that shows no login, a wrong one, or does not know
/// the authority.
fn strangers_are_refused(b: &Bench, c: &Client, pull: &str) {
    c.refused(
        &format!("{pull} --cert-dir=@ {}", b.server.url("team/app:1")),
        &["unauthorized", "needs a login"],
    );
    c.refused(
        &format!("{pull} --cert-dir=@ --creds=anna:wrong-horse {}", b.server.url("team/app:1")),
        &["name or password is wrong", "unauthorized"],
    );
    let none = b.dir.path().join("none");
    fs::create_dir_all(&none).unwrap();
    let words = format!("{pull} --cert-dir={} {}", none.display(), b.server.url("team/app:1"));
    c.refused(&words, &["certificate signed by unknown authority", "x509"]);
}

#[test]
fn podman_logs_in_pushes_lists_and_pulls() {
    let b = bench();
    let c = Client::new("podman", b.dir.path(), &b.certs);
    let at = &b.server.at;
    fs::write(c.dir.join("tar"), tar()).unwrap();
    c.run("import tar made:1", "").ok();
    strangers_are_refused(&b, &c, "pull");
    let login = format!("login --authfile=% --cert-dir=@ --username=anna --password-stdin {at}");
    let wrong = c.run(&login, "wrong-horse");
    assert!(wrong.code != 0 && wrong.err.contains("invalid username/password"), "{}", wrong.err);
    assert!(c.run(&login, "correct-horse").ok().contains("Login Succeeded"));
    let image = format!("{at}/team/app:1");
    c.run(&format!("push --authfile=% --cert-dir=@ --digestfile=digest made:1 {image}"), "").ok();
    let digest = fs::read_to_string(c.dir.join("digest")).unwrap();
    let pulled = b.server.pull(Some("anna:correct-horse"), &b.certs, "team/app:1").ok();
    assert_eq!(pulled.trim(), digest.trim());
    c.run("rmi --all --force", "").ok();
    c.run(&format!("pull --authfile=% --cert-dir=@ {image}"), "").ok();
    let inspected = c.run(&format!("image inspect --format={{{{.Digest}}}} {image}"), "").ok();
    assert_eq!(inspected.trim(), digest.trim());
    let list = format!("search --list-tags --authfile=% {at}/team/app");
    let lists = Client { trust: Some(b.certs.join("ca.crt")), dir: c.dir.clone(), ..c };
    assert!(lists.run(&list, "").ok().lines().any(|l| l.ends_with(" 1")), "podman lists tags");
    lists.refused(
        &format!("push --authfile=% --cert-dir=@ {image} {at}/other/app:1"),
        &["may not push to other/app", "denied", "403 (Forbidden)"],
    );
}

#[test]
fn buildah_logs_in_pushes_and_pulls() {
    let b = bench();
    let c = Client::new("buildah", b.dir.path(), &b.certs);
    let at = &b.server.at;
    let container = c.run("from scratch", "").ok().trim().to_owned();
    fs::write(c.dir.join("content"), "x").unwrap();
    c.run(&format!("copy {container} content /content"), "").ok();
    c.run(&format!("commit {container} made"), "").ok();
    strangers_are_refused(&b, &c, "pull");
    let login = format!("login --authfile=% --cert-dir=@ --username=anna --password-stdin {at}");
    assert!(c.run(&login, "correct-horse").ok().contains("Login Succeeded"));
    let image = format!("docker://{at}/team/app:1");
    c.run(&format!("push --authfile=% --cert-dir=@ made {image}"), "").ok();
    c.run("rm --all", "").ok();
    c.run("rmi --all --force", "").ok();
    c.run(&format!("pull --authfile=% --cert-dir=@ {image}"), "").ok();
    c.refused(
        &format!("push --authfile=% --cert-dir=@ {at}/team/app:1 docker://{at}/other/app:1"),
        &["may not push to other/app", "denied", "403 (Forbidden)"],
    );
}

#[test]
fn skopeo_logs_in_pushes_pulls_lists_and_deletes() {
    let b = bench();
    let digest = deployd::layout(&b.dir.path().join("in"), 1);
    let c = Client::new("skopeo", b.dir.path(), &b.certs);
    let at = &b.server.at;
    strangers_are_refused(&b, &c, "inspect");
    let login = format!("login --authfile=% --cert-dir=@ --username=anna --password-stdin {at}");
    assert!(c.run(&login, "correct-horse").ok().contains("Login Succeeded"));
    let image = b.server.url("team/app:1");
    let from = format!("oci:{}:one", b.dir.path().join("in").display());
    c.run(
        &format!("copy --preserve-digests --dest-authfile=% --dest-cert-dir=@ {from} {image}"),
        "",
    )
    .ok();
    let said = c.run(&format!("inspect --authfile=% --cert-dir=@ {image}"), "").ok();
    assert!(said.contains(&digest.to_string()), "{said}");
    let tags = format!("list-tags --authfile=% --cert-dir=@ {}", b.server.url("team/app"));
    assert!(c.run(&tags, "").ok().contains("\"1\""));
    c.run(&format!("delete --authfile=% --cert-dir=@ {image}"), "").ok();
    c.refused(&format!("inspect --authfile=% --cert-dir=@ {image}"), &["manifest unknown", "404"]);
    c.refused(
        &format!("delete --authfile=% --cert-dir=@ {}", b.server.url("other/app:1")),
        &["denied", "may not", "403"],
    );
}

#[test]
fn curl_does_all_of_it_by_hand() {
    let b = bench();
    let at = &b.server.at;
    let ca = b.certs.join("ca.crt");
    let curl = |args: &[&str], path: &str| {
        let mut c = Command::new("curl");
        c.args(["--silent", "--show-error", "--include"]).args(args);
        run(c.arg(format!("https://{at}{path}")), "")
    };
    let ca = ca.to_str().unwrap();
    let nobody = curl(&["--cacert", ca], "/v2/").ok();
    assert!(
        nobody.contains(" 401 ") && nobody.contains("www-authenticate: Bearer realm="),
        "{nobody}"
    );
    assert!(
        nobody.contains("needs a login (`docker login`) or a node's client certificate"),
        "{nobody}"
    );
    let stranger = curl(&[], "/v2/");
    assert!(stranger.code != 0 && stranger.err.contains("certificate"), "{}", stranger.err);
    let wrong = curl(&["--cacert", ca, "--user", "anna:wrong-horse"], "/v2/").ok();
    assert!(wrong.contains(" 401 ") && wrong.contains("name or password is wrong"), "{wrong}");
    let anna = ["--cacert", ca, "--user", "anna:correct-horse"];
    let with = |more: &[&str], path: &str| curl(&[&anna, more].concat(), path).ok();
    assert!(with(&[], "/v2/").contains(" 200 "));
    let config = provision::registry::Digest::of(b"{}");
    let begin = format!("/v2/team/app/blobs/uploads/?digest={config}");
    let kind = "content-type: application/octet-stream";
    assert!(with(&["--header", kind, "--data-binary", "{}"], &begin).contains(" 201 "));
    let m = format!(
        r#"{{"schemaVersion":2,"mediaType":"{0}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[]}}"#,
        deployd::OCI
    );
    let kind = format!("content-type: {}", deployd::OCI);
    let put = ["--request", "PUT", "--header", &kind, "--data-binary", &m];
    assert!(with(&put, "/v2/team/app/manifests/1").contains(" 201 "));
    assert!(with(&[], "/v2/team/app/manifests/1").ends_with(&m));
    assert!(with(&[], "/v2/team/app/tags/list").contains(r#"["1"]"#));
    let denied = with(&put, "/v2/other/app/manifests/1");
    assert!(
        denied.contains(" 403 ") && denied.contains("user:anna may not push to other/app"),
        "{denied}"
    );
    assert!(with(&["--request", "DELETE"], "/v2/team/app/manifests/1").contains(" 202 "));
    assert!(with(&[], "/v2/team/app/manifests/1").contains(" 404 "));
}

/// A root file system with one file.
fn tar() -> Vec<u8> {
    let mut b = tar::Builder::new(Vec::new());
    let mut h = tar::Header::new_ustar();
    let content = deployd::noise(3, 200_000);
    h.set_size(content.len() as u64);
    h.set_mode(0o644);
    b.append_data(&mut h, "content", content.as_slice()).unwrap();
    b.into_inner().unwrap()
}
