//! `/metrics` as Debian's Prometheus reads it: both servers' text without a
//! complaint of promtool, then scraped by a real one, which answers every query
//! of the dashboard in `docs/grafana`. M45 M46 M47.

mod common;
mod deployd;
mod windowd;

use common::desk::{name, until};
use deployd::{Server, free_port, run};
use provision::api::{self, LocalPeer, traffic};
use provision::app::listen;
use provision::auth::Role;
use provision::lifecycle::Input;
use provision::model::plan::{PhaseReport, VerifiedReport};
use provision::model::{ClientKind, Phase, Time};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use windowd::Bench;

/// For whatever is waited for here.
const LIMIT: Duration = Duration::from_secs(90);

/// Queries that have nothing to say of a rack and a registry in which this did
/// not happen: a part of the query, and what did not.
const MAY_BE_EMPTY: [(&str, &str); 3] = [
    ("provision_follow_", "nobody is followed"),
    ("container[.]", "nothing runs on nodes"),
    ("code=~\"5..\"", "no request failed on the server's side"),
];

/// What Grafana itself has, without a plugin of others.
const PANELS: [&str; 4] = ["row", "stat", "bargauge", "timeseries"];

fn dashboard() -> Value {
    let root: PathBuf = option_env!("CARGO_MANIFEST_DIR").unwrap_or(".").into();
    let text = fs::read_to_string(root.join("docs/grafana/provision.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Title and query of each panel.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|p| {
        let of = p["targets"].as_array().cloned().unwrap_or_default();
        of.into_iter().map(|t| (text(&p["title"]), text(&t["expr"])))
    });
    targets.collect()
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_else(|| panic!("no text: {v}")).to_owned()
}

/// As Grafana fills it in, with all of each variable.
fn filled(query: &str) -> String {
    let mut q = query.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "1m"),
        ("$__range", "5m"),
        ("$instance", ".*"),
        ("$profile", ".*"),
        ("$job", ".*"),
    ] {
        q = q.replace(variable, value);
    }
    assert!(!q.contains('$'), "a variable that is not known: {query}");
    q
}

#[test]
fn the_dashboard_needs_nothing_but_grafana_and_a_data_source() {
    let d = dashboard();
    let variables = d["templating"]["list"].as_array().unwrap();
    assert_eq!(
        (&variables[0]["type"], &variables[0]["name"]),
        (&json!("datasource"), &json!("datasource"))
    );
    assert!(d.get("__requires").is_none() && d.get("__inputs").is_none());
    let mut ids = BTreeSet::new();
    for p in d["panels"].as_array().unwrap() {
        assert!(ids.insert(p["id"].as_u64().unwrap()), "{} twice", p["id"]);
        assert!(PANELS.contains(&p["type"].as_str().unwrap()), "{}", p["type"]);
        let source = json!({ "type": "prometheus", "uid": "${datasource}" });
        let targets = p["targets"].as_array().cloned().unwrap_or_default();
        assert!(p["type"] == "row" || (p["datasource"] == source && !targets.is_empty()), "{p}");
        assert!(targets.iter().all(|t| t["datasource"] == source), "{p}");
    }
    assert!(queries(&d).len() > 60);
}

/// promtool's opinion of a text; it has none of a good one.
fn must_be_clean(of: &str, metrics: &str) {
    let said = run(Command::new("promtool").args(["check", "metrics"]), metrics);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", ""), "{of}:\n{metrics}");
}

