//! The life cycle on a desk: a store that fails when told, an arming that
//! waits when told, and orders for one node.

use async_trait::async_trait;
use provision::config::{self, Deadlines};
use provision::lifecycle::{Arm, Armed, InstallOrder, Rack};
use provision::model::plan::{InstallPlan, NetworkPlan, ProfilePlan, RootfsPlan};
use provision::model::{
    Asker, BmcSpec, BuildInputs, Digest, Event, Node, NodeName, NodeSpec, PowerDriver, Time,
};
use provision::store::memory::MemoryStore;
use provision::store::{Batch, Doc, EventLog, EventQuery, Expect, State, Store, StoreError, kind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written.
    Refused,
    /// All is written, and the answer is lost.
    AnswerLost,
}

/// A store in memory that fails when told.
#[derive(Default)]
pub struct Flaky {
    pub inner: MemoryStore,
    down: AtomicBool,
    commits: AtomicUsize,
    fault: Mutex<Option<(usize, Fault)>>,
    gate: Mutex<Option<Arc<Semaphore>>>,
    /// Told when a commit stands at the gate.
    pub at_gate: Notify,
}

impl Flaky {
    /// Away or back.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// The `n`-th commit from now on, counted from 1, fails once.
    pub fn fail_nth(&self, n: usize, how: Fault) {
        self.commits.store(0, Ordering::SeqCst);
        *self.fault.lock().unwrap() = Some((n, how));
    }

    /// Commits since then.
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    /// Commits wait until the semaphore is given permits.
    pub fn hold(&self) -> Arc<Semaphore> {
        let s = Arc::new(Semaphore::new(0));
        *self.gate.lock().unwrap() = Some(s.clone());
        s
    }

    pub async fn actions(&self) -> Vec<String> {
        let q = EventQuery { limit: 1000, ..EventQuery::default() };
        self.inner.query(&q).await.unwrap().into_iter().map(|e| e.event.action).collect()
    }
}

#[async_trait]
impl State for Flaky {
    async fn get(&self, kind: &'static str, key: &str) -> Result<Option<Doc>, StoreError> {
        self.inner.get(kind, key).await
    }
    async fn list(&self, kind: &'static str) -> Result<Vec<Doc>, StoreError> {
        self.inner.list(kind).await
    }
}

#[async_trait]
impl EventLog for Flaky {
    async fn query(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        self.inner.query(query).await
    }
}

#[async_trait]
impl Store for Flaky {
    async fn commit(&self, batch: Batch) -> Result<Vec<Event>, StoreError> {
        let gate = self.gate.lock().unwrap().clone();
        if let Some(g) = gate {
            self.at_gate.notify_one();
            g.acquire().await.unwrap().forget();
        }
        let nth = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        let fault = {
            let mut f = self.fault.lock().unwrap();
            if f.is_some_and(|(n, _)| n == nth) { f.take().map(|(_, how)| how) } else { None }
        };
        let lost = StoreError::Unavailable { what: "flaky".into(), why: "unplugged".into() };
        if self.down.load(Ordering::SeqCst) || fault == Some(Fault::Refused) {
            return Err(lost);
        }
        let done = self.inner.commit(batch).await;
        if fault == Some(Fault::AnswerLost) { Err(lost) } else { done }
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn name(&self) -> &str {
        "flaky"
    }
}

/// Power that needs a permit between the boot device and the power command.
pub struct Gated {
    pub gate: Semaphore,
    pub calls: Mutex<Vec<&'static str>>,
    /// Told when a machine stands between the two.
    pub waits: Notify,
    /// Told when an arming is over, done or dropped.
    pub over: Arc<Notify>,
}

impl Gated {
    pub fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(permits),
            calls: Mutex::default(),
            waits: Notify::new(),
            over: Arc::default(),
        })
    }

    pub fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }
}

