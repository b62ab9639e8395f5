//! One RMCP+ session: opened, used, closed, over a `Link`, which repeats each
//! packet until it is answered.

use super::super::{Limits, PowerError};
use super::keys::{Agreement, Keys, Suite, same};
use super::link::Link;
use super::wire::{self, payload};
use crate::model::Secret;
use ring::rand::{SecureRandom, SystemRandom};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Operator is all that power and boot device need (IPMI 2.0 appendix G).
const OPERATOR: u8 = 3;
/// Role byte of RAKP 1: look the user up by name alone (§13.20).
const ROLE: u8 = 0x10 | OPERATOR;
/// Network function "application".
pub const APP: u8 = 6;
/// How often the end of a session is said, when it is not confirmed: a BMC
/// that closed it at the first time does not know it at the second.
const FAREWELLS: u32 = 3;

/// Where to and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    pub bmc: SocketAddr,
    pub user: String,
    pub password: Secret,
    pub limits: Limits,
}

impl Target {
    pub fn protocol(&self, what: impl Into<String>) -> PowerError {
        PowerError::Protocol { bmc: self.bmc, what: what.into() }
    }

    fn wrong_credentials(&self) -> PowerError {
        PowerError::WrongCredentials { bmc: self.bmc, user: self.user.clone() }
    }

    fn no_privilege(&self) -> PowerError {
        PowerError::InsufficientPrivilege { bmc: self.bmc, user: self.user.clone() }
    }
}

/// Why a try to open a session failed.
enum Refusal {
    /// The BMC does not speak this suite.
    Suite,
    /// It said nothing at all: it is not there, or drops what it does not
    /// know.
    Silence(PowerError),
    /// It may work on another try: an answer to a repeated packet may have
    /// crossed with ours, and both sides then hold different random numbers.
    Crossed(PowerError),
    Final(PowerError),
}

impl From<PowerError> for Refusal {
    fn from(error: PowerError) -> Self {
        Self::Final(error)
    }
}

/// A session that is open.
pub struct Session<'a> {
    target: &'a Target,
    link: Link,
    keys: Keys,
    suite: Suite,
    our_id: u32,
    bmc_id: u32,
    packets: u32,
    messages: u8,
}

impl<'a> Session<'a> {
    /// Opens one, with the first of `suites` that the BMC speaks. The caller
    /// must [`Session::close`] it, whatever happens between.
    pub async fn open(target: &'a Target, suites: &[Suite]) -> Result<Self, PowerError> {
        if target.user.len() > 16 {
            return Err(target.protocol("user names of IPMI have at most 16 bytes"));
        }
        let link = Link::to(target).await?;
        let contact = target.limits.contact / suites.len().max(1) as u32;
        let (mut crossed, mut silence) = (None, None);
        for _ in 0..2 {
            for &suite in suites {
                match Self::open_with(target, &link, suite, contact).await {
                    Ok((keys, our_id, bmc_id)) => {
                        let (packets, messages) = (0, 0);
                        return Ok(Self {
                            target,
                            link,
                            keys,
                            suite,
                            our_id,
                            bmc_id,
                            packets,
                            messages,
                        });
                    }
                    Err(Refusal::Suite) => silence = None,
                    Err(Refusal::Silence(error)) => silence = Some(error),
                    Err(Refusal::Crossed(error)) => {
                        crossed = Some(error);
                        break;
                    }
                    Err(Refusal::Final(error)) => return Err(error),
                }
            }
            if crossed.is_none() {
                break;
            }
        }
        Err(crossed
            .or(silence)
            .unwrap_or_else(|| target.protocol("it speaks neither cipher suite 17 nor 3")))
    }

