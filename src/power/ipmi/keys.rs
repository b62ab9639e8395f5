//! The cipher suites of RMCP+ (IPMI 2.0 §13.28 – §13.32): what is signed,
//! with what, and how payloads are encrypted.

use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use ring::hmac;
use subtle::ConstantTimeEq;

/// Bytes of an AES block, of its key and of the initialisation vector.
const BLOCK: usize = 16;

/// A cipher suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// 17: RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    S17,
    /// 3: RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    S3,
}

impl Suite {
    /// The better one first.
    pub const ALL: [Self; 2] = [Self::S17, Self::S3];

    /// Algorithm numbers for authentication, integrity and confidentiality.
    pub fn algorithms(self) -> [u8; 3] {
        match self {
            Self::S17 => [3, 4, 1],
            Self::S3 => [1, 1, 1],
        }
    }

    /// Bytes of the integrity check value behind each packet.
    pub fn check_len(self) -> usize {
        match self {
            Self::S17 => 16,
            Self::S3 => 12,
        }
    }

    /// HMAC over the parts.
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let algorithm = match self {
            Self::S17 => hmac::HMAC_SHA256,
            Self::S3 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        };
        let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
        for part in parts {
            context.update(part);
        }
        context.sign().as_ref().to_vec()
    }
}

/// Whether two codes are the same, in constant time.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// What both sides know of each other when the keys are made; the letters are
/// the specification's.
pub struct Agreement<'a> {
    /// Suite.
    pub suite: Suite,
    /// Kuid, and Kg where the BMC has none of its own: the password.
    pub password: &'a [u8],
    /// SIDm: our session id.
    pub our_id: u32,
    /// SIDc: the BMC's.
    pub bmc_id: u32,
    /// Rm.
    pub our_random: [u8; 16],
    /// Rc.
    pub bmc_random: [u8; 16],
    /// GUIDc.
    pub bmc_guid: [u8; 16],
    /// Role byte of RAKP message 1.
    pub role: u8,
    /// User name.
    pub user: &'a [u8],
}

impl Agreement<'_> {
    fn who(&self) -> Vec<u8> {
        // At most 16 bytes, checked when the session is opened.
        [&[self.role, self.user.len() as u8], self.user].concat()
    }

    /// What RAKP message 2 must carry.
    pub fn bmc_proof(&self) -> Vec<u8> {
        let ids = [self.our_id.to_le_bytes(), self.bmc_id.to_le_bytes()].concat();
        let parts: [&[u8]; 5] =
            [&ids, &self.our_random, &self.bmc_random, &self.bmc_guid, &self.who()];
        self.suite.hmac(self.password, &parts)
    }

    /// What RAKP message 3 must carry.
    pub fn our_proof(&self) -> Vec<u8> {
        let id = self.our_id.to_le_bytes();
        self.suite.hmac(self.password, &[&self.bmc_random, &id, &self.who()])
    }

    fn session_key(&self) -> Vec<u8> {
        let parts: [&[u8]; 3] = [&self.our_random, &self.bmc_random, &self.who()];
        self.suite.hmac(self.password, &parts)
    }

    /// What RAKP message 4 must carry.
    pub fn final_proof(&self) -> Vec<u8> {
        let id = self.bmc_id.to_le_bytes();
        let mut proof =
            self.suite.hmac(&self.session_key(), &[&self.our_random, &id, &self.bmc_guid]);
        proof.truncate(self.suite.check_len());
        proof
    }

    /// The keys of the session.
    pub fn keys(&self) -> Keys {
        let session = self.session_key();
        // Constants of 20 bytes with both hashes, as every BMC has it.
        let integrity = self.suite.hmac(&session, &[&[1; 20]]);
        let k2 = self.suite.hmac(&session, &[&[2; 20]]);
        let mut cipher = [0; BLOCK];
        cipher.iter_mut().zip(k2).for_each(|(to, from)| *to = from);
        Keys { suite: self.suite, integrity, cipher }
    }
}

/// The keys of an open session.
pub struct Keys {
    suite: Suite,
    integrity: Vec<u8>,
    cipher: [u8; BLOCK],
}

impl Keys {
    /// Bytes of the check value.
    pub fn check_len(&self) -> usize {
        self.suite.check_len()
    }

    /// The check value over a packet.
    pub fn check(&self, packet: &[u8]) -> Vec<u8> {
        let mut code = self.suite.hmac(&self.integrity, &[packet]);
        code.truncate(self.suite.check_len());
        code
    }

    /// Encrypts; the result begins with `iv`. Padding is 1, 2, 3 … and its
    /// length (§13.29).
    pub fn encrypt(&self, iv: [u8; BLOCK], payload: &[u8]) -> Vec<u8> {
        let mut text = payload.to_vec();
        let pad = (BLOCK - (payload.len() + 1) % BLOCK) % BLOCK;
        text.extend((1..=pad).map(|n| n as u8));
        text.push(pad as u8);
        let len = text.len();
        let cipher = cbc::Encryptor::<aes::Aes128>::new(&self.cipher.into(), &iv.into());
        // Cannot fail: the length is a multiple of the block.
        let _ = cipher.encrypt_padded_mut::<NoPadding>(&mut text, len);
        [&iv[..], &text].concat()
    }

    /// Decrypts what [`Keys::encrypt`] makes; `None` when it is not that.
    pub fn decrypt(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let (iv, rest) = payload.split_first_chunk::<BLOCK>()?;
        let mut text = rest.to_vec();
        let cipher = cbc::Decryptor::<aes::Aes128>::new(&self.cipher.into(), iv.into());
        cipher.decrypt_padded_mut::<NoPadding>(&mut text).ok()?;
        let pad = usize::from(text.pop()?);
        let len = text.len().checked_sub(pad)?;
        text.truncate(len);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_is_decrypted_at_every_length_and_rubbish_is_refused() {
        let keys = Keys { suite: Suite::S3, integrity: vec![1; 20], cipher: [7; 16] };
        for len in 0..64 {
            let payload = vec![0xa5; len];
            let sealed = keys.encrypt([9; 16], &payload);
            assert_eq!(sealed.len() % 16, 0);
            assert_eq!(keys.decrypt(&sealed), Some(payload));
            assert_eq!(keys.decrypt(&sealed[..sealed.len() - 1]), None);
        }
        assert_eq!(keys.decrypt(&[]), None);
        assert_eq!(keys.decrypt(&[0; 16]), None);
    }
}
