//! The deployment server's part of the operator's window: builds of images
//! with their log, what is signed, promotions; and that server away.

mod common;
mod deployd;
mod windowd;

use async_trait::async_trait;
use bytes::Bytes;
use provision::api::deployment::catalog::{Catalog, ShownImage};
use provision::api::deployment::ingest::Attestations;
use provision::app::software::Remote;
use provision::auth::Role;
use provision::config::link::DeploymentLink;
use provision::ingest::{Run, RunId, RunState};
use provision::model::{Event, NewEvent, Outcome, Time};
use provision::tls::signing::SigningKey;
use provision::ui::{self, Part, Software, Unheard};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use windowd::stock::HOSTILE;
use windowd::{Bench, Visitor};

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A deployment server in memory, with names that try to be more than text.
struct Shop {
    run: Mutex<Run>,
    log: Mutex<String>,
    away: Mutex<bool>,
    key: SigningKey,
    _dir: tempfile::TempDir,
}

fn run(state: &str) -> Run {
    serde_json::from_value(json!({
        "id": RunId::generate(), "repository": "staging/app", "name": "app", "tag": "1",
        "source": { "kind": "git", "url": HOSTILE, "reference": "main" }, "asked_by": HOSTILE,
        "dockerfile": HOSTILE, "commit": "c0ffee", "dirty": true, "dockerfile_digest": DIGEST,
        "arguments": { "V": HOSTILE }, "context_digest": null,
        "bases": [{ "name": HOSTILE, "digest": DIGEST }],
        "builder": { "name": "buildah", "version": HOSTILE }, "asked": Time::now(),
        "started": Time::now(), "ended": null, "state": state, "reason": HOSTILE,
        "image_digest": DIGEST, "attestation_digest": DIGEST, "log": "/dev/null",
    }))
    .unwrap()
}

impl Shop {
    fn new() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let lines: String = (0..9000).map(|n| format!("STEP {n}: COPY . /src\n")).collect();
        Arc::new(Self {
            run: Mutex::new(run("running")),
            log: Mutex::new(format!("{lines}{HOSTILE}\n")),
            away: Mutex::new(false),
            key: SigningKey::load_or_make(&dir.path().join("key")).unwrap(),
            _dir: dir,
        })
    }

    fn there<T>(&self, what: T) -> Result<T, Unheard> {
        if *self.away.lock().unwrap() {
            return Err(Unheard::Away(format!("connection refused {HOSTILE}")));
        }
        Ok(what)
    }
}

#[async_trait]
impl Software for Shop {
    fn url(&self) -> &str {
        "https://registry.test:5000"
    }

    async fn catalog(&self) -> Result<Catalog, Unheard> {
        let item = ShownImage {
            repository: "staging/app".into(),
            tag: "1".into(),
            digest: DIGEST.into(),
            bytes: 12_000_000,
            pushed: Time::now(),
            by: Some(HOSTILE.into()),
            attested: true,
        };
        self.there(Catalog { items: vec![item], next: None })
    }

    async fn runs(&self) -> Result<Vec<Run>, Unheard> {
        self.there(vec![self.run.lock().unwrap().clone()])
    }

    async fn run(&self, id: &RunId) -> Result<Run, Unheard> {
        let run = self.there(self.run.lock().unwrap().clone())?;
        if run.id != *id {
            return Err(Unheard::Absent(format!("there is no run {id}")));
        }
        Ok(run)
    }

    async fn log(&self, _: &RunId, part: Part) -> Result<Bytes, Unheard> {
        let all = self.there(self.log.lock().unwrap().clone())?;
        let all = Bytes::from(all);
        Ok(match part {
            Part::From(at) => {
                let at = usize::try_from(at).unwrap().min(all.len());
                all.slice(at..(at + 100_000).min(all.len()))
            }
            Part::Last(n) => all.slice(all.len().saturating_sub(usize::try_from(n).unwrap())..),
        })
    }

    async fn attestations(&self, image: &str) -> Result<Attestations, Unheard> {
        assert_eq!(image, "staging/app:1");
        let digest = DIGEST.parse().unwrap();
        let run = self.run.lock().unwrap().clone();
        let good = provision::ingest::provenance::attest(&run, &digest, HOSTILE, &self.key);
        let good = String::from_utf8(good).unwrap();
        self.there(Attestations {
            digest: DIGEST.into(),
            envelopes: vec![good, HOSTILE.into()],
            public_key: self.key.verifying_key().to_pem(),
        })
    }

