//! A simulated BMC that can do what `ipmi_sim` cannot: cipher suite 17, UEFI
//! flags, lost packets, full session tables. `ipmitool` speaks to it as well,
//! so that its cryptography, which is ours, is checked by another's.

use super::keys::{Agreement, Keys, Suite};
use super::wire::{self, payload};
use super::*;
use crate::model::PowerDriver;
use crate::power::{BootDevice, arm_network_boot, connect};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const PASSWORD: &str = "twenty-byte-password";
const GUID: [u8; 16] = [0x5a; 16];

/// What the BMC does wrong, and what came of it.
#[derive(Default)]
struct Bench {
    only_suite_3: bool,
    /// Open Session with suite 17 is not even refused.
    drops_suite_17: bool,
    /// Of all packets, in and out, each so-many-th is lost.
    lose_every: usize,
    /// Every answer is sent twice.
    twice: bool,
    /// Open Session fails with this.
    open_status: u8,
    /// The user's highest privilege level.
    operator_denied: bool,
    /// Answers to chassis commands that come before the right one.
    busy: usize,
    /// Chassis commands are not answered at all.
    deaf: bool,
    packets: usize,
    open_requests: Vec<Suite>,
    power: bool,
    boot: [u8; 5],
    sessions: HashMap<u32, Peer>,
}

/// What the BMC knows of a session.
struct Peer {
    suite: Suite,
    their_id: u32,
    their_random: [u8; 16],
    role: u8,
    user: Vec<u8>,
    keys: Option<Keys>,
    sent: u32,
}

impl Peer {
    fn agreement(&self, id: u32) -> Agreement<'_> {
        Agreement {
            suite: self.suite,
            password: PASSWORD.as_bytes(),
            our_id: self.their_id,
            bmc_id: id,
            our_random: self.their_random,
            bmc_random: [0xb3; 16],
            bmc_guid: GUID,
            role: self.role,
            user: &self.user,
        }
    }
}

impl Bench {
    fn lost(&mut self) -> bool {
        self.packets += 1;
        self.lose_every != 0 && self.packets.is_multiple_of(self.lose_every)
    }

    fn answer(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        if packet[4] == 0 {
            return self.version_1_5(packet);
        }
        if let Some(body) = wire::read_plain(packet, payload::OPEN_REQUEST) {
            if self.drops_suite_17 && body[12] == 3 {
                return None;
            }
            return Some(wire::plain(payload::OPEN_RESPONSE, &self.open(body)));
        }
        if let Some(body) = wire::read_plain(packet, payload::RAKP_1) {
            return Some(wire::plain(payload::RAKP_2, &self.rakp_1(body)));
        }
        if let Some(body) = wire::read_plain(packet, payload::RAKP_3) {
            return self.rakp_3(body).map(|body| wire::plain(payload::RAKP_4, &body));
        }
        let id = u32::from_le_bytes(packet[6..10].try_into().unwrap());
        let keys = self.sessions.get(&id)?.keys.as_ref()?;
        let (_, request) = wire::read_sealed(packet, keys, id).expect("a sealed packet that opens");
        let message = self.respond(id, &request)?;
        let peer = self.sessions.get_mut(&id)?;
        peer.sent += 1;
        let (their_id, sent) = (peer.their_id, peer.sent);
        let (keys, iv) = (peer.keys.as_ref()?, [sent as u8; 16]);
        let sealed = wire::sealed(keys, their_id, sent, iv, payload::MESSAGE, &message);
        if request[5] == 0x3c {
            self.sessions.remove(&id);
        }
        Some(sealed)
    }

    /// ipmitool first asks in IPMI 1.5 whether 2.0 is spoken.
    fn version_1_5(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let request = &packet[14..];
        assert_eq!((request[1], request[5]), (6 << 2, 0x38), "Get Channel Auth Capabilities");
        let message = response(request, 0, &[1, 0x80, 0, 2, 0, 0, 0, 0]);
        let mut out = vec![6, 0, 0xff, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, message.len() as u8];
        out.extend_from_slice(&message);
        Some(out)
    }

