//! Both power drivers against OpenIPMI's `ipmi_sim`, on loopback.

use provision::model::{BmcSpec, Firmware, PowerDriver, Secret};
use provision::power::{
    BootDevice, Limits, PowerControl, PowerError, PowerState, arm_network_boot, connect,
};
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "s3cret-of-the-bmc";
const DRIVERS: [PowerDriver; 2] = [PowerDriver::Ipmi, PowerDriver::Ipmitool];

/// The simulator, its directory and its port; ended on drop.
struct Bmc {
    child: Child,
    directory: tempfile::TempDir,
    port: u16,
    /// The machine's end of its serial line.
    serial: TcpListener,
}

/// A port below those that the kernel gives to clients: the simulator cannot
/// choose one itself, and a client of another test must not take it meanwhile.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = std::process::id() * 16 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (n % 20_000) as u16;
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Bmc {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| -> PathBuf { directory.path().join(name) };
        let port = free_port();
        let serial = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let line = serial.local_addr().unwrap();
        let chassis = path("chassis");
        std::fs::write(
            &chassis,
            "#!/bin/sh\ncd \"$(dirname \"$0\")\"; echo \"$*\" >> calls; op=$2; shift 2\n\
             case $op in\n\
             get) for p in \"$@\"; do echo \"$p:$(cat $p)\"; done;;\n\
             set) while [ $# -ge 2 ]; do echo $2 > $1; shift 2; done;;\nesac\n",
        )
        .unwrap();
        Command::new("chmod").arg("+x").arg(&chassis).status().unwrap();
        for (name, content) in [("power", "0"), ("boot", "none")] {
            std::fs::write(path(name), content).unwrap();
        }
        let auths = ["callback", "user", "operator", "admin"]
            .map(|level| format!("    allowed_auths_{level} none md2 md5 straight\n"))
            .concat();
        let lan = format!(
            "name \"bmc\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    \
             priv_limit admin\n{auths}    guid a123456789abcdefa123456789abcdef\n  endlan\n  \
             sol \"tcp:{line}\" 115200\n  chassis_control \"{} 0x20\"\n  \
             user 1 true \"\" \"\" user 10 none md2 md5 straight\n  \
             user 2 true \"ops\" \"{PASSWORD}\" admin 10 none md2 md5 straight\n",
            chassis.display()
        );
        std::fs::write(path("lan.conf"), lan).unwrap();
        std::fs::write(
            path("sim.emu"),
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
             sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n",
        )
        .unwrap();
        std::fs::create_dir(path("state")).unwrap();
        let child = Command::new("ipmi_sim")
            .current_dir(directory.path())
            .args(["-n", "-c", "lan.conf", "-f", "sim.emu", "-s", "state"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ipmi_sim (package openipmi)");
        let bmc = Self { child, directory, port, serial };
        let end = Instant::now() + Duration::from_secs(10);
        // "Nothing listens" comes back at once, so this asks, not sleeps.
        while let Err(error) = bmc.connect(PowerDriver::Ipmi, "ops", PASSWORD).status().await {
            assert!(Instant::now() < end, "ipmi_sim does not come up: {error}");
            tokio::task::yield_now().await;
        }
        bmc
    }

    fn connect(&self, driver: PowerDriver, user: &str, password: &str) -> Arc<dyn PowerControl> {
        let spec =
            BmcSpec { address: [127, 0, 0, 1].into(), port: self.port, driver, user: user.into() };
        connect(&spec, Secret::new(password), Limits::default())
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap()
    }
}

impl Drop for Bmc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn power_goes_on_off_and_round() {
    let bmc = Bmc::start().await;
    for driver in DRIVERS {
        let power = bmc.connect(driver, "ops", PASSWORD);
        power.off().await.unwrap();
        assert_eq!(power.status().await.unwrap(), PowerState::Off, "{driver:?}");
        power.on().await.unwrap();
        assert_eq!(power.status().await.unwrap(), PowerState::On, "{driver:?}");

        std::fs::write(bmc.directory.path().join("calls"), "").unwrap();
        power.cycle().await.unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let off_and_on = |calls: &str| {
            let off = calls.find("set power 0");
            off.is_some_and(|at| calls[at..].contains("set power 1"))
        };
        // The simulator stays off for a while before it goes on.
        while !off_and_on(&bmc.read("calls")) {
            assert!(Instant::now() < end, "{driver:?}: {}", bmc.read("calls"));
            power.status().await.unwrap();
        }

        power.off().await.unwrap();
        power.cycle().await.unwrap();
        assert_eq!(power.status().await.unwrap(), PowerState::On, "a cycle of what is off: on");
    }
}

#[tokio::test]
async fn the_next_boot_is_set_and_read_back() {
    let bmc = Bmc::start().await;
    for driver in DRIVERS {
        let power = bmc.connect(driver, "ops", PASSWORD);
        for firmware in [Firmware::Bios, Firmware::Uefi] {
            let armed = arm_network_boot(power.as_ref(), firmware).await.unwrap();
            assert_eq!(armed.shown.device, BootDevice::Network);
            assert_eq!(bmc.read("boot").trim(), "pxe");
            // This simulator keeps the device and drops the flags.
            assert!(armed.doubt.unwrap().contains("not valid"));
        }
        power.set_boot_once(BootDevice::None, Firmware::Bios).await.unwrap();
        assert_eq!(bmc.read("boot").trim(), "none");
        assert_eq!(power.boot_override().await.unwrap().device, BootDevice::None);
    }
}

#[tokio::test]
async fn each_kind_of_failure_is_told_apart_and_names_the_bmc() {
    let bmc = Bmc::start().await;
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = nobody.local_addr().unwrap().port();
    for driver in DRIVERS {
        for (user, password) in [("ops", "wrong"), ("nobody", PASSWORD)] {
            let power = bmc.connect(driver, user, password);
            let error = power.status().await.unwrap_err();
            assert!(matches!(error, PowerError::WrongCredentials { .. }), "{driver:?}: {error:?}");
            assert!(error.to_string().contains(&format!("127.0.0.1:{}", bmc.port)));
        }
        let spec =
            BmcSpec { address: [127, 0, 0, 1].into(), port: silent, driver, user: "ops".into() };
        let (contact, deadline) = (Duration::from_secs(1), Duration::from_secs(3));
        let limits = Limits { contact, deadline, ..Limits::default() };
        let error = connect(&spec, Secret::new(PASSWORD), limits).status().await.unwrap_err();
        let right = matches!(error, PowerError::Unreachable { .. } | PowerError::Deadline { .. });
        assert!(right, "{driver:?}: {error:?}");
        assert!(!format!("{error} {error:?}").contains(PASSWORD));
    }
}

#[tokio::test]
async fn a_hundred_calls_leave_no_session_open() {
    let bmc = Bmc::start().await;
    // The simulator has 64 sessions.
    let power = bmc.connect(PowerDriver::Ipmi, "ops", PASSWORD);
    let wrong = bmc.connect(PowerDriver::Ipmi, "ops", "wrong");
    for n in 0..100 {
        power.status().await.unwrap_or_else(|e| panic!("call {n}: {e}"));
        let error = wrong.status().await.unwrap_err();
        assert!(matches!(error, PowerError::WrongCredentials { .. }), "call {n}: {error:?}");
    }
    // Callers that give up waiting leave none either.
    for _ in 0..100 {
        let _ = tokio::time::timeout(Duration::from_micros(300), power.status()).await;
    }
    power.status().await.unwrap();
}

#[tokio::test]
async fn calls_at_the_same_time_wait_for_one_another() {
    let bmc = Bmc::start().await;
    let calls = (0..80).map(|n| {
        let power = bmc.connect(PowerDriver::Ipmi, "ops", PASSWORD);
        async move { power.status().await.unwrap_or_else(|e| panic!("call {n}: {e}")) }
    });
    futures::future::join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_password_is_ever_on_a_command_line() {
    let bmc = Bmc::start().await;
    let power = bmc.connect(PowerDriver::Ipmitool, "ops", PASSWORD);
    let (mut seen, mut looks) = (false, 0);
    for _ in 0..5 {
        let call = tokio::spawn({
            let power = Arc::clone(&power);
            async move { power.status().await }
        });
        while !call.is_finished() {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line);
                assert!(!line.contains(PASSWORD), "{line}");
                seen |= line.contains("ipmitool\0") && line.contains("lanplus");
            }
            looks += 1;
        }
        call.await.unwrap().unwrap();
    }
    assert!(seen, "ipmitool was looked at {looks} times and never seen");
}

