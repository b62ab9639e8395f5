//! Histories with the numbers worked out by hand.

use super::*;
use crate::model::{Digest, Event, NewEvent, Outcome};

/// Minutes after the start of the window.
fn at(minutes: i64) -> Time {
    Time::from_second(1_800_000_000 + minutes * 60).unwrap()
}

struct Log(Vec<Event>);

impl Log {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, e: NewEvent) -> &mut Self {
        let last = self.0.last();
        let prev = last.map_or(Digest::from_raw(Event::GENESIS), |e| e.hash);
        let seq = last.map_or(1, |e| e.seq + 1);
        self.0.push(Event::chain(seq, e, prev));
        self
    }

    fn made(&mut self, minute: i64, name: &str, digest: &str, committed: i64) -> &mut Self {
        let e = NewEvent::new(at(minute), "ada", "ingest.end", Outcome::Ok)
            .with("repository", format!("staging/{name}"))
            .with("digest", digest)
            .with("committed", at(committed));
        self.add(e)
    }

    fn box_of(
        &mut self,
        minute: i64,
        what: (&str, Outcome),
        node: &str,
        image: (&str, &str),
    ) -> &mut Self {
        let e = NewEvent::new(at(minute), &format!("node:{node}"), what.0, what.1)
            .node(&node.parse().unwrap())
            .with("repository", image.0)
            .with("container", "c")
            .with("digest", image.1);
        self.add(e)
    }

    fn start(&mut self, minute: i64, node: &str, image: (&str, &str)) -> &mut Self {
        self.box_of(minute, ("container.start", Outcome::Ok), node, image)
    }

    fn dies(&mut self, minute: i64, node: &str, image: (&str, &str)) -> &mut Self {
        self.box_of(minute, ("container.exit", Outcome::Failed), node, image)
    }

    fn stops(&mut self, minute: i64, node: &str, image: (&str, &str)) -> &mut Self {
        self.box_of(minute, ("container.exit", Outcome::Ok), node, image)
    }

    fn lost(&mut self, minute: i64, node: &str) -> &mut Self {
        let e = NewEvent::new(at(minute), "server", "node.lost", Outcome::Failed);
        self.add(e.node(&node.parse().unwrap()))
    }

    fn install(&mut self, minute: i64, what: &str, node: &str, build: &str) -> &mut Self {
        let outcome = if what == "failed" { Outcome::Failed } else { Outcome::Ok };
        let mut e = NewEvent::new(at(minute), "ada", &format!("install.{what}"), outcome)
            .node(&node.parse().unwrap())
            .with("build", build);
        if what == "request" {
            e = e.with("profile", "docker");
        }
        self.add(e)
    }

    /// Over ten days from the start.
    fn software(&self) -> Vec<SoftwareNumbers> {
        let mut s = Software::new(Window { since: at(0), until: at(14_400) });
        self.0.iter().for_each(|e| s.take(e));
        s.numbers()
    }

    fn machines(&self) -> Vec<ProfileNumbers> {
        let mut m = Machines::new(Window { since: at(0), until: at(14_400) });
        self.0.iter().for_each(|e| m.take(e));
        m.numbers()
    }
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}

/// M45 M46: four commits of one name on two nodes.
#[test]
fn a_replayed_history_gives_the_numbers_worked_out_by_hand() {
    let (d1, d2, d3) = (("web", "sha256:1"), ("web", "sha256:2"), ("web", "sha256:3"));
    let mut log = Log::new();
    // First: committed at 0, made at 10, on both nodes at 30 and 40.
    log.made(10, "web", d1.1, 0).start(30, "n1", d1).start(40, "n2", d1);
    // Second: committed at 100, made at 104, on n1 at 160. It dies at 165, is
    // started at 166, dies at 167 (no recovery), and is taken back at 185.
    log.made(104, "web", d2.1, 100).stops(160, "n1", d1).start(160, "n1", d2);
    log.dies(165, "n1", d2).start(166, "n1", d2).dies(167, "n1", d2).start(185, "n1", d1);
    // Third: committed at 200, made at 216, on n2 at 260 and n1 at 270.
    log.made(216, "web", d3.1, 200).stops(260, "n2", d1).start(260, "n2", d3);
    log.stops(270, "n1", d1).start(270, "n1", d3);
    // n2 is lost at 500; it runs again there at 530.
    log.lost(500, "n2").start(530, "n2", d3);
    // A restart of the same thing is no deployment.
    log.stops(600, "n2", d3).start(601, "n2", d3);
    let all = log.software();
    let [web] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((web.name.as_str(), web.images, web.failed_runs), ("web", 3, 0));
    // d1, d2, back to d1, d3.
    assert_eq!(web.deployments, 4);
    close(web.deployments_per_day, 0.4);
    // 10, 4, 16 minutes.
    assert_eq!(web.commit_to_image.count, 3);
    close(web.commit_to_image.mean, 600.0);
    close(web.commit_to_image.median, 600.0);
    close(web.commit_to_image.p95, 960.0);
    // 30, 60, 185 (the step back), 60 minutes.
    assert_eq!(web.commit_to_running.count, 4);
    close(web.commit_to_running.median, 3600.0);
    close(web.commit_to_running.mean, (30.0 + 60.0 + 185.0 + 60.0) * 15.0);
    // Of four, the second failed, once.
    assert_eq!(web.failed_deployments, 1);
    close(web.change_failure_rate, 0.25);
    // 165 → 185 on n1, 500 → 530 on n2.
    assert_eq!(web.time_to_recover.count, 2);
    close(web.time_to_recover.mean, 25.0 * 60.0);
    assert_eq!(web.down, 0);
}

