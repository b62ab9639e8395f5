//! The real deployment server on loopback with a state directory of its own,
//! the real command line, and images to push.

#![allow(dead_code, reason = "each test binary uses some of these")]

pub mod tap;

use provision::registry::Digest;
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const LIMIT: Duration = Duration::from_secs(60);

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    pub fn fails(self, code: i32, with: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(self.err.contains(with), "{with:?} is not in: {}", self.err);
    }
}

pub fn run(c: &mut Command, stdin: &str) -> Ended {
    let mut child = c
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{c:?}: {e}; scripts/deps.sh installs it"));
    // One that fails at once does not read.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let o = child.wait_with_output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    Ended { code: o.status.code().unwrap_or(-1), out: text(o.stdout), err: text(o.stderr) }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A deployment server.
pub struct Server {
    pub dir: PathBuf,
    pub at: String,
    /// Network namespace it runs in; this one's if there is none.
    space: Option<String>,
    child: Option<Child>,
}

impl Server {
    /// Set up in `dir` and started; `registry` is what stands in `[registry]`.
    pub fn new(dir: &Path, registry: &str) -> Self {
        Self::bare(&format!("127.0.0.1:{}", free_port()), dir, registry)
    }

    fn bare(at: &str, dir: &Path, registry: &str) -> Self {
        let s = Self { dir: dir.to_owned(), at: at.to_owned(), space: None, child: None };
        fs::create_dir_all(dir).unwrap();
        s.configure(registry);
        s
    }

    /// Writes the configuration anew; it holds from the next start.
    pub fn configure(&self, registry: &str) {
        let text = format!(
            "state_dir = \"state\"\nlisten = \"{}\"\nsocket = \"api.sock\"\n[registry]\n{registry}",
            self.at
        );
        fs::write(self.dir.join("deployment-server.toml"), text).unwrap();
    }

    /// Of the same authority as `other`, and with its key for logins: what
    /// people do who set up a second server.
    pub fn beside(other: &Self, dir: &Path, registry: &str) -> Self {
        let s = Self::new(dir, registry);
        fs::create_dir_all(s.state().join("tls")).unwrap();
        for f in ["tls/ca.pem", "tls/ca.key", "secret.key"] {
            fs::copy(other.state().join(f), s.state().join(f)).unwrap();
        }
        s.daemon(&["init"]).ok();
        s
    }

    /// A token of this server with this role, in a file for its owner alone.
    pub fn token(&self, name: &str, role: &str, file: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        let server = format!("unix:{}", self.dir.join("api.sock").display());
        let args = ["--server", &server, "tokens", "add", name, "--role", role];
        let said = self.cli(&args).ok();
        let token = said.split_whitespace().find(|w| w.starts_with("pv_")).unwrap();
        fs::write(file, token).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Over TLS, as a client elsewhere.
    pub fn https(&self) -> reqwest::Client {
        let config = provision::tls::pin::with_ca(&self.state().join("tls/ca.pem")).unwrap();
        reqwest::Client::builder().tls_backend_preconfigured(config).build().unwrap()
    }

    /// Waits until `good` says so, at most a minute.
    pub fn until(&self, what: &str, mut good: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + LIMIT;
        while !good(self) {
            if Instant::now() >= until {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                panic!("not within a minute: {what}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Memory in kB: `VmRSS` now, or `VmHWM`, the most it ever held.
    pub fn memory(&self, which: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with(which)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn started(dir: &Path, registry: &str) -> Self {
        let mut s = Self::new(dir, registry);
        s.daemon(&["init"]).ok();
        s.start();
        s
    }

    /// Started in the network namespace `space`, on the address `at` of it.
    pub fn within(space: &str, at: &str, dir: &Path, registry: &str) -> Self {
        let mut s = Self::bare(at, dir, registry);
        s.space = Some(space.to_owned());
        s.daemon(&["init"]).ok();
        s.start();
        s
    }

    fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_deployment-server");
        let mut c = match &self.space {
            Some(space) => {
                let mut c = Command::new("ip");
                c.args(["netns", "exec", space, program]);
                c
            }
            None => Command::new(program),
        };
        c.arg("--config").arg(self.dir.join("deployment-server.toml"));
        c
    }

    /// One of its verbs, to its end.
    pub fn daemon(&self, args: &[&str]) -> Ended {
        run(self.command().args(args), "")
    }

    pub fn start(&mut self) {
        let log = fs::File::create(self.dir.join("log")).unwrap();
        self.child = Some(self.command().stderr(log).stdout(Stdio::null()).spawn().unwrap());
        let until = Instant::now() + LIMIT;
        while self.cli(&["catalog"]).code != 0 {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As at a power cut.
    pub fn kill(&mut self) {
        if let Some(mut c) = self.child.take() {
            c.kill().unwrap();
            c.wait().unwrap();
        }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// `provision` as root on this host.
    pub fn cli(&self, args: &[&str]) -> Ended {
        self.cli_with(args, "")
    }

    pub fn cli_with(&self, args: &[&str], stdin: &str) -> Ended {
        let mut c = Command::new(env!("CARGO_BIN_EXE_provision"));
        c.env("HOME", &self.dir);
        c.env("PROVISION_DEPLOYMENT", format!("unix:{}", self.dir.join("api.sock").display()));
        run(c.args(args), stdin)
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let all = [&["--output", "json"], args].concat();
        serde_json::from_str(&self.cli(&all).ok()).unwrap()
    }

    /// The events of this action, newest last.
    pub fn events(&self, action: &str) -> Vec<Value> {
        let server = format!("unix:{}", self.dir.join("api.sock").display());
        let v = self.json(&["--server", &server, "log", "--action", action]);
        v.as_array().unwrap().clone()
    }

    /// A directory of certificates for skopeo: the authority, and what else.
    pub fn certs(&self, name: &str, more: &[(&str, &str)]) -> PathBuf {
        let dir = self.dir.join("certs").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::copy(self.state().join("tls/ca.pem"), dir.join("ca.crt")).unwrap();
        for (file, text) in more {
            fs::write(dir.join(file), text).unwrap();
        }
        dir
    }

    pub fn url(&self, image: &str) -> String {
        format!("docker://{}/{image}", self.at)
    }

    /// A person with these rights, and their `name:password`.
    pub fn person(&self, name: &str, grants: &[&str]) -> String {
        let mut args = vec!["users", "add", name];
        for g in grants {
            args.extend(["--grant", g]);
        }
        self.cli_with(&args, "correct-horse\n").ok();
        format!("{name}:correct-horse")
    }

    /// Pushes the layout in `from` with skopeo, as who `creds` are.
    pub fn push(&self, creds: &str, from: &Path, image: &str) -> Ended {
        let certs = self.certs("plain", &[]);
        run(
            Command::new("skopeo")
                .args(["copy", "--preserve-digests", "--dest-creds", creds, "--dest-cert-dir"])
                .arg(certs)
                .arg(format!("oci:{}:one", from.display()))
                .arg(self.url(image)),
            "",
        )
    }

    /// The digest that a pull of `image` gives.
    pub fn pull(&self, creds: Option<&str>, certs: &Path, image: &str) -> Ended {
        let mut c = Command::new("skopeo");
        c.args(["inspect", "--format", "{{.Digest}}", "--cert-dir"]).arg(certs);
        match creds {
            Some(creds) => c.args(["--creds", creds]),
            None => c.arg("--no-creds"),
        };
        run(c.arg(self.url(image)), "")
    }

    /// Requests of root to the registry's own protocol.
    pub fn http(&self) -> reqwest::Client {
        provision::tls::install_provider();
        reqwest::Client::builder().unix_socket(self.dir.join("api.sock")).build().unwrap()
    }

    /// Pushes a blob; its descriptor.
    pub async fn blob(&self, repo: &str, media_type: &str, bytes: &[u8]) -> Value {
        let d = Digest::of(bytes);
        let url = format!("http://x/v2/{repo}/blobs/uploads/?digest={d}");
        let r = self.http().post(url).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(r.status(), 201);
        json!({ "mediaType": media_type, "digest": d, "size": bytes.len() })
    }

    pub async fn manifest(&self, repo: &str, at: &str, m: &Value) -> Digest {
        let text = m.to_string();
        let d = Digest::of(text.as_bytes());
        let at = if at.is_empty() { d.to_string() } else { at.to_owned() };
        let kind = m["mediaType"].as_str().unwrap().to_owned();
        let url = format!("http://x/v2/{repo}/manifests/{at}");
        let put = self.http().put(url).header("content-type", kind).body(text);
        let r = put.send().await.unwrap();
        assert_eq!(r.status(), 201, "{:?}", r.text().await);
        d
    }

    /// An image of one layer.
    pub async fn image(&self, repo: &str, tag: &str, layer: &[u8]) -> Digest {
        let config = self.blob(repo, "application/vnd.oci.image.config.v1+json", b"{}").await;
        let layer = self.blob(repo, "application/vnd.oci.image.layer.v1.tar", layer).await;
        let m =
            json!({ "schemaVersion": 2, "mediaType": OCI, "config": config, "layers": [layer] });
        self.manifest(repo, tag, &m).await
    }

    /// What the server signs about an image, signed with its own key.
    fn statement(&self, repo: &str, subject: &Digest) -> Vec<u8> {
        let key = self.state().join("attestation.key");
        let key = provision::tls::signing::SigningKey::load_or_make(&key).unwrap();
        let run = json!({
            "id": provision::ingest::RunId::generate(), "repository": repo, "name": "app",
            "tag": "1", "source": { "kind": "upload", "label": "app" }, "asked_by": "ada",
            "dockerfile": "Dockerfile", "commit": null, "dockerfile_digest": null,
            "context_digest": null, "bases": [], "builder": null,
            "asked": provision::model::Time::now(), "started": null, "ended": null,
            "state": "done", "reason": null, "image_digest": subject,
            "attestation_digest": null, "log": "/dev/null",
        });
        let run = serde_json::from_value(run).unwrap();
        let image = subject.to_string().parse().unwrap();
        provision::ingest::provenance::attest(&run, &image, "urn:test", &key)
    }

    /// An attestation of `subject`.
    pub async fn attest(&self, repo: &str, subject: &Digest) -> Digest {
        let r = self.http().get(format!("http://x/v2/{repo}/manifests/{subject}")).send().await;
        let size = r.unwrap().bytes().await.unwrap().len();
        let config = self.blob(repo, "application/vnd.oci.empty.v1+json", b"{}").await;
        let kind = "application/vnd.in-toto+json";
        let envelope = self.statement(repo, subject);
        let layer = self.blob(repo, kind, &envelope).await;
        let m = json!({
            "schemaVersion": 2, "mediaType": OCI, "artifactType": kind,
            "config": config, "layers": [layer],
            "subject": { "mediaType": OCI, "digest": subject, "size": size },
        });
        self.manifest(repo, "", &m).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    })
    .flatten()
    .take(size)
    .collect()
}

/// An OCI layout of one image named `one`; its digest.
pub fn layout(dir: &Path, seed: u64) -> Digest {
    let put = |bytes: &[u8]| {
        let to = dir.join("blobs/sha256");
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join(Digest::of(bytes).hex()), bytes).unwrap();
        json!({ "digest": Digest::of(bytes), "size": bytes.len() })
    };
    let with = |mut d: Value, kind: &str| {
        d["mediaType"] = kind.into();
        d
    };
    let layer = noise(seed, 100_000);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] },
    });
    let m = json!({
        "schemaVersion": 2, "mediaType": OCI,
        "config": with(put(config.to_string().as_bytes()), "application/vnd.oci.image.config.v1+json"),
        "layers": [with(put(&layer), "application/vnd.oci.image.layer.v1.tar")],
    })
    .to_string();
    let mut d = with(put(m.as_bytes()), OCI);
    d["annotations"] = json!({ "org.opencontainers.image.ref.name": "one" });
    let index = json!({ "schemaVersion": 2, "manifests": [d] });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    Digest::of(m.as_bytes())
}
