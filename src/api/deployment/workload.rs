//! `/v1/workload`: what nodes tell of their containers; `/v1/nodes`: what this
//! server knows of each node (M44). What changed is in the event log, from
//! which `/v1/metrics/software` is computed.

use super::Desk;
use super::book::{Certificate, Who};
use super::visitor::Visitor;
use crate::api::problem::{Json, Path};
use crate::api::{Caller, List, Problem, demand};
use crate::auth::Role;
use crate::metrics::{Exposition, Kind};
use crate::model::workload::{MOST_RUNNING, MOST_SEEN};
use crate::model::{
    Container, Happening, NewEvent, NodeName, Outcome, Seen, Time, Workload, WorkloadReport,
};
use crate::store::{Batch, Expect, Store, StoreError};
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The document kind, by node.
pub const WORKLOAD: &str = "workload";
/// Longest text in a report.
const LONGEST: usize = 300;

/// What nodes told, in memory; the store has what changed.
pub struct Workloads {
    all: RwLock<BTreeMap<NodeName, Workload>>,
    /// One report at a time: what is written depends on what was.
    turn: tokio::sync::Mutex<()>,
}

impl Workloads {
    /// Reads what was known. How long a node has been silent is counted from
    /// now: it may have spoken while nobody listened.
    ///
    /// # Errors
    /// The store, or documents that are not ours.
    pub async fn open(store: &dyn Store) -> Result<Self, StoreError> {
        let mut all = BTreeMap::new();
        for d in store.list(WORKLOAD).await? {
            let w: Workload = serde_json::from_value(d.value)
                .map_err(|e| StoreError::Corrupt(format!("{WORKLOAD} {:?}: {e}", d.key)))?;
            all.insert(w.node.clone(), Workload { heard: Time::now(), ..w });
        }
        Ok(Self { all: RwLock::new(all), turn: tokio::sync::Mutex::new(()) })
    }

    fn get(&self, node: &NodeName) -> Option<Workload> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    fn list(&self) -> BTreeMap<NodeName, Workload> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, w: Workload) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(w.node.clone(), w);
    }

    /// For Prometheus.
    pub(super) fn write(&self, e: &mut Exposition) {
        let all = self.list();
        let lost = all.values().filter(|w| w.lost.is_some()).count();
        let running: usize = all.values().map(|w| w.running.len()).sum();
        let help = "Nodes that tell what runs on them, by whether they still do.";
        let mut f = e.family("provision_workload_nodes", Kind::Gauge, help);
        f.is(&[("state", "heard")], all.len() - lost);
        f.is(&[("state", "lost")], lost);
        e.gauge("provision_workload_containers", "Containers that run on nodes.", running);
    }

    async fn commit(
        &self,
        desk: &Desk,
        w: Workload,
        events: Vec<NewEvent>,
    ) -> Result<(), StoreError> {
        if !events.is_empty() {
            let key = w.node.to_string();
            let mut batch = Batch::new().put(WORKLOAD, &key, &w, Expect::Any)?;
            batch.events = events;
            desk.book.commit(batch).await?;
        }
        self.put(w);
        Ok(())
    }
}

/// A node, as this server knows it.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownNode {
    /// Name.
    pub name: NodeName,
    /// Whether it may still use the registry; if not, why.
    pub refused: Option<String>,
    /// Its newest certificate ends then.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub certificate_expires: Option<Time>,
    /// Last heard of.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub heard: Option<Time>,
    /// Silent for too long since then.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub lost: Option<Time>,
    /// What runs there, with the digests of the images.
    pub running: Vec<Container>,
}

