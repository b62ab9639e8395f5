//! The certificate a server shows, held so that it can be exchanged while the
//! server goes on: whoever connects next gets the new one, and who is
//! connected notices nothing. A pair that cannot be used never gets here.

use super::{TlsError, load, provider};
use crate::model::Time;
use rustls::pki_types::CertificateDer;
use rustls::server::{
    ClientHello, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// A certificate or key file is never larger, in bytes.
const LARGEST: u64 = 1 << 20;
/// TLS sessions that can be taken up again.
const SESSIONS: usize = 256;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Good from.
    pub from: Time,
    /// Not good after.
    pub until: Time,
}

impl Facts {
    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, c) = x509_parser::parse_x509_certificate(der).ok()?;
        let at = |t: x509_parser::time::ASN1Time| Time::from_second(t.timestamp()).ok();
        Some(Self {
            serial: hex::encode(c.raw_serial()),
            from: at(c.validity().not_before)?,
            until: at(c.validity().not_after)?,
        })
    }
}

/// What tells a file from the one that was there before, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// The two files, as they are found. One that is not there has no stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// Of the certificate.
    pub certificate: Option<Stamp>,
    /// Of the key.
    pub key: Option<Stamp>,
}

fn stamp(path: &Path) -> Option<Stamp> {
    let m = path.metadata().ok()?;
    Some(Stamp { inode: m.ino(), bytes: m.len(), changed: (m.ctime(), m.ctime_nsec()) })
}

struct Used {
    pair: Arc<CertifiedKey>,
    facts: Facts,
    /// As the files were before they were read.
    look: Look,
    /// A session of an earlier certificate is not taken up: it would show none.
    sessions: Arc<ServerSessionMemoryCache>,
}

/// See the module.
pub struct Held {
    certificate: PathBuf,
    key: PathBuf,
    used: RwLock<Used>,
}

/// Never the key.
impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn read(certificate: &Path, key: &Path) -> Result<(Arc<CertifiedKey>, Facts), TlsError> {
    let wrong = |path: &Path, why: &dyn fmt::Display| {
        TlsError::Certificate(format!("{}: {why}", path.display()))
    };
    for path in [certificate, key] {
        let m = path.metadata().map_err(|source| TlsError::Io { path: path.to_owned(), source })?;
        if !m.is_file() || m.len() > LARGEST {
            return Err(wrong(path, &"this is no file of PEM of at most 1 MiB"));
        }
    }
    let (chain, secret) = load(certificate, key)?;
    let Some(first) = chain.first() else {
        return Err(wrong(certificate, &"there is no certificate (PEM) in it"));
    };
    let facts = Facts::of(first)
        .ok_or_else(|| wrong(certificate, &"its first certificate cannot be read"))?;
    let pair = CertifiedKey::from_der(chain, secret, &provider()).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => wrong(
            key,
            &format!(
                "this is not the key of the certificate in {}: put certificate and key of one \
                 pair there",
                certificate.display()
            ),
        ),
        e => wrong(certificate, &format!("it cannot be used with {}: {e}", key.display())),
    })?;
    Ok((Arc::new(pair), facts))
}

impl Held {
    /// The pair in these files.
    ///
    /// # Errors
    /// Files that cannot be read or do not belong together.
    pub fn open(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let look = looked(certificate, key);
        let (pair, facts) = read(certificate, key)?;
        let sessions = ServerSessionMemoryCache::new(SESSIONS);
        let used = RwLock::new(Used { pair, facts, look, sessions });
        Ok(Arc::new(Self { certificate: certificate.to_owned(), key: key.to_owned(), used }))
    }

    /// Reads the files again. A pair that can be used is used from now on;
    /// anything else changes nothing.
    ///
    /// # Errors
    /// See [`Held::open`]; and a certificate that has ended, while the one in
    /// use has not.
    pub fn read_again(&self, now: Time) -> Result<Facts, TlsError> {
        let look = self.look();
        let (pair, facts) = read(&self.certificate, &self.key)?;
        let old = self.facts();
        if facts.until <= now && old.until > now {
            return Err(TlsError::Certificate(format!(
                "{}: this certificate has ended ({}): put one there that is still good",
                self.certificate.display(),
                facts.until
            )));
        }
        let sessions = ServerSessionMemoryCache::new(SESSIONS);
        let new = Used { pair, facts: facts.clone(), look, sessions };
        *self.used.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(facts)
    }

    /// The files as they are now.
    pub fn look(&self) -> Look {
        looked(&self.certificate, &self.key)
    }

    /// The files as they were when what is used was read.
    pub fn read_at(&self) -> Look {
        self.with(|u| u.look)
    }

    /// The certificate's file.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// What the certificate in use says of itself.
    pub fn facts(&self) -> Facts {
        self.with(|u| u.facts.clone())
    }

    /// Seconds that the certificate in use is still good; negative when it has
    /// ended.
    pub fn seconds_left(&self, now: Time) -> f64 {
        self.with(|u| u.facts.until).duration_since(now).as_secs_f64()
    }

    fn with<T>(&self, take: impl FnOnce(&Used) -> T) -> T {
        take(&self.used.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn sessions(&self) -> Arc<ServerSessionMemoryCache> {
        self.with(|u| u.sessions.clone())
    }
}

fn looked(certificate: &Path, key: &Path) -> Look {
    Look { certificate: stamp(certificate), key: stamp(key) }
}

impl ResolvesServerCert for Held {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.with(|u| u.pair.clone()))
    }
}

impl StoresServerSessions for Held {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.sessions().put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.sessions().get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.sessions().take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}
