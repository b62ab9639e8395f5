//! A real docker engine, in a network of its own: `docker login`, push, pull
//! over TLS; refused without login and without the authority; with a node's
//! certificate; and as the builder of an ingest. Needs root and docker.io
//! (apt install docker.io); it is slower than the other clients.

mod deployd;
mod netlab;

use deployd::{Ended, Server, run};
use netlab::Namespace;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Not on 127.0.0.0/8, which docker trusts without a certificate.
const ADDRESS: &str = "10.77.0.1";
const LIMIT: Duration = Duration::from_secs(120);

struct Engine {
    child: Child,
    dir: PathBuf,
}

impl Engine {
    /// An engine in `space`, whose `/etc/docker` is `dir/etc`.
    fn started(space: &Namespace, dir: &Path) -> Self {
        let dir = dir.join("docker");
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::create_dir_all("/etc/docker").unwrap();
        // The mounts of `ip netns exec` are its own. An engine wants cgroups
        // that are nobody else's; without init there may be none mounted.
        let script = "mount --bind \"$1/etc\" /etc/docker
            grep -q ' /sys/fs/cgroup' /proc/mounts || mount -t cgroup2 none /sys/fs/cgroup
            exec dockerd --data-root \"$1/data\" --exec-root \"$1/exec\" --pidfile \"$1/pid\" \
                --host \"unix://$1/sock\" --storage-driver vfs --bridge none --iptables=false \
                --ip6tables=false --ip-forward=false --ip-masq=false";
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut c = space.command("sh", &["-euc", script, "dockerd", dir.to_str().unwrap()]);
        let child = c.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut e = Self { child, dir };
        let until = Instant::now() + LIMIT;
        while e.docker(&["version"], "").code != 0 {
            let log = fs::read_to_string(e.dir.join("log")).unwrap_or_default();
            let over = e.child.try_wait().unwrap().is_some() || Instant::now() > until;
            assert!(!over, "dockerd does not come up:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        e
    }

    fn host(&self) -> String {
        format!("unix://{}/sock", self.dir.display())
    }

    fn docker(&self, args: &[&str], stdin: &str) -> Ended {
        let mut c = Command::new("docker");
        c.env("HOME", &self.dir).env_remove("DOCKER_HOST");
        run(c.args(["--host", &self.host()]).args(args), stdin)
    }

    /// What the engine finds below `certs.d` for the registry.
    fn trusts(&self, at: &str, files: &[(&str, &str)]) {
        let dir = self.dir.join("etc/certs.d").join(at);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It takes its containerd with it when it is asked, not when killed.
        let id = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let until = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().is_ok_and(|e| e.is_none()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refused(e: Ended, with: &[&str]) {
    assert_ne!(e.code, 0, "{}", e.out);
    assert!(with.iter().any(|w| e.err.contains(w)), "none of {with:?} in {}", e.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_engine_is_client_and_builder() {
    let dir = tempfile::tempdir().unwrap();
    let space = Namespace::new("docker");
    space.ip(&["addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"]);
    let engine = Engine::started(&space, dir.path());
    let config = format!(
        "gc_hours = 0\n[ingest]\nbuilder = \"docker\"\ndocker_host = {:?}\n",
        engine.host()
    );
    let s = Server::within(&space.name, &format!("{ADDRESS}:5000"), dir.path(), &config);
    let ca = fs::read_to_string(s.state().join("tls/ca.pem")).unwrap();
    s.person("anna", &["team/:pull,push", "staging/:pull"]);
    let at = s.at.clone();

    // The engine builds: from nothing, then on what it built, with a command.
    let folder = dir.path().join("app");
    fs::create_dir(&folder).unwrap();
    fs::copy("/bin/busybox", folder.join("busybox")).unwrap();
    fs::write(folder.join("Dockerfile"), "FROM scratch\nCOPY busybox /bin/sh\n").unwrap();
    s.cli(&["ingest", folder.to_str().unwrap(), "--tag", "1"]).ok();
    let first = s.json(&["runs"])[0].clone();
    let version = engine.docker(&["version", "--format", "{{.Server.Version}}"], "").ok();
    assert_eq!(first["builder"]["name"], "docker");
    assert_eq!(first["builder"]["version"], version.trim());
    let on = format!("FROM {at}/staging/app:1\nRUN echo built > /made\n");
    fs::write(folder.join("Dockerfile"), on).unwrap();
    s.cli(&["ingest", folder.to_str().unwrap(), "--tag", "2"]).ok();
    let second = s.json(&["runs"])[0].clone();
    assert_eq!(second["bases"][0]["digest"], first["image_digest"]);
    fs::write(
        folder.join("Dockerfile"),
        format!("FROM {at}/staging/app:1\nRUN echo oh no; exit 7\n"),
    )
    .unwrap();
    let e = s.cli(&["ingest", folder.to_str().unwrap(), "--tag", "3"]);
    assert_eq!(e.code, 1);
    assert!(e.err.contains("oh no") && e.err.contains('7'), "{}", e.err);
    s.cli(&["verify", "staging/app:2"]).ok();

    // A stranger: without the authority, without a login, with a wrong one.
    let image = format!("{at}/staging/app:2");
    refused(engine.docker(&["pull", &image], ""), &["x509", "certificate"]);
    engine.trusts(&at, &[("ca.crt", &ca)]);
    refused(engine.docker(&["pull", &image], ""), &["unauthorized", "needs a login"]);
    let login = ["login", "--username", "anna", "--password-stdin", &at];
    refused(engine.docker(&login, "wrong-horse"), &["unauthorized", "name or password is wrong"]);

    // Anna.
    let said = engine.docker(&login, "correct-horse").ok();
    assert!(said.contains("Login Succeeded"), "{said}");
    engine.docker(&["pull", &image], "").ok();
    let inspect = ["image", "inspect", "--format", "{{index .RepoDigests 0}}", &image];
    let digest = engine.docker(&inspect, "").ok();
    assert!(digest.trim().ends_with(second["image_digest"].as_str().unwrap()), "{digest}");
    let mine = format!("{at}/team/app:1");
    engine.docker(&["tag", &image, &mine], "").ok();
    engine.docker(&["push", &mine], "").ok();
    let tags = s.json(&["catalog", "team/"]);
    assert_eq!((&tags[0]["tag"], &tags[0]["by"]), (&"1".into(), &"user:anna".into()));
    let theirs = format!("{at}/other/app:1");
    engine.docker(&["tag", &image, &theirs], "").ok();
    refused(engine.docker(&["push", &theirs], ""), &["denied", "may not push"]);
    engine.docker(&["image", "rm", &mine, &image, &theirs], "").ok();
    engine.docker(&["pull", &mine], "").ok();
    engine.docker(&["logout", &at], "").ok();
    refused(
        engine.docker(&["push", &mine], ""),
        &["unauthorized", "no basic auth", "needs a login"],
    );

    // A node, by its certificate, until it is refused.
    let (key, csr) = provision::tls::ca::request("node07").unwrap();
    let ask = serde_json::json!({ "node": "node07", "csr": csr });
    let r = s.http().post("http://x/v1/certificates").json(&ask).send().await.unwrap();
    let signed: serde_json::Value = r.json().await.unwrap();
    let pem = signed["certificate"].as_str().unwrap();
    engine.trusts(&at, &[("ca.crt", &ca), ("client.cert", pem), ("client.key", &key)]);
    engine.docker(&["pull", &mine], "").ok();
    s.cli(&["certificates", "revoke", "node07", "--reason", "retired"]).ok();
    refused(engine.docker(&["pull", &image], ""), &["is refused since", "unauthorized", "denied"]);
}
