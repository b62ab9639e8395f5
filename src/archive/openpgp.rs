//! The little of OpenPGP that a signed archive takes (RFC 4880): a public key,
//! a detached and a clear-text signature, all version 4, Ed25519 as GnuPG has
//! it (algorithm 22), SHA-512. Written and read here, and not with a library
//! of eighty crates, because one form is enough: what we sign, and what
//! another of our servers signed. What distributions sign is checked by apt.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha512};

const EDDSA: u8 = 22;
const SHA512: u8 = 10;
/// 1.3.6.1.4.1.11591.15.1, with its length before it.
const ED25519: [u8; 10] = [9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

/// Kinds of signatures (§5.2.1).
pub const BINARY: u8 = 0x00;
/// Text with line ends of its own.
pub const TEXT: u8 = 0x01;
/// A user id belongs to a key.
pub const CERTIFICATION: u8 = 0x13;

/// A packet: tag and length before the body (§4.2.2).
pub fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xc0 | tag];
    match body.len() {
        n if n < 192 => out.push(n as u8),
        n => {
            let n = n - 192;
            out.extend([(n >> 8) as u8 + 192, n as u8]);
        }
    }
    out.extend(body);
    out
}

/// A number of many bits: their count, then the bytes without leading zeros.
fn mpi(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    let bytes = &bytes[zeros..];
    let bits = bytes.first().map_or(0, |b| bytes.len() * 8 - b.leading_zeros() as usize) as u16;
    [&bits.to_be_bytes()[..], bytes].concat()
}

/// The body of a public key packet.
pub fn key_body(public: &[u8; 32], made: u32) -> Vec<u8> {
    let mut out = vec![4];
    out.extend(made.to_be_bytes());
    out.push(EDDSA);
    out.extend(ED25519);
    out.extend(mpi(&[&[0x40], &public[..]].concat()));
    out
}

/// A key body as it goes into a hash.
pub fn hashed_key(body: &[u8]) -> Vec<u8> {
    [&[0x99][..], &(body.len() as u16).to_be_bytes(), body].concat()
}

/// Fingerprint of a key (§12.2).
pub fn fingerprint(body: &[u8]) -> [u8; 20] {
    let mut out = [0; 20];
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &hashed_key(body));
    out.copy_from_slice(hash.as_ref());
    out
}

fn subpacket(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[body.len() as u8 + 1, kind][..], body].concat()
}

/// A signature packet of `kind` over `content`, made at `at` (seconds since
/// 1970) by the key with this fingerprint.
pub fn signature(
    kind: u8,
    content: &[u8],
    at: u32,
    print: &[u8; 20],
    sign: impl Fn(&[u8]) -> [u8; 64],
) -> Vec<u8> {
    let mut fields = subpacket(2, &at.to_be_bytes());
    fields.extend(subpacket(33, &[&[4], &print[..]].concat()));
    if kind == CERTIFICATION {
        // May certify and sign; prefers SHA-512; later certifications count.
        fields.extend(subpacket(27, &[0x03]));
        fields.extend(subpacket(21, &[SHA512]));
        fields.extend(subpacket(30, &[0x01]));
    }
    let mut head = vec![4, kind, EDDSA, SHA512];
    head.extend((fields.len() as u16).to_be_bytes());
    head.extend(fields);
    let digest = digest(content, &head);
    let signed = sign(&digest);
    let mut body = head;
    let issuer = subpacket(16, &print[12..]);
    body.extend((issuer.len() as u16).to_be_bytes());
    body.extend(issuer);
    body.extend(&digest[..2]);
    body.extend(mpi(&signed[..32]));
    body.extend(mpi(&signed[32..]));
    packet(2, &body)
}

/// What is signed: the content, the head of the signature, its length (§5.2.4).
fn digest(content: &[u8], head: &[u8]) -> [u8; 64] {
    let mut h = Sha512::new();
    h.update(content);
    h.update(head);
    h.update([4, 0xff]);
    h.update((head.len() as u32).to_be_bytes());
    h.finalize().into()
}

