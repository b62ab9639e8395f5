//! RMCP+ packets and IPMI messages as bytes (IPMI 2.0 §13.6, §13.8, §13.17
//! to §13.24). Pure; what is not well formed is `None`.

use super::keys::{Keys, Suite, same};

/// RMCP version 1.0, no acknowledgement, class IPMI.
const RMCP: [u8; 4] = [6, 0, 0xff, 7];
/// "RMCP+" as authentication type of the session header.
const RMCP_PLUS: u8 = 6;
const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;

/// Payload types.
pub mod payload {
    #![allow(missing_docs, reason = "the specification's names")]
    pub const MESSAGE: u8 = 0x00;
    pub const SOL: u8 = 0x01;
    pub const OPEN_REQUEST: u8 = 0x10;
    pub const OPEN_RESPONSE: u8 = 0x11;
    pub const RAKP_1: u8 = 0x12;
    pub const RAKP_2: u8 = 0x13;
    pub const RAKP_3: u8 = 0x14;
    pub const RAKP_4: u8 = 0x15;
}

/// A packet before the session is open.
pub fn plain(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = RMCP.to_vec();
    out.extend_from_slice(&[RMCP_PLUS, kind]);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&(body.len() as u16).to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// The body of a packet of `kind` that belongs to no session.
pub fn read_plain(packet: &[u8], kind: u8) -> Option<&[u8]> {
    let (head, rest) = packet.split_first_chunk::<16>()?;
    if !head.starts_with(&RMCP) || head[4..6] != [RMCP_PLUS, kind] {
        return None;
    }
    rest.get(..usize::from(u16::from_le_bytes([head[14], head[15]])))
}

/// A payload of `kind` in a packet of the session `id`, encrypted and signed.
pub fn sealed(
    keys: &Keys,
    id: u32,
    sequence: u32,
    iv: [u8; 16],
    kind: u8,
    content: &[u8],
) -> Vec<u8> {
    let body = keys.encrypt(iv, content);
    let mut out = vec![RMCP_PLUS, kind | ENCRYPTED | AUTHENTICATED];
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&(body.len() as u16).to_le_bytes());
    out.extend_from_slice(&body);
    // The signed part, with pad length and next header, is a multiple of 4.
    let pad = (4 - (out.len() + 2) % 4) % 4;
    out.extend(std::iter::repeat_n(0xff, pad));
    out.extend_from_slice(&[pad as u8, 7]);
    let check = keys.check(&out);
    [&RMCP[..], &out, &check].concat()
}

/// Kind and content of the payload in a packet of our session `id`, when it is
/// signed and encrypted.
pub fn read_sealed(packet: &[u8], keys: &Keys, id: u32) -> Option<(u8, Vec<u8>)> {
    let rest = packet.strip_prefix(&RMCP)?;
    let split = rest.len().checked_sub(keys.check_len())?;
    let (signed, check) = rest.split_at_checked(split)?;
    if !same(&keys.check(signed), check) {
        return None;
    }
    let (head, body) = signed.split_first_chunk::<12>()?;
    let marks = ENCRYPTED | AUTHENTICATED;
    if head[0] != RMCP_PLUS || head[1] & marks != marks || head[2..6] != id.to_le_bytes() {
        return None;
    }
    let len = usize::from(u16::from_le_bytes([head[10], head[11]]));
    Some((head[1] & !marks, keys.decrypt(body.get(..len)?)?))
}

/// The body of an Open Session request.
pub fn open_request(tag: u8, privilege: u8, our_id: u32, suite: Suite) -> Vec<u8> {
    let mut out = vec![tag, privilege, 0, 0];
    out.extend_from_slice(&our_id.to_le_bytes());
    for (kind, algorithm) in (0u8..).zip(suite.algorithms()) {
        out.extend_from_slice(&[kind, 0, 0, 8, algorithm, 0, 0, 0]);
    }
    out
}

