//! The package cache's way to an archive: through a proxy, and an archive
//! whose answers do not say where they end. M41.

use axum::Router;
use provision::cache::{Cache, Origin, Settings, http};
use provision::model::Secret;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Answers each request with the same bytes and closes; what was asked for.
async fn outside(answer: Vec<u8>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut s, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(s.read_u8().await.unwrap());
            }
            heard.lock().unwrap().push(String::from_utf8(head).unwrap());
            s.write_all(&answer).await.unwrap();
        }
    });
    (at, asked)
}

async fn cache(dir: &Path, archive: String, proxy: Option<String>) -> String {
    let origin = Origin { name: "debian".into(), url: archive };
    let usual = Settings::new(dir.to_owned(), vec![origin]);
    let cache = Cache::open(Settings { proxy: proxy.map(Secret::new), ..usual }).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/apt/debian", listener.local_addr().unwrap());
    let routes: Router = http::router(cache);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

async fn get(url: &str) -> Vec<u8> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{url}");
    answer.bytes().await.unwrap().to_vec()
}

/// As a package begins.
fn deb() -> Vec<u8> {
    [b"!<arch>\n".as_slice(), &[7; 5000]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_reached_through_the_proxy() {
    let body = deb();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let (proxy, asked) = outside([head.as_bytes(), &body].concat()).await;
    let dir = tempfile::tempdir().unwrap();
    let way = format!("http://ada:secret@{proxy}");
    let here = cache(dir.path(), "http://archive.invalid/debian".into(), Some(way)).await;
    for _ in 0..2 {
        assert_eq!(get(&format!("{here}/pool/a.deb")).await, body);
    }
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "kept as any other");
    assert!(asked[0].starts_with("GET http://archive.invalid/debian/pool/a.deb HTTP/1.1\r\n"));
    assert!(asked[0].to_lowercase().contains("proxy-authorization: basic "), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_say_where_it_ends_is_passed_on_and_not_kept() {
    let body = deb();
    let (archive, asked) = outside([b"HTTP/1.0 200 OK\r\n\r\n".as_slice(), &body].concat()).await;
    let dir = tempfile::tempdir().unwrap();
    let here = cache(dir.path(), format!("http://{archive}"), None).await;
    assert_eq!(get(&format!("{here}/pool/a.deb")).await, body);
    let first = asked.lock().unwrap().len();
    assert_eq!(get(&format!("{here}/pool/a.deb")).await, body);
    assert!(asked.lock().unwrap().len() > first, "it was asked for anew");
}
