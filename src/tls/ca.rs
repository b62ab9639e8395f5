//! The deployment server's own certificate authority: it signs its server's
//! certificate and those of nodes (X.509, RFC 5280). Its key never leaves its
//! directory; a node's key never leaves the node.

use super::{TlsError, write_private};
use crate::model::Time;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How long the authority's own certificate is good: longer than the rack.
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How long the server's is; it is made anew in its last third.
const SERVER_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Certificates count from a day ago: a node whose clock lags is not refused.
const BACKDATED: Duration = Duration::from_secs(86_400);

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM.
    pub pem: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Not good after.
    pub expires: Time,
}

/// What a client's certificate says of its owner; the handshake has checked
/// that our authority signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Common name.
    pub name: String,
    /// Serial number, hexadecimal.
    pub serial: String,
}

fn wrong(e: impl std::fmt::Display) -> TlsError {
    TlsError::Certificate(e.to_string())
}

impl Authority {
    /// The authority in `dir` (`ca.pem`, `ca.key`), made if there is none.
    ///
    /// # Errors
    /// Files that cannot be read or written, or do not belong together.
    pub fn open(dir: &Path, name: &str) -> Result<Self, TlsError> {
        let io = |path: &Path, source| TlsError::Io { path: path.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(|e| io(dir, e))?;
        let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        match (cert.exists(), key.exists()) {
            (false, false) => make_ca(&cert, &key, name)?,
            (true, true) => {}
            (true, false) => return Err(missing(&key, &cert)),
            (false, true) => return Err(missing(&cert, &key)),
        }
        let pem = std::fs::read_to_string(&cert).map_err(|e| io(&cert, e))?;
        let text = std::fs::read_to_string(&key).map_err(|e| io(&key, e))?;
        let pair =
            KeyPair::from_pem(&text).map_err(|e| wrong(format!("{}: {e}", key.display())))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, pair)
            .map_err(|e| wrong(format!("{}: {e}", cert.display())))?;
        Ok(Self { issuer, pem })
    }

    /// The authority's certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Makes `server.pem` and `server.key` in `dir` for `names`, unless those
    /// that are there are for these names and good for a while.
    ///
    /// # Errors
    /// Names that cannot stand in a certificate, files.
    pub fn server(&self, dir: &Path, names: &[String]) -> Result<(), TlsError> {
        let (cert, key) = (dir.join("server.pem"), dir.join("server.key"));
        // Beside them, what they were made for: one line, the names.
        let note = dir.join("server.names");
        let line = format!("{}\n", names.join(" "));
        let there = std::fs::read_to_string(&cert).ok();
        let fresh = there
            .and_then(|pem| validity(&pem))
            .is_some_and(|(from, until)| !super::rotate::due(from, until, Time::now()));
        if fresh && key.exists() && std::fs::read_to_string(&note).is_ok_and(|n| n == line) {
            return Ok(());
        }
        let pair = KeyPair::generate().map_err(wrong)?;
        let mut p = CertificateParams::new(names.to_vec()).map_err(wrong)?;
        p.distinguished_name = named(names.first().map_or("deployment-server", String::as_str));
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        lifetime(&mut p, SystemTime::now(), SERVER_LIFE);
        let made = p.signed_by(&pair, &self.issuer).map_err(wrong)?;
        write_private(&key, pair.serialize_pem().as_bytes())?;
        write_private(&cert, format!("{}{}", made.pem(), self.pem).as_bytes())?;
        write_private(&note, line.as_bytes())
    }

    /// Signs a node's request (PKCS #10, RFC 2986). Of the request only the
    /// public key is taken: name and use are ours to say.
    ///
    /// # Errors
    /// A request that is none, or whose signature is wrong.
    pub fn sign_node(&self, csr: &str, node: &str, life: Duration) -> Result<Issued, TlsError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr)
            .map_err(|e| wrong(format!("the signing request cannot be read: {e}")))?;
        let serial = serial()?;
        let mut p = CertificateParams::default();
        p.distinguished_name = named(node);
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        p.serial_number = Some(SerialNumber::from_slice(&serial));
        let now = SystemTime::now();
        lifetime(&mut p, now, life);
        request.params = p;
        let made = request.signed_by(&self.issuer).map_err(wrong)?;
        let expires = Time::try_from(now + life).map_err(wrong)?;
        Ok(Issued { pem: made.pem(), serial: hex::encode(serial), expires })
    }
}