    fn open(&mut self, body: &[u8]) -> Vec<u8> {
        let suite = if body[12] == 3 { Suite::S17 } else { Suite::S3 };
        self.open_requests.push(suite);
        if self.open_status != 0 {
            return vec![body[0], self.open_status];
        }
        if self.only_suite_3 && suite == Suite::S17 {
            return vec![body[0], 0x11];
        }
        let their_id = u32::from_le_bytes(body[4..8].try_into().unwrap());
        let id = 0x1000 + self.packets as u32;
        self.sessions.insert(
            id,
            Peer {
                suite,
                their_id,
                their_random: [0; 16],
                role: 0,
                user: Vec::new(),
                keys: None,
                sent: 0,
            },
        );
        [&[body[0], 0, 4, 0][..], &body[4..8], &id.to_le_bytes(), &body[8..32]].concat()
    }

    fn rakp_1(&mut self, body: &[u8]) -> Vec<u8> {
        let id = u32::from_le_bytes(body[4..8].try_into().unwrap());
        let Some(peer) = self.sessions.get_mut(&id) else { return vec![body[0], 2] };
        peer.their_random = body[8..24].try_into().unwrap();
        peer.role = body[24];
        peer.user = body[28..].to_vec();
        if peer.user != b"ops" {
            self.sessions.remove(&id);
            return vec![body[0], 0x0d];
        }
        let proof = peer.agreement(id).bmc_proof();
        let ids = peer.their_id.to_le_bytes();
        [&[body[0], 0, 0, 0][..], &ids, &[0xb3; 16], &GUID, &proof].concat()
    }

    fn rakp_3(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let id = u32::from_le_bytes(body[4..8].try_into().unwrap());
        if body[1] != 0 {
            self.sessions.remove(&id);
            return None;
        }
        let peer = self.sessions.get_mut(&id)?;
        let agreement = peer.agreement(id);
        assert_eq!(agreement.our_proof(), body[8..], "the client proves the password");
        let (keys, proof) = (agreement.keys(), agreement.final_proof());
        let answer = [&[body[0], 0, 0, 0][..], &peer.their_id.to_le_bytes(), &proof].concat();
        peer.keys.get_or_insert(keys);
        Some(answer)
    }

    fn respond(&mut self, id: u32, request: &[u8]) -> Option<Vec<u8>> {
        let data = &request[6..request.len() - 1];
        let (netfn, command) = (request[1] >> 2, request[5]);
        if netfn == 0 && self.deaf {
            return None;
        }
        if netfn == 0 && self.busy > 0 {
            self.busy -= 1;
            return Some(response(request, 0xc0, &[]));
        }
        let answer = match (netfn, command) {
            (6, 0x3b) if self.operator_denied => return Some(response(request, 0x81, &[])),
            (6, 0x3b) => vec![data[0]],
            (6, 0x3c) => {
                assert_eq!(data, id.to_le_bytes(), "closes its own session");
                vec![]
            }
            (0, 1) => vec![u8::from(self.power), 0, 0],
            (0, 2) => {
                self.power = data[0] != 0;
                vec![]
            }
            (0, 8) if data[0] == 5 => {
                self.boot = data[1..6].try_into().unwrap();
                vec![]
            }
            (0, 8) => return Some(response(request, 0x80, &[])),
            (0, 9) => [&[1, 5][..], &self.boot].concat(),
            _ => return Some(response(request, 0xc1, &[])),
        };
        Some(response(request, 0, &answer))
    }
}

fn response(request: &[u8], code: u8, data: &[u8]) -> Vec<u8> {
    // A request's layout with the addresses exchanged and the code first.
    let mut out = wire::message((request[1] >> 2) | 1, request[5], request[4] >> 2, &[]);
    out.truncate(3);
    out[0] = 0x81;
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, &b| s.wrapping_add(b)).wrapping_neg();
    out[2] = sum(&out[..2]);
    let second = [&[0x20, request[4], request[5], code], data].concat();
    out.extend_from_slice(&second);
    out.push(sum(&second));
    out
}