#[test]
fn what_was_before_the_window_is_known_and_not_counted() {
    let d1 = ("web", "sha256:1");
    let mut log = Log::new();
    log.made(-500, "web", d1.1, -600).start(-400, "n1", d1).dies(-10, "n1", d1);
    log.start(20, "n1", d1);
    let web = &log.software()[0];
    assert_eq!((web.images, web.deployments, web.failed_deployments), (0, 0, 0));
    // It ended in the window.
    close(web.time_to_recover.mean, 30.0 * 60.0);
}

#[test]
fn what_moves_to_another_node_is_running_again() {
    let d = ("web", "sha256:1");
    let mut log = Log::new();
    log.start(0, "n1", d).lost(10, "n1").start(14, "n2", d);
    let web = &log.software()[0];
    close(web.time_to_recover.mean, 240.0);
    assert_eq!(web.down, 0);
    // A restart where it ran all the time helps nobody elsewhere.
    let mut log = Log::new();
    log.start(0, "n1", d).start(1, "n2", d).lost(10, "n1").start(14, "n2", d);
    let web = &log.software()[0];
    assert_eq!((web.time_to_recover.count, web.down), (0, 1));
}

#[test]
fn names_are_counted_apart_and_what_has_no_digest_not_at_all() {
    let mut log = Log::new();
    log.start(1, "n1", ("staging/a", "sha256:1")).start(2, "n1", ("a", "sha256:1"));
    log.start(3, "n1", ("b", "sha256:2")).start(4, "n1", ("", "")).start(5, "n1", ("c", ""));
    let all = log.software();
    let names: Vec<_> = all.iter().map(|n| (n.name.as_str(), n.deployments)).collect();
    assert_eq!(names, [("a", 1), ("b", 1)], "promotion moves a digest");
}

/// M45 M46: three nodes, one of which needs three tries.
#[test]
fn installs_give_the_numbers_worked_out_by_hand() {
    let mut log = Log::new();
    log.install(0, "request", "n1", "b-1").install(2, "deployed", "n1", "b-1");
    log.install(10, "request", "n2", "b-2").install(20, "failed", "n2", "b-2");
    log.install(30, "request", "n2", "b-3").install(34, "failed", "n2", "b-3");
    log.install(40, "request", "n3", "b-4").install(41, "cancelled", "n3", "b-4");
    log.install(50, "request", "n2", "b-5").install(54, "deployed", "n2", "b-5");
    log.install(60, "request", "n3", "b-6").install(70, "failed", "n3", "b-6");
    let all = log.machines();
    let [docker] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((docker.deployments, docker.failed, docker.down), (2, 3, 1));
    close(docker.deployments_per_day, 0.2);
    // 2 and 4 minutes.
    close(docker.lead_time.mean, 180.0);
    close(docker.change_failure_rate, 0.6);
    // n2: from 20, where it failed first, to 54.
    assert_eq!(docker.time_to_recover.count, 1);
    close(docker.time_to_recover.mean, 34.0 * 60.0);
}

#[test]
fn spreads_are_by_nearest_rank() {
    let s = Spread::of((1..=20).map(f64::from).collect());
    assert_eq!((s.count, s.longest), (20, 20.0));
    close(s.mean, 10.5);
    close(s.median, 10.0);
    close(s.p95, 19.0);
    close(s.p99, 20.0);
    assert_eq!(Spread::of(Vec::new()), Spread::default());
    close(Spread::of(vec![7.0]).p95, 7.0);
}
