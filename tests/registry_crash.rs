//! What must hold when things go wrong: the server is killed, the disk is
//! full, garbage is collected under load, a layer is larger than memory.

mod registryd;

use provision::registry::{Digest, Registry, Settings};
use registryd::*;
use reqwest::Method;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The child's entry: not a test of its own.
#[test]
fn serve_as_child() {
    daemon_main();
}

fn seconds(variable: &str, default: u64) -> Duration {
    let set = std::env::var(variable).ok().and_then(|v| v.parse().ok());
    Duration::from_secs(set.unwrap_or(default))
}

async fn put_image(http: &reqwest::Client, d: &Daemon, n: u64) -> Result<Vec<Digest>, String> {
    let (repo, layer) = (format!("crash/r{}", n % 5), noise(n, 700_000));
    push_blob(http, d.at, &repo, b"{}").await?;
    push_blob(http, d.at, &repo, &layer).await?;
    let m = image(&layer);
    let url = format!("http://{}/v2/{repo}/manifests/t{n}", d.at);
    let r = http.put(url).header("content-type", OCI).body(m.to_string()).send().await;
    let r = r.map_err(|e| e.to_string())?;
    if r.status() != 201 {
        return Err(format!("{}: {}", r.status(), r.text().await.unwrap_or_default()));
    }
    Ok(vec![Digest::of(&layer), Digest::of(m.to_string().as_bytes())])
}

/// Killed in the middle of 20 parallel pushes, three times over: whatever was
/// acknowledged is there and right, and an upload goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let http = client();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut begun = Vec::new();
    for round in 0..3u64 {
        let d = Arc::new(Daemon::start(dir.path(), "serve_as_child", &[]));
        let url = format!("http://{}/v2/crash/r0/blobs/uploads/", d.at);
        let r = http.post(&url).send().await.unwrap();
        let at = location(&r);
        let r = http.patch(format!("http://{}{at}", d.at)).body("begun, ").send().await.unwrap();
        assert_eq!(r.status(), 202);
        begun.push(at);
        let mut pushes = tokio::task::JoinSet::new();
        for p in 0..20u64 {
            let (d, http, acknowledged) = (d.clone(), http.clone(), acknowledged.clone());
            pushes.spawn(async move {
                for n in 0.. {
                    let n = round * 1_000_000 + p * 10_000 + n;
                    match put_image(&http, &d, n).await {
                        Ok(digests) => acknowledged.lock().unwrap().push((n, digests)),
                        Err(_) => return,
                    }
                }
            });
        }
        let until = 20 * (round as usize + 1);
        let deadline = Instant::now() + Duration::from_secs(60);
        while acknowledged.lock().unwrap().len() < until {
            assert!(Instant::now() < deadline, "no pushes");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // SIGKILL, with 20 pushes under way.
        let pid = rustix::process::Pid::from_raw(d.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        while pushes.join_next().await.is_some() {}
    }
    let d = Daemon::start(dir.path(), "serve_as_child", &[]);
    let all = acknowledged.lock().unwrap().clone();
    println!("{} images were acknowledged", all.len());
    for (n, digests) in &all {
        let base = format!("http://{}/v2/crash/r{}", d.at, n % 5);
        let r = http.get(format!("{base}/manifests/t{n}")).send().await.unwrap();
        assert_eq!(Digest::of(&r.bytes().await.unwrap()), digests[1], "t{n}");
        let r = http.get(format!("{base}/blobs/{}", digests[0])).send().await.unwrap();
        assert_eq!(Digest::of(&r.bytes().await.unwrap()), digests[0], "t{n}");
    }
    for at in begun {
        let url = format!("http://{}{at}", d.at);
        let r = http.get(&url).send().await.unwrap();
        assert_eq!((r.status().as_u16(), header(&r, "range").as_str()), (204, "0-6"));
        let r =
            http.patch(&url).header("content-range", "7-11").body("ended").send().await.unwrap();
        assert_eq!(r.status(), 202);
        let whole = Digest::of(b"begun, ended");
        let r = http.put(format!("{url}?digest={whole}")).send().await.unwrap();
        assert_eq!(r.status(), 201, "{}", r.text().await.unwrap());
    }
    d.kill();
    let mut settings = Settings::local(dir.path()).unwrap();
    settings.upload_age = Duration::ZERO;
    let r = Registry::open(settings).await.unwrap();
    assert_eq!(r.verify_store().await.unwrap().damage, []);
    r.collect_garbage(false).await.unwrap();
    assert_eq!(r.verify_store().await.unwrap().damage, []);
    for left in ["data", "uploads", "tmp"] {
        let n = std::fs::read_dir(dir.path().join(left)).unwrap().count();
        assert_eq!(n, 0, "{left} is not clean");
    }
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// 507 with a body that says so; what was there stays; room again, work again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_survived() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small file system");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ok = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"])
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(ok.success());
    let _mounted = Mounted(dir.path());
    let s = on(dir.path()).await;
    let (_, _) = s.push_image("a", "v1", &noise(1, 4_000_000)).await;
    let big = noise(2, 16_000_000);
    let url = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(&big));
    let r = s.request(Method::POST, &url).body(big.clone()).send().await.unwrap();
    assert_eq!((r.status().as_u16(), code(r).await.as_str()), (507, "INSUFFICIENT_STORAGE"));
    assert_eq!(std::fs::read_dir(dir.path().join("data")).unwrap().count(), 0);
    // Through a session: what was acknowledged of it stays, the rest goes.
    let at = location(&s.request(Method::POST, "/v2/a/blobs/uploads/").send().await.unwrap());
    let first = noise(3, 1_000_000);
    let r = s.request(Method::PATCH, &at).body(first.clone()).send().await.unwrap();
    assert_eq!(r.status(), 202);
    let r = s.request(Method::PATCH, &at).body(big).send().await.unwrap();
    assert_eq!(r.status(), 507);
    assert_eq!(header(&s.get(&at).await, "range"), "0-999999");
    let to = format!("{at}?digest={}", Digest::of(&first));
    assert_eq!(s.request(Method::PUT, &to).send().await.unwrap().status(), 201);
    s.push_image("a", "v2", &noise(4, 3_000_000)).await;
    assert_eq!(s.registry.verify_store().await.unwrap().damage, []);
}