/// What runs on the node that shows its certificate.
#[utoipa::path(
    post,
    path = "/v1/workload",
    tag = "nodes",
    request_body(content = WorkloadReport),
    responses((status = 204, description = "Written down")),
    security(("certificate" = []))
)]
pub(super) async fn report(
    Visitor(who): Visitor,
    State(desk): State<Arc<Desk>>,
    Json(r): Json<WorkloadReport>,
) -> Result<StatusCode, Problem> {
    let Who::Node(node) = who else {
        let m = format!("{}: only a node, by its certificate, tells what runs on it", who.name());
        return Err(Problem::new(StatusCode::FORBIDDEN, m));
    };
    check(&r)?;
    let _turn = desk.workloads.turn.lock().await;
    let old = desk.workloads.get(&node);
    if let Some((new, events)) = advance(old.as_ref(), &node, r, Time::now()) {
        desk.workloads.commit(&desk, new, events).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Bounds of what a node may make us keep.
fn check(r: &WorkloadReport) -> Result<(), Problem> {
    for (name, n, most) in
        [("seen", r.seen.len(), MOST_SEEN), ("running", r.running.len(), MOST_RUNNING)]
    {
        if n > most {
            let m = format!("{name}: a report has at most {most} of them, this has {n}");
            return Err(Problem::bad(m).at(format!("/{name}")));
        }
    }
    let text = |t: &String, at: String| {
        if t.len() <= LONGEST && !t.chars().any(char::is_control) {
            return Ok(());
        }
        let t: String = t.chars().take(60).collect();
        let m = format!("{t:?} is longer than {LONGEST} bytes or has control characters");
        Err(Problem::bad(m).at(at))
    };
    text(&r.session, "/session".into())?;
    let running = r.running.iter().enumerate().map(|(i, c)| (c, format!("/running/{i}")));
    let seen = r.seen.iter().enumerate().map(|(i, s)| (&s.container, format!("/seen/{i}")));
    for (c, at) in running.chain(seen) {
        for (name, t) in [("name", &c.name), ("image", &c.image), ("digest", &c.digest)] {
            text(t, format!("{at}/{name}"))?;
        }
    }
    Ok(())
}

/// What a report makes of what was known; `None` if it is known already.
fn advance(
    old: Option<&Workload>,
    node: &NodeName,
    r: WorkloadReport,
    now: Time,
) -> Option<(Workload, Vec<NewEvent>)> {
    let same_session = old.is_some_and(|o| o.session == r.session);
    if same_session && old.is_some_and(|o| r.number <= o.number) {
        return None;
    }
    let actor = format!("node:{node}");
    let mut events = Vec::new();
    let lost = old.and_then(|o| o.lost);
    if let Some(since) = lost {
        let seconds = now.duration_since(since).as_secs();
        let e = NewEvent::new(now, &actor, "node.back", Outcome::Ok);
        events.push(e.node(node).with("seconds", seconds));
    }
    // What ran before: after a loss nobody knows.
    let mut known: BTreeSet<&Container> =
        old.filter(|_| lost.is_none()).into_iter().flat_map(|o| &o.running).collect();
    for s in &r.seen {
        match s.happening {
            Happening::Start => drop(known.insert(&s.container)),
            Happening::Exit { .. } => drop(known.remove(&s.container)),
            Happening::Healthy | Happening::Unhealthy => {}
        }
        events.push(told(&actor, node, s, now));
    }
    if !same_session || lost.is_some() || r.missed > 0 {
        let runs: BTreeSet<&Container> = r.running.iter().collect();
        for c in known.difference(&runs) {
            let e = NewEvent::new(now, &actor, "container.exit", Outcome::Ok).with("how", "gone");
            events.push(about(e.node(node), c));
        }
        for c in runs.difference(&known) {
            let e = NewEvent::new(now, &actor, "container.start", Outcome::Ok).with("how", "found");
            events.push(about(e.node(node), c));
        }
    }
    let new = Workload {
        node: node.clone(),
        heard: now,
        lost: None,
        running: r.running,
        session: r.session,
        number: r.number,
    };
    Some((new, events))
}

fn told(actor: &str, node: &NodeName, s: &Seen, now: Time) -> NewEvent {
    let action = match s.happening {
        Happening::Start => "container.start",
        Happening::Exit { .. } => "container.exit",
        Happening::Healthy => "container.healthy",
        Happening::Unhealthy => "container.unhealthy",
    };
    let outcome = if s.happening.is_failure() { Outcome::Failed } else { Outcome::Ok };
    let mut e = about(NewEvent::new(now, actor, action, outcome).node(node), &s.container);
    if let Happening::Exit { code, asked } = s.happening {
        e = e.with("code", code);
        if asked {
            e = e.with("how", "asked");
        }
    }
    // Told late, or the node's clock is wrong: both are worth knowing.
    if now.duration_since(s.at).abs() > jiff::SignedDuration::from_secs(10) {
        e = e.with("happened", s.at);
    }
    e
}

fn about(e: NewEvent, c: &Container) -> NewEvent {
    let e = e.with("container", &c.name).with("image", &c.image);
    match (c.repository(), c.digest.as_str()) {
        (r, d) if !r.is_empty() && !d.is_empty() => e.with("repository", r).with("digest", d),
        _ => e,
    }
}

/// Marks nodes that were silent for `after`; ends what ran on nodes that are
/// no longer known. Called every few seconds.
///
/// # Errors
/// The store.
pub async fn sweep(desk: &Desk, after: Duration) -> Result<(), StoreError> {
    let now = Time::now();
    let good: BTreeSet<NodeName> = desk
        .book
        .certificates()
        .into_iter()
        .filter(|c| c.revoked.is_none() && c.expires > now)
        .map(|c| c.node)
        .collect();
    let _turn = desk.workloads.turn.lock().await;
    for w in desk.workloads.list().into_values() {
        let (new, events) = if !good.contains(&w.node) {
            if w.running.is_empty() {
                continue;
            }
            let gone = |c: &Container| {
                let e = NewEvent::new(now, "server", "container.exit", Outcome::Ok);
                about(e.node(&w.node).with("how", "node refused"), c)
            };
            let events = w.running.iter().map(gone).collect();
            (Workload { running: Vec::new(), ..w.clone() }, events)
        } else if w.lost.is_none() && silent(w.heard, now) > after {
            let e = NewEvent::new(now, "server", "node.lost", Outcome::Failed)
                .node(&w.node)
                .with("silent", silent(w.heard, now).as_secs());
            (Workload { lost: Some(w.heard), ..w.clone() }, vec![e])
        } else {
            continue;
        };
        desk.workloads.commit(desk, new, events).await?;
    }
    Ok(())
}

fn silent(since: Time, now: Time) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Nodes that have or had a certificate, and what runs on them.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    tag = "nodes",
    responses((status = 200, description = "By name", body = List<ShownNode>))
)]
pub(super) async fn nodes(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
) -> Result<Out<List<ShownNode>>, Problem> {
    demand(&*desk, &caller, Role::Read, "listing nodes").await?;
    Ok(Out(List { items: known(&desk) }))
}