/// Every series of a text has a place in a family that says what it is.
fn must_be_told(metrics: &str) {
    let heads = |word: &str| -> BTreeMap<String, String> {
        let mark = format!("# {word} ");
        let lines = metrics.lines().filter_map(|l| l.strip_prefix(&mark)?.split_once(' '));
        let mut all = BTreeMap::new();
        for (name, rest) in lines {
            assert!(all.insert(name.to_owned(), rest.to_owned()).is_none(), "{name} comes twice");
        }
        all
    };
    let (help, kinds) = (heads("HELP"), heads("TYPE"));
    assert!(help.keys().eq(kinds.keys()), "{help:?} {kinds:?}");
    let mut seen = BTreeSet::new();
    for line in metrics.lines().filter(|l| !l.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(series), "{series} comes twice");
        let name = series.split('{').next().unwrap();
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s));
        let family = of_histogram.filter(|f| kinds.get(*f).is_some_and(|k| k == "histogram"));
        let kind = kinds.get(family.unwrap_or(name)).unwrap_or_else(|| panic!("no TYPE: {line}"));
        let counter = name.ends_with("_total");
        assert_eq!(counter, kind == "counter", "{line}");
        // Machines come and go by the hundred: none has a series of its own.
        assert!(!series.contains("node0") && !series.contains("52:54:00"), "{line}");
    }
    assert!(seen.len() > 50);
}

/// A Prometheus on loopback; ended by its pid.
struct Prometheus {
    child: Child,
    base: String,
    log: PathBuf,
    http: reqwest::Client,
}