struct Over(Arc<Notify>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl Arm for Gated {
    async fn arm_and_power(&self, _: &Node) -> Armed {
        let _over = Over(self.over.clone());
        self.calls.lock().unwrap().push("boot device");
        self.waits.notify_one();
        self.gate.acquire().await.unwrap().forget();
        self.calls.lock().unwrap().push("cycle");
        Armed::Done("was on, cycled".into())
    }
}

pub fn name(s: &str) -> NodeName {
    s.parse().unwrap()
}

pub fn spec(n: u8) -> NodeSpec {
    NodeSpec {
        name: name(&format!("node{n:02}")),
        macs: vec![format!("52:54:00:00:00:{n:02x}").parse().unwrap()],
        address: [10, 1, 0, 10 + n].into(),
        firmware: Default::default(),
        arch: Default::default(),
        bmc: Some(BmcSpec {
            address: [192, 0, 2, n].into(),
            port: 623,
            driver: PowerDriver::Fake,
            user: "ops".into(),
        }),
        disk: Default::default(),
        labels: Default::default(),
        spare: false,
    }
}

pub fn deadlines(text: &str) -> Deadlines {
    let text = format!(
        "[network]\ninterface='e'\naddress='10.1.0.1'\nsubnet='10.1.0.0/24'\n\
         range=['10.1.0.10','10.1.0.99']\n[deadlines]\n{text}\n"
    );
    config::parse(&text, "desk", Path::new("/")).unwrap().deadlines
}

pub fn inputs() -> BuildInputs {
    BuildInputs {
        image: "debian-12".parse().unwrap(),
        method: Default::default(),
        image_digest: Digest::of(b"image"),
        profile: "base".parse().unwrap(),
        profile_digest: Digest::of(b"profile"),
        baked: true,
        mirror: None,
        config_commit: None,
        templates: Default::default(),
        version: "0".into(),
    }
}

pub fn ada() -> Asker {
    Asker { name: "ada".into(), request: None }
}

pub fn order(n: u8) -> InstallOrder {
    let node = spec(n);
    let (host, mac, address) = (node.name.clone(), node.macs[0], node.address);
    let plan = move |build| InstallPlan {
        build,
        node: host,
        now: Time::now(),
        disk: Default::default(),
        rootfs: Some(RootfsPlan {
            data: "/d".into(),
            index: "/i".into(),
            index_digest: Digest::of(b"index"),
            bytes: 1,
        }),
        installer: None,
        kernel_args: String::new(),
        users: vec![],
        network: NetworkPlan {
            mac,
            address,
            prefix: 24,
            gateway: None,
            dns: vec![],
            ntp: vec![],
            domain: String::new(),
        },
        profile: ProfilePlan {
            name: "base".parse().unwrap(),
            digest: Digest::of(b"profile"),
            baked: true,
            scripts: vec![],
            groups: vec![],
            verify: String::new(),
            verify_seconds: 1,
        },
        boot: Default::default(),
        timezone: "Etc/UTC".into(),
        apt_sources: String::new(),
        registry: None,
    };
    InstallOrder { node, asker: ada(), parent: None, inputs: inputs(), plan: Box::new(plan) }
}

/// A store with node01 and node02 in it.
pub async fn stocked() -> Arc<Flaky> {
    let store = Arc::new(Flaky::default());
    for n in [1, 2] {
        let node = Node::new(spec(n));
        let b = Batch::new().put(kind::NODE, node.spec.name.as_str(), &node, Expect::Absent);
        store.inner.commit(b.unwrap()).await.unwrap();
    }
    store
}

/// An order for the Debian installer.
pub fn by_installer(n: u8, address: std::net::Ipv4Addr) -> InstallOrder {
    let mut o = order(n);
    o.node.address = address;
    o.inputs.method = provision::model::Method::Preseed;
    let plan = o.plan;
    o.plan = Box::new(move |build| {
        let mut p = plan(build);
        p.rootfs = None;
        p.users = vec![provision::model::plan::UserPlan {
            name: "ops".into(),
            ssh_keys: vec!["ssh-ed25519 AAAA ops".into()],
            password_hash: None,
        }];
        p.installer = Some(provision::model::plan::InstallerPlan {
            release: "debian-13".into(),
            directory: "/installer/debian-13-installer".into(),
            suite: "trixie".into(),
            udeb_suite: Some("trixie-provision".into()),
            security: None,
            packages: vec![],
            labels: Default::default(),
        });
        p
    });
    o
}

/// A store in which node01 has this address.
pub async fn stocked_at(address: std::net::Ipv4Addr) -> Arc<Flaky> {
    let store = stocked().await;
    let mut spec = spec(1);
    spec.address = address;
    let node = Node::new(spec);
    let b = Batch::new().put(kind::NODE, "node01", &node, Expect::Any).unwrap();
    store.commit(b).await.unwrap();
    store
}

pub async fn rack(store: &Arc<Flaky>, arm: &Arc<Gated>, limits: &str) -> Arc<Rack> {
    Rack::load(store.clone(), deadlines(limits), arm.clone()).await.unwrap()
}

/// Waits for what the rack's view shows, up to 20 s.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(tokio::time::Instant::now() < end, "waited 20 s until {what}");
        // Not synchronisation: the pace of asking.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