/// Reads the console until it has said `last`.
async fn heard(from: &mut mpsc::Receiver<Vec<u8>>, last: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).ends_with(last) {
        let piece = timeout(Duration::from_secs(20), from.recv()).await;
        let so_far = || String::from_utf8_lossy(&all).into_owned();
        let piece = piece.unwrap_or_else(|_| panic!("nothing more after {:?}", so_far()));
        all.extend(piece.expect("the console goes on"));
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn the_console_is_heard_while_power_is_switched_and_given_back_at_the_end() {
    let bmc = Bmc::start().await;
    let (mut machine, _) = bmc.serial.accept().unwrap();
    let power = bmc.connect(PowerDriver::Ipmi, "ops", PASSWORD);
    // More than one packet of the BMC's, and numbers that go round.
    let lines = |what: &str| (0..300).map(|n| format!("{what} {n}\r\n")).collect::<String>();
    for round in ["first", "second"] {
        let (to, mut from) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let (listener, end) = (power.clone(), stop.clone());
        let listening = tokio::spawn(async move { listener.console(to, end).await });
        // What is said before anybody listens is lost: said until it is heard.
        let end = Instant::now() + Duration::from_secs(20);
        let first = loop {
            machine.write_all(b".").unwrap();
            if let Ok(piece) = timeout(Duration::from_millis(100), from.recv()).await {
                break piece.expect("the console goes on");
            }
            assert!(!listening.is_finished(), "{:?}", listening.await);
            assert!(Instant::now() < end, "nothing is heard");
        };
        assert!(first.iter().all(|b| *b == b'.'));
        let said = lines(round);
        machine.write_all(said.as_bytes()).unwrap();
        let all = heard(&mut from, &format!("{round} 299\r\n")).await;
        assert_eq!(all.trim_start_matches('.'), said, "each character once, in order");
        power.status().await.unwrap();
        let (to, _taken) = mpsc::channel(4);
        let second = power.console(to, CancellationToken::new()).await.unwrap_err();
        assert!(second.to_string().contains("in use by another session"), "{second}");
        stop.cancel();
        listening.await.unwrap().unwrap();
    }
    // Somebody takes it from us, and keeps it.
    let (to, _from) = mpsc::channel(4);
    let listener = power.clone();
    let listening =
        tokio::spawn(async move { listener.console(to, CancellationToken::new()).await });
    let take = |what: &'static str| {
        let mut c = tokio::process::Command::new("ipmitool");
        c.args(["-I", "lanplus", "-C", "3", "-H", "127.0.0.1", "-U", "ops", "-E"]);
        c.args(["-p", &bmc.port.to_string(), "sol", what]).env("IPMI_PASSWORD", PASSWORD);
        c
    };
    // Until it is ours, there is nothing to be taken.
    let end = Instant::now() + Duration::from_secs(20);
    while !take("deactivate").status().await.unwrap().success() {
        assert!(!listening.is_finished() && Instant::now() < end, "it never was ours");
    }
    let taken = timeout(Duration::from_secs(40), listening).await.expect("it is noticed");
    let taken = taken.unwrap().unwrap_err();
    assert!(matches!(taken, PowerError::NoConsole { again: false, .. }), "{taken}");

    let other = bmc.connect(PowerDriver::Ipmitool, "ops", PASSWORD);
    let (to, _from) = mpsc::channel(4);
    let none = other.console(to, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(none, PowerError::NoConsole { again: false, .. }), "{none}");
}
