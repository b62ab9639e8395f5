//! The package cache against an upstream that does as it is told, and against
//! a real apt.

use axum::Router;
use provision::cache::{Cache, Origin, Settings, http};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A file upstream, and what goes wrong with it.
#[derive(Clone, Default)]
struct File {
    body: Vec<u8>,
    modified: Option<&'static str>,
    /// Broken off after so many bytes, the first time.
    cut: Option<usize>,
    /// The second half waits for this.
    gate: Option<Arc<Notify>>,
    status: Option<u16>,
}

#[derive(Default)]
struct Files {
    all: HashMap<String, File>,
    asked: HashMap<String, u32>,
    sent: u64,
}

#[derive(Clone)]
struct Upstream {
    at: SocketAddr,
    files: Arc<Mutex<Files>>,
    task: Arc<tokio::task::JoinHandle<()>>,
}

impl Upstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let files: Arc<Mutex<Files>> = Arc::default();
        let shared = files.clone();
        let task = tokio::spawn(async move {
            while let Ok((s, _)) = listener.accept().await {
                tokio::spawn(answer(s, shared.clone()));
            }
        });
        Self { at, files, task: Arc::new(task) }
    }

    fn put(&self, path: &str, file: File) {
        self.files.lock().unwrap().all.insert(path.to_owned(), file);
    }

    fn asked(&self, path: &str) -> u32 {
        self.files.lock().unwrap().asked.get(path).copied().unwrap_or(0)
    }

    fn sent(&self) -> u64 {
        self.files.lock().unwrap().sent
    }
}