/// One of them.
#[utoipa::path(
    get,
    path = "/v1/nodes/{name}",
    tag = "nodes",
    params(("name" = NodeName, Path, description = "Its name")),
    responses((status = 200, description = "The node", body = ShownNode))
)]
pub(super) async fn node(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Path(name): Path<NodeName>,
) -> Result<Out<ShownNode>, Problem> {
    demand(&*desk, &caller, Role::Read, "showing a node").await?;
    let found = known(&desk).into_iter().find(|n| n.name == name);
    found.map(Out).ok_or_else(|| {
        Problem::not_found(format!("{name} has no certificate here and has told nothing"))
    })
}

fn known(desk: &Desk) -> Vec<ShownNode> {
    let mut newest: BTreeMap<NodeName, Certificate> = BTreeMap::new();
    for c in desk.book.certificates() {
        match newest.get(&c.node) {
            Some(n) if n.issued >= c.issued => {}
            _ => drop(newest.insert(c.node.clone(), c)),
        }
    }
    let mut told = desk.workloads.list();
    for node in told.keys().filter(|n| !newest.contains_key(n)).cloned().collect::<Vec<_>>() {
        told.remove(&node);
    }
    let all = newest.into_iter().map(|(name, c)| {
        let w = told.remove(&name);
        ShownNode {
            refused: c.revoked.map(|r| format!("{}: {}", r.at, r.reason)),
            certificate_expires: Some(c.expires),
            heard: w.as_ref().map(|w| w.heard),
            lost: w.as_ref().and_then(|w| w.lost),
            running: w.map(|w| w.running).unwrap_or_default(),
            name,
        }
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    fn c(name: &str, digest: &str) -> Container {
        Container { name: name.into(), image: "r:5000/a:1".into(), digest: digest.into() }
    }

    fn at(s: i64) -> Time {
        Time::from_second(1_800_000_000 + s).unwrap()
    }

    fn report(session: &str, number: u64, running: &[Container]) -> WorkloadReport {
        WorkloadReport {
            session: session.into(),
            number,
            running: running.to_vec(),
            ..WorkloadReport::default()
        }
    }

    fn words(events: &[NewEvent]) -> Vec<String> {
        let d = |e: &NewEvent, k: &str| e.detail.get(k).cloned().unwrap_or_default();
        events
            .iter()
            .map(|e| format!("{} {} {} {}", e.action, e.outcome, d(e, "container"), d(e, "how")))
            .collect()
    }

    #[test]
    fn a_report_beyond_its_bounds_names_what_is_at_fault() {
        let fault = |r: &WorkloadReport| check(r).unwrap_err().field.unwrap();
        let many = vec![c("a", "sha256:1"); MOST_RUNNING + 1];
        assert_eq!(fault(&report("s", 1, &many)), "/running");
        let odd = [c("a", "sha256:1"), c("b", "a\nb")];
        assert_eq!(fault(&report("s", 1, &odd)), "/running/1/digest");
        assert_eq!(fault(&report(&"s".repeat(LONGEST + 1), 1, &[])), "/session");
        assert!(check(&report("s", 1, &odd[..1])).is_ok());
    }

    #[test]
    fn what_happened_is_written_once_and_what_was_missed_is_found() {
        let n: NodeName = "n1".parse().unwrap();
        let (a, b) = (c("a", "sha256:1"), c("b", "sha256:2"));
        let (w, e) = advance(None, &n, report("s", 1, from_ref(&a)), at(0)).unwrap();
        assert_eq!(words(&e), ["container.start ok a found"]);
        assert_eq!(e[0].detail["repository"], "a");
        assert!(advance(Some(&w), &n, report("s", 1, &[]), at(1)).is_none(), "sent again");
        // A heartbeat says nothing new.
        let (w, e) = advance(Some(&w), &n, report("s", 2, from_ref(&a)), at(60)).unwrap();
        assert_eq!((e.len(), w.heard), (0, at(60)));
        let seen = |container: &Container, happening| Seen {
            at: at(61),
            container: container.clone(),
            happening,
        };
        let mut r = report("s", 3, from_ref(&b));
        r.seen = vec![
            seen(&a, Happening::Exit { code: 1, asked: false }),
            seen(&b, Happening::Start),
            seen(&b, Happening::Unhealthy),
        ];
        let (w, e) = advance(Some(&w), &n, r, at(62)).unwrap();
        assert_eq!(
            words(&e),
            ["container.exit failed a ", "container.start ok b ", "container.unhealthy failed b "]
        );
        // The agent was started again: only the difference is news.
        let (w, e) =
            advance(Some(&w), &n, report("t", 1, &[a.clone(), b.clone()]), at(70)).unwrap();
        assert_eq!(words(&e), ["container.start ok a found"]);
        // After a loss everything that runs is.
        let w = Workload { lost: Some(at(70)), ..w };
        let (w, e) = advance(Some(&w), &n, report("t", 2, from_ref(&b)), at(300)).unwrap();
        assert_eq!(words(&e), ["node.back ok  ", "container.start ok b found"]);
        assert_eq!((w.lost, e[0].detail["seconds"].as_str()), (None, "230"));
    }

    #[test]
    fn a_report_has_bounds() {
        let many: Vec<Container> = (0..=MOST_RUNNING).map(|i| c(&i.to_string(), "")).collect();
        assert!(check(&report("s", 1, &many)).is_err());
        assert!(check(&report("s", 1, &[c(&"x".repeat(301), "")])).is_err());
        assert!(check(&report("s", 1, &[c("a\nb", "")])).is_err());
        assert!(check(&report("s", 1, &[c("a", "sha256:1")])).is_ok());
    }
}