fn missing(what: &Path, there: &Path) -> TlsError {
    wrong(format!(
        "{} is not there, but {} is: put it back from a backup, or remove both to make new ones",
        what.display(),
        there.display()
    ))
}

fn named(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

/// 16 random bytes, positive as RFC 5280, 4.1.2.2 asks.
fn serial() -> Result<[u8; 16], TlsError> {
    let mut bytes = [0u8; 16];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes).map_err(|_| wrong("no random numbers"))?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(bytes)
}

fn lifetime(p: &mut CertificateParams, now: SystemTime, life: Duration) {
    p.not_before = (now - BACKDATED).into();
    p.not_after = (now + life).into();
}

fn make_ca(cert: &Path, key: &Path, name: &str) -> Result<(), TlsError> {
    let pair = KeyPair::generate().map_err(wrong)?;
    let mut p = CertificateParams::default();
    p.distinguished_name = named(name);
    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lifetime(&mut p, SystemTime::now(), CA_LIFE);
    let made = p.self_signed(&pair).map_err(wrong)?;
    write_private(key, pair.serialize_pem().as_bytes())?;
    // Everybody may have it: whoever is to trust us needs it.
    std::fs::write(cert, made.pem())
        .map_err(|source| TlsError::Io { path: cert.to_owned(), source })
}

/// A new key and the request for its certificate, both PEM: made where the
/// key is to stay.
///
/// # Errors
/// No randomness.
pub fn request(name: &str) -> Result<(String, String), TlsError> {
    let pair = KeyPair::generate().map_err(wrong)?;
    let mut p = CertificateParams::default();
    p.distinguished_name = named(name);
    let csr = p.serialize_request(&pair).and_then(|r| r.pem()).map_err(wrong)?;
    Ok((pair.serialize_pem(), csr))
}

/// Reads a client's certificate (DER).
pub fn peer(der: &[u8]) -> Option<Peer> {
    let (_, c) = x509_parser::parse_x509_certificate(der).ok()?;
    let name = c.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    Some(Peer { name, serial: hex::encode(c.raw_serial()) })
}

/// When a certificate (PEM) stops being good, and when it began.
pub fn validity(pem: &str) -> Option<(Time, Time)> {
    let (_, p) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let c = p.parse_x509().ok()?;
    let at = |t: x509_parser::time::ASN1Time| Time::from_second(t.timestamp()).ok();
    Some((at(c.validity().not_before)?, at(c.validity().not_after)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_what_the_authority_says_not_what_it_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::open(dir.path(), "Provision test").unwrap();
        let (_, csr) = request("admin").unwrap();
        let got = ca.sign_node(&csr, "node07", Duration::from_secs(3600)).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(got.pem.as_bytes()).unwrap();
        let who = peer(&pem.contents).unwrap();
        assert_eq!((who.name.as_str(), &who.serial), ("node07", &got.serial));
        let (from, to) = validity(&got.pem).unwrap();
        assert!(from < Time::now() && to > Time::now());
        assert!(ca.sign_node("junk", "n", Duration::from_secs(1)).is_err());
    }

    #[test]
    fn the_authority_stays_the_same_and_a_lost_key_is_not_replaced_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path(), "x").unwrap().pem().to_owned();
        assert_eq!(Authority::open(dir.path(), "x").unwrap().pem(), first);
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        let e = Authority::open(dir.path(), "x").err().unwrap().to_string();
        assert!(e.contains("ca.key") && e.contains("backup"), "{e}");
    }

    #[test]
    fn a_server_certificate_is_kept_until_its_names_change() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::open(dir.path(), "x").unwrap();
        let read = || std::fs::read(dir.path().join("server.pem")).unwrap();
        ca.server(dir.path(), &["a".into()]).unwrap();
        let one = read();
        ca.server(dir.path(), &["a".into()]).unwrap();
        assert_eq!(one, read());
        ca.server(dir.path(), &["a".into(), "10.0.0.1".into()]).unwrap();
        assert_ne!(one, read());
    }
}
