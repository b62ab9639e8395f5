//! The operator's window on loopback: the API's and the window's routes over a
//! rack in memory, and a browser's half of HTTP.

#![allow(dead_code, reason = "each test binary uses some of these")]

pub mod stock;

use crate::common::desk::{Flaky, Gated, deadlines};
use crate::common::nobody::{NoMirrors, Nothing};
use provision::api::{self, Ctx, LocalPeer};
use provision::auth::{MasterKey, Role, TokenRecord, token};
use provision::config;
use provision::image::catalogue::Catalogue;
use provision::lifecycle::Rack;
use provision::model::{Event, Time};
use provision::netboot::decide::Server as BootAddress;
use provision::netboot::script::Scripts;
use provision::profile::Profiles;
use provision::store::{EventLog as _, EventQuery};
use provision::ui;
use reqwest::header;
use std::path::Path;
use std::sync::Arc;

/// A window that is open.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub store: Arc<Flaky>,
    pub rack: Arc<Rack>,
    pub ctx: Arc<Ctx>,
    pub base: String,
    /// The same routes where every request counts as root's.
    pub local: String,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

async fn serve(routes: axum::Router) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    (base, tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() }))
}

impl Bench {
    /// On the nodes of `stock::fill`.
    pub async fn start() -> Self {
        provision::tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let (store, arm) = (Arc::new(Flaky::default()), Gated::new(999));
        let d = dir.path().display();
        let text = format!(
            "state_dir = '{d}'\nimages_dir = '{d}/images'\nprofiles_dir = '{}/profiles'\n\
             [network]\ninterface='e'\naddress='10.1.0.1'\n\
             subnet='10.1.0.0/24'\nrange=['10.1.0.10','10.1.0.250']\n[install]\nimage='debian-12'\n",
            env!("CARGO_MANIFEST_DIR")
        );
        let config = Arc::new(config::parse(&text, "bench", Path::new("/")).unwrap());
        stock::fill(&store, dir.path()).await;
        let rack = Rack::load(store.clone(), deadlines(""), arm.clone()).await.unwrap();
        let key = Arc::new(MasterKey::open(&dir.path().join("secret.key")).unwrap());
        let address = BootAddress { address: [10, 1, 0, 1].into(), http_port: 8080 };
        let numbers = Arc::new(api::numbers::Numbers::default());
        let ctx = Arc::new(Ctx {
            certifier: None,
            profiles: Profiles::open(&config.profiles_dir),
            rack: rack.clone(),
            images: Catalogue::open(&config.images_dir),
            through: Vec::new(),
            scripts: Scripts::new(config.templates_dir.clone(), address, config.network.clone()),
            preseeds: provision::preseed::Preseeds::new(config.templates_dir.clone()),
            key,
            tokens: Default::default(),
            refusals: Default::default(),
            answering: Default::default(),
            webhooks: Default::default(),
            bmcs: Arc::new(Nothing),
            builder: Arc::new(Nothing),
            mirrors: Arc::new(NoMirrors(provision::mirror::Mirrors::open(
                dir.path().join("mirrors"),
            ))),
            logs: dir.path().to_owned(),
            discovered: stock::strangers(),
            counters: Box::new(stock::counters),
            numbers: numbers.clone(),
            clock: Box::new(|| Some(true)),
            config,
        });
        let routes = || {
            let window = ui::Window::new(ctx.clone(), false, None);
            let all = api::router(ctx.clone()).merge(ui::router(window));
            api::traffic::counted(all, &numbers.traffic, "api")
        };
        let (base, a) = serve(routes()).await;
        let (local, b) = serve(routes().layer(axum::Extension(LocalPeer))).await;
        Self { dir, store, rack, base, local, tasks: vec![a, b], ctx }
    }

    /// A new token of this role.
    pub fn token(&self, name: &str, role: Role) -> String {
        let (secret, digest) = token::generate().unwrap();
        let record = TokenRecord { name: name.into(), role, made: Time::now(), expires: None };
        self.ctx.tokens.write().unwrap().insert(digest, record);
        secret.expose().to_owned()
    }

    /// A browser that is logged in.
    pub async fn visitor(&self, name: &str, role: Role) -> Visitor {
        let token = self.token(name, role);
        let v = Visitor::new(&self.base);
        let r = v.raw_post("/ui/login", &[], &[("token", &token)]).await;
        assert_eq!(r.status, 303, "{}", r.text);
        Visitor { cookie: r.cookie.clone(), ..v }
    }

    pub async fn events(&self, action: &str) -> Vec<Event> {
        let q = EventQuery { action: Some(action.into()), limit: 1000, ..EventQuery::default() };
        self.store.inner.query(&q).await.unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|t| t.abort());
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: header::HeaderMap,
    pub text: String,
    /// What `Set-Cookie` sets.
    pub cookie: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The value of a form's hidden field.
    pub fn field(&self, name: &str) -> String {
        let mark = format!("name=\"{name}\" value=\"");
        let at = self.text.find(&mark).unwrap_or_else(|| panic!("no {name} in {}", self.text));
        let rest = &self.text[at + mark.len()..];
        rest[..rest.find('"').unwrap()].to_owned()
    }
}

/// A browser: it keeps a cookie and follows nothing.
#[derive(Clone)]
pub struct Visitor {
    pub http: reqwest::Client,
    pub base: String,
    pub cookie: String,
}

impl Visitor {
    pub fn new(base: &str) -> Self {
        let none = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder().redirect(none).build().unwrap();
        Self { http, base: base.to_owned(), cookie: String::new() }
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let r = self.http.request(method, format!("{}{path}", self.base));
        r.header(header::COOKIE, &self.cookie)
    }

    async fn answer(r: reqwest::RequestBuilder) -> Answer {
        let r = r.send().await.unwrap();
        let (status, headers) = (r.status().as_u16(), r.headers().clone());
        let set = headers.get(header::SET_COOKIE).map(|v| v.to_str().unwrap());
        let cookie = set.map(|v| v.split(';').next().unwrap().to_owned()).unwrap_or_default();
        Answer { status, headers, cookie, text: r.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Self::answer(self.request(reqwest::Method::GET, path)).await
    }

    /// A page that must be there.
    pub async fn page(&self, path: &str) -> Answer {
        let a = self.get(path).await;
        assert_eq!(a.status, 200, "{path}: {}", a.text);
        a
    }

    /// A post with exactly these headers and fields.
    pub async fn raw_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        fields: &[(&str, &str)],
    ) -> Answer {
        let mut r = self.request(reqwest::Method::POST, path);
        for (k, v) in headers {
            r = r.header(*k, *v);
        }
        // None of the values here needs escaping in a form.
        let pairs: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let r = r.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        Self::answer(r.body(pairs.join("&"))).await
    }

    /// As a browser posts a form of our page.
    pub async fn post(&self, path: &str, form: &str, fields: &[(&str, &str)]) -> Answer {
        let mut all = vec![("form", form)];
        all.extend(fields);
        let h = [("origin", "null"), ("sec-fetch-site", "same-origin")];
        self.raw_post(path, &h, &all).await
    }
}
