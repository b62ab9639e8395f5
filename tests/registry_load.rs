//! The real server under load, over TLS: many at once, and a layer larger than
//! its memory. REGISTRY_MIB sets the layer's size (256).

mod deployd;

use deployd::{OCI, Server, noise};
use futures::StreamExt as _;
use provision::registry::{Algorithm, Digest, Hasher};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

const QUIET: &str = "gc_hours = 0\n";
const PUSHES: u64 = 50;
const PULLS: u64 = 200;

/// One client: a connection of its own.
struct Visitor {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Visitor {
    fn new(s: &Server) -> Self {
        let token = std::fs::read_to_string(s.state().join("admin.token")).unwrap();
        let base = format!("https://{}/v2", s.at);
        Self { http: s.https(), base, token: token.trim().to_owned() }
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}/{path}", self.base)).bearer_auth(&self.token)
    }

    async fn post(&self, path: &str, bytes: Vec<u8>) -> Result<(), String> {
        let r = self.request(reqwest::Method::POST, path).body(bytes).send().await;
        let r = r.map_err(|e| format!("{path}: {e:?}"))?;
        match r.status().as_u16() {
            201 => Ok(()),
            s => Err(format!("{path}: {s} {}", r.text().await.unwrap_or_default())),
        }
    }

    async fn push(&self, repo: &str, tag: &str, layer: Vec<u8>) -> Result<(), String> {
        let (config, blob, size) = (Digest::of(b"{}"), Digest::of(&layer), layer.len());
        self.post(&format!("{repo}/blobs/uploads/?digest={config}"), b"{}".to_vec()).await?;
        self.post(&format!("{repo}/blobs/uploads/?digest={blob}"), layer).await?;
        let m = json!({
            "schemaVersion": 2, "mediaType": OCI,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob, "size": size }],
        });
        let r = self
            .request(reqwest::Method::PUT, &format!("{repo}/manifests/{tag}"))
            .header("content-type", OCI)
            .body(m.to_string())
            .send()
            .await
            .map_err(|e| format!("{repo}:{tag}: {e:?}"))?;
        match r.status().as_u16() {
            201 => Ok(()),
            s => Err(format!("{repo}:{tag}: {s} {}", r.text().await.unwrap_or_default())),
        }
    }

    /// Bytes of the image, each hashed.
    async fn pull(&self, repo: &str, tag: &str) -> Result<u64, String> {
        let path = format!("{repo}/manifests/{tag}");
        let r = self.request(reqwest::Method::GET, &path).send().await;
        let r = r.and_then(reqwest::Response::error_for_status).map_err(|e| format!("{e:?}"))?;
        let m: serde_json::Value = r.json().await.map_err(|e| format!("{path}: {e:?}"))?;
        let mut all = 0;
        for b in [&m["config"], &m["layers"][0]] {
            let d: Digest = b["digest"].as_str().unwrap().parse().unwrap();
            all += self.blob(repo, &d).await?;
        }
        Ok(all)
    }

    async fn blob(&self, repo: &str, d: &Digest) -> Result<u64, String> {
        let r = self.request(reqwest::Method::GET, &format!("{repo}/blobs/{d}")).send().await;
        let r = r.and_then(reqwest::Response::error_for_status).map_err(|e| format!("{e:?}"))?;
        let (mut bytes, mut hasher, mut body) =
            (0, Hasher::new(Algorithm::Sha256), r.bytes_stream());
        while let Some(b) = body.next().await {
            let b = b.map_err(|e| format!("{d} after {bytes} bytes: {e:?}"))?;
            bytes += b.len() as u64;
            hasher.update(&b);
        }
        match hasher.finish() {
            real if real == *d => Ok(bytes),
            real => Err(format!("{bytes} bytes of {d} are {real}")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_pushes_and_two_hundred_pulls_at_once_meet_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let s = Server::started(dir.path(), QUIET);
    let first = Visitor::new(&s);
    for n in 0..4 {
        first.push("base", &format!("t{n}"), noise(n, 4 << 20)).await.unwrap();
    }
    let before = s.memory("VmRSS");
    // All connected before any begins.
    let gate = Arc::new(tokio::sync::Barrier::new((PUSHES + PULLS) as usize));
    let mut clients = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for n in 0..PUSHES + PULLS {
        let (v, gate) = (Visitor::new(&s), gate.clone());
        clients.spawn(async move {
            let r = v.request(reqwest::Method::GET, "").send().await;
            gate.wait().await;
            match r {
                Ok(r) if r.status() == 200 => {}
                r => return Err(format!("{r:?}")),
            }
            if n < PUSHES {
                v.push(&format!("load/r{}", n % 7), &format!("t{n}"), noise(100 + n, 2 << 20)).await
            } else {
                v.pull("base", &format!("t{}", n % 4)).await.map(drop)
            }
        });
    }
    let mut failed = Vec::new();
    while let Some(r) = clients.join_next().await {
        failed.extend(r.unwrap().err());
    }
    println!(
        "{PUSHES} pushes and {PULLS} pulls in {:.1} s; memory {before} kB before, {} kB at most",
        begun.elapsed().as_secs_f64(),
        s.memory("VmHWM")
    );
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    for n in 0..PUSHES {
        first.pull(&format!("load/r{}", n % 7), &format!("t{n}")).await.unwrap();
    }
    assert!(s.cli(&["verify-store"]).ok().contains("all is well"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_larger_than_memory_goes_in_and_out_over_tls() {
    let set = std::env::var("REGISTRY_MIB").ok().and_then(|v| v.parse().ok());
    let pieces: u64 = set.unwrap_or(256);
    let dir = tempfile::tempdir().unwrap();
    let s = Server::started(dir.path(), QUIET);
    let idle = s.memory("VmRSS");
    let v = Visitor::new(&s);
    let piece = bytes::Bytes::from(noise(9, 1 << 20));
    let mut h = Hasher::new(Algorithm::Sha256);
    (0..pieces).for_each(|_| h.update(&piece));
    let digest = h.finish();
    let r = v.request(reqwest::Method::POST, "a/blobs/uploads/").send().await.unwrap();
    let at = r.headers()["location"].to_str().unwrap().trim_start_matches("/v2/").to_owned();
    let stream =
        futures::stream::iter((0..pieces).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
    let start = Instant::now();
    let body = reqwest::Body::wrap_stream(stream);
    let r = v.request(reqwest::Method::PATCH, &at).body(body).send().await.unwrap();
    assert_eq!(r.status(), 202);
    let r = v.request(reqwest::Method::PUT, &format!("{at}?digest={digest}")).send().await.unwrap();
    assert_eq!(r.status(), 201, "{}", r.text().await.unwrap());
    let (pushed, in_peak) = (start.elapsed(), s.memory("VmHWM"));
    let start = Instant::now();
    assert_eq!(v.blob("a", &digest).await.unwrap(), pieces << 20);
    let pulled = start.elapsed();
    let rate = |t: Duration| (pieces << 20) as f64 / 1e6 / t.as_secs_f64();
    println!(
        "{pieces} MiB over TLS: push {:.0} MB/s, pull {:.0} MB/s; memory idle {idle} kB, \
         {in_peak} kB at most through the push, {} kB through both",
        rate(pushed),
        rate(pulled),
        s.memory("VmHWM")
    );
    assert!(s.memory("VmHWM") < 60_000, "{} kB", s.memory("VmHWM"));
}
