//! Our own key for archives: made once, kept in a file of its own, and the
//! signatures with it.

use super::ArchiveError;
use super::openpgp::{self, BINARY, CERTIFICATION, TEXT};
use crate::tls;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::io;
use std::path::Path;

/// Whose key it says it is.
const USER_ID: &str = "Provision package archive";
/// The key's date: 2020-01-01. A node whose clock is behind would refuse a key
/// that was made after its own today.
const MADE: u32 = 1_577_836_800;

/// See the module.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    body: Vec<u8>,
    print: [u8; 20],
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.fingerprint())
    }
}

impl SigningKey {
    /// The key in `path`, made if there is none. The file is 0600.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds something else.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let bad = |reason: &str| ArchiveError::Key { path: path.to_owned(), reason: reason.into() };
        let bytes = match std::fs::read(path) {
            Ok(b) => b,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                    .map_err(|_| bad("no randomness for a new key"))?;
                let write = |e| ArchiveError::io(path)(io::Error::other(e));
                tls::write_private(path, made.as_ref()).map_err(write)?;
                made.as_ref().to_vec()
            }
            Err(e) => return Err(ArchiveError::io(path)(e)),
        };
        let pair = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| bad("holds no Ed25519 key"))?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        let body = openpgp::key_body(&public, MADE);
        Ok(Self { print: openpgp::fingerprint(&body), pair, body })
    }

    fn sign(&self, digest: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(digest).as_ref());
        out
    }

    /// 40 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        hex::encode_upper(self.print)
    }

    /// The public key with its user id, as a keyring for gpgv and apt.
    pub fn public(&self) -> Vec<u8> {
        let id = USER_ID.as_bytes();
        let mut signed = openpgp::hashed_key(&self.body);
        signed.push(0xb4);
        signed.extend((id.len() as u32).to_be_bytes());
        signed.extend(id);
        let own = openpgp::signature(CERTIFICATION, &signed, MADE, &self.print, |d| self.sign(d));
        [openpgp::packet(6, &self.body), openpgp::packet(13, id), own].concat()
    }

    /// A detached signature, armoured: `Release.gpg`. `at` in seconds since
    /// 1970.
    pub fn detached(&self, content: &[u8], at: u64) -> String {
        let at = u32::try_from(at).unwrap_or(u32::MAX).max(MADE);
        let s = openpgp::signature(BINARY, content, at, &self.print, |d| self.sign(d));
        openpgp::armor("SIGNATURE", &s)
    }

    /// The text with its signature below: `InRelease`. No line of it may begin
    /// with a dash; those of a `Release` do not.
    pub fn clear(&self, text: &str, at: u64) -> String {
        let at = u32::try_from(at).unwrap_or(u32::MAX).max(MADE);
        let signed = openpgp::canonical(text);
        let s = openpgp::signature(TEXT, signed.as_bytes(), at, &self.print, |d| self.sign(d));
        let armored = openpgp::armor("SIGNATURE", &s);
        let text = text.trim_end();
        format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{text}\n{armored}")
    }
}

/// Whether `signature` (armoured) is of `key`, a keyring as
/// [`SigningKey::public`] makes it, over `content`.
///
/// # Errors
/// It is not, and why.
pub fn verify(what: &str, content: &[u8], signature: &str, key: &[u8]) -> Result<(), ArchiveError> {
    let bad =
        |reason: &str| ArchiveError::Signature { what: what.to_owned(), reason: reason.to_owned() };
    let public = openpgp::find(key, 6).and_then(openpgp::public_of);
    let public = public.ok_or_else(|| bad("the key is none that this program makes"))?;
    let bytes = openpgp::dearmor(signature).ok_or_else(|| bad("its signature cannot be read"))?;
    let body = openpgp::find(&bytes, 2).ok_or_else(|| bad("its signature cannot be read"))?;
    match openpgp::verify(body, BINARY, content, &public) {
        true => Ok(()),
        false => Err(bad("the signature is not of this content by this key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    fn gpgv(dir: &Path, files: &[&str]) -> (bool, String) {
        let o = Command::new("gpgv")
            .current_dir(dir)
            .env("GNUPGHOME", dir)
            .args(["--status-fd", "1", "--keyring", "./key.gpg"])
            .args(files)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).into_owned();
        (o.status.success(), said)
    }

    #[test]
    fn gpgv_believes_our_signatures_and_no_changed_text() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let key = SigningKey::open(&d.join("archive.key")).unwrap();
        let text = "Origin: us\nSuite: x\nSHA256:\n abc 1 main/Packages \n";
        let write = |n: &str, b: &[u8]| std::fs::write(d.join(n), b).unwrap();
        write("key.gpg", &key.public());
        write("Release", text.as_bytes());
        write("Release.gpg", key.detached(text.as_bytes(), 1_790_000_000).as_bytes());
        write("InRelease", key.clear(text, 1_790_000_000).as_bytes());
        for files in [&["Release.gpg", "Release"][..], &["InRelease"]] {
            let (good, said) = gpgv(d, files);
            assert!(good && said.contains(&format!("VALIDSIG {}", key.fingerprint())), "{said}");
        }
        write("Release", text.replace("us", "them").as_bytes());
        write("InRelease", key.clear(text, 0).replace("us", "them").as_bytes());
        assert!(!gpgv(d, &["Release.gpg", "Release"]).0);
        assert!(!gpgv(d, &["InRelease"]).0);
    }

    #[test]
    fn the_key_is_made_once_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("archive.key");
        let one = SigningKey::open(&path).unwrap();
        assert_eq!(one.public(), SigningKey::open(&path).unwrap().public());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "nonsense").unwrap();
        assert!(SigningKey::open(&path).unwrap_err().to_string().contains("no Ed25519 key"));
    }

    #[test]
    fn a_signature_is_believed_only_with_its_key_and_content() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::open(&dir.path().join("a")).unwrap();
        let other = SigningKey::open(&dir.path().join("b")).unwrap();
        let signature = key.detached(b"content", 1_790_000_000);
        verify("it", b"content", &signature, &key.public()).unwrap();
        assert!(verify("it", b"contents", &signature, &key.public()).is_err());
        assert!(verify("it", b"content", &signature, &other.public()).is_err());
        for cut in 0..signature.len() {
            assert!(verify("it", b"content", &signature[..cut], &[]).is_err());
        }
    }
}
