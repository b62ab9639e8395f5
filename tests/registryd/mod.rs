//! A registry on loopback, within the test or as a child process, and content
//! to push to it.

#![allow(dead_code, reason = "each test binary uses some of these")]

pub mod moto;

use provision::model::Secret;
use provision::registry::storage::Storage;
use provision::registry::storage::s3::Bucket;
use provision::registry::{Digest, Registry, Settings, routes};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

pub const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The variable that makes a test binary serve, with the directory.
pub const SERVE: &str = "PROVISION_TEST_REGISTRY";

pub fn client() -> Client {
    provision::tls::install_provider();
    Client::builder().no_proxy().timeout(Duration::from_secs(600)).build().unwrap()
}

/// A bucket on the S3 server of the tests, below `prefix`.
pub fn bucket(prefix: &str) -> Bucket {
    provision::tls::install_provider();
    Bucket {
        name: moto::BUCKET.into(),
        endpoint: Some(moto::endpoint().into()),
        region: "us-east-1".into(),
        prefix: prefix.into(),
        ca: None,
        key_id: Secret::new("test"),
        secret: Secret::new("test-test"),
        session: None,
    }
}

/// On the directory; in `registry_s3`, on a bucket, below a prefix that stands
/// for the directory.
pub fn settings(dir: &Path) -> Settings {
    if !module_path!().starts_with("registry_s3::") {
        return Settings::local(dir).unwrap();
    }
    let prefix = Digest::of(dir.as_os_str().as_encoded_bytes()).hex()[..16].to_owned();
    Settings::on(Arc::new(bucket(&prefix).open().unwrap()))
}

/// A registry in this process.
pub struct Served {
    pub registry: Arc<Registry>,
    pub storage: Arc<dyn Storage>,
    pub http: Client,
    pub at: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn serve(settings: Settings) -> Served {
    let storage = settings.storage.clone();
    let registry = Arc::new(Registry::open(settings).await.unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let app = routes(registry.clone());
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Served { registry, storage, http: client(), at, task }
}

pub async fn on(dir: &Path) -> Served {
    serve(settings(dir)).await
}

impl Served {
    /// The blob's bytes become others, as a bad disk makes them.
    pub async fn rot(&self, d: &Digest, bytes: &[u8]) {
        let at = match self.storage.read(&format!("blobs/sha256-{}", d.hex()), 4096).await.unwrap()
        {
            Some(record) => {
                let v: Value = serde_json::from_slice(&record).unwrap();
                format!("data/{}/c-{:020}", v["upload"].as_str().unwrap(), 0)
            }
            None => format!("blobs/sha256/{}/{}", &d.hex()[..2], d.hex()),
        };
        self.storage.write(&at, bytes.to_vec().into()).await.unwrap();
    }

    /// The blob's bytes are gone.
    pub async fn lose(&self, d: &Digest) {
        let dashed = format!("blobs/sha256-{}", d.hex());
        let placed = format!("blobs/sha256/{}/{}", &d.hex()[..2], d.hex());
        let gone = self.storage.remove(&dashed).await.unwrap();
        assert!(gone || self.storage.remove(&placed).await.unwrap(), "{d} was not there");
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.at))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub async fn push_blob(&self, repo: &str, bytes: &[u8]) -> Digest {
        push_blob(&self.http, self.at, repo, bytes).await.unwrap()
    }

    pub async fn push_manifest(&self, repo: &str, reference: &str, v: &Value) -> Response {
        let kind = v["mediaType"].as_str().unwrap_or(OCI).to_owned();
        self.request(Method::PUT, &format!("/v2/{repo}/manifests/{reference}"))
            .header("content-type", kind)
            .body(v.to_string())
            .send()
            .await
            .unwrap()
    }

    /// An image of one layer, under `tag`.
    pub async fn push_image(&self, repo: &str, tag: &str, layer: &[u8]) -> (Digest, Value) {
        self.push_blob(repo, b"{}").await;
        self.push_blob(repo, layer).await;
        let m = image(layer);
        let r = self.push_manifest(repo, tag, &m).await;
        assert_eq!(r.status(), 201, "{}", r.text().await.unwrap());
        (Digest::of(m.to_string().as_bytes()), m)
    }
}

pub async fn push_blob(
    http: &Client,
    at: SocketAddr,
    repo: &str,
    bytes: &[u8],
) -> Result<Digest, String> {
    let digest = Digest::of(bytes);
    let url = format!("http://{at}/v2/{repo}/blobs/uploads/?digest={digest}");
    let r = http.post(url).body(bytes.to_vec()).send().await.map_err(|e| e.to_string())?;
    if r.status() == 201 {
        return Ok(digest);
    }
    Err(format!("{}: {}", r.status(), r.text().await.unwrap_or_default()))
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() })
}

pub fn image(layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": OCI,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
}

pub fn location(r: &Response) -> String {
    r.headers()["location"].to_str().unwrap().to_owned()
}

pub fn header(r: &Response, name: &str) -> String {
    r.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
}

pub async fn code(r: Response) -> String {
    let v: Value = r.json().await.unwrap();
    assert!(v["errors"][0]["message"].as_str().is_some_and(|m| !m.is_empty()), "{v}");
    v["errors"][0]["code"].as_str().unwrap().to_owned()
}

/// Bytes that do not compress and are the same at every run.
pub fn noise(seed: u64, n: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut v = Vec::with_capacity(n + 8);
    while v.len() < n {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        v.extend_from_slice(&x.to_le_bytes());
    }
    v.truncate(n);
    v
}

/// A registry in a child process: this very test binary, run again.
pub struct Daemon {
    pub child: Child,
    pub at: SocketAddr,
}

impl Daemon {
    /// `test` is the name of the test that calls [`daemon_main`].
    pub fn start(dir: &Path, test: &str, env: &[(&str, String)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--include-ignored"])
            .env(SERVE, dir)
            .envs(env.iter().map(|(k, v)| (*k, v)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let at = loop {
            let line = lines.next().expect("the child ended").unwrap();
            if let Some((_, at)) = line.split_once("LISTEN ") {
                break at.parse().unwrap();
            }
        };
        Self { child, at }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Most memory it ever held, in kB.
    pub fn peak_rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until killed, if this process was started to do so.
pub fn daemon_main() {
    let Some(dir) = std::env::var_os(SERVE) else { return };
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    threads.block_on(async {
        let served = on(Path::new(&dir)).await;
        println!("LISTEN {}", served.at);
        std::future::pending::<()>().await;
    });
}
