//! Questions as bytes, through the very function that the server calls.

use super::zone::{NEGATIVE_TTL, TTL};
use super::{Decision, Names, Outcome, Transport, Zone, decide};
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use proptest::prelude::*;
use std::net::Ipv4Addr;

struct Two;

impl Names for Two {
    fn address(&self, label: &str) -> Option<Ipv4Addr> {
        (label == "node01").then_some([10, 1, 0, 11].into())
    }
    fn elsewhere(&self, full: &str) -> Option<Ipv4Addr> {
        (full == "registry.example.org").then_some([192, 0, 2, 5].into())
    }
    fn name(&self, address: Ipv4Addr) -> Option<String> {
        match address.octets() {
            [10, 1, 0, 11] => Some("node01".into()),
            [192, 0, 2, 5] => Some("registry.example.org".into()),
            _ => None,
        }
    }
}

fn zone() -> Zone {
    let nets = [(Ipv4Addr::new(10, 1, 0, 0), 22), (Ipv4Addr::new(10, 8, 0, 64), 26)];
    Zone::new("Rack.Example", &nets, "builder", 7).unwrap()
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut m = Message::query();
    m.metadata.recursion_desired = true;
    m.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    m
}

/// The answer and its outcome; `None` when it would be passed on.
fn ask(m: &Message, forwards: bool) -> Option<(Message, Outcome)> {
    match decide(&m.to_vec().unwrap(), &zone(), &Two, forwards) {
        Decision::Answer(bytes, outcome) => {
            assert!(bytes.len() <= 512, "any client can take {} bytes", bytes.len());
            Some((Message::from_vec(&bytes).unwrap(), outcome))
        }
        Decision::Forward(_) => None,
        Decision::Ignore(what) => panic!("ignored: {what:?}"),
    }
}

fn said(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>, bool) {
    let q = question(name, kind);
    let (a, _) = ask(&q, false).unwrap();
    assert_eq!((a.metadata.id, &a.queries), (q.metadata.id, &q.queries));
    let soa = a.authorities.iter().any(|r| r.record_type() == RecordType::SOA);
    let answers = a.answers.iter().map(|r| r.data.to_string()).collect();
    (a.metadata.response_code, answers, soa)
}

#[test]
fn nodes_and_servers_have_names_forward_and_reverse() {
    use RecordType as T;
    let found = |text: &str| (ResponseCode::NoError, vec![text.to_owned()], false);
    for (name, kind, want) in [
        ("node01.rack.example.", T::A, "10.1.0.11"),
        ("NODE01.Rack.EXAMPLE.", T::ANY, "10.1.0.11"),
        ("node01.", T::A, "10.1.0.11"),
        ("registry.example.org.", T::A, "192.0.2.5"),
        ("11.0.1.10.in-addr.arpa.", T::PTR, "node01.rack.example."),
        ("5.2.0.192.in-addr.arpa.", T::PTR, "registry.example.org."),
        ("rack.example.", T::NS, "builder.rack.example."),
        ("0.1.10.in-addr.arpa.", T::NS, "builder.rack.example."),
        ("0.8.10.in-addr.arpa.", T::NS, "builder.rack.example."),
    ] {
        assert_eq!(said(name, kind), found(want), "{name} {kind}");
    }
    let (code, soa, _) = said("rack.example.", T::SOA);
    assert_eq!(code, ResponseCode::NoError);
    assert!(soa[0].starts_with("builder.rack.example. hostmaster.rack.example. 7 "), "{soa:?}");
}

#[test]
fn no_is_said_with_the_zones_soa_and_for_a_short_time() {
    use RecordType as T;
    for (name, kind, code, with_soa) in [
        ("node02.rack.example.", T::A, ResponseCode::NXDomain, true),
        ("a.node01.rack.example.", T::A, ResponseCode::NXDomain, true),
        ("99.3.1.10.in-addr.arpa.", T::PTR, ResponseCode::NXDomain, true),
        ("70.0.8.10.in-addr.arpa.", T::PTR, ResponseCode::NXDomain, true),
        ("node01.rack.example.", T::AAAA, ResponseCode::NoError, true),
        ("rack.example.", T::A, ResponseCode::NoError, true),
        // A bare name has no zone whose SOA could be said.
        ("node02.", T::A, ResponseCode::NXDomain, false),
        ("node02.", T::AAAA, ResponseCode::NXDomain, false),
    ] {
        assert_eq!(said(name, kind), (code, vec![], with_soa), "{name} {kind}");
    }
    let (a, outcome) = ask(&question("node02.rack.example.", T::A), true).unwrap();
    assert_eq!(outcome, Outcome::NoSuchName);
    assert!(a.metadata.authoritative && a.metadata.recursion_available);
    let Some(RData::SOA(soa)) = a.authorities.first().map(|r| r.data.clone()) else { panic!() };
    assert_eq!((soa.minimum, a.authorities[0].ttl), (NEGATIVE_TTL, NEGATIVE_TTL));
    let (a, _) = ask(&question("node01.", T::A), true).unwrap();
    assert_eq!(a.answers[0].ttl, TTL);
}

