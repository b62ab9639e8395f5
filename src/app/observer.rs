//! From what the protocols saw to the record: events for the log, inputs for
//! builds, the list of strangers.
//!
//! Protocols hand sightings over without waiting; a queue of bounded length
//! takes them, and what does not fit is counted, not waited for. Events of
//! nodes that are being installed are written down; the daily renewals of a
//! running rack are not.

use super::oui;
use crate::api::Discovered;
use crate::lifecycle::{Input, LifeError, NextLoader, Rack, Started};
use crate::model::{
    BuildId, ClientHints, ClientKind, Firmware, Mac, NewEvent, NodeName, Outcome, Rendering, Time,
};
use crate::netboot::Fetch;
use crate::store::{Batch, Expect, StoreError, kind};
use crate::{dhcp, tftp};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::mpsc;

/// Sightings that may wait.
const QUEUE: usize = 8192;
/// Strangers that are remembered.
const STRANGERS: usize = 4096;

/// One sighting.
#[derive(Debug)]
pub enum Seen {
    /// DHCP.
    Dhcp(Box<dhcp::Sighting>),
    /// TFTP.
    Tftp(tftp::Sighting),
    /// HTTP and loaders.
    Fetch(NodeName, Fetch),
    /// A file of the node's build that went out whole by TFTP, and whether it
    /// is the last one.
    Sent(NodeName, String, bool),
    /// Firmware that did not start this loader, and what it is given next.
    Refused(NodeName, &'static str, NextLoader),
    /// A rendered text: build, file, text.
    Rendered(BuildId, String, String),
}

/// The end that protocols hold.
#[derive(Clone)]
pub struct Observer {
    to: mpsc::Sender<(Time, Seen)>,
    lost: Arc<AtomicU64>,
}

impl Observer {
    /// Hands a sighting over, with the time: it may be read much later, when
    /// the store was away. Returns at once.
    pub fn send(&self, seen: Seen) {
        if self.to.try_send((Time::now(), seen)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sightings that did not fit.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl dhcp::Sink for Observer {
    fn seen(&self, sighting: dhcp::Sighting) {
        self.send(Seen::Dhcp(Box::new(sighting)));
    }
}

impl tftp::Sink for Observer {
    fn seen(&self, sighting: tftp::Sighting) {
        self.send(Seen::Tftp(sighting));
    }
}

/// The queue's two ends.
pub fn queue() -> (Observer, mpsc::Receiver<(Time, Seen)>) {
    let (to, from) = mpsc::channel(QUEUE);
    (Observer { to, lost: Arc::default() }, from)
}

/// Machines that are not in the inventory.
pub type Strangers = Arc<RwLock<BTreeMap<Mac, Discovered>>>;

/// The end that writes.
pub struct Recorder {
    /// The rack.
    pub rack: Arc<Rack>,
    /// Strangers.
    pub strangers: Strangers,
}

/// What one sighting means.
#[derive(Default)]
struct Meaning {
    event: Option<NewEvent>,
    inputs: Vec<(NodeName, Input)>,
}

impl Recorder {
    /// Works until the queue is closed.
    pub async fn run(self, mut from: mpsc::Receiver<(Time, Seen)>) {
        let mut waiting = Vec::new();
        while from.recv_many(&mut waiting, 256).await > 0 {
            let mut batch = Batch::new();
            let mut inputs = Vec::new();
            for (at, seen) in waiting.drain(..) {
                let m = self.meaning(seen, at, &mut batch);
                batch.events.extend(m.event);
                inputs.extend(m.inputs);
            }
            if batch != Batch::new() {
                self.write(batch).await;
            }
            for (node, input) in inputs {
                self.tell(&node, input).await;
            }
        }
    }

    /// Writes, and waits while the store is away: the queue behind us keeps
    /// what comes meanwhile, up to its bound.
    async fn write(&self, batch: Batch) {
        loop {
            match self.rack.commit(batch.clone()).await {
                Err(StoreError::Unavailable { .. }) => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(e) => {
                    tracing::error!(error = %e, "sightings are not written down");
                    return;
                }
                Ok(_) => return,
            }
        }
    }

    async fn tell(&self, node: &NodeName, input: Input) {
        loop {
            match self.rack.observe(node, input.clone()).await {
                Err(LifeError::Store(StoreError::Unavailable { .. })) => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(e) => {
                    tracing::error!(%node, error = %e, "a sighting could not be used");
                    return;
                }
                Ok(()) => return,
            }
        }
    }

    fn meaning(&self, seen: Seen, now: Time, batch: &mut Batch) -> Meaning {
        match seen {
            // A packet that was not answered names no node: it may be a known
            // one's all the same.
            Seen::Dhcp(s) => match s.node.clone().or_else(|| self.name_of(s.hints.mac)) {
                Some(node) => self.dhcp(*s, node, now),
                None => Meaning { event: self.stranger(&s, now, batch), inputs: Vec::new() },
            },
            Seen::Tftp(s) => self.tftp(s, now),
            Seen::Refused(node, loader, next) => Meaning {
                event: None,
                inputs: vec![(node, Input::Started(Started::LoaderRefused { loader, next }))],
            },
            Seen::Sent(node, file, last) => Meaning {
                event: None,
                inputs: sent(&file, last).map(|i| (node, i)).into_iter().collect(),
            },
            Seen::Fetch(node, fetch) => self.fetch(node, fetch, now),
            Seen::Rendered(build, file, text) => {
                let key = format!("{build}/{now}/{file}");
                let value = Rendering { at: now, file, text, templates: BTreeMap::new() };
                match serde_json::to_value(value) {
                    Ok(v) => batch.writes.push(crate::store::Write {
                        kind: kind::RENDERING,
                        key,
                        value: Some(v),
                        expect: Expect::Any,
                    }),
                    Err(e) => tracing::error!(key, error = %e, "a rendering cannot be kept"),
                }
                Meaning::default()
            }
        }
    }

    fn name_of(&self, mac: Mac) -> Option<NodeName> {
        self.rack.view().inventory.by_mac(mac).map(|n| n.spec.name.clone())
    }

    fn is_installing(&self, node: &NodeName) -> bool {
        self.rack.running_build(node).is_some()
    }

    fn dhcp(&self, s: dhcp::Sighting, node: NodeName, now: Time) -> Meaning {
        let firmware =
            s.hints.arch.and_then(|a| a.firmware()).filter(|_| s.hints.kind.is_netboot());
        self.rack.note(&node, |n| {
            n.status.last_seen = Some(now);
            if let Some(f) = firmware.filter(|f| *f != Firmware::Auto) {
                n.status.firmware_seen = f;
            }
        });
        if !self.is_installing(&node) {
            return Meaning::default();
        }
        let outcome = match s.kind {
            dhcp::SightingKind::Nak | dhcp::SightingKind::Decline => Outcome::Failed,
            dhcp::SightingKind::Ignored(_) => Outcome::Refused,
            _ => Outcome::Ok,
        };
        let action = format!("dhcp.{}", s.kind.as_str());
        let mut e = NewEvent::new(now, &format!("node:{node}"), &action, outcome)
            .node(&node)
            .with("client", client(&s.hints))
            .with("mac", s.hints.mac);
        if let Some(a) = s.address {
            e = e.with("address", a);
        }
        if let Some(f) = &s.boot_file {
            e = e.with("boot_file", f);
        }
        if s.secs > 0 {
            e = e.with("secs", s.secs);
        }
        if let dhcp::SightingKind::Ignored(why) = s.kind {
            e = e.with("reason", why);
        }
        if s.hints.kind == ClientKind::HttpBoot && s.boot_file.is_none() && outcome == Outcome::Ok {
            e = e.with("reason", crate::lifecycle::explain::NO_HTTP);
        }
        // In proxy mode an operating system is not answered, and tells as much.
        let answered = matches!(
            s.kind,
            dhcp::SightingKind::Offer
                | dhcp::SightingKind::Ack
                | dhcp::SightingKind::Ignored(dhcp::Reason::NotNetboot)
        );
        let inputs =
            if answered { vec![(node, Input::Dhcp(s.hints.kind, now))] } else { Vec::new() };
        Meaning { event: Some(e), inputs }
    }

    fn tftp(&self, s: tftp::Sighting, now: Time) -> Meaning {
        use tftp::SightingKind as K;
        let peer = match s.peer.ip() {
            std::net::IpAddr::V4(a) => a,
            std::net::IpAddr::V6(_) => return Meaning::default(),
        };
        let node = self.rack.view().inventory.by_address(peer).map(|n| n.spec.name.clone());
        let Some(node) = node.filter(|n| self.is_installing(n)) else { return Meaning::default() };
        let (word, outcome, why) = match s.kind {
            K::Started => return Meaning::default(),
            K::Done => ("tftp.done", Outcome::Ok, None),
            K::NotFound => ("tftp.not-found", Outcome::Refused, None),
            K::Refused(w) => ("tftp.refused", Outcome::Refused, Some(w)),
            // EDK2 asks for the size and ends that transfer with an error.
            K::ClientError(w) if s.bytes == 0 => ("tftp.size-asked", Outcome::Info, Some(w)),
            K::ClientError(w) => ("tftp.client-error", Outcome::Failed, Some(w)),
            K::TimedOut => ("tftp.timed-out", Outcome::Failed, None),
            K::Dropped => ("tftp.dropped", Outcome::Failed, None),
            K::Failed(w) => ("tftp.failed", Outcome::Failed, Some(w)),
        };
        let mut e = NewEvent::new(now, &format!("node:{node}"), word, outcome)
            .node(&node)
            .with("file", s.path)
            .with("bytes", s.bytes)
            .with("ms", s.elapsed.as_millis());
        if let Some(w) = why {
            e = e.with("reason", w);
        }
        Meaning { event: Some(e), inputs: Vec::new() }
    }

    fn fetch(&self, node: NodeName, fetch: Fetch, now: Time) -> Meaning {
        if !self.is_installing(&node) {
            return Meaning::default();
        }
        let e =
            |action| NewEvent::new(now, &format!("node:{node}"), action, Outcome::Ok).node(&node);
        let (event, input) = match fetch {
            Fetch::Loader(file) => (e("boot.loader").with("file", file), Some(Input::LoaderAsked)),
            Fetch::Script => (e("http.script"), Some(Input::ScriptAsked)),
            Fetch::Failed => {
                let ev = e("boot.failed").with("reason", "GRUB could not start the kernel");
                (
                    NewEvent { outcome: Outcome::Failed, ..ev },
                    Some(Input::Started(Started::KernelRefused)),
                )
            }
            Fetch::File { name, bytes, millis, whole, last } => {
                let input = sent(&name, last).filter(|_| whole);
                let ev = e("http.file").with("file", name).with("bytes", bytes).with("ms", millis);
                let ev = if whole { ev } else { NewEvent { outcome: Outcome::Failed, ..ev } };
                (ev, input)
            }
        };
        let inputs = input.map(|i| (node, i)).into_iter().collect();
        Meaning { event: Some(event), inputs }
    }

    /// Remembers a stranger; the first packet is an event, and it is written
    /// down at most once a minute.
    fn stranger(&self, s: &dhcp::Sighting, now: Time, batch: &mut Batch) -> Option<NewEvent> {
        let mut all = self.strangers.write().unwrap_or_else(PoisonError::into_inner);
        let mac = s.hints.mac;
        let is_new = !all.contains_key(&mac);
        if is_new && all.len() >= STRANGERS {
            let oldest = all.values().min_by_key(|d| d.last_seen).map(|d| d.mac)?;
            all.remove(&oldest);
        }
        let d = all.entry(mac).or_insert_with(|| Discovered {
            mac,
            vendor: oui::vendor(mac),
            vendor_class: None,
            arch: None,
            first_seen: now,
            last_seen: Time::UNIX_EPOCH,
            packets: 0,
        });
        let write = now.duration_since(d.last_seen).as_secs() >= 60;
        d.last_seen = now;
        d.packets += 1;
        d.vendor_class = s.hints.vendor_class.clone().or(d.vendor_class.take());
        d.arch = s.hints.arch.or(d.arch);
        if write && let Ok(value) = serde_json::to_value(&*d) {
            batch.writes.push(crate::store::Write {
                kind: kind::DISCOVERED,
                key: mac.to_string(),
                value: Some(value),
                expect: Expect::Any,
            });
        }
        is_new.then(|| {
            NewEvent::new(now, "server", "node.discovered", Outcome::Info)
                .with("mac", mac)
                .with("vendor", &d.vendor)
                .with("client", client(&s.hints))
        })
    }
}

/// What it means that a file of the build went out whole.
fn sent(file: &str, last: bool) -> Option<Input> {
    match file {
        _ if last => Some(Input::KernelFetched),
        "kernel" => Some(Input::Started(Started::KernelSent)),
        _ => None,
    }
}

fn client(h: &ClientHints) -> String {
    let kind = match h.kind {
        crate::model::ClientKind::Pxe => "PXE firmware",
        crate::model::ClientKind::HttpBoot => "HTTP boot firmware",
        crate::model::ClientKind::Ipxe => "iPXE",
        crate::model::ClientKind::Os => "operating system",
    };
    match h.arch {
        Some(a) => format!("{kind} ({a:?})"),
        None => kind.to_owned(),
    }
}