impl Prometheus {
    /// Of two servers, each with whom to trust for its certificate.
    fn start(dir: &Path, build: (&str, &Path), deployment: (&str, &Path)) -> Self {
        // As the documentation has it.
        let job = |name: &str, (at, ca): (&str, &Path)| {
            format!(
                "- job_name: {name}\n  scheme: https\n  tls_config: {{ ca_file: '{}' }}\n  \
                 static_configs: [{{ targets: ['{at}'] }}]\n",
                ca.display()
            )
        };
        let config = dir.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{}{}",
            job("build-server", build),
            job("deployment-server", deployment)
        );
        fs::write(&config, text).unwrap();
        let said = run(Command::new("promtool").args(["check", "config"]).arg(&config), "");
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        let (log, at) = (dir.join("prometheus.log"), format!("127.0.0.1:{}", free_port()));
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address={at}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap_or_else(|e| panic!("prometheus: {e}; scripts/deps.sh installs it"));
        Self { child, base: format!("http://{at}"), log, http: reqwest::Client::new() }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let url = format!("{}{path}", self.base);
        let r = self.http.get(url).query(query).timeout(Duration::from_secs(10)).send().await;
        r.ok()?.json().await.ok()
    }

    /// Asks until `good`, at most until the limit.
    async fn until(
        &self,
        path: &str,
        query: &[(&str, &str)],
        good: impl Fn(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + LIMIT;
        let mut last = None;
        while Instant::now() < end {
            last = self.get(path, query).await;
            if let Some(v) = last.as_ref().filter(|v| good(v)) {
                return v.clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        panic!("not within {LIMIT:?}: {path} {query:?}; last {last:?}\n{log}");
    }

    /// The result of a query, once it has one.
    async fn result(&self, query: &str) -> Vec<Value> {
        let some = |v: &Value| {
            assert_eq!(v["status"], "success", "{query}: {v}");
            v["data"]["result"].as_array().is_some_and(|r| !r.is_empty())
        };
        let v = self.until("/api/v1/query", &[("query", query)], some).await;
        v["data"]["result"].as_array().unwrap().clone()
    }

    /// The number of the one series that a query has, once it is `good`.
    async fn number(&self, query: &str, good: impl Fn(f64) -> bool) -> f64 {
        let read = |v: &Value| v["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok();
        let fits = |v: &Value| read(v).is_some_and(&good);
        read(&self.until("/api/v1/query", &[("query", query)], fits).await).unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Installs a node from the order to the end, as its reports would have it.
async fn install(b: &Bench, token: &str, node: &str) {
    let url = format!("{}/v1/nodes/{node}/install", b.base);
    let order = json!({ "type": "base", "image": "debian-12" });
    let r = reqwest::Client::new().post(url).bearer_auth(token).json(&order).send().await.unwrap();
    assert_eq!(r.status(), 202, "{}", r.text().await.unwrap());
    let phase = || b.rack.running_build(&name(node)).map(|b| b.phase);
    until("the machine has power", || phase() == Some(Phase::Dhcp)).await;
    let report = PhaseReport { phase: Phase::Image, bytes: 1, total: 1, message: None };
    let ok = VerifiedReport { ok: true, code: 0, output: String::new() };
    for input in [
        Input::Dhcp(ClientKind::Pxe, Time::now()),
        Input::LoaderAsked,
        Input::ScriptAsked,
        Input::KernelFetched,
        Input::Reported(report),
        Input::Verified(ok),
    ] {
        b.rack.observe(&name(node), input).await.unwrap();
    }
    assert_eq!(phase(), None, "it ended");
}

async fn metrics(http: reqwest::Client, base: &str) -> String {
    let r = http.get(format!("{base}/metrics")).send().await.unwrap();
    assert_eq!(r.status(), 200);
    let kind = r.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    r.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_both_servers_and_answers_each_query_of_the_dashboard() {
    let b = Bench::start().await;
    let dir = tempfile::tempdir().unwrap();
    let d = Server::started(&dir.path().join("deployment"), "");
    d.image("app", "1", b"layer").await;

    // The second reading counts the first.
    for _ in 0..2 {
        let (build, deployment) =
            (metrics(reqwest::Client::new(), &b.base).await, metrics(d.http(), "http://x").await);
        for (of, text) in [("build server", build), ("deployment server", deployment)] {
            must_be_clean(of, &text);
            must_be_told(&text);
        }
    }

    let own = dir.path().join("tls");
    let tls = provision::tls::own_pair(&own, &["localhost".into(), "127.0.0.1".into()])
        .and_then(|(cert, key)| provision::tls::Held::open(&cert, &key))
        .and_then(provision::tls::server_config);
    let listener = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let routes = traffic::counted(api::router(b.ctx.clone()), &b.ctx.numbers.traffic, "tls");
    let stop = CancellationToken::new();
    let served = tokio::spawn(listen::serve_tls(listener, tls.unwrap(), routes, stop.clone()));
    let trusted = (own.join("server.pem"), d.state().join("tls/ca.pem"));
    let p = Prometheus::start(dir.path(), (&at, &trusted.0), (&d.at, &trusted.1));
    let both_up = |v: &Value| {
        let all = v["data"]["activeTargets"].as_array().unwrap();
        all.len() == 2 && all.iter().all(|t| t["health"] == "up")
    };
    p.until("/api/v1/targets", &[], both_up).await;

    // Seen before and after: only so does Prometheus know that it rose.
    let deployed = "sum(provision_installs_total{outcome=\"deployed\"})";
    let before = p.number(deployed, |n| n > 0.0).await;
    let token = b.token("telescope", Role::Controller);
    install(&b, &token, "node03").await;
    p.number(deployed, |n| n > before).await;

    let all = dashboard();
    for (title, query) in queries(&all) {
        let query = filled(&query);
        if let Some((_, why)) = MAY_BE_EMPTY.iter().find(|(part, _)| query.contains(part)) {
            let v = p.until("/api/v1/query", &[("query", &query)], |_| true).await;
            assert_eq!(v["status"], "success", "{title} (may be empty, since {why}): {query}: {v}");
            continue;
        }
        let result = p.result(&query).await;
        assert!(result.len() < 100, "{title}: too many lines to read: {query}");
    }
    for v in &all["templating"]["list"].as_array().unwrap()[1..] {
        let asked = filled(v["definition"].as_str().unwrap());
        let inner = asked.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
        let (series, label) = inner.rsplit_once(", ").unwrap();
        let path = format!("/api/v1/label/{label}/values");
        p.until(&path, &[("match[]", series)], |v| !v["data"].as_array().unwrap().is_empty()).await;
    }

    // Not only an answer: the install that was seen is in it.
    let finite = |n: f64| n.is_finite() && n >= 0.0;
    let quantile = |phase: &str| {
        format!(
            "histogram_quantile(0.95, sum by (le) (increase(\
             provision_install_phase_duration_seconds_bucket{{phase=\"{phase}\"}}[5m])))"
        )
    };
    p.number(&quantile("image"), finite).await;
    p.number("sum(increase(provision_installs_total{outcome=\"deployed\"}[5m]))", |n| n > 0.5)
        .await;
    // It had failed fifteen minutes ago.
    let mean = "sum(provision_install_recovery_seconds_sum)";
    p.number(mean, |n| (600.0..1200.0).contains(&n)).await;
    p.number("sum(provision_operations_running{kind=\"install\"})", |n| n == 3.0).await;
    drop(p);
    stop.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_names_the_slowest_phase_by_profile_and_model() {
    let b = Bench::start().await;
    let socket = b.dir.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let routes = traffic::counted(api::router(b.ctx.clone()), &b.ctx.numbers.traffic, "local");
    let routes = routes.layer(axum::Extension(LocalPeer));
    let served = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let home = b.dir.path().to_owned();
    let cli = |args: &[&str]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_provision"));
        c.env("HOME", &home).env("PROVISION_SERVER", format!("unix:{}", socket.display()));
        c.env("PROVISION_DEPLOYMENT", format!("unix:{}/nobody.sock", home.display()));
        run(c.args(args), "")
    };
    install(&b, &b.token("telescope", Role::Controller), "node04").await;
    // Of the stock: eight deployed, n days ago, each phase 12 + n seconds. Those
    // of 1 to 5 days ago count, since the fifth ended within the five days; and
    // the one from just now, of no time and without disk, profile, boot loader
    // and first boot.
    let all: Value =
        serde_json::from_str(&cli(&["--output", "json", "metrics", "--since", "5d"]).ok()).unwrap();
    let groups = all["phases"].as_array().unwrap();
    let model = "Dell Inc. PowerEdge R430";
    let of = |profile: Value, model: Value| {
        let is = |g: &&Value| g["profile"] == profile && g["model"] == model;
        groups.iter().find(is).unwrap_or_else(|| panic!("{profile} {model}: {all}"))
    };
    assert_eq!(groups.len(), 3, "{all}");
    of(Value::Null, json!(model));
    of(json!("base"), json!(model));
    let base = of(json!("base"), Value::Null);
    assert_eq!((&base["installs"], &base["retried"]), (&json!(6), &json!(0)), "{all}");
    let power = &base["phases"][0];
    // 0 13 14 15 16 17
    assert_eq!((&power["phase"], &power["seconds"]["median"]), (&json!("power"), &json!(14.0)));
    assert_eq!((&power["seconds"]["p95"], &power["seconds"]["p99"]), (&json!(17.0), &json!(17.0)));
    // 13 14 15 16 17 of 0 143 154 165 176 187; of equal ones the first.
    assert_eq!(base["slowest"], "disk", "{base}");
    let share = base["phases"][5]["share"].as_f64().unwrap();
    assert!((share - 15.0 / 154.0).abs() < 1e-9, "{share}");
    let machines = &all["profiles"][0];
    assert_eq!((&machines["profile"], &machines["deployments"]), (&json!("base"), &json!(1)));

    let shown = cli(&["metrics", "--since", "5d"]).ok();
    for word in ["A DAY", "FAILURE RATE", "RECOVERY", "LEAD TIME", "SLOWEST", "P99", model, "10 %"]
    {
        assert!(shown.contains(word), "{word:?} is not in\n{shown}");
    }
    let every = cli(&["metrics", "--since", "5d", "--phases", "--model", "r430"]).ok();
    let rows = every.lines().filter(|l| l.contains(model)).count();
    assert_eq!(rows, 2 * 12, "eleven phases and the total, by model and by both:\n{every}");
    assert!(every.contains("first-boot") && every.contains("slowest"), "{every}");
    let none = cli(&["metrics", "--since", "5d", "--profile", "docker"]).ok();
    assert!(!none.contains("SLOWEST"), "{none}");
    cli(&["metrics", "--since", "soon"]).fails(2, "span like 2h");
    served.abort();
}
