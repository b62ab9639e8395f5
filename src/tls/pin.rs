//! Trust on first use: a server's certificate is remembered by its SHA-256
//! in `known_servers` (one `host:port sha256:…` a line); another certificate
//! under the same name later is refused.

use super::{TlsError, provider};
use crate::model::Digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A client configuration that trusts only the certificates in `ca`.
pub fn with_ca(ca: &Path) -> Result<rustls::ClientConfig, TlsError> {
    let bad = |e: &dyn std::fmt::Display| TlsError::Certificate(format!("{}: {e}", ca.display()));
    let mut roots = rustls::RootCertStore::empty();
    for c in CertificateDer::pem_file_iter(ca).map_err(|e| bad(&e))? {
        roots.add(c.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
    }
    let b = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?;
    Ok(b.with_root_certificates(roots).with_no_client_auth())
}

/// A client configuration that pins `server` (`host:port`) in `file`.
pub fn on_first_use(server: String, file: PathBuf) -> Result<rustls::ClientConfig, TlsError> {
    let verifier = Pin { server, file, lock: Mutex::new(()), provider: provider() };
    let b = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Certificate(e.to_string()))?;
    Ok(b.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

#[derive(Debug)]
struct Pin {
    server: String,
    file: PathBuf,
    lock: Mutex<()>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl Pin {
    fn check(&self, digest: Digest) -> Result<(), Error> {
        let _one_at_a_time = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let known = std::fs::read_to_string(&self.file).unwrap_or_default();
        let line = known.lines().find_map(|l| l.strip_prefix(&format!("{} ", self.server)));
        match line {
            Some(d) if d.trim() == digest.to_string() => Ok(()),
            Some(_) => Err(Error::General(format!(
                "the certificate of {} is not the one seen before. If the server was set up \
                 anew, remove its line from {} and try again; otherwise somebody stands between",
                self.server,
                self.file.display()
            ))),
            None => {
                let text = format!("{known}{} {digest}\n", self.server);
                if let Some(dir) = self.file.parent() {
                    let _ = std::fs::create_dir_all(dir);
                }
                super::write_private(&self.file, text.as_bytes())
                    .map_err(|e| Error::General(e.to_string()))?;
                eprintln!("pinned the certificate of {}: {digest}", self.server);
                Ok(())
            }
        }
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if end_entity.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        self.check(Digest::of(end_entity)).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algs = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algs)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algs = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algs)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