/// A response of the set-up: status and what follows the ids.
pub struct SetUp<'a> {
    /// RMCP+ status code (table 13-15); 0 is success.
    pub status: u8,
    /// Behind tag, status and reserved bytes; short when the status is an
    /// error.
    pub rest: &'a [u8],
}

/// Reads an Open Session, RAKP 2 or RAKP 4 response with our `tag` and, where
/// it carries one, our session id.
pub fn set_up(body: &[u8], tag: u8, our_id: u32) -> Option<SetUp<'_>> {
    // An error may end behind its status (OpenIPMI sends it so).
    let &[its_tag, status] = body.first_chunk()?;
    let rest = body.get(4..).unwrap_or_default();
    let id_fits = rest.first_chunk() == Some(&our_id.to_le_bytes());
    (its_tag == tag && (status != 0 || id_fits)).then_some(SetUp { status, rest })
}

/// An IPMI request to the BMC (§13.8); `sequence` is 0 to 63.
pub fn message(netfn: u8, command: u8, sequence: u8, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x20, netfn << 2];
    out.push(checksum(&out));
    let second = [&[0x81, sequence << 2, command], data].concat();
    out.extend_from_slice(&second);
    out.push(checksum(&second));
    out
}

/// Completion code and data of the response to that request.
pub fn response(bytes: &[u8], netfn: u8, command: u8, sequence: u8) -> Option<(u8, Vec<u8>)> {
    let (head, rest) = bytes.split_first_chunk::<3>()?;
    let (_, second) = rest.split_last()?;
    let sound = checksum(head) == 0 && checksum(rest) == 0;
    let (&[_, seq, cmd, code], data) = second.split_first_chunk::<4>()?;
    let ours = head[1] >> 2 == netfn | 1 && seq >> 2 == sequence && cmd == command;
    (sound && ours).then(|| (code, data.to_vec()))
}

/// The two's complement of the sum: with it, the sum is 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, &b| sum.wrapping_add(b)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::super::keys::Agreement;
    use super::*;

    fn keys(suite: Suite) -> Keys {
        Agreement {
            suite,
            password: b"secret",
            our_id: 1,
            bmc_id: 2,
            our_random: [3; 16],
            bmc_random: [4; 16],
            bmc_guid: [5; 16],
            role: 0x13,
            user: b"ops",
        }
        .keys()
    }

    #[test]
    fn a_sealed_packet_opens_only_unchanged_and_for_its_session() {
        for suite in Suite::ALL {
            let keys = keys(suite);
            let packet = sealed(&keys, 77, 1, [8; 16], payload::SOL, b"message");
            assert_eq!(read_sealed(&packet, &keys, 77), Some((payload::SOL, b"message".to_vec())));
            assert_eq!(read_sealed(&packet, &keys, 78), None);
            for at in 4..packet.len() {
                let mut changed = packet.clone();
                changed[at] ^= 1;
                assert_eq!(read_sealed(&changed, &keys, 77), None, "byte {at}");
            }
            for len in 0..packet.len() {
                assert_eq!(read_sealed(&packet[..len], &keys, 77), None, "cut at {len}");
            }
        }
    }

    #[test]
    fn a_response_counts_only_for_its_request() {
        // Get Chassis Status, sequence 5: completion 0, power on.
        let mut bytes = vec![0x81, 0x01 << 2];
        bytes.push(checksum(&bytes));
        let second = [0x20, 5 << 2, 1, 0, 0x21, 0, 0];
        bytes.extend_from_slice(&second);
        bytes.push(checksum(&second));
        assert_eq!(response(&bytes, 0, 1, 5), Some((0, vec![0x21, 0, 0])));
        assert_eq!(response(&bytes, 0, 1, 6), None);
        assert_eq!(response(&bytes, 0, 2, 5), None);
        for len in 0..bytes.len() {
            assert_eq!(response(&bytes[..len], 0, 1, 5), None);
        }
    }
}