    async fn promotions(&self, most: usize) -> Result<Vec<Event>, Unheard> {
        let event = |seq: u64, outcome, reason: &str| {
            let e = NewEvent::new(Time::now(), HOSTILE, "image.promote", outcome)
                .with("from", "staging/app:1")
                .with("to", format!("app:{seq}"))
                .with("digest", DIGEST)
                .with("reason", reason);
            Event::chain(seq, e, DIGEST.parse().unwrap())
        };
        let all = vec![event(1, Outcome::Refused, HOSTILE), event(2, Outcome::Ok, "")];
        self.there(all.into_iter().take(most).collect())
    }
}

/// The window with this software, and who reads it.
async fn window(b: &Bench, s: Arc<dyn Software>) -> (Visitor, tokio::task::JoinHandle<()>) {
    let routes = ui::router(ui::Window::new(b.ctx.clone(), false, Some(s)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let (v, token) = (Visitor::new(&base), b.token("ada", Role::Read));
    let r = v.raw_post("/ui/login", &[], &[("token", &token)]).await;
    (Visitor { cookie: r.cookie, ..v }, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_followed_with_its_log_until_it_has_ended() {
    let (b, shop) = (Bench::start().await, Shop::new());
    let (ada, task) = window(&b, shop.clone()).await;
    let id = shop.run.lock().unwrap().id.clone();
    let list = ada.page("/ui/software").await.text;
    assert!(list.contains(&format!("href=\"/ui/software/runs/{id}\"")), "{list}");
    assert!(list.contains("data-every=\"5\""), "something moves: {list}");
    let path = format!("/ui/software/runs/{id}");
    let page = ada.page(&path).await.text;
    for said in [
        "data-every=\"2\"",
        "running",
        "STEP 8999",
        "buildah",
        "c0ffee",
        DIGEST,
        "id=\"log\" data-live",
    ] {
        assert!(page.contains(said), "{said} is not in {page}");
    }
    assert!(!page.contains("STEP 10:"), "the whole log is on the page");
    let at = page.find("data-tail>").unwrap() + 10;
    assert!(page[at..].starts_with("STEP "), "half a line: {}", &page[at..at + 40]);

    // All of it, over several pieces, as text.
    let whole = ada.page(&format!("{path}/log")).await;
    assert_eq!(whole.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(whole.text, *shop.log.lock().unwrap());
    assert!(whole.header("content-security-policy").contains("'none'"));

    shop.log.lock().unwrap().push_str("COMMIT staging/app:1\n");
    let page = ada.page(&path).await.text;
    assert!(page.contains("COMMIT staging/app:1"), "{page}");
    let mut run = shop.run.lock().unwrap().clone();
    (run.state, run.ended) = (RunState::Done, Some(Time::now()));
    *shop.run.lock().unwrap() = run;
    let page = ada.page(&path).await.text;
    assert!(!page.contains("data-every") && page.contains("What is signed about it"), "{page}");
    assert!(!ada.page("/ui/software").await.text.contains("data-every"));
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn provenance_and_promotions_are_shown_and_hostile_text_stays_text() {
    let (b, shop) = (Bench::start().await, Shop::new());
    let (ada, task) = window(&b, shop.clone()).await;
    let id = shop.run.lock().unwrap().id.clone();
    let image = "/ui/software/images/staging/app:1";
    for path in [
        "/ui/software".to_owned(),
        format!("/ui/software/runs/{id}"),
        image.to_owned(),
        "/ui/software/promotions".to_owned(),
    ] {
        let page = ada.page(&path).await;
        assert!(page.text.contains("&#60;script&#62;alert(1)"), "{path}: {}", page.text);
        assert!(!page.text.contains("<script>") && !page.text.contains('\u{202e}'), "{path}");
        assert_eq!(page.text.matches("<h1").count(), 1, "{path}");
        assert!(!page.text.contains(" style="), "{path}");
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(
            page.text.contains("aria-current=\"page\">Software"),
            "{path}: no place in the bar"
        );
    }
    let page = ada.page(image).await.text;
    for said in
        ["Provenance", "signed", "c0ffee; the folder differed", "Not believed", "no DSSE envelope"]
    {
        assert!(page.contains(said), "{said} is not in {page}");
    }
    assert!(page.contains(&format!("/ui/software/runs/{id}")), "{page}");
    let page = ada.page("/ui/software/promotions").await.text;
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is not in {page}"));
    assert!(at("app:2") < at("app:1</bdi>"), "not the newest first");
    assert!(at("refused") > 0);

    // What is no image or no build is asked of nobody.
    for path in [
        "/ui/software/images/..%2f..%2fetc:1",
        "/ui/software/images/app",
        "/ui/software/images/app:1%3ftail=1",
        "/ui/software/images/APP:1",
    ] {
        let r = ada.get(path).await;
        assert!([400, 404].contains(&r.status), "{path}: {}", r.status);
        assert!(r.text.contains("aria-label=\"Pages\""), "{path}");
    }
    for path in
        ["/ui/software/runs/run-x".into(), format!("/ui/software/runs/{}", RunId::generate())]
    {
        assert_eq!(ada.get(&path).await.status, 404, "{path}");
    }
    let out = Visitor { cookie: String::new(), ..ada.clone() };
    assert_eq!(out.get(image).await.status, 303, "nobody is logged in");
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_server_that_is_away_or_not_there_is_said() {
    let (b, shop) = (Bench::start().await, Shop::new());
    let (ada, task) = window(&b, shop.clone()).await;
    *shop.away.lock().unwrap() = true;
    let page = ada.page("/ui/software").await.text;
    assert_eq!(page.matches("It cannot be asked now").count(), 3, "{page}");
    assert!(page.contains("data-every"), "it may come back: {page}");
    for path in ["/ui/software/promotions", "/ui/software/images/staging/app:1"] {
        let r = ada.get(path).await;
        assert_eq!(r.status, 502, "{path}");
        assert!(r.text.contains("cannot be asked now: connection refused"), "{}", r.text);
        assert!(!r.text.contains("<script>"));
    }
    // A server that knows none.
    let eve = b.visitor("eve", Role::Read).await;
    for path in ["/ui/software/promotions", "/ui/software/images/a:1"] {
        let r = eve.get(path).await;
        assert_eq!(r.status, 404, "{path}");
        assert!(r.text.contains("[deployment]"), "{}", r.text);
    }
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_shows_what_a_real_deployment_server_has() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_owned();
    let started = tokio::task::spawn_blocking(move || {
        let s = deployd::Server::started(&at, "gc_hours = 0\n");
        s.token("build-server", "operate", &at.join("token"));
        s
    });
    let s = Arc::new(started.await.unwrap());
    let digest = s.image("staging/app", "1", b"layer").await;
    s.attest("staging/app", &digest).await;
    let (asks, from) = (s.clone(), dir.path().join("app"));
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("Dockerfile"), "FROM nothing.test/none:1\n").unwrap();
    // One that is done, one that is refused, and a build that comes to nothing.
    let done = tokio::task::spawn_blocking(move || {
        asks.cli(&["promote", "staging/app:1"]).ok();
        let other = asks.cli(&["promote", "staging/app:2"]);
        assert_ne!(other.code, 0);
        asks.cli(&["ingest", from.to_str().unwrap(), "--name", "shop/web", "--tag", "7"])
    });
    let asked = done.await.unwrap();

    let b = Bench::start().await;
    let link = DeploymentLink {
        url: format!("https://{}", s.at),
        host: s.at.clone(),
        ca_file: s.state().join("tls/ca.pem"),
        token_file: dir.path().join("token"),
    };
    let (ada, task) = window(&b, Arc::new(Remote::new(&link).unwrap())).await;
    let page = ada.page("/ui/software").await.text;
    assert!(page.contains("staging/app:1") && page.contains(&digest.to_string()), "{page}");
    let page = ada.page("/ui/software/promotions").await.text;
    assert!(page.contains("<bdi>app:1</bdi>"), "{page}");
    let page = ada.page("/ui/software/images/staging/app:1").await.text;
    assert!(page.contains("Provenance") && page.contains("upload app"), "{page}");
    assert_eq!(ada.get("/ui/software/images/staging/none:1").await.status, 404);

    // The build: found in the list, and its log on its page.
    let list = ada.page("/ui/software").await.text;
    let at = list.find("/ui/software/runs/").unwrap_or_else(|| panic!("{asked:?}: {list}"));
    let path = list[at..at + list[at..].find('"').unwrap()].to_owned();
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    let page = loop {
        let page = ada.page(&path).await.text;
        if !page.contains("data-every") {
            break page;
        }
        assert!(tokio::time::Instant::now() < end, "{page}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(page.contains("staging/shop/web:7") && page.contains("failed"), "{page}");
    assert!(page.contains("data-tail>"), "no log: {page}");
    let whole = ada.page(&format!("{path}/log")).await.text;
    assert!(whole.contains("nothing.test/none:1"), "{whole}");
    task.abort();
}