/// Pushes, pulls, mounts and deletions, with garbage collected all the while
/// and no wait between its steps but two seconds. No pull of what is tagged
/// fails, and no push. REGISTRY_SECONDS sets how long.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn garbage_collection_hurts_nothing_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::local(dir.path()).unwrap();
    (settings.grace, settings.wait) = (Duration::from_secs(2), Duration::from_secs(2));
    settings.untagged = Some(Duration::from_secs(2));
    let s = Arc::new(serve(settings).await);
    s.push_image("base", "v1", &noise(0, 300_000)).await;
    let end = Instant::now() + seconds("REGISTRY_SECONDS", 20);
    let stop = Arc::new(AtomicBool::new(false));
    let (pulls, rounds, freed) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut work = tokio::task::JoinSet::new();
    for w in 0..6u64 {
        let (s, pulls, rounds) = (s.clone(), pulls.clone(), rounds.clone());
        work.spawn(async move {
            let (repo, mut n) = (format!("load/w{w}"), 0);
            while Instant::now() < end {
                n += 1;
                // Few kinds of content, so that it is garbage and wanted again.
                let layer = noise(n % 7 + w % 3 * 100, 200_000);
                let base = Digest::of(&noise(0, 300_000));
                let url = format!("/v2/{repo}/blobs/uploads/?mount={base}&from=base");
                let r = s.request(Method::POST, &url).send().await.unwrap();
                assert_eq!(r.status(), 201, "a mount of what is tagged");
                let d = Digest::of(&layer);
                // As clients do: ask, and send only what is not there.
                let there = s.request(Method::HEAD, &format!("/v2/{repo}/blobs/{d}"));
                if there.send().await.unwrap().status() == 404 {
                    s.push_blob(&repo, &layer).await;
                }
                let config =
                    s.request(Method::HEAD, &format!("/v2/{repo}/blobs/{}", Digest::of(b"{}")));
                if config.send().await.unwrap().status() == 404 {
                    s.push_blob(&repo, b"{}").await;
                }
                // Between the blobs and the manifest, runs go by.
                tokio::time::sleep(Duration::from_millis(n % 4 * 150)).await;
                let mut m = image(&layer);
                m["layers"]
                    .as_array_mut()
                    .unwrap()
                    .push(descriptor("application/vnd.oci.image.layer.v1.tar", &noise(0, 300_000)));
                let r = s.push_manifest(&repo, "t", &m).await;
                assert_eq!(r.status(), 201, "{}", r.text().await.unwrap());
                let r = s.get(&format!("/v2/{repo}/manifests/t")).await;
                assert_eq!(r.status(), 200);
                for l in [&d, &base] {
                    let r = s.get(&format!("/v2/{repo}/blobs/{l}")).await;
                    assert_eq!(r.status(), 200, "round {n}: {l}");
                    assert_eq!(Digest::of(&r.bytes().await.unwrap()), *l);
                    pulls.fetch_add(1, Ordering::Relaxed);
                }
                let m = Digest::of(m.to_string().as_bytes());
                let reference = if n % 2 == 0 { "t".to_owned() } else { m.to_string() };
                let url = format!("/v2/{repo}/manifests/{reference}");
                let r = s.request(Method::DELETE, &url).send().await.unwrap();
                assert_eq!(r.status(), 202, "{}", r.text().await.unwrap());
                if n % 5 == 0 {
                    tokio::time::sleep(Duration::from_millis(n % 3 * 2500)).await;
                }
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let collector = {
        let (s, stop, freed) = (s.clone(), stop.clone(), freed.clone());
        tokio::spawn(async move {
            let mut runs = 0;
            while !stop.load(Ordering::SeqCst) {
                let report = s.registry.collect_garbage(false).await.unwrap();
                freed.fetch_add(report.freed, Ordering::Relaxed);
                runs += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            runs
        })
    };
    let mut failed = Vec::new();
    while let Some(r) = work.join_next().await {
        failed.extend(r.err().map(|e| e.to_string()));
    }
    stop.store(true, Ordering::SeqCst);
    let runs = collector.await.unwrap();
    println!(
        "{} rounds, {} pulls, {runs} collections, {} bytes freed",
        rounds.load(Ordering::Relaxed),
        pulls.load(Ordering::Relaxed),
        freed.load(Ordering::Relaxed)
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert!(freed.load(Ordering::Relaxed) > 0, "nothing was ever freed: the test shows nothing");
    assert_eq!(s.registry.verify_store().await.unwrap().damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_uploads_end_and_refuses_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let s = Arc::new(on(dir.path()).await);
    let at = location(&s.request(Method::POST, "/v2/a/blobs/uploads/").send().await.unwrap());
    let (send, body) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let body = reqwest::Body::wrap_stream(futures::stream::unfold(body, |mut b| async move {
        b.recv().await.map(|x| (x, b))
    }));
    let patch = tokio::spawn(s.request(Method::PATCH, &at).body(body).send());
    send.send(Ok(b"first ".to_vec())).await.unwrap();
    while s.registry.counts().uploads_in_flight == 0 {
        tokio::task::yield_now().await;
    }
    let early = s.registry.drain(Instant::now()).await;
    assert_eq!(early.left, 1);
    let r = s.request(Method::POST, "/v2/a/blobs/uploads/").send().await.unwrap();
    assert_eq!((r.status().as_u16(), header(&r, "retry-after").as_str()), (503, "5"));
    let (waiter, until) = (s.clone(), Instant::now() + Duration::from_secs(30));
    let draining = tokio::spawn(async move { waiter.registry.drain(until).await });
    send.send(Ok(b"second".to_vec())).await.unwrap();
    drop(send);
    assert_eq!(patch.await.unwrap().unwrap().status(), 202);
    assert_eq!(draining.await.unwrap().left, 0);
    assert_eq!(header(&s.get(&at).await, "range"), "0-11");
}

/// A layer of REGISTRY_GIB GiB (1) in and out of a child whose memory stays
/// under 60 MB. `cargo test --test registry_crash -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes gigabytes"]
async fn a_layer_larger_than_memory_is_pushed_and_pulled() {
    use futures::StreamExt as _;
    let dir = tempfile::tempdir().unwrap();
    let gib = seconds("REGISTRY_GIB", 1).as_secs();
    let piece = bytes::Bytes::from(noise(9, 1024 * 1024));
    let pieces = gib * 1024;
    let mut h = provision::registry::Hasher::new(provision::registry::Algorithm::Sha256);
    (0..pieces).for_each(|_| h.update(&piece));
    let digest = h.finish();
    let d = Daemon::start(dir.path(), "serve_as_child", &[]);
    let http = client();
    let r = http.post(format!("http://{}/v2/a/blobs/uploads/", d.at)).send().await.unwrap();
    let at = format!("http://{}{}", d.at, location(&r));
    let stream =
        futures::stream::iter((0..pieces).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
    let start = Instant::now();
    let r = http.patch(&at).body(reqwest::Body::wrap_stream(stream)).send().await.unwrap();
    assert_eq!(r.status(), 202);
    let sent = start.elapsed();
    let r = http.put(format!("{at}?digest={digest}")).send().await.unwrap();
    assert_eq!(r.status(), 201, "{}", r.text().await.unwrap());
    let pushed = start.elapsed();
    let start = Instant::now();
    let r = http.get(format!("http://{}/v2/a/blobs/{digest}", d.at)).send().await.unwrap();
    let (mut bytes, mut body) = (0u64, r.bytes_stream());
    while let Some(b) = body.next().await {
        bytes += b.unwrap().len() as u64;
    }
    let pulled = start.elapsed();
    assert_eq!(bytes, pieces << 20);
    let rate = |t: Duration| bytes as f64 / 1e6 / t.as_secs_f64();
    println!(
        "{gib} GiB: push {:.0} MB/s ({:.0} before the sync), pull {:.0} MB/s, peak {} kB",
        rate(pushed),
        rate(sent),
        rate(pulled),
        d.peak_rss()
    );
    assert!(d.peak_rss() < 60_000, "{} kB", d.peak_rss());
}