    /// The suite it was opened with.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    async fn open_with(
        target: &Target,
        link: &Link,
        suite: Suite,
        contact: Duration,
    ) -> Result<(Keys, u32, u32), Refusal> {
        let our_id = u32::from_le_bytes(random(target)?) | 1;
        let [tag] = random::<1>(target)?;
        // Privilege 0: whatever the user has. Named here, the level counts as
        // granted for some BMCs; it is asked for in RAKP 1 and afterwards.
        let request = wire::open_request(tag, 0, our_id, suite);
        let request = wire::plain(payload::OPEN_REQUEST, &request);
        let contact = Instant::now() + contact;
        let opened = link
            .exchange(
                contact,
                || request.clone(),
                |packet| {
                    let body = wire::read_plain(packet, payload::OPEN_RESPONSE)?;
                    let answer = wire::set_up(body, tag, our_id)?;
                    let bmc_id = answer.rest.get(4..8).and_then(|id| id.first_chunk().copied());
                    Some((answer.status, bmc_id))
                },
            )
            .await;
        let (opened, _) = opened.map_err(|error| match Instant::now() >= contact {
            true => Refusal::Silence(error),
            false => Refusal::Final(error),
        })?;
        let bmc_id = match opened {
            (0, Some(id)) => u32::from_le_bytes(id),
            // No matching suite, or one of its algorithms refused.
            (0x04..=0x07 | 0x10 | 0x11, _) => return Err(Refusal::Suite),
            (status, _) => return Err(Refusal::Final(refused(target, status))),
        };

        // It is there; from here on the whole time counts anew.
        let contact = Instant::now() + target.limits.contact;
        let our_random = random(target)?;
        let user = target.user.as_bytes();
        let tag = tag.wrapping_add(1);
        let mut rakp1 = vec![tag, 0, 0, 0];
        rakp1.extend_from_slice(&bmc_id.to_le_bytes());
        rakp1.extend_from_slice(&our_random);
        rakp1.extend_from_slice(&[ROLE, 0, 0, user.len() as u8]);
        rakp1.extend_from_slice(user);
        let rakp1 = wire::plain(payload::RAKP_1, &rakp1);
        let ((status, body), repeated) = link
            .exchange(
                contact,
                || rakp1.clone(),
                |packet| {
                    let body = wire::read_plain(packet, payload::RAKP_2)?;
                    let answer = wire::set_up(body, tag, our_id)?;
                    Some((answer.status, answer.rest.to_vec()))
                },
            )
            .await?;
        if status != 0 {
            return Err(Refusal::Final(refused(target, status)));
        }
        let part = |at: usize| body.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied();
        let (Some(bmc_random), Some(bmc_guid)) = (part(4), part(20)) else {
            return Err(Refusal::Final(target.protocol("its RAKP message 2 is too short")));
        };
        // IPMI passwords have at most 20 bytes; BMCs cut what is longer.
        let password = target.password.expose().as_bytes();
        let password = password.get(..20).unwrap_or(password);
        let agreement = Agreement {
            suite,
            password,
            our_id,
            bmc_id,
            our_random,
            bmc_random,
            bmc_guid,
            role: ROLE,
            user,
        };
        let fits = same(&agreement.bmc_proof(), body.get(36..).unwrap_or_default());

        let tag = tag.wrapping_add(1);
        // An error status lets the BMC free the session at once; silence
        // would leave it until its time-out.
        let mut rakp3 = vec![tag, if fits { 0 } else { 0x0f }, 0, 0];
        rakp3.extend_from_slice(&bmc_id.to_le_bytes());
        if !fits {
            link.send(&wire::plain(payload::RAKP_3, &rakp3)).await;
            return Err(Refusal::Final(target.wrong_credentials()));
        }
        rakp3.extend_from_slice(&agreement.our_proof());
        let rakp3 = wire::plain(payload::RAKP_3, &rakp3);
        let ((status, proof), _) = link
            .exchange(
                contact,
                || rakp3.clone(),
                |packet| {
                    let body = wire::read_plain(packet, payload::RAKP_4)?;
                    let answer = wire::set_up(body, tag, our_id)?;
                    Some((answer.status, answer.rest.get(4..).unwrap_or_default().to_vec()))
                },
            )
            .await?;
        let error = match status {
            0 if same(&agreement.final_proof(), &proof) => {
                return Ok((agreement.keys(), our_id, bmc_id));
            }
            0 => target.protocol("it does not prove that it knows the password"),
            status => refused(target, status),
        };
        Err(if repeated { Refusal::Crossed(error) } else { Refusal::Final(error) })
    }

    /// Asks for the privilege level that the commands need; without this they
    /// are refused even to administrators.
    pub async fn become_operator(&mut self, until: Instant) -> Result<(), PowerError> {
        match self.call(until, APP, 0x3b, &[OPERATOR]).await? {
            (0, _) => Ok(()),
            (0x80 | 0x81 | 0xd4, _) => Err(self.target.no_privilege()),
            (code, _) => Err(self.complaint("Set Session Privilege Level", code)),
        }
    }

    /// Sends a command; completion code and data come back. Repeated while
    /// the BMC is busy (completion code C0h or C3h).
    pub async fn call(
        &mut self,
        until: Instant,
        netfn: u8,
        command: u8,
        data: &[u8],
    ) -> Result<(u8, Vec<u8>), PowerError> {
        loop {
            let (code, answer) = self.call_once(until, netfn, command, data).await?;
            if !matches!(code, 0xc0 | 0xc3) {
                return Ok((code, answer));
            }
            let pause = Instant::now() + self.target.limits.retransmit;
            if pause >= until {
                return Ok((code, answer));
            }
            tokio::time::sleep_until(pause).await;
        }
    }

    async fn call_once(
        &mut self,
        until: Instant,
        netfn: u8,
        command: u8,
        data: &[u8],
    ) -> Result<(u8, Vec<u8>), PowerError> {
        self.messages = (self.messages + 1) & 0x3f;
        let sequence = self.messages;
        // The same message each time, so that the BMC can tell a repetition;
        // only the packet around it is new.
        let message = wire::message(netfn, command, sequence, data);
        let (keys, our_id, bmc_id) = (&self.keys, self.our_id, self.bmc_id);
        let packets = &mut self.packets;
        let iv: [u8; 16] = random(self.target)?;
        let build = || {
            *packets = packets.wrapping_add(1).max(1);
            // The counter makes each initialisation vector a new one.
            let mut iv = iv;
            iv.iter_mut().zip(packets.to_le_bytes()).for_each(|(b, n)| *b ^= n);
            wire::sealed(keys, bmc_id, *packets, iv, payload::MESSAGE, &message)
        };
        // What comes of a console in the meantime is not acknowledged: the BMC
        // sends it again.
        let accept = |packet: &[u8]| {
            let (kind, message) = wire::read_sealed(packet, keys, our_id)?;
            let message = (kind == payload::MESSAGE).then_some(message)?;
            wire::response(&message, netfn, command, sequence)
        };
        let answer = self.link.exchange(until, build, accept).await;
        answer.map(|(answer, _)| answer).map_err(|error| match error {
            // It answered before: it is there, and late.
            PowerError::Unreachable { bmc, .. } => {
                PowerError::Deadline { bmc, within: self.target.limits.deadline }
            }
            other => other,
        })
    }

    /// Sends a payload once; whether it arrives, the other side shows.
    pub async fn send(&mut self, kind: u8, content: &[u8]) -> Result<(), PowerError> {
        self.packets = self.packets.wrapping_add(1).max(1);
        let iv = random(self.target)?;
        let packet = wire::sealed(&self.keys, self.bmc_id, self.packets, iv, kind, content);
        self.link.send(&packet).await;
        Ok(())
    }

    /// Sends a command once and does not wait: its answer is among what comes
    /// next. Its number is that of the answer.
    pub async fn ask(&mut self, command: u8, data: &[u8]) -> Result<u8, PowerError> {
        self.messages = (self.messages + 1) & 0x3f;
        let message = wire::message(APP, command, self.messages, data);
        self.send(payload::MESSAGE, &message).await?;
        Ok(self.messages)
    }

    /// Kind and content of the next payload of this session, or none when
    /// `until` comes first.
    pub async fn next(&self, until: Instant) -> Result<Option<(u8, Vec<u8>)>, PowerError> {
        loop {
            match self.link.next(until).await? {
                None => return Ok(None),
                Some(packet) => {
                    let read = wire::read_sealed(&packet, &self.keys, self.our_id);
                    if read.is_some() {
                        return Ok(read);
                    }
                }
            }
        }
    }

    /// Where the BMC is.
    pub fn bmc(&self) -> SocketAddr {
        self.target.bmc
    }

    /// An error of the BMC's own as a sentence.
    pub fn complaint(&self, what: &str, code: u8) -> PowerError {
        match code {
            0xd4 => self.target.no_privilege(),
            0xc1 => self.target.protocol(format!("it does not know the command {what}")),
            0xd5 => self.target.protocol(format!("{what} is not possible in its present state")),
            _ => self.target.protocol(format!("{what} failed with completion code {code:02X}h")),
        }
    }

    /// Closes the session; when the BMC does not confirm, it times out there.
    pub async fn close(mut self) {
        // Waits of 1, 2 and 4 times the first.
        let until = Instant::now() + self.target.limits.retransmit * ((1 << FAREWELLS) - 1);
        let id = self.bmc_id.to_le_bytes();
        if let Err(error) = self.call_once(until, APP, 0x3c, &id).await {
            tracing::debug!(bmc = %self.target.bmc, %error, "ipmi.close");
        }
    }
}

/// RMCP+ status codes (table 13-15).
fn refused(target: &Target, status: u8) -> PowerError {
    match status {
        0x01 | 0x0b => PowerError::SessionsFull { bmc: target.bmc },
        0x09 | 0x0a => target.no_privilege(),
        0x0c | 0x0d | 0x0f => target.wrong_credentials(),
        _ => target.protocol(format!("it opens no session, RMCP+ status {status:02X}h")),
    }
}

fn random<const N: usize>(target: &Target) -> Result<[u8; N], PowerError> {
    let mut bytes = [0; N];
    let made = SystemRandom::new().fill(&mut bytes);
    made.map(|()| bytes).map_err(|_| target.protocol("this system gives no random numbers"))
}
