//! Certificates. The server makes one for itself at its first start; the
//! command line pins its digest at first use or takes a CA file.
//!
//! `ca` is the deployment server's own authority, for itself and for nodes.
//!
//! rustls with ring, no other provider. Used by `app`, `client` and `cli`.

pub mod ca;
pub mod pin;
pub mod signing;

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

/// The server's certificate in `dir`, made for `names` if there is none.
pub fn server_config(dir: &Path, names: &[String]) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let io = |path: &Path, source| TlsError::Io { path: path.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(|e| io(dir, e))?;
    let (cert, key) = (dir.join("server.pem"), dir.join("server.key"));
    if !cert.exists() || !key.exists() {
        let made = rcgen::generate_simple_self_signed(names.to_vec())
            .map_err(|e| TlsError::Certificate(e.to_string()))?;
        write_private(&key, made.signing_key.serialize_pem().as_bytes())?;
        std::fs::write(&cert, made.cert.pem()).map_err(|e| io(&cert, e))?;
    }
    let (chain, key) = load(&cert, &key)?;
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| TlsError::Certificate(e.to_string()))?;
    Ok(Arc::new(config))
}

/// Whether a certificate and key can be read.
///
/// # Errors
/// Which cannot, and why.
pub fn pair(cert: &Path, key: &Path) -> Result<(), TlsError> {
    load(cert, key).map(drop)
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

/// A server that asks clients for a certificate of `ca` and takes those, too,
/// that have none: who may do what is decided later.
///
/// # Errors
/// Files that cannot be read or do not belong together.
pub fn mutual_config(
    cert: &Path,
    key: &Path,
    ca: &str,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let wrong = |e: &dyn std::fmt::Display| TlsError::Certificate(e.to_string());
    let (chain, key) = load(cert, key)?;
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
        .with_single_cert(chain, key)
        .map_err(|e| wrong(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
