//! The installers' logs from the wire to a build's own log and its life: what
//! a datagram changes, and that no question is lost while the store is away.
//! M19 M21.

mod common;

use common::desk::{self, Gated, by_installer, name, stocked_at, until};
use provision::app::installer_log::{InstallerLog, queue};
use provision::auth::MasterKey;
use provision::lifecycle::{Input, Rack};
use provision::model::plan::PhaseReport;
use provision::model::{Build, BuildId, Phase};
use provision::syslog::{Server, Settings};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Where the node of these tests speaks from.
const NODE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

struct Bench {
    dir: tempfile::TempDir,
    store: Arc<desk::Flaky>,
    rack: Arc<Rack>,
    build: BuildId,
    token: String,
    to: std::net::SocketAddr,
    stop: CancellationToken,
}

impl Bench {
    /// node01 in its installer, and a server that takes its log.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = stocked_at(NODE).await;
        let rack = desk::rack(&store, &Gated::new(9), "").await;
        let build = rack.install(by_installer(1, NODE)).await.unwrap().build.unwrap();
        let report = PhaseReport { phase: Phase::Installer, bytes: 0, total: 0, message: None };
        rack.observe(&name("node01"), Input::Reported(report)).await.unwrap();
        let key = Arc::new(MasterKey::open(&dir.path().join("secret.key")).unwrap());
        let token = key.build_token(&build).expose().to_owned();
        let (lines, written) = queue();
        let listen = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let server = Server::bind(Settings { listen }, Arc::new(lines)).unwrap();
        let (to, stop) = (server.address().unwrap(), CancellationToken::new());
        tokio::spawn(server.run(stop.clone()));
        let log = InstallerLog { rack: rack.clone(), logs: dir.path().to_owned(), key };
        tokio::spawn(log.run(written));
        Self { dir, store, rack, build, token, to, stop }
    }

    fn says(&self, from: Ipv4Addr, text: &str) {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.send_to(text.as_bytes(), self.to).unwrap();
    }

    fn log(&self) -> String {
        let path = self.dir.path().join(format!("{}.log", self.build));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    fn now(&self) -> Arc<Build> {
        self.rack.running_build(&name("node01")).unwrap()
    }

    fn reason(&self) -> String {
        self.now().current().unwrap().reason.clone().unwrap_or_default()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_from_the_nodes_address_is_its_builds_and_moves_it_on() {
    let b = Bench::start().await;
    b.says(Ipv4Addr::new(127, 0, 0, 99), "<14>main-menu: INFO: Menu item 'stranger' selected");
    b.says(NODE, &format!("<14>debconf: --> SET provision/token {}", b.token));
    b.says(NODE, "<14>main-menu: INFO: Menu item 'bootstrap-base' selected");
    until("the base system begins", || b.now().phase == Phase::Image).await;
    until("the log is written", || b.log().contains("bootstrap-base")).await;
    let log = b.log();
    assert!(log.contains("--> SET provision/token ***") && !log.contains(&b.token), "{log}");
    assert!(!log.contains("stranger"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_asked_while_the_store_is_away_is_known_when_it_is_back() {
    let b = Bench::start().await;
    let asks = || b.reason().contains("the installer asks");
    b.store.set_down(true);
    for text in ["--> INPUT critical mirror/country", "<-- 0 question will be asked", "--> GO"] {
        b.says(NODE, &format!("<15>debconf: {text}"));
    }
    // The log is written first: the store has to have refused the question, too.
    let refused = || b.log().contains("--> GO") && !b.rack.store_ok();
    until("the question is in the log and nowhere else", refused).await;
    assert_eq!(b.now().question, None, "the store did not take it");
    b.store.set_down(false);
    // The installer says nothing more.
    until("the question is known", asks).await;
    assert_eq!(b.now().question.as_deref(), Some("mirror/country"));
    // Somebody answers.
    b.says(NODE, "<15>debconf: <-- 0 ok");
    until("it goes on", || b.now().question.is_none()).await;
}
