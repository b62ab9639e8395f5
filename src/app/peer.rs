//! TLS that tells the routes who the client is: after the handshake its
//! certificate, which our authority signed, is put beside each request.

use crate::api::deployment::ClientCertificate;
use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;
use tower::Layer;

/// See the module.
#[derive(Clone)]
pub struct PeerAcceptor(RustlsAcceptor);

impl PeerAcceptor {
    /// With this configuration.
    pub fn new(tls: Arc<rustls::ServerConfig>) -> Self {
        Self(RustlsAcceptor::new(RustlsConfig::from_config(tls)))
    }
}

type Answer<I, S> = io::Result<(TlsStream<I>, AddExtension<S, ClientCertificate>)>;

impl<I, S> Accept<I, S> for PeerAcceptor
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Send + 'static,
{
    type Stream = TlsStream<I>;
    type Service = AddExtension<S, ClientCertificate>;
    type Future = Pin<Box<dyn Future<Output = Answer<I, S>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let accepted = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
            let peer = shown.and_then(|c| crate::tls::ca::peer(c));
            Ok((stream, Extension(ClientCertificate(peer)).layer(service)))
        })
    }
}
