//! People's passwords: kept as Argon2id hashes (RFC 9106), checked on a thread
//! of its own since each check takes 19 MiB and tens of milliseconds on
//! purpose.

use super::AuthError;
use super::seal::random;
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};

/// Shortest password taken.
pub const SHORTEST: usize = 10;

/// A hash with what is needed to check it, so that the cost can be raised
/// later without making old ones void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordHash {
    salt: String,
    hash: String,
    memory_kib: u32,
    passes: u32,
}

/// RFC 9106's second recommendation scaled to what OWASP asks at least.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;

fn compute(password: &str, salt: &[u8], memory: u32, passes: u32) -> Option<[u8; 32]> {
    let params = Params::new(memory, passes, 1, Some(32)).ok()?;
    let mut out = [0u8; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut out)
        .ok()?;
    Some(out)
}

impl PasswordHash {
    /// Hashes `password`. Blocking.
    ///
    /// # Errors
    /// No randomness.
    pub fn make(password: &str) -> Result<Self, AuthError> {
        let salt = random::<16>()?;
        let hash = compute(password, &salt, MEMORY_KIB, PASSES).ok_or(AuthError::NoRandom)?;
        Ok(Self {
            salt: hex::encode(salt),
            hash: hex::encode(hash),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
        })
    }

    /// Whether `password` is the one. Blocking.
    pub fn fits(&self, password: &str) -> bool {
        let (Ok(salt), Ok(hash)) = (hex::decode(&self.salt), hex::decode(&self.hash)) else {
            return false;
        };
        // A stored cost that is not ours would be somebody's attack on memory.
        let (memory, passes) = (self.memory_kib.min(1 << 20), self.passes.min(16));
        compute(password, &salt, memory, passes)
            .is_some_and(|got| subtle::ConstantTimeEq::ct_eq(&got[..], &hash[..]).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_fits_and_two_hashes_of_one_differ() {
        let a = PasswordHash::make("correct horse").unwrap();
        assert!(a.fits("correct horse"));
        assert!(!a.fits("correct horsf") && !a.fits(""));
        assert_ne!(a, PasswordHash::make("correct horse").unwrap());
        assert!(!serde_json::to_string(&a).unwrap().contains("horse"));
    }
}