#[test]
fn the_rest_is_passed_on_or_refused() {
    use RecordType as T;
    for (name, kind) in [
        ("deb.example.net.", T::A),
        ("1.0.9.10.in-addr.arpa.", T::PTR),
        ("1.0.8.10.in-addr.arpa.", T::PTR),
        ("com.", T::NS),
        (".", T::NS),
    ] {
        let q = question(name, kind);
        assert!(ask(&q, true).is_none(), "{name} goes on");
        let (a, outcome) = ask(&q, false).unwrap();
        assert_eq!((a.metadata.response_code, outcome), (ResponseCode::Refused, Outcome::Refused));
        let mut no_recursion = q.clone();
        no_recursion.metadata.recursion_desired = false;
        assert!(ask(&no_recursion, true).is_some(), "{name} is not asked for");
    }
    for kind in [T::AXFR, T::IXFR] {
        let (a, _) = ask(&question("rack.example.", kind), true).unwrap();
        assert_eq!(a.metadata.response_code, ResponseCode::Refused, "{kind}");
    }
    let mut chaos = question("version.bind.", T::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask(&chaos, true).unwrap().0.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn edns_is_answered_in_kind_and_only_version_0() {
    let mut q = question("node01.", RecordType::A);
    assert_eq!(ask(&q, false).unwrap().0.edns, None);
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    q.set_edns(edns.clone());
    let (a, _) = ask(&q, false).unwrap();
    let theirs = a.edns.unwrap();
    assert!(theirs.flags().dnssec_ok && theirs.max_payload() == 1232);
    edns.set_version(1);
    q.set_edns(edns);
    let (a, outcome) = ask(&q, false).unwrap();
    // 16 has two names.
    assert_eq!((u16::from(a.metadata.response_code), outcome), (16, Outcome::Unsupported));
}

#[test]
fn what_is_no_question_is_not_answered_as_one() {
    let good = question("node01.", RecordType::A).to_vec().unwrap();
    let with = |at: usize, byte: u8| {
        let mut p = good.clone();
        p[at] = byte;
        decide(&p, &zone(), &Two, true)
    };
    // An answer, and what is shorter than a header: silence, or two servers
    // would talk to one another for ever.
    assert!(matches!(with(2, 0x80), Decision::Ignore(Outcome::Malformed)));
    assert!(matches!(decide(&good[..11], &zone(), &Two, true), Decision::Ignore(_)));
    for (at, byte, code) in [(2, 0x28, 4), (4, 255, 1), (5, 2, 1), (6, 255, 1), (11, 9, 1)] {
        let Decision::Answer(a, _) = with(at, byte) else { panic!("byte {at}") };
        assert_eq!((a[2] & 0x80, a[3] & 15), (0x80, code), "byte {at} is {byte}");
    }
}

#[test]
fn what_does_not_fit_a_datagram_is_cut_and_said_to_be() {
    let mut q = question("big.example.net.", RecordType::TXT);
    let cut = |q: &Message, len: usize, by| {
        let Decision::Forward(asked) = decide(&q.to_vec().unwrap(), &zone(), &Two, true) else {
            panic!()
        };
        asked.fit(vec![0xee; len], by).unwrap()
    };
    assert_eq!(cut(&q, 513, Transport::Tcp).len(), 513);
    assert_eq!(cut(&q, 512, Transport::Udp).len(), 512);
    let short = Message::from_vec(&cut(&q, 513, Transport::Udp)).unwrap();
    assert!(short.metadata.truncation && short.queries == q.queries);
    assert_eq!(short.metadata.id, q.metadata.id);
    for (says, takes) in [(100, 512), (1000, 1000), (65_535, 1232)] {
        let mut edns = Edns::new();
        edns.set_max_payload(says);
        q.set_edns(edns);
        assert_eq!(cut(&q, takes, Transport::Udp).len(), takes);
        assert!(cut(&q, takes + 1, Transport::Udp).len() < 100, "{says}");
    }
}

#[test]
fn a_domain_that_is_none_is_refused() {
    for domain in ["a..b", &"a.".repeat(120)] {
        assert!(Zone::new(domain, &[], "s", 1).is_err(), "{domain}");
    }
    assert!(Zone::new("", &[], "s", 1).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Nothing panics, and nobody who lies about his address can make us send
    /// much more than he sent.
    #[test]
    fn any_bytes(packet in proptest::collection::vec(any::<u8>(), 0..3000), forwards: bool) {
        check(&packet, forwards)?;
    }

    /// The same, where it begins like a question.
    #[test]
    fn nearly_a_question(
        edits in proptest::collection::vec((0usize..80, any::<u8>()), 0..6),
        tail in proptest::collection::vec(any::<u8>(), 0..60),
        cut in 0usize..140, edns: bool, forwards: bool,
    ) {
        let mut q = question("node01.rack.example.", RecordType::A);
        if edns {
            q.set_edns(Edns::new());
        }
        let mut packet = q.to_vec().unwrap();
        packet.extend(tail);
        for (at, byte) in edits {
            if let Some(b) = packet.get_mut(at) {
                *b = byte;
            }
        }
        packet.truncate(cut.max(12));
        check(&packet, forwards)?;
    }
}

fn check(packet: &[u8], forwards: bool) -> Result<(), TestCaseError> {
    match decide(packet, &zone(), &Two, forwards) {
        Decision::Answer(answer, _) => {
            prop_assert_eq!(&answer[..2], &packet[..2]);
            prop_assert!(answer[2] & 0x80 != 0, "an answer");
            prop_assert!(
                answer.len() <= packet.len() + 128,
                "{} for {}",
                answer.len(),
                packet.len()
            );
        }
        Decision::Forward(asked) => {
            prop_assert!(asked.failed().is_some_and(|f| f.len() <= packet.len() + 128));
        }
        Decision::Ignore(_) => {}
    }
    Ok(())
}
