//! From a packet to a decision. Pure: no socket, no clock; the fuzz test
//! drives this very function.

use super::Names;
use super::zone::{Place, What, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

/// Largest datagram we send: fits an Ethernet frame also through a tunnel (the
/// value resolvers agreed on in 2020). What is longer goes over TCP.
pub const MAX_DATAGRAM: u16 = 1232;
/// Largest question, over TCP too: a name has 255 bytes, and options some.
pub const MAX_QUESTION: usize = 2048;

/// How the question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams; a long answer is cut and asked for again.
    Udp,
    /// A connection.
    Tcp,
}

/// What became of a question; the counters go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Ours, and here it is.
    Answered,
    /// The name is ours, and has no record of that type.
    NoData,
    /// Ours, and there is no such name.
    NoSuchName,
    /// Not ours, and nobody to ask; or a question that we do not answer.
    Refused,
    /// Not DNS, or not a question.
    Malformed,
    /// Another operation than a query, or another version of EDNS.
    Unsupported,
    /// Somebody else's answer was handed on.
    Forwarded,
    /// Nobody answered.
    ForwardFailed,
    /// Too many questions are under way already.
    Busy,
    /// The asker is not on the boot network.
    Outsider,
}

impl Outcome {
    /// A short word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NoData => "no-data",
            Self::NoSuchName => "no-such-name",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Forwarded => "forwarded",
            Self::ForwardFailed => "forward-failed",
            Self::Busy => "busy",
            Self::Outsider => "outsider",
        }
    }
}

/// What is to be done with a packet.
#[derive(Debug)]
pub enum Decision {
    /// Nothing is sent.
    Ignore(Outcome),
    /// This is sent.
    Answer(Vec<u8>, Outcome),
    /// Somebody else must know.
    Forward(Box<Asked>),
}

/// A question, as it is answered.
#[derive(Debug, Clone)]
pub struct Asked {
    id: u16,
    recursion: bool,
    edns: Option<bool>,
    payload: u16,
    /// The question itself.
    pub query: Query,
}

impl Asked {
    fn reply(&self, code: ResponseCode, forwards: bool) -> Message {
        let mut m = Message::response(self.id, OpCode::Query);
        m.metadata.response_code = code;
        m.metadata.recursion_desired = self.recursion;
        m.metadata.recursion_available = forwards;
        m.add_query(self.query.clone());
        if let Some(dnssec_ok) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_DATAGRAM);
            // Said back as it came (RFC 3225 §3).
            edns.set_dnssec_ok(dnssec_ok);
            m.set_edns(edns);
        }
        m
    }

    /// The answer when nobody answered (RFC 1035 §4.1.1, SERVFAIL).
    pub fn failed(&self) -> Option<Vec<u8>> {
        self.reply(ResponseCode::ServFail, true).to_vec().ok()
    }

    /// `answer`, or when it is too long for a datagram, the word that it is
    /// to be asked for over TCP (RFC 2181 §9).
    pub fn fit(&self, answer: Vec<u8>, transport: Transport) -> Option<Vec<u8>> {
        if transport == Transport::Tcp || answer.len() <= usize::from(self.payload) {
            return Some(answer);
        }
        let mut cut = self.reply(ResponseCode::NoError, true);
        cut.metadata.truncation = true;
        cut.to_vec().ok()
    }
}

/// Decides on `packet`. `forwards` is whether there is anybody to ask.
pub fn decide(packet: &[u8], zone: &Zone, names: &dyn Names, forwards: bool) -> Decision {
    // Header, RFC 1035 §4.1.1. Looked at before anything is decoded, so that
    // a packet that promises 65,535 records costs nothing.
    let Some(&[i1, i0, f1, _, q1, q0, a1, a0, n1, n0, x1, x0]) = packet.first_chunk::<12>() else {
        return Decision::Ignore(Outcome::Malformed);
    };
    if f1 & 0x80 != 0 || packet.len() > MAX_QUESTION {
        // An answer, or much too long: saying anything would only feed loops.
        return Decision::Ignore(Outcome::Malformed);
    }
    let id = u16::from_be_bytes([i1, i0]);
    let bare = |code, outcome| {
        let mut m = Message::response(id, OpCode::from_u8((f1 >> 3) & 15));
        m.metadata.response_code = code;
        m.to_vec().map_or(Decision::Ignore(outcome), |b| Decision::Answer(b, outcome))
    };
    if (f1 >> 3) & 15 != 0 {
        return bare(ResponseCode::NotImp, Outcome::Unsupported);
    }
    // One question, no records but EDNS, a cookie of TSIG's perhaps.
    if [q1, q0] != [0, 1] || [a1, a0, n1, n0, x1] != [0; 5] || x0 > 2 {
        return bare(ResponseCode::FormErr, Outcome::Malformed);
    }
    let Ok(message) = Message::from_vec(packet) else {
        return bare(ResponseCode::FormErr, Outcome::Malformed);
    };
    if message.metadata.message_type != MessageType::Query {
        return Decision::Ignore(Outcome::Malformed);
    }
    let Some(query) = message.queries.into_iter().next() else {
        return bare(ResponseCode::FormErr, Outcome::Malformed);
    };
    let edns = message.edns.as_ref();
    let asked = Asked {
        id,
        recursion: message.metadata.recursion_desired,
        edns: edns.map(|e| e.flags().dnssec_ok),
        payload: edns.map_or(512, |e| e.max_payload().clamp(512, MAX_DATAGRAM)),
        query,
    };
    let sent = |m: Message, outcome| {
        m.to_vec().map_or(Decision::Ignore(outcome), |b| Decision::Answer(b, outcome))
    };
    if edns.is_some_and(|e| e.version() != 0) {
        return sent(asked.reply(ResponseCode::BADVERS, forwards), Outcome::Unsupported);
    }
    let refused = || sent(asked.reply(ResponseCode::Refused, forwards), Outcome::Refused);
    let (name, kind) = (asked.query.name().clone(), asked.query.query_type());
    // Nobody copies our zone, and nobody another's through us.
    if matches!(kind, RecordType::AXFR | RecordType::IXFR)
        || asked.query.query_class() != DNSClass::IN
    {
        return refused();
    }
    let (apex, what) = match zone.find(&name, kind, names) {
        Place::Ours(apex, what) => (apex, what),
        Place::Elsewhere if forwards && asked.recursion => {
            return Decision::Forward(Box::new(asked));
        }
        Place::Elsewhere => return refused(),
    };
    let records = zone.records(&name, kind, &what);
    let (code, outcome) = match (&what, records.is_empty()) {
        (What::Nothing, _) => (ResponseCode::NXDomain, Outcome::NoSuchName),
        (_, true) => (ResponseCode::NoError, Outcome::NoData),
        (_, false) => (ResponseCode::NoError, Outcome::Answered),
    };
    let mut m = asked.reply(code, forwards);
    m.metadata.authoritative = true;
    if records.is_empty() {
        // How long the "no" holds (RFC 2308 §3).
        m.authorities.extend(apex.and_then(|a| zone.soa(&a)));
    }
    m.add_answers(records);
    sent(m, outcome)
}
