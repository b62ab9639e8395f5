//! Certificates exchanged while the servers go on, over real TLS with real
//! files: whoever connects next sees the new one, who is connected goes on, a
//! pair that cannot be used changes nothing and is told.

mod common;
mod deployd;
mod windowd;

use provision::app::{certificate, listen};
use provision::auth::Role;
use provision::model::{NewEvent, Outcome};
use provision::tls::ca::Authority;
use provision::tls::rotate::Rotation;
use provision::tls::{self, Held};
use provision::{api, ui};
use rustls::pki_types::ServerName;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use windowd::{Bench, Visitor};

/// An authority, and the server's pair that it signs.
struct Pair {
    dir: tempfile::TempDir,
    authority: Authority,
    made: u32,
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), "Test").unwrap();
        let mut p = Self { dir, authority, made: 0 };
        p.another();
        p
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts another pair into the files.
    fn another(&mut self) {
        self.made += 1;
        let names = ["localhost".into(), "127.0.0.1".into(), format!("n{}.test", self.made)];
        self.authority.server(self.dir.path(), &names).unwrap();
    }
}

/// Asks until it is so, at most 20 s.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < end, "waited 20 s until {what}");
        // Not synchronisation: the pace of asking.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the record says of changes that ended so.
async fn told(b: &Bench, outcome: Outcome) -> Vec<NewEvent> {
    let all = b.events("certificate.rotate").await.into_iter().map(|e| e.event);
    all.filter(|e| e.outcome == outcome).collect()
}

/// A connection that is kept open.
struct Line(TlsStream<TcpStream>);

impl Line {
    async fn to(at: &str, ca: &Path) -> Self {
        let config = tls::pin::with_ca(ca).unwrap();
        let tcp = TcpStream::connect(at).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        Self(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap())
    }

    /// Serial number of what the server showed.
    fn serial(&self) -> String {
        let shown = self.0.get_ref().1.peer_certificates().unwrap();
        tls::ca::peer(&shown[0]).unwrap().serial
    }