async fn answer(mut s: TcpStream, files: Arc<Mutex<Files>>) {
    let mut head = Vec::new();
    let mut b = [0u8; 1024];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match s.read(&mut b).await {
            Ok(n) if n > 0 => head.extend_from_slice(&b[..n]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
    let head = head.to_lowercase();
    let header = |name: &str| {
        head.lines().find_map(|l| l.strip_prefix(&format!("{name}: ")).map(str::to_owned))
    };
    let (file, status) = {
        let mut f = files.lock().unwrap();
        *f.asked.entry(path.clone()).or_default() += 1;
        let file = f.all.get(&path).cloned();
        if let Some(x) = f.all.get_mut(&path) {
            x.cut = None;
        }
        let status = file.as_ref().map_or(404, |f| f.status.unwrap_or(200));
        (file.unwrap_or_default(), status)
    };
    let modified = file.modified.map(|m| format!("Last-Modified: {m}\r\n")).unwrap_or_default();
    if file.modified.is_some()
        && header("if-modified-since") == file.modified.map(str::to_lowercase)
    {
        let _ = s.write_all(b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n").await;
        return;
    }
    let from: usize = header("range")
        .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    let body = &file.body[from.min(file.body.len())..];
    let (status, range) = match (status, from) {
        (200, 1..) => {
            let n = file.body.len();
            (206, format!("Content-Range: bytes {from}-{}/{n}\r\n", n - 1))
        }
        _ => (status, String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{modified}{range}\r\n",
        body.len()
    );
    let body = &body[..file.cut.unwrap_or(body.len())];
    // First: who has got it may ask at once how much it was.
    files.lock().unwrap().sent += body.len() as u64;
    let _ = s.write_all(head.as_bytes()).await;
    let half = if file.gate.is_some() { body.len() / 2 } else { body.len() };
    let _ = s.write_all(&body[..half]).await;
    if let Some(g) = file.gate {
        g.notified().await;
        let _ = s.write_all(&body[half..]).await;
    }
}

struct House {
    cache: Arc<Cache>,
    url: String,
    http: reqwest::Client,
    /// Its directory, if it is ours.
    _dir: Option<tempfile::TempDir>,
}

async fn serve(settings: Settings) -> House {
    let cache = Cache::open(settings).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/apt", listener.local_addr().unwrap());
    let routes: Router = http::router(cache.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    House { cache, url, http, _dir: None }
}

fn settings(dir: &Path, u: &Upstream) -> Settings {
    let origin = Origin { name: "debian".into(), url: format!("http://{}", u.at) };
    let mut s = Settings::new(dir.to_owned(), vec![origin]);
    s.patience = Duration::from_secs(5);
    s
}

async fn house(u: &Upstream) -> House {
    let dir = tempfile::tempdir().unwrap();
    let mut h = serve(settings(dir.path(), u)).await;
    h._dir = Some(dir);
    h
}

impl House {
    async fn get(&self, path: &str) -> (u16, Result<Vec<u8>, String>) {
        let r = self.http.get(format!("{}/{path}", self.url)).send().await.unwrap();
        let status = r.status().as_u16();
        (status, r.bytes().await.map(|b| b.to_vec()).map_err(|e| e.to_string()))
    }

    async fn bytes(&self, path: &str) -> Vec<u8> {
        let (status, body) = self.get(path).await;
        let body = body.unwrap();
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        body
    }
}

fn deb(n: usize, size: usize) -> Vec<u8> {
    let mut b = b"!<arch>\n".to_vec();
    b.extend((0..size).map(|i| ((i * 31 + n * 7) % 251) as u8));
    b
}

/// M41 M47.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_clients_and_a_hundred_packages_cross_the_uplink_once_each() {
    let u = Upstream::start().await;
    for n in 0..100 {
        u.put(&format!("pool/p{n}.deb"), File { body: deb(n, 20_000 + n), ..File::default() });
    }
    let h = Arc::new(house(&u).await);
    let clients: Vec<_> = (0..20)
        .map(|c| {
            let h = h.clone();
            tokio::spawn(async move {
                for i in 0..100 {
                    let n = (i + c * 5) % 100;
                    assert_eq!(h.bytes(&format!("debian/pool/p{n}.deb")).await, deb(n, 20_000 + n));
                }
            })
        })
        .collect();
    for c in clients {
        c.await.unwrap();
    }
    for n in 0..100 {
        assert_eq!(u.asked(&format!("pool/p{n}.deb")), 1);
    }
    let (c, total) = (&h.cache.counts, 2000);
    let all = c.hits.load(Relaxed) + c.misses.load(Relaxed) + c.joined.load(Relaxed);
    assert_eq!((all, c.misses.load(Relaxed)), (total, 100));
    assert_eq!(c.bytes_in.load(Relaxed), u.sent());
    assert_eq!(c.bytes_out.load(Relaxed), 20 * u.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_ask_get_a_file_while_it_arrives() {
    let u = Upstream::start().await;
    let gate = Arc::new(Notify::new());
    let body = deb(1, 2_000_000);
    u.put("pool/a.deb", File { body: body.clone(), gate: Some(gate.clone()), ..File::default() });
    let h = house(&u).await;
    let ask = || h.http.get(format!("{}/debian/pool/a.deb", h.url)).send();
    let (mut one, mut two) = (ask().await.unwrap(), ask().await.unwrap());
    // The first half is here while the second is not even sent.
    let a = one.chunk().await.unwrap().unwrap();
    let b = two.chunk().await.unwrap().unwrap();
    assert!(a.starts_with(b"!<arch>\n") && b.starts_with(b"!<arch>\n"));
    gate.notify_one();
    let mut rest = a.to_vec();
    while let Some(c) = one.chunk().await.unwrap() {
        rest.extend_from_slice(&c);
    }
    assert_eq!(rest, body);
    assert_eq!(b.len() + two.bytes().await.unwrap().len(), body.len());
    assert_eq!(u.asked("pool/a.deb"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_file_is_taken_up_again_or_kept_by_nobody() {
    let u = Upstream::start().await;
    let body = deb(2, 900_000);
    let date = "Sat, 21 Nov 2026 08:00:00 GMT";
    let cut = Some(400_000);
    u.put("pool/a.deb", File { body: body.clone(), modified: Some(date), cut, ..File::default() });
    u.put("pool/b.deb", File { body: body.clone(), cut, ..File::default() });
    let h = house(&u).await;
    assert_eq!(h.bytes("debian/pool/a.deb").await, body, "taken up where it broke");
    assert_eq!(u.asked("pool/a.deb"), 2);
    let (_, broken) = h.get("debian/pool/b.deb").await;
    assert!(broken.is_err(), "a broken transfer must look broken");
    assert_eq!(h.bytes("debian/pool/b.deb").await, body, "asked for anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_its_name_says_is_kept_by_nobody() {
    let u = Upstream::start().await;
    let page = b"<html>Please log in to the network</html>".to_vec();
    u.put("pool/a.deb", File { body: page.clone(), ..File::default() });
    u.put("dists/x/InRelease", File { body: page, ..File::default() });
    let good = vec![7u8; 600_000];
    let by = format!("dists/x/by-hash/SHA256/{}", hex::encode(Sha256::digest(&good)));
    u.put(&by, File { body: vec![8u8; 600_000], ..File::default() });
    let h = house(&u).await;
    for path in ["debian/pool/a.deb", "debian/dists/x/InRelease"] {
        let (status, body) = h.get(path).await;
        assert_eq!(status, 502);
        assert!(String::from_utf8(body.unwrap()).unwrap().contains("not what the name says"));
    }
    let by_path = format!("debian/{by}");
    let (_, body) = h.get(&by_path).await;
    assert!(body.is_err(), "the last piece is held back");
    u.put(&by, File { body: good.clone(), ..File::default() });
    assert_eq!(h.bytes(&by_path).await, good);
    u.put("pool/a.deb", File { body: deb(1, 10), ..File::default() });
    assert_eq!(h.bytes("debian/pool/a.deb").await, deb(1, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn indices_are_asked_for_again_and_served_old_when_upstream_is_away() {
    let u = Upstream::start().await;
    let date = "Sat, 21 Nov 2026 08:00:00 GMT";
    let first = File { body: b"Origin: one".to_vec(), modified: Some(date), ..File::default() };
    u.put("dists/x/Release", first);
    u.put("pool/a.deb", File { body: deb(1, 10), ..File::default() });
    let h = house(&u).await;
    let path = "debian/dists/x/Release";
    assert_eq!(h.bytes(path).await, b"Origin: one");
    let sent = u.sent();
    assert_eq!(h.bytes(path).await, b"Origin: one");
    assert_eq!((u.asked("dists/x/Release"), u.sent()), (2, sent), "304: no bytes");
    let r = h.http.get(format!("{}/{path}", h.url)).header("if-modified-since", date);
    assert_eq!(r.send().await.unwrap().status(), 304);
    // A new one.
    let later = "Sat, 21 Nov 2026 09:00:00 GMT";
    let second = File { body: b"Origin: two".to_vec(), modified: Some(later), ..File::default() };
    u.put("dists/x/Release", second);
    assert_eq!(h.bytes(path).await, b"Origin: two");
    h.bytes("debian/pool/a.deb").await;
    // Broken, then gone.
    u.put("dists/x/Release", File { status: Some(503), ..File::default() });
    let r = h.http.get(format!("{}/{path}", h.url)).send().await.unwrap();
    assert!(r.headers()["warning"].to_str().unwrap().starts_with("111"));
    assert_eq!(r.bytes().await.unwrap(), "Origin: two");
    u.task.abort();
    assert_eq!(h.bytes(path).await, b"Origin: two");
    assert_eq!(h.bytes("debian/pool/a.deb").await, deb(1, 10));
    assert_eq!(h.cache.counts.stale.load(Relaxed), 2);
    let (status, why) = h.get("debian/pool/unknown.deb").await;
    assert_eq!(status, 502);
    assert!(String::from_utf8(why.unwrap()).unwrap().contains("tried 3 times"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_allowed_is_asked_for_and_parts_are_given() {
    let u = Upstream::start().await;
    u.put("pool/a.deb", File { body: deb(1, 1000), ..File::default() });
    let h = house(&u).await;
    for (path, status) in [
        ("elsewhere/pool/a.deb", 403),
        ("debian/pool/..%2f..%2fetc/passwd", 400),
        ("debian/pool//a.deb", 400),
        ("debian/pool/none.deb", 404),
    ] {
        assert_eq!(h.get(path).await.0, status, "{path}");
    }
    assert_eq!(u.files.lock().unwrap().asked.len(), 1, "upstream heard of one of them");
    for _ in 0..2 {
        let r = h.http.get(format!("{}/debian/pool/a.deb", h.url)).header("range", "bytes=5-9");
        let r = r.send().await.unwrap();
        assert_eq!(r.headers()["content-range"], "bytes 5-9/1008");
        assert_eq!(
            (r.status().as_u16(), r.bytes().await.unwrap().to_vec()),
            (206, deb(1, 1000)[5..10].to_vec())
        );
    }
    let head = h.http.head(format!("{}/debian/pool/a.deb", h.url)).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "1008");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cache_gives_what_it_cannot_keep() {
    let u = Upstream::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut s = settings(dir.path(), &u);
    s.limit = 100_000;
    let h = serve(s).await;
    u.put("pool/big.deb", File { body: deb(1, 200_000), ..File::default() });
    for _ in 0..2 {
        assert_eq!(h.bytes("debian/pool/big.deb").await, deb(1, 200_000));
    }
    assert_eq!(h.cache.size(), 0);
    for n in 0..6 {
        u.put(&format!("pool/{n}.deb"), File { body: deb(n, 30_000), ..File::default() });
        h.bytes(&format!("debian/pool/{n}.deb")).await;
        assert!(h.cache.size() <= 100_000);
    }
    // What was complete is there after a restart, without upstream.
    u.task.abort();
    let h = serve(settings(dir.path(), &u)).await;
    assert_eq!(h.bytes("debian/pool/5.deb").await, deb(5, 30_000));
}

/// apt itself, with the archive that this host uses.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_apt_updates_and_downloads_and_the_second_time_no_package_crosses_the_uplink() {
    let sources = provision::image::sources::for_suite(Path::new("/etc/apt"), "bookworm").unwrap();
    let first = sources.first().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin { name: "debian".into(), url: first.uri.clone() };
    let h = serve(Settings::new(dir.path().join("cache"), vec![origin])).await;
    let signed = first.signed_by.as_ref().map(|k| format!("[signed-by={k}] ")).unwrap_or_default();
    let line = format!("deb {signed}{}/debian bookworm main\n", h.url);
    let apt = |name: &str| {
        let root = dir.path().join(name);
        for d in ["lists/partial", "archives/partial", "parts"] {
            std::fs::create_dir_all(root.join(d)).unwrap();
        }
        std::fs::write(root.join("sources.list"), &line).unwrap();
        std::fs::write(root.join("status"), "").unwrap();
        let at = |k: &str, v: &str| format!("{k}={}", root.join(v).display());
        for what in [vec!["update"], vec!["--yes", "--download-only", "install", "tzdata"]] {
            let mut c = Command::new("apt-get");
            for o in [
                at("Dir::Etc::SourceList", "sources.list"),
                at("Dir::Etc::SourceParts", "parts"),
                at("Dir::State::Lists", "lists"),
                at("Dir::State::status", "status"),
                at("Dir::Cache", "."),
                at("Dir::Cache::archives", "archives"),
                "Debug::NoLocking=1".into(),
                "APT::Sandbox::User=root".into(),
                "Acquire::http::Proxy=DIRECT".into(),
                "Acquire::Languages=none".into(),
            ] {
                c.args(["-o", &o]);
            }
            let out = c.args(what).output().unwrap();
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "{said}");
        }
    };
    let count = || h.cache.counts.bytes_in.load(Relaxed);
    tokio::task::block_in_place(|| apt("one"));
    let cold = count();
    assert!(cold > 5_000_000, "{cold}");
    tokio::task::block_in_place(|| apt("two"));
    // Some upstreams have no validators: then the one index without a digest in
    // its name comes again.
    let again = count() - cold;
    assert!(again < 400_000, "the second time {again} bytes came from upstream, {cold} the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_its_suites_list_vouches_for_does_not_come_again() {
    let u = Upstream::start().await;
    let packages = |text: &str| File { body: text.as_bytes().to_vec(), ..File::default() };
    let list = |text: &str| {
        let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(text));
        let body = format!("Suite: x\nSHA256:\n {digest} {} main/Packages\n", text.len());
        File { body: body.into_bytes(), ..File::default() }
    };
    let h = house(&u).await;
    let (release, index) = ("debian/dists/x/Release", "debian/dists/x/main/Packages");
    // No validators, as some archives have it.
    u.put("dists/x/Release", list("one"));
    u.put("dists/x/main/Packages", packages("one"));
    for _ in 0..3 {
        h.bytes(release).await;
        assert_eq!(h.bytes(index).await, b"one");
    }
    assert_eq!((u.asked("dists/x/Release"), u.asked("dists/x/main/Packages")), (3, 1));
    // A new list: the old index is not given for it.
    u.put("dists/x/Release", list("two"));
    u.put("dists/x/main/Packages", packages("two"));
    assert_eq!(h.bytes(index).await, b"one", "as the list that was given out says");
    h.bytes(release).await;
    assert_eq!(h.bytes(index).await, b"two");
    // Upstream away: at once from here, without a try each.
    u.task.abort();
    h.bytes(release).await;
    assert_eq!(h.bytes(index).await, b"two");
    assert_eq!(h.cache.counts.stale.load(Relaxed), 1);
}
