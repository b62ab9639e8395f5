//! Serial over LAN (IPMI 2.0 §15.9 to §15.11, §24): what a machine writes on
//! its serial console, as its BMC passes it on. Listened to and nothing sent:
//! somebody who types wants `ipmitool sol activate`.

use super::super::PowerError;
use super::session::{APP, Session};
use super::wire::{self, payload};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const ACTIVATE_PAYLOAD: u8 = 0x48;
const DEACTIVATE_PAYLOAD: u8 = 0x49;
const GET_PAYLOAD_INSTANCE_INFO: u8 = 0x4b;
/// Payload type and instance.
const FIRST_SOL: [u8; 2] = [payload::SOL, 1];
/// Encrypted, authenticated, serial alerts deferred (§24.1, table 24-2).
const ACTIVATION: u8 = 0x80 | 0x40 | 0x04;
/// "SOL is deactivating" in a packet's status (table 15-2).
const DEACTIVATING: u8 = 0x10;

/// The port of RMCP (§13.1.2).
const PORT: u16 = 623;

/// BMCs close sessions that are silent for 60 s (§6.12.15).
const NUDGE: Duration = Duration::from_secs(15);
/// Without a word for so long, the BMC has forgotten the session.
const SILENCE: Duration = Duration::from_secs(50);

/// The sequence of packets as the BMC numbers them.
#[derive(Debug, Default)]
struct Receiver {
    /// Number of the last packet; 0: none yet.
    last: u8,
    /// How many of its characters were taken.
    taken: usize,
}

/// What a packet brought.
#[derive(Debug, PartialEq, Eq)]
struct Taken<'a> {
    /// Characters that are new.
    new: &'a [u8],
    /// The acknowledgement, for a packet that wants one.
    ack: Option<[u8; 4]>,
    /// The BMC stops here: somebody else has taken the console.
    over: bool,
}

impl Receiver {
    /// Takes a packet (§15.9, table 15-2). A repetition may have more
    /// characters than the packet that it repeats.
    fn take<'a>(&mut self, packet: &'a [u8]) -> Option<Taken<'a>> {
        let (&[number, _, _, status], characters) = packet.split_first_chunk()?;
        let number = number & 0x0f;
        let count = u8::try_from(characters.len()).ok()?;
        let over = status & DEACTIVATING != 0;
        // A mere acknowledgement has no number and no characters.
        if number == 0 {
            return Some(Taken { new: &[], ack: None, over });
        }
        let known = if number == self.last { self.taken } else { 0 };
        self.last = number;
        self.taken = known.max(characters.len());
        let new = characters.get(known..).unwrap_or_default();
        Some(Taken { new, ack: Some([0, number, count, 0]), over })
    }
}

/// How listening ended that nobody broke off.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Nobody takes it any more.
    Unwanted,
    /// Somebody else has it now.
    Taken,
}

fn no_console(session: &Session<'_>, why: &'static str, again: bool) -> PowerError {
    PowerError::NoConsole { bmc: session.bmc(), why, again }
}

/// Has the BMC pass the console on. `until` bounds the asking.
pub async fn activate(session: &mut Session<'_>, until: Instant) -> Result<(), PowerError> {
    let [kind, instance] = FIRST_SOL;
    let asked = [kind, instance, ACTIVATION, 0, 0, 0];
    let (code, answer) = session.call(until, APP, ACTIVATE_PAYLOAD, &asked).await?;
    let none = |why, again| Err(no_console(session, why, again));
    match code {
        0 => {}
        // Table 24-2.
        0x80 | 0x82 => return none("it is in use by another session", true),
        0x81 | 0xc1 => return none("serial over LAN is switched off in it", false),
        0x83 | 0x84 => return none("not in an encrypted session", false),
        0xd4 => return none("serial over LAN needs a higher privilege level than Operator", false),
        code => return Err(session.complaint("Activate Payload (serial over LAN)", code)),
    }
    // Behind a forwarded port it names its own; some exchange the bytes.
    let port = answer.get(8..10).map(|p| u16::from_le_bytes([p[0], p[1]]));
    let usual = [0, PORT, PORT.swap_bytes(), session.bmc().port()];
    match port {
        Some(p) if !usual.contains(&p) => none("it wants to, at another UDP port", false),
        _ => Ok(()),
    }
}

