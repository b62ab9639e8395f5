//! Certificates. The server makes one for itself at its first start; the
//! command line pins its digest at first use or takes a CA file.
//!
//! `ca` is the deployment server's own authority, for itself and for nodes.
//! `held` is the certificate that a server shows, and `rotate` sees to it that
//! another one takes its place while the server goes on.
//!
//! rustls with ring, no other provider. Used by `app`, `client` and `cli`.

pub mod ca;
pub mod held;
pub mod pin;
pub mod rotate;
pub mod signing;

pub use held::Held;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or key that cannot be made or used.
    #[error("certificate: {0}")]
    Certificate(String),
}

/// The provider all parts use, so that no global default is needed.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes ring the process's provider, for libraries that ask for one.
pub fn install_provider() {
    // An error means that one is installed already: it can only be this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Writes a file that only its owner may read; an existing one is replaced
/// in one step.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    let io = |source| TlsError::Io { path: path.to_owned(), source };
    let tmp = path.with_extension("new");
    let _ = std::fs::remove_file(&tmp);
    let mut f = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&tmp)
        .map_err(io)?;
    f.write_all(bytes).and_then(|()| f.sync_all()).map_err(io)?;
    std::fs::rename(&tmp, path).map_err(io)
}

/// The files of the server's own certificate and key in `dir`, made for
/// `names` if they are not there. It signs itself and does not end: clients
/// remember it.
///
/// # Errors
/// Files that cannot be written, names that cannot stand in a certificate.
pub fn own_pair(dir: &Path, names: &[String]) -> Result<(PathBuf, PathBuf), TlsError> {
    let io = |path: &Path, source| TlsError::Io { path: path.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(|e| io(dir, e))?;
    let (cert, key) = (dir.join("server.pem"), dir.join("server.key"));
    if !cert.exists() || !key.exists() {
        let made = rcgen::generate_simple_self_signed(names.to_vec())
            .map_err(|e| TlsError::Certificate(e.to_string()))?;
        write_private(&key, made.signing_key.serialize_pem().as_bytes())?;
        std::fs::write(&cert, made.cert.pem()).map_err(|e| io(&cert, e))?;
    }
    Ok((cert, key))
}

/// A server that shows what is in `held`, whatever that is at the time.
///
/// # Errors
/// None that is known.
pub fn server_config(held: Arc<Held>) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Certificate(e.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(held.clone());
    config.session_storage = held;
    Ok(Arc::new(config))
}

/// The chain and key of a server.
fn load(
    cert: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let unreadable = |p: &Path, e: rustls::pki_types::pem::Error| {
        TlsError::Certificate(format!("{}: {e}", p.display()))
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(|i| i.collect::<Result<Vec<_>, _>>())
        .map_err(|e| unreadable(cert, e))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, e))?;
    Ok((chain, key))
}

/// The same, which asks clients for a certificate of `ca` and takes those, too,
/// that have none: who may do what is decided later.
///
/// # Errors
/// An authority that cannot be read.
pub fn mutual_config(held: Arc<Held>, ca: &str) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let wrong = |e: &dyn std::fmt::Display| TlsError::Certificate(e.to_string());
    let mut roots = rustls::RootCertStore::empty();
    for c in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(c.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
    }
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| wrong(&e))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&e))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(held.clone());
    config.session_storage = held;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
