//! The HTTP sockets: API over TLS, API for root by a local socket, boot
//! network. Each is bound before anything is served.

use crate::api::LocalPeer;
use axum::Router;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A socket that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {what}: {why}")]
pub struct ListenError {
    what: String,
    why: String,
}

fn failed(what: impl ToString, why: impl ToString) -> ListenError {
    ListenError { what: what.to_string(), why: why.to_string() }
}

/// Binds a TCP port for tokio.
pub fn tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let l = TcpListener::bind(address).map_err(|e| failed(address, e))?;
    l.set_nonblocking(true).map_err(|e| failed(address, e))?;
    Ok(l)
}

/// Binds the local socket with mode 0600. A socket that still answers belongs
/// to another server; one that does not is what a killed server left.
pub fn local(path: &Path) -> Result<tokio::net::UnixListener, ListenError> {
    let what = path.display();
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|e| failed(dir.display(), e))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(failed(what, "another server answers there"));
    }
    let _ = std::fs::remove_file(path);
    let l = tokio::net::UnixListener::bind(path).map_err(|e| failed(&what, e))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| failed(what, e))?;
    Ok(l)
}

/// Serves the API over TLS until `stop`, then gives open requests 5 s.
pub async fn serve_tls(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let handle = ends_with(stop, Duration::from_secs(5));
    let tls = axum_server::tls_rustls::RustlsConfig::from_config(tls);
    axum_server::from_tcp_rustls(listener, tls)?
        .handle(handle)
        .serve(router.into_make_service_with_connect_info::<SocketAddr>())
        .await
}

/// Serves over TLS that knows the client's certificate, until `stop`; then
/// gives open requests 5 s.
pub async fn serve_mutual(
    listener: TcpListener,
    acceptor: super::peer::PeerAcceptor,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum_server::from_tcp(listener)?
        .acceptor(acceptor)
        .handle(ends_with(stop, Duration::from_secs(5)))
        .serve(router.into_make_service_with_connect_info::<SocketAddr>())
        .await
}

/// A handle that stops its server at `stop`, open requests `grace` later.
fn ends_with(stop: CancellationToken, grace: Duration) -> axum_server::Handle<SocketAddr> {
    let handle = axum_server::Handle::new();
    let graceful = handle.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        graceful.graceful_shutdown(Some(grace));
    });
    handle
}

/// Serves the boot network's HTTP until `stop`.
pub async fn serve_boot(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let handle = ends_with(stop, Duration::from_secs(2));
    let mut server = axum_server::from_tcp(listener)?.handle(handle);
    // GRUB 2.12 knows the length of a file by `Content-Length`, in these
    // letters only; without it every file is empty.
    server.http_builder().http1().title_case_headers(true);
    server.serve(router.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// Serves the API on the local socket until `stop`, and removes it.
pub async fn serve_local(
    listener: tokio::net::UnixListener,
    path: PathBuf,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = router.layer(axum::Extension(LocalPeer));
    // Streams (events followed) do not end by themselves: do not wait for
    // them.
    tokio::select! {
        r = axum::serve(listener, router).into_future() => r?,
        () = stop.cancelled() => {}
    }
    let _ = std::fs::remove_file(path);
    Ok(())
}