/// Hands on what comes, until the BMC ends it or nobody takes it any more.
pub async fn listen(
    session: &mut Session<'_>,
    to: &mpsc::Sender<Vec<u8>>,
) -> Result<End, PowerError> {
    let mut receiver = Receiver::default();
    let mut heard = Instant::now();
    let mut nudge = heard + NUDGE;
    // Whose the console is, as the BMC numbers sessions; and the question.
    let (mut owner, mut asked) = (None, 0);
    loop {
        match session.next(nudge).await? {
            Some((kind, content)) => {
                heard = Instant::now();
                if kind == payload::MESSAGE && changed_hands(&content, asked, &mut owner) {
                    return Ok(End::Taken);
                }
                if kind != payload::SOL {
                    continue;
                }
                let Some(taken) = receiver.take(&content) else { continue };
                if !taken.new.is_empty() && to.send(taken.new.to_vec()).await.is_err() {
                    return Ok(End::Unwanted);
                }
                // Only now: what is not acknowledged comes again.
                if let Some(ack) = taken.ack {
                    session.send(payload::SOL, &ack).await?;
                }
                if taken.over {
                    return Ok(End::Taken);
                }
            }
            None if heard.elapsed() > SILENCE => {
                return Err(no_console(session, "it has forgotten our session", true));
            }
            None => {
                // Keeps the session alive, and shows who has the console: some
                // BMCs give it to another without a word.
                asked = session.ask(GET_PAYLOAD_INSTANCE_INFO, &FIRST_SOL).await?;
                nudge = Instant::now() + NUDGE;
            }
        }
    }
}

/// Whether an answer to Get Payload Instance Info (§24.5) has another owner
/// than the one before, or none. A BMC that does not know the command says
/// nothing of it.
fn changed_hands(message: &[u8], asked: u8, owner: &mut Option<[u8; 4]>) -> bool {
    let answer = wire::response(message, APP, GET_PAYLOAD_INSTANCE_INFO, asked);
    let Some((0, data)) = answer else { return false };
    let Some(is) = data.first_chunk::<4>().copied() else { return false };
    is == [0; 4] || *owner.get_or_insert(is) != is
}

/// Gives the console back. What the BMC makes of it does not matter: the
/// session is closed next.
pub async fn deactivate(session: &mut Session<'_>, until: Instant) {
    let [kind, instance] = FIRST_SOL;
    let asked = [kind, instance, 0, 0, 0, 0];
    if let Err(error) = session.call(until, APP, DEACTIVATE_PAYLOAD, &asked).await {
        tracing::debug!(%error, "ipmi.sol.deactivate");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken<'a>(new: &'a [u8], ack: [u8; 4]) -> Option<Taken<'a>> {
        Some(Taken { new, ack: Some(ack), over: false })
    }

    #[test]
    fn each_character_is_taken_once_and_each_packet_acknowledged() {
        let mut r = Receiver::default();
        assert_eq!(r.take(b"\x01\0\0\0boot"), taken(b"boot", [0, 1, 4, 0]));
        assert_eq!(r.take(b"\x01\0\0\0boot"), taken(b"", [0, 1, 4, 0]), "repeated");
        assert_eq!(r.take(b"\x01\0\0\0booting"), taken(b"ing", [0, 1, 7, 0]), "and longer");
        assert_eq!(r.take(b"\x01\0\0\0bo"), taken(b"", [0, 1, 2, 0]), "and shorter");
        assert_eq!(r.take(b"\x01\0\0\0booting!"), taken(b"!", [0, 1, 8, 0]));
        assert_eq!(r.take(b"\x02\0\0\0boot"), taken(b"boot", [0, 2, 4, 0]), "said twice");
        assert_eq!(r.take(b"\x0f\0\0\0."), taken(b".", [0, 15, 1, 0]));
        assert_eq!(r.take(b"\x01\0\0\0boot"), taken(b"boot", [0, 1, 4, 0]), "all round");
    }

    #[test]
    fn an_end_is_seen_and_what_is_no_packet_is_nothing() {
        let mut r = Receiver::default();
        let end = Taken { new: &[], ack: None, over: true };
        assert_eq!(r.take(b"\0\0\0\x10"), Some(end));
        for short in 0..4 {
            assert_eq!(r.take(&[1; 4][..short]), None);
        }
        assert_eq!(r.take(&[1; 300]), None, "more than the count can say");
    }
}
