//! The key that signs what this server vouches for: Ed25519 (RFC 8032), in a
//! PKCS#8 PEM file (RFC 8410) that only its owner may read, made at first use.

use super::{TlsError, write_private};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// `SubjectPublicKeyInfo` of an Ed25519 key up to its 32 bytes (RFC 8410 §4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signs.
pub struct SigningKey(Ed25519KeyPair);

/// Checks what a [`SigningKey`] signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey([u8; 32]);

impl SigningKey {
    /// A new one, and its PKCS#8 form.
    fn generate() -> Result<(Self, Vec<u8>), TlsError> {
        let failed = |_| TlsError::Certificate("no signing key could be made".to_owned());
        let rng = ring::rand::SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&rng).map_err(failed)?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref())
            .map_err(|e| TlsError::Certificate(e.to_string()))?;
        Ok((Self(pair), pkcs8.as_ref().to_vec()))
    }

    /// The key in `path`; made if there is no such file. One that others can
    /// read is refused.
    pub fn load_or_make(path: &Path) -> Result<Self, TlsError> {
        let io = |source| TlsError::Io { path: path.to_owned(), source };
        let bad = |why: String| TlsError::Certificate(format!("{}: {why}", path.display()));
        match std::fs::metadata(path) {
            Ok(m) if m.permissions().mode() & 0o077 != 0 => {
                return Err(bad("others can read this key; it must have mode 0600".to_owned()));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let (key, pkcs8) = Self::generate()?;
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir).map_err(io)?;
                }
                write_private(path, pem("PRIVATE KEY", &pkcs8).as_bytes())?;
                return Ok(key);
            }
            Err(e) => return Err(io(e)),
        }
        let text = std::fs::read(path).map_err(io)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&text)
            .map_err(|e| bad(format!("no PKCS#8 key in PEM form: {e}")))?;
        // OpenSSL writes the form without the public key.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            .map_err(|e| bad(format!("no Ed25519 key: {e}")))?;
        Ok(Self(pair))
    }

    /// 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }

    /// Its other half.
    pub fn verifying_key(&self) -> VerifyingKey {
        let mut raw = [0; 32];
        raw.copy_from_slice(&self.0.public_key().as_ref()[..32]);
        VerifyingKey(raw)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.verifying_key().id())
    }
}

impl VerifyingKey {
    /// From `-----BEGIN PUBLIC KEY-----`.
    pub fn from_pem(text: &str) -> Result<Self, TlsError> {
        let bad = |why: String| TlsError::Certificate(format!("public key: {why}"));
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
            .map_err(|e| bad(e.to_string()))?;
        let raw = der.strip_prefix(&SPKI).and_then(|r| r.try_into().ok());
        raw.map(Self).ok_or_else(|| bad("not an Ed25519 key".to_owned()))
    }

    /// As OpenSSL and others read it.
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &[SPKI.as_slice(), &self.0].concat())
    }

    /// SHA-256 of its DER form, in hexadecimal digits.
    pub fn id(&self) -> String {
        hex::encode(Sha256::digest([SPKI.as_slice(), &self.0].concat()))
    }

    /// Whether the other half made `signature` over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|b| char::from(*b)));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_is_private_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/sign.pem");
        let made = SigningKey::load_or_make(&path).unwrap();
        let again = SigningKey::load_or_make(&path).unwrap();
        assert_eq!(made.verifying_key(), again.verifying_key());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let said = SigningKey::load_or_make(&path).unwrap_err().to_string();
        assert!(said.contains("mode 0600"), "{said}");
    }

    #[test]
    fn the_public_half_travels_as_pem_and_knows_its_signatures() {
        let (key, _) = SigningKey::generate().unwrap();
        let public = VerifyingKey::from_pem(&key.verifying_key().to_pem()).unwrap();
        let signature = key.sign(b"x");
        assert!(public.verify(b"x", &signature));
        assert!(!public.verify(b"y", &signature));
        assert!(
            VerifyingKey::from_pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
                .is_err()
        );
    }

    #[test]
    fn openssl_agrees() {
        let dir = tempfile::tempdir().unwrap();
        let private = dir.path().join("k.pem");
        let made = std::process::Command::new("openssl")
            .args(["genpkey", "-algorithm", "ed25519", "-out"])
            .arg(&private)
            .output();
        if !made.is_ok_and(|o| o.status.success()) {
            return; // no openssl here
        }
        std::fs::set_permissions(&private, PermissionsExt::from_mode(0o600)).unwrap();
        let key = SigningKey::load_or_make(&private).unwrap();
        let theirs = std::process::Command::new("openssl")
            .args(["pkey", "-pubout", "-in"])
            .arg(&private)
            .output()
            .unwrap();
        assert_eq!(key.verifying_key().to_pem().as_bytes(), theirs.stdout);
    }
}
