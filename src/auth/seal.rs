//! The master key, and sealing with it (ChaCha20-Poly1305, RFC 8439).

use super::AuthError;
use crate::model::{BuildId, Secret};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// `count` random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], AuthError> {
    let mut out = [0u8; N];
    SystemRandom::new().fill(&mut out).map_err(|_| AuthError::NoRandom)?;
    Ok(out)
}

/// A secret as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    nonce: String,
    sealed: String,
}

/// The key of this server. Derived keys are separate by purpose.
pub struct MasterKey {
    seal: LessSafeKey,
    tokens: hmac::Key,
    passes: hmac::Key,
    pub(super) sessions: hmac::Key,
    pub(super) forms: hmac::Key,
}

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

impl MasterKey {
    /// Reads the key file, or makes one. A file that others may read is
    /// refused.
    pub fn open(path: &Path) -> Result<Self, AuthError> {
        let bad = |why: String| AuthError::KeyFile { path: path.to_owned(), why };
        if !path.exists() {
            let key = hex::encode(random::<32>()?);
            crate::tls::write_private(path, key.as_bytes()).map_err(|e| bad(e.to_string()))?;
        }
        let mode = path.metadata().map_err(|e| bad(e.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(bad(format!("mode is {:o}; others may read it: chmod 600", mode & 0o777)));
        }
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let mut key = [0u8; 32];
        hex::decode_to_slice(text.trim(), &mut key)
            .map_err(|_| bad("must hold 64 hexadecimal digits".into()))?;
        Self::from_bytes(&key).ok_or_else(|| bad("cannot be used".into()))
    }

    pub(super) fn from_bytes(key: &[u8; 32]) -> Option<Self> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"provision").extract(key);
        let derive = |purpose: &[u8]| {
            let mut out = [0u8; 32];
            prk.expand(&[purpose], Len(32)).ok()?.fill(&mut out).ok()?;
            Some(out)
        };
        let seal = UnboundKey::new(&CHACHA20_POLY1305, &derive(b"seal")?).ok()?;
        Some(Self {
            seal: LessSafeKey::new(seal),
            tokens: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"build token")?),
            passes: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"registry pass")?),
            sessions: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"window session")?),
            forms: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"window form")?),
        })
    }

    /// Seals `secret` under `name`: it opens under no other name.
    pub fn seal(&self, name: &str, secret: &Secret) -> Result<Sealed, AuthError> {
        let nonce = random::<12>()?;
        let mut bytes = secret.expose().as_bytes().to_vec();
        self.seal
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut bytes,
            )
            .map_err(|_| AuthError::NoRandom)?;
        Ok(Sealed { nonce: hex::encode(nonce), sealed: hex::encode(bytes) })
    }

    /// Opens what was sealed under `name`.
    pub fn open_sealed(&self, name: &str, sealed: &Sealed) -> Result<Secret, AuthError> {
        let fail = || AuthError::Unsealable(name.to_owned());
        let mut nonce = [0u8; 12];
        hex::decode_to_slice(&sealed.nonce, &mut nonce).map_err(|_| fail())?;
        let mut bytes = hex::decode(&sealed.sealed).map_err(|_| fail())?;
        let plain = self
            .seal
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut bytes,
            )
            .map_err(|_| fail())?;
        Ok(Secret::new(std::str::from_utf8(plain).map_err(|_| fail())?))
    }

    /// A short-lived token that says who logged in: `<hex>.<until>.<tag>`.
    /// It says nothing of rights: those are looked up when it is used, so
    /// that what is taken away is gone at once.
    pub fn pass(&self, who: &str, until: crate::model::Time) -> Secret {
        let text = format!("{}.{}", hex::encode(who), until.as_second());
        let tag = hmac::sign(&self.passes, text.as_bytes());
        Secret::new(format!("{text}.{}", hex::encode(tag.as_ref())))
    }

    /// Who a pass was made for, if it is genuine and still good at `now`.
    pub fn who_passes(&self, pass: &str, now: crate::model::Time) -> Option<String> {
        let (text, tag) = pass.rsplit_once('.')?;
        let tag = hex::decode(tag).ok()?;
        hmac::verify(&self.passes, text.as_bytes(), &tag).ok()?;
        let (who, until) = text.split_once('.')?;
        if until.parse::<i64>().ok()? < now.as_second() {
            return None;
        }
        String::from_utf8(hex::decode(who).ok()?).ok()
    }

    /// The token of a build: `<build>.<32 hexadecimal digits>`. Derived, so a
    /// server that was restarted knows it again without having stored it.
    pub fn build_token(&self, build: &BuildId) -> Secret {
        let tag = hmac::sign(&self.tokens, build.as_str().as_bytes());
        Secret::new(format!("{build}.{}", hex::encode(&tag.as_ref()[..16])))
    }

    /// The build a token is for, if the token is genuine. Whether that build
    /// still runs is for the caller to ask.
    pub fn build_of_token(&self, token: &str) -> Option<BuildId> {
        let (id, _) = token.split_once('.')?;
        let build: BuildId = id.parse().ok()?;
        let genuine = self.build_token(&build);
        let same: bool =
            subtle::ConstantTimeEq::ct_eq(genuine.expose().as_bytes(), token.as_bytes()).into();
        same.then_some(build)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> MasterKey {
        MasterKey::from_bytes(&[n; 32]).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_with_its_key_and_name_only() {
        let s = key(1).seal("bmc/a", &Secret::new("calvin")).unwrap();
        assert!(!serde_json::to_string(&s).unwrap().contains("calvin"));
        assert_eq!(key(1).open_sealed("bmc/a", &s).unwrap().expose(), "calvin");
        assert!(key(1).open_sealed("bmc/b", &s).is_err());
        assert!(key(2).open_sealed("bmc/a", &s).is_err());
    }

    #[test]
    fn a_build_token_is_good_for_its_build_only_and_survives_a_restart() {
        let (a, b) = (BuildId::generate(), BuildId::generate());
        let t = key(1).build_token(&a);
        assert_eq!(key(1).build_of_token(t.expose()), Some(a.clone()));
        assert_eq!(key(2).build_of_token(t.expose()), None);
        let forged = t.expose().replace(a.as_str(), b.as_str());
        assert_eq!(key(1).build_of_token(&forged), None);
        for junk in ["", ".", "b-.", "x.y"] {
            assert_eq!(key(1).build_of_token(junk), None);
        }
    }

    #[test]
    fn a_pass_names_its_owner_until_it_ends_and_cannot_be_changed() {
        let now = crate::model::Time::now();
        let (later, past) =
            (now + jiff::SignedDuration::from_secs(60), now - jiff::SignedDuration::from_secs(1));
        let p = key(1).pass("user:ann", later);
        assert_eq!(key(1).who_passes(p.expose(), now).as_deref(), Some("user:ann"));
        assert_eq!(key(2).who_passes(p.expose(), now), None);
        let old = key(1).pass("user:ann", past);
        assert_eq!(key(1).who_passes(old.expose(), now), None);
        let forged = p.expose().replacen(&hex::encode("user:ann"), &hex::encode("user:bob"), 1);
        assert_eq!(key(1).who_passes(&forged, now), None);
        for junk in ["", "..", "a.b.c", "zz.1."] {
            assert_eq!(key(1).who_passes(junk, now), None);
        }
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        MasterKey::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(MasterKey::open(&path).err().unwrap().to_string().contains("chmod 600"));
    }
}