struct Sim {
    bench: Arc<Mutex<Bench>>,
    port: u16,
    task: JoinHandle<()>,
}

impl Sim {
    async fn start(bench: Bench) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let bench = Arc::new(Mutex::new(bench));
        let shared = Arc::clone(&bench);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1024];
            loop {
                let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
                let answer = {
                    let mut bench = shared.lock().unwrap();
                    if bench.lost() {
                        continue;
                    }
                    let answer = bench.answer(&buffer[..len]);
                    if bench.lost() {
                        continue;
                    }
                    answer.map(|a| (a, bench.twice))
                };
                if let Some((answer, twice)) = answer {
                    for _ in 0..1 + usize::from(twice) {
                        let _ = socket.send_to(&answer, from).await;
                    }
                }
            }
        });
        Self { bench, port, task }
    }

    fn bench(&self) -> MutexGuard<'_, Bench> {
        self.bench.lock().unwrap()
    }

    fn connect_as(
        &self,
        driver: PowerDriver,
        user: &str,
        password: &str,
        limits: Limits,
    ) -> Arc<dyn PowerControl> {
        let address = Ipv4Addr::LOCALHOST.into();
        let spec = BmcSpec { address, port: self.port, driver, user: user.into() };
        connect(&spec, Secret::new(password), limits)
    }

    fn connect(&self) -> Arc<dyn PowerControl> {
        self.connect_as(PowerDriver::Ipmi, "ops", PASSWORD, quick())
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request that is repeated opens one session more: not before a busy machine
/// has had time to answer.
fn quick() -> Limits {
    Limits {
        deadline: Duration::from_secs(5),
        contact: Duration::from_secs(3),
        retransmit: Duration::from_millis(250),
    }
}

#[tokio::test]
async fn ipmitool_and_we_speak_both_cipher_suites_alike() {
    for only_suite_3 in [false, true] {
        let sim = Sim::start(Bench { only_suite_3, ..Bench::default() }).await;
        for driver in [PowerDriver::Ipmi, PowerDriver::Ipmitool] {
            let limits = Limits::default();
            let power = sim.connect_as(driver, "ops", PASSWORD, limits);
            power.on().await.unwrap();
            assert_eq!(power.status().await.unwrap(), PowerState::On, "{driver:?}");
            for firmware in [Firmware::Uefi, Firmware::Bios] {
                let armed = arm_network_boot(power.as_ref(), firmware).await.unwrap();
                assert_eq!(armed.doubt, None, "{driver:?}");
                assert_eq!(armed.shown.efi, firmware == Firmware::Uefi);
            }
            assert_eq!(sim.bench().boot[..2], [0x80, 4], "{driver:?}");
            let error = sim.connect_as(driver, "ops", "wrong", limits).on().await.unwrap_err();
            assert!(matches!(error, PowerError::WrongCredentials { .. }), "{driver:?}: {error:?}");
        }
        // ipmitool leaves the session it could not open half open.
        assert!(sim.bench().sessions.values().all(|s| s.keys.is_none()), "all are closed");
    }
}

#[tokio::test]
async fn suite_17_is_tried_first_and_not_again_once_it_was_refused() {
    let sim = Sim::start(Bench { only_suite_3: true, ..Bench::default() }).await;
    let power = sim.connect();
    power.status().await.unwrap();
    power.status().await.unwrap();
    assert_eq!(sim.bench().open_requests, [Suite::S17, Suite::S3, Suite::S3]);
}

#[tokio::test]
async fn a_bmc_that_drops_what_it_does_not_know_is_reached_with_suite_3() {
    let sim = Sim::start(Bench { drops_suite_17: true, ..Bench::default() }).await;
    let power = sim.connect();
    power.status().await.unwrap();
    power.status().await.unwrap();
    assert_eq!(sim.bench().open_requests, [Suite::S3, Suite::S3]);
}

#[tokio::test]
async fn lost_and_doubled_packets_fail_no_call_and_leave_no_session() {
    for (lose_every, twice) in [(3, false), (4, true), (5, false), (7, true)] {
        let sim = Sim::start(Bench { lose_every, twice, ..Bench::default() }).await;
        // Many are lost, and what stays half open is not looked at.
        let limits = Limits { retransmit: Duration::from_millis(10), ..quick() };
        let power = sim.connect_as(PowerDriver::Ipmi, "ops", PASSWORD, limits);
        for n in 0..6 {
            let what = format!("call {n}, one in {lose_every} lost");
            power.on().await.unwrap_or_else(|e| panic!("{what}: {e}"));
            power.set_boot_once(BootDevice::Disk, Firmware::Uefi).await.expect(&what);
            assert_eq!(power.boot_override().await.expect(&what).device, BootDevice::Disk);
        }
        let open = sim.bench().sessions.values().filter(|s| s.keys.is_some()).count();
        assert_eq!(open, 0, "one in {lose_every} lost");
    }
}

#[tokio::test]
async fn each_refusal_has_its_own_error_and_closes_what_was_opened() {
    let sim = Sim::start(Bench { open_status: 1, ..Bench::default() }).await;
    let error = sim.connect().status().await.unwrap_err();
    assert!(matches!(error, PowerError::SessionsFull { .. }), "{error:?}");

    let sim = Sim::start(Bench { operator_denied: true, ..Bench::default() }).await;
    let error = sim.connect().off().await.unwrap_err();
    assert!(matches!(error, PowerError::InsufficientPrivilege { .. }), "{error:?}");
    assert!(sim.bench().sessions.is_empty());

    let nobody = sim.connect_as(PowerDriver::Ipmi, "nobody", PASSWORD, quick());
    let error = nobody.off().await.unwrap_err();
    assert!(matches!(error, PowerError::WrongCredentials { .. }), "{error:?}");
    assert!(sim.bench().sessions.is_empty());
}

#[tokio::test]
async fn a_busy_bmc_is_asked_again_and_a_deaf_one_meets_the_deadline() {
    let sim = Sim::start(Bench { busy: 3, power: true, ..Bench::default() }).await;
    assert_eq!(sim.connect().status().await.unwrap(), PowerState::On);

    let sim = Sim::start(Bench { deaf: true, ..Bench::default() }).await;
    // Time enough to open the session.
    let limits = Limits { deadline: Duration::from_secs(2), ..quick() };
    let power = sim.connect_as(PowerDriver::Ipmi, "ops", PASSWORD, limits);
    let error = power.status().await.unwrap_err();
    assert!(matches!(error, PowerError::Deadline { .. }), "{error:?}");
    assert!(sim.bench().sessions.is_empty(), "closed all the same");
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_no_session() {
    let sim = Sim::start(Bench { busy: 5, ..Bench::default() }).await;
    let power = sim.connect();
    // Before the BMC has time: it asks for patience five times.
    let gave_up = tokio::time::timeout(Duration::from_millis(300), power.status()).await;
    assert!(gave_up.is_err());
    // The next call waits until the first session is closed.
    power.status().await.unwrap();
    assert!(sim.bench().sessions.is_empty());
}

#[tokio::test]
async fn a_power_command_that_is_given_up_is_not_sent_any_more() {
    let sim = Sim::start(Bench { busy: 3, power: true, ..Bench::default() }).await;
    let power = sim.connect();
    // Given up while the BMC asks for patience.
    let off_too = power.clone();
    let mut off = tokio::spawn(async move { off_too.off().await });
    while sim.bench().busy == 3 {
        tokio::task::yield_now().await;
    }
    off.abort();
    let _ = (&mut off).await;
    // This waits for the end of the first session.
    assert_eq!(power.status().await.unwrap(), PowerState::On, "the machine was switched off");
    assert!(sim.bench().sessions.is_empty());
}
