//! The time server on a cable, asked by chrony.

mod netlab;

use netlab::{Cable, Running};
use provision::time::clock::Source;
use provision::time::{Clock, Counters, Leap, Server, Settings};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(40);
const KEPT: Clock = Clock::Kept { error: Duration::from_millis(3), leap: Leap::None };

/// This host's clock, `ahead` of itself, of a standing that can be changed.
struct Wrong {
    ahead: Duration,
    clock: Mutex<Clock>,
}

impl Source for Wrong {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + self.ahead
    }
    fn clock(&self) -> Clock {
        *self.clock.lock().unwrap()
    }
}

struct Served {
    source: Arc<Wrong>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(cable: &Cable, ahead: Duration, clock: Clock) -> Served {
    cable.client.ip(&["addr", "add", "10.7.0.20/16", "dev", "eth0"]);
    let source = Arc::new(Wrong { ahead, clock: Mutex::new(clock) });
    let (ready, is_ready) = channel();
    let stop = CancellationToken::new();
    let (theirs, stopped) = (source.clone(), stop.clone());
    let thread = cable.server.spawn(move |runtime| {
        runtime.block_on(async {
            let settings = Settings {
                listen: SocketAddrV4::new([10, 7, 0, 1].into(), 123),
                networks: vec![(Ipv4Addr::new(10, 7, 0, 0), 16)],
            };
            let server = Server::bind(settings, theirs).expect("bind");
            ready.send(server.counters()).expect("ready");
            server.run(stopped).await.expect("run");
        });
    });
    let counters = is_ready.recv_timeout(PATIENCE).expect("server is up");
    Served { source, counters, stop, thread: Some(thread) }
}

/// chronyd with `lines` as its configuration, files of its own in `dir`.
fn chronyd(cable: &Cable, dir: &Path, options: &[&str], lines: &[&str]) -> Running {
    // It opens no command socket where others may look in.
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let own = [
        format!("pidfile {}/chronyd.pid", dir.display()),
        format!("bindcmdaddress {}/chronyd.sock", dir.display()),
        "cmdport 0".to_owned(),
        "user root".to_owned(),
    ];
    let mut args: Vec<&str> = options.to_vec();
    args.extend(own.iter().map(String::as_str));
    args.extend(lines);
    Running::start(cable.client.command("chronyd", &args))
}

#[test]
fn chronyd_believes_us_kept_or_free_and_knows_how_wrong_its_own_clock_is() {
    for clock in [KEPT, Clock::Free] {
        let cable = Cable::new("10.7.0.1/16", "52:54:00:00:00:14");
        let served = serve(&cable, Duration::from_secs(1000), clock);
        let dir = tempfile::tempdir().unwrap();
        let server = ["server 10.7.0.1 iburst"];
        let asked = chronyd(&cable, dir.path(), &["-Q", "-t", "20"], &server);
        let (code, said) = asked.finish(PATIENCE);
        let wrong = said.split("System clock wrong by ").nth(1).unwrap_or_else(|| panic!("{said}"));
        let wrong: f64 = wrong.split(' ').next().unwrap().parse().unwrap();
        assert!((wrong - 1000.0).abs() < 0.1, "{clock:?}: {said}");
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(served.counters.is_kept(), clock == KEPT);
        assert!(served.counters.snapshot()["answered"] >= 3);
    }
}

#[test]
fn chronyc_sources_names_us_with_our_stratum_and_sees_it_change() {
    let cable = Cable::new("10.7.0.1/16", "52:54:00:00:00:14");
    let served = serve(&cable, Duration::ZERO, KEPT);
    let dir = tempfile::tempdir().unwrap();
    let server = ["server 10.7.0.1 iburst minpoll 1 maxpoll 1"];
    let mut daemon = chronyd(&cable, dir.path(), &["-x", "-d"], &server);
    daemon.wait_for("Selected source 10.7.0.1", PATIENCE);
    let socket = dir.path().join("chronyd.sock").display().to_string();
    let sources = || {
        let mut c = cable.client.command("chronyc", &["-h", &socket, "-n", "-c", "sources"]);
        let out = c.output().expect("chronyc");
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    };
    // Its first samples on a busy machine may be off by more.
    let wait_for = |begin: &str, within: f64| {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = sources();
            let offset = said.trim().split(',').nth(7).and_then(|o| o.parse::<f64>().ok());
            if said.starts_with(begin) && offset.is_some_and(|o| o.abs() < within) {
                return;
            }
            assert!(Instant::now() < end, "{begin:?} does not come: {said}");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    // ^ server, * selected; then name, stratum, poll.
    wait_for("^,*,10.7.0.1,6,1,", 0.01);

    *served.source.clock.lock().unwrap() = Clock::Free;
    wait_for("^,*,10.7.0.1,10,1,", f64::INFINITY);
    assert!(!served.counters.is_kept());
}

#[test]
fn who_floods_or_is_no_client_gets_less_than_he_sends_and_others_their_answer() {
    let cable = Cable::new("10.7.0.1/16", "52:54:00:00:00:14");
    let served = serve(&cable, Duration::ZERO, KEPT);
    cable.client.ip(&["addr", "add", "10.7.0.21/16", "dev", "eth0"]);
    let (tell, told) = channel();
    let guest = cable.client.spawn(move |_| {
        let flood = std::net::UdpSocket::bind("10.7.0.20:0").expect("bind");
        flood.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let (mut sent, mut got) = (0, 0);
        // Fewer than a socket's buffer holds, so that none is lost. monlist (mode 7), control (6), peers (1), answers (4), then clients.
        for first in [0x17u8, 0x16, 0x21, 0x24, 0x23] {
            for _ in 0..50 {
                let mut packet = [0u8; 200];
                packet[0] = first;
                sent += flood.send_to(&packet, "10.7.0.1:123").unwrap_or(0);
            }
        }
        let mut buffer = [0; 2048];
        while let Ok(n) = flood.recv(&mut buffer) {
            got += n;
        }
        let other = std::net::UdpSocket::bind("10.7.0.21:0").expect("bind");
        other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut packet = [0u8; 48];
        packet[0] = 0x23;
        other.send_to(&packet, "10.7.0.1:123").unwrap();
        tell.send((sent, got, other.recv(&mut buffer).unwrap_or(0))).expect("tell");
    });
    let (sent, got, others) = told.recv_timeout(PATIENCE).expect("guest");
    guest.join().unwrap();
    assert!(got <= 17 * 48, "{sent} bytes brought {got}");
    assert_eq!(others, 48);
    let counts = served.counters.snapshot();
    assert!(counts["not-a-client"] > 0 && counts["too-often"] > 0, "{counts:?}");
}