    /// The status of an answer over this very connection.
    async fn asks(&mut self, path: &str) -> String {
        let text = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.0.write_all(text.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let all = async {
            while !got.ends_with(b"ok\n") {
                let mut piece = [0; 1024];
                let n = self.0.read(&mut piece).await.unwrap();
                assert_ne!(n, 0, "the connection ended");
                got.extend_from_slice(&piece[..n]);
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("no answer");
        String::from_utf8(got).unwrap().split_whitespace().nth(1).unwrap().to_owned()
    }
}

fn browser(base: &str, ca: &Path) -> Visitor {
    let config = tls::pin::with_ca(ca).unwrap();
    let none = reqwest::redirect::Policy::none();
    let http = reqwest::Client::builder().redirect(none).tls_backend_preconfigured(config);
    Visitor { http: http.build().unwrap(), ..Visitor::new(base) }
}

#[tokio::test(flavor = "multi_thread")]
async fn window_and_api_go_on_over_tls_while_their_certificate_is_exchanged() {
    let b = Bench::start().await;
    let mut pair = Pair::new();
    let (cert, ca) = (pair.at("server.pem"), pair.at("ca.pem"));
    let held = Held::open(&cert, &pair.at("server.key")).unwrap();
    let listener = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let window = ui::Window::new(b.ctx.clone(), true, None);
    let asked = api::router(b.ctx.clone()).layer(axum::Extension(held.clone()));
    let stop = CancellationToken::new();
    let config = tls::server_config(held.clone()).unwrap();
    let server = listen::serve_tls(listener, config, asked.merge(ui::router(window)), stop.clone());
    let server = tokio::spawn(server);
    let (rotation, every) = (Rotation::new(held, None), Duration::from_millis(20));
    let watch = certificate::watch(b.ctx.clone(), rotation, every, stop.clone());
    let watch = tokio::spawn(watch);

    // A browser with the authority gets in, and its cookie goes over TLS alone.
    let base = format!("https://{at}");
    let nobody = browser(&base, &ca);
    let form = nobody.page("/ui/login").await;
    assert!(form.header("content-security-policy").contains("default-src 'none'"));
    let token = b.token("ada", Role::Read);
    let r = nobody.raw_post("/ui/login", &[], &[("token", &token)]).await;
    assert_eq!(r.status, 303, "{}", r.text);
    for part in ["; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(r.header("set-cookie").contains(part), "{}", r.header("set-cookie"));
    }
    let ada = Visitor { cookie: r.cookie, ..nobody };
    assert!(ada.page("/ui/").await.text.contains("node01"));
    let nodes = ada.http.get(format!("{base}/v1/nodes")).bearer_auth(&token);
    assert_eq!(nodes.send().await.unwrap().status(), 200);
    // Without the authority, and without TLS, there is nothing.
    let stranger = reqwest::Client::new().get(format!("{base}/ui/login")).send().await;
    assert!(stranger.is_err(), "{stranger:?}");
    let plain = reqwest::get(format!("http://{at}/ui/login")).await;
    assert!(plain.is_err(), "{plain:?}");

    let mut line = Line::to(&at, &ca).await;
    let first = line.serial();
    assert_eq!(line.asks("/healthz").await, "200");
    pair.another();
    until("the change is in the record", async || told(&b, Outcome::Ok).await.len() == 1).await;
    let second = Line::to(&at, &ca).await.serial();
    assert_ne!(first, second, "a new connection gets the old certificate");
    assert_eq!(line.asks("/healthz").await, "200", "the open connection");
    assert_eq!(line.serial(), first);
    assert_eq!(ada.page("/ui/").await.status, 200);
    let e = told(&b, Outcome::Ok).await.pop().unwrap();
    assert_eq!((e.detail["serial"].as_str(), e.detail["replaced"].as_str()), (&*second, &*first));

    // Another key beside the certificate: told, and nothing changes.
    let good = std::fs::read(pair.at("server.key")).unwrap();
    let (other, _) = tls::ca::request("other").unwrap();
    std::fs::write(pair.at("server.key"), other).unwrap();
    let is_of = |e: &NewEvent| e.detail["still"] == second;
    until("the refusal is in the record", async || {
        told(&b, Outcome::Refused).await.iter().any(is_of)
    })
    .await;
    let e = told(&b, Outcome::Refused).await.pop().unwrap();
    let (why, key) = (&e.detail["reason"], pair.at("server.key"));
    assert!(why.contains("not the key of") && why.contains(key.to_str().unwrap()), "{why}");
    assert_eq!(e.detail["still"], second);
    assert_eq!(Line::to(&at, &ca).await.serial(), second);
    assert_eq!(line.asks("/healthz").await, "200");

    // While the store is away nothing is lost: it is told when it is back.
    b.store.set_down(true);
    std::fs::write(pair.at("server.key"), good).unwrap();
    pair.another();
    until("the third is shown", async || Line::to(&at, &ca).await.serial() != second).await;
    b.store.set_down(false);
    until("it is told", async || told(&b, Outcome::Ok).await.len() == 2).await;
    let text = ada.http.get(format!("{base}/metrics")).send().await.unwrap().text().await.unwrap();
    let left = text.lines().find_map(|l| l.strip_prefix("provision_certificate_seconds_left "));
    let left: i64 = left.expect("no gauge").parse().unwrap();
    assert!((364 * 86_400..=365 * 86_400).contains(&left), "{left}");

    stop.cancel();
    watch.await.unwrap().unwrap();
    drop(line);
    server.await.unwrap().unwrap();
}

/// Blocking, for the other server's tests are.
fn shown(at: &str, ca: &Path) -> String {
    let at = at.to_owned();
    let ca = ca.to_owned();
    let seen = std::thread::spawn(move || {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        rt.block_on(async { Line::to(&at, &ca).await.serial() })
    });
    seen.join().unwrap()
}

fn hang_up(s: &deployd::Server) {
    let pid = rustix::process::Pid::from_raw(s.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
}

#[test]
fn a_deployment_server_takes_up_a_new_pair_by_the_clock_and_when_it_is_told() {
    tls::install_provider();
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::new();
    let (cert, key, ca) = (pair.at("server.pem"), pair.at("server.key"), pair.at("ca.pem"));
    let own = format!(
        "gc_hours = 0\n[tls]\ncertificate = '{}'\nkey = '{}'\n",
        cert.display(),
        key.display()
    );
    let s = deployd::Server::started(dir.path(), &own);
    let (pid, first) = (s.pid(), shown(&s.at, &ca));

    // Nobody says anything: it looks by itself.
    pair.another();
    let told = |s: &deployd::Server, how: &str| -> Vec<serde_json::Value> {
        let all = s.events("certificate.rotate");
        all.into_iter().filter(|e| e["outcome"] == how).collect()
    };
    s.until("the second certificate", |s| told(s, "ok").len() == 1);
    let second = shown(&s.at, &ca);
    assert_ne!(first, second);

    pair.another();
    hang_up(&s);
    s.until("the third certificate", |s| told(s, "ok").len() == 2);
    let third = shown(&s.at, &ca);
    assert_ne!(second, third);

    std::fs::write(&cert, "-----BEGIN CERTIFICATE-----\n").unwrap();
    hang_up(&s);
    let of_third = |e: &serde_json::Value| e["detail"]["still"] == third.as_str();
    s.until("the refusal", |s| told(s, "refused").iter().any(of_third));
    let e = told(&s, "refused").pop().unwrap();
    assert!(e["detail"]["reason"].as_str().unwrap().contains("server.pem"), "{e}");
    assert_eq!((shown(&s.at, &ca), s.pid()), (third, pid), "it was restarted");
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("the one in use stays"), "{log}");
    let said = s.daemon(&["check"]);
    assert!(said.code != 0 && said.err.contains("server.pem"), "{}", said.err);
}