/// In letters, between its two lines (§6.2).
pub fn armor(kind: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut out = format!("-----BEGIN PGP {kind}-----\n\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    let crc = &crc24(bytes).to_be_bytes()[1..];
    out.push_str(&format!("={}\n-----END PGP {kind}-----\n", STANDARD.encode(crc)));
    out
}

/// The bytes of an armoured block; the checksum is not looked at, since the
/// signature says more. `None` where there is no block.
pub fn dearmor(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.lines().skip_while(|l| !l.starts_with("-----BEGIN PGP "));
    lines.next()?;
    let body: String = lines
        .skip_while(|l| !l.trim().is_empty())
        .take_while(|l| !l.starts_with("-----END") && !l.starts_with('='))
        .map(str::trim)
        .collect();
    STANDARD.decode(body).ok()
}

/// §6.1.
fn crc24(bytes: &[u8]) -> u32 {
    let mut crc = 0x00b7_04ce_u32;
    for b in bytes {
        crc ^= u32::from(*b) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4cfb;
            }
        }
    }
    crc & 0x00ff_ffff
}

/// Text as it is signed: line ends of the network, no blanks at line ends,
/// nothing after the last line (§7.1).
pub fn canonical(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|l| l.trim_end_matches([' ', '\t', '\r'])).collect();
    lines.join("\r\n")
}

/// First packet with `tag` in `bytes`: its body.
pub fn find(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        let first = *rest.first()?;
        if first & 0xc0 != 0xc0 {
            return None;
        }
        let (size, skip) = match *rest.get(1)? {
            n if n < 192 => (usize::from(n), 2),
            n if n < 224 => (((usize::from(n) - 192) << 8) + usize::from(*rest.get(2)?) + 192, 3),
            _ => return None,
        };
        let body = rest.get(skip..skip + size)?;
        if first & 0x3f == tag {
            return Some(body);
        }
        rest = &rest[skip + size..];
    }
}

/// The 32 bytes of a key that [`key_body`] wrote.
pub fn public_of(body: &[u8]) -> Option<[u8; 32]> {
    let rest = body.get(5..)?.strip_prefix(&[EDDSA])?.strip_prefix(&ED25519)?;
    let rest = rest.strip_prefix(&[0x01, 0x07, 0x40])?;
    rest.try_into().ok()
}

/// Whether `body`, a signature packet's, is one of this key over `content`.
pub fn verify(body: &[u8], kind: u8, content: &[u8], public: &[u8; 32]) -> bool {
    let parsed = || {
        let fields = usize::from(u16::from_be_bytes([*body.get(4)?, *body.get(5)?]));
        let head = body.get(..6 + fields)?;
        let rest = body.get(6 + fields..)?;
        let skip = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
        let mut rest = rest.get(2 + skip + 2..)?;
        let mut number = || -> Option<[u8; 32]> {
            let bits = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
            let n = bits.div_ceil(8);
            let bytes = rest.get(2..2 + n)?;
            rest = &rest[2 + n..];
            let mut out = [0; 32];
            out.get_mut(32usize.checked_sub(n)?..)?.copy_from_slice(bytes);
            Some(out)
        };
        Some((head, [number()?, number()?].concat()))
    };
    let Some((head, signed)) = parsed() else { return false };
    let right = head.starts_with(&[4, kind, EDDSA, SHA512]);
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
    right && key.verify(&digest(content, head), &signed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A file that somebody carries in may hold anything.
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for tag in [2, 6] {
                let whole = packet(tag, &bytes);
                prop_assert_eq!(find(&whole, tag), Some(&bytes[..]));
                let _ = find(&bytes, tag);
            }
            let _ = public_of(&bytes);
            prop_assert!(!verify(&bytes, BINARY, b"content", &[7; 32]));
            let text = armor("SIGNATURE", &bytes);
            prop_assert_eq!(dearmor(&text), Some(bytes));
        }
    }
}
