//! What both servers' `/metrics` say of themselves, and what the build server
//! keeps between two readings of its own.

use super::Ctx;
use super::traffic::Traffic;
use crate::lifecycle::Rack;
use crate::metrics::{Ended, Exposition, InstallTotals, Kind, OperationTotals};
use crate::metrics::{installs, operations};
use crate::model::{BuildId, OperationId, OperationKind, Time};
use crate::power;
use crate::store;
use crate::tls::Held;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::sync::{Arc, Mutex, PoisonError};

/// What the build server counts; the same for all its listeners.
#[derive(Default)]
pub struct Numbers {
    /// HTTP.
    pub traffic: Arc<Traffic>,
    /// BMCs.
    pub power: Arc<power::Counts>,
    records: Arc<Records>,
}

/// Totals of what is kept for ever.
#[derive(Default)]
struct Records {
    builds: Mutex<Ended<BuildId, InstallTotals>>,
    operations: Mutex<Ended<OperationId, OperationTotals>>,
}

impl Numbers {
    /// Installs and operations, added up beside what serves: at the first reading
    /// they are many. The rack's view is locked only while what is new in it is
    /// listed.
    pub(super) async fn records(&self, ctx: &Ctx) -> Exposition {
        let (records, rack) = (self.records.clone(), ctx.rack.clone());
        let work = move || records.write(&rack);
        tokio::task::spawn_blocking(work).await.unwrap_or_default()
    }
}

impl Records {
    fn write(&self, rack: &Rack) -> Exposition {
        let mut e = Exposition::new();
        let mut known = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = known.tail(&rack.view().builds);
        let totals = known.totals(&tail, InstallTotals::add);
        drop(known);
        installs::write_running(tail.running().map(|b| &**b), &mut e);
        totals.write(&mut e);
        let mut known = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = known.tail(&rack.view().operations);
        let totals = known.totals(&tail, OperationTotals::add);
        drop(known);
        operations::write_running(tail.running().map(|o| &**o), Time::now(), &mut e);
        totals.write(&mut e);
        let many = tail.running().filter(|o| o.kind == OperationKind::InstallMany);
        let left = |id| Some(rack.rollout(id)?.waiting(&rack.installs_of(id)));
        e.gauge(
            "provision_install_many_waiting_nodes",
            "Nodes of installs of many nodes that are yet to be begun.",
            many.filter_map(|o| left(&o.id)).sum::<usize>(),
        );
        e
    }
}

/// BMC calls.
pub(super) fn write_power(counts: &power::Counts, e: &mut Exposition) {
    let mut f = e.family(
        "provision_power_commands_total",
        Kind::Counter,
        "Calls of BMCs, by command and how they ended.",
    );
    for ((command, outcome), n) in counts.ended() {
        f.is(&[("command", command), ("outcome", outcome)], n);
    }
    let mut f = e.family(
        "provision_power_command_duration_seconds",
        Kind::Histogram,
        "How long calls of BMCs took, failed ones too.",
    );
    for (command, times) in counts.took() {
        f.took(&[("command", command)], &times);
    }
}

/// The store. `up`: it takes writes now.
pub(super) fn write_store(up: bool, c: &store::Counts, e: &mut Exposition) {
    e.gauge("provision_store_up", "Whether the store takes writes.", up);
    let mut f = e.family(
        "provision_store_commits_total",
        Kind::Counter,
        "Batches for the store, by how it took them.",
    );
    for (outcome, n) in [("ok", c.commits), ("unavailable", c.unavailable), ("refused", c.refused)]
    {
        f.is(&[("outcome", outcome)], n);
    }
    let mut f = e.family(
        "provision_store_commit_duration_seconds",
        Kind::Histogram,
        "How long the store took for a batch, until it was safe.",
    );
    f.took(&[], &c.times);
    e.gauge("provision_store_events", "Events in the log.", c.last);
    let mut f = e.family(
        "provision_events_total",
        Kind::Counter,
        "Events since the server started, by action and outcome.",
    );
    for ((action, outcome), n) in &c.events {
        f.is(&[("action", action), ("outcome", &outcome.to_string())], *n);
    }
}

/// How long the certificate that is shown here is still good, where one is.
pub(super) fn write_certificate(shown: Option<&Arc<Held>>, e: &mut Exposition) {
    if let Some(held) = shown {
        let help = "Until the certificate in use ends; negative when it has.";
        let left = held.seconds_left(Time::now()).floor();
        e.gauge("provision_certificate_seconds_left", help, left);
    }
}

/// Clock ticks a second that `/proc` counts in, on every Linux.
const TICKS: f64 = 100.0;

/// The program itself, under the names that Prometheus' own libraries use.
pub(super) fn write_process(e: &mut Exposition) {
    let mut f = e.family("provision_build_info", Kind::Gauge, "Always 1; which version this is.");
    f.is(&[("version", env!("CARGO_PKG_VERSION"))], 1u64);
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{file}")).unwrap_or_default();
    // After the name, which may hold blanks and brackets (proc(5)).
    let stat = read("self/stat");
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    let field = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<f64>().ok());
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        e.counter(
            "process_cpu_seconds_total",
            "Processor time of this program.",
            (user + system) / TICKS,
        );
    }
    let all = read("stat");
    let booted = all.lines().find_map(|l| l.strip_prefix("btime "));
    if let (Some(booted), Some(after)) = (booted.and_then(|b| b.parse::<f64>().ok()), field(22)) {
        e.gauge(
            "process_start_time_seconds",
            "When this program started, since 1970.",
            booted + after / TICKS,
        );
    }
    let status = read("self/status");
    let memory = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    if let Some(kib) = memory.and_then(|m| m.trim().parse::<u64>().ok()) {
        e.gauge("process_resident_memory_bytes", "Memory in use.", kib * 1024);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        e.gauge("process_open_fds", "Open files and sockets.", open.count());
    }
}

/// The answer.
pub(super) fn answer(e: Exposition) -> Response {
    ([(header::CONTENT_TYPE, Exposition::CONTENT_TYPE)], e.text()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_says_what_it_uses() {
        let mut e = Exposition::new();
        write_process(&mut e);
        let text = e.text();
        for name in [
            "provision_build_info{version=",
            "process_cpu_seconds_total ",
            "process_start_time_seconds ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
        ] {
            let line =
                text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
            let n: f64 = line.split_whitespace().last().unwrap().parse().unwrap();
            assert!(n >= 0.0 && !(name.contains("start_time") && n < 1e9), "{line}");
        }
    }
}
