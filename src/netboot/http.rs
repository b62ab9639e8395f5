//! HTTP on the boot network: loaders, scripts, kernel, ramdisk, images.
//!
//! Files are sent in chunks of 256 KiB read on blocking threads, never held
//! whole. One range a request (RFC 9110 §14); an image's file has its digest
//! as a strong ETag, so `If-Range` makes a resumed transfer safe.

use super::Fetch;
use super::files::{BootFiles, Found};
use crate::image::Catalogue;
use crate::image::catalogue::version;
use crate::model::range::{Wanted, wanted};
use crate::model::{Mac, Name, NodeName};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::Stream;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Bytes read from the disk at a time.
const CHUNK: u64 = 256 * 1024;

/// What the routes need.
pub struct BootHttp {
    /// Names.
    pub files: BootFiles,
    /// Images.
    pub images: Catalogue,
    /// The agent's ramdisk.
    pub agent: Bytes,
}

/// The routes `/boot/…` and `/images/…`.
pub fn router(state: Arc<BootHttp>) -> Router {
    Router::new()
        .route("/boot/loader/{*file}", get(loader))
        .route("/boot/{mac}/{file}", get(own_file))
        .route("/grub/{*file}", get(grub_config))
        .route("/debian-installer/amd64/grub/{*file}", get(grub_config))
        .route("/images/{image}/{file}", get(image_file))
        .route("/images/{image}/{version}/{file}", get(image_version))
        .route("/images/{image}/baked/{profile}/{version}/{file}", get(baked_version))
        .with_state(state)
}

type Peer = ConnectInfo<SocketAddr>;

async fn loader(
    State(s): State<Arc<BootHttp>>,
    ConnectInfo(peer): Peer,
    method: Method,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    // shim puts a second slash before the name of its next stage.
    let file = file.trim_start_matches('/').to_owned();
    let node = s.files.node_by(peer.ip());
    let Some(path) = s.files.loader(&file, node.as_ref()) else { return not_found() };
    let mut count = None;
    // EDK2 asks for the head first, to learn the size.
    if let Some(n) = node.filter(|_| method == Method::GET) {
        s.files.boots().fetched(&n.name, Fetch::Loader(file.clone()));
        count = Some(Count::new(s.clone(), n.name, file, false));
    }
    send_file(path, &headers, None, count).await
}

/// GRUB's configuration, for the node that asks.
async fn grub_config(
    State(s): State<Arc<BootHttp>>,
    ConnectInfo(peer): Peer,
    uri: Uri,
) -> Response {
    let name = uri.path().trim_start_matches('/');
    let text = s.files.node_by(peer.ip()).and_then(|n| s.files.grub_config(name, &n));
    text.map_or_else(not_found, IntoResponse::into_response)
}

async fn own_file(
    State(s): State<Arc<BootHttp>>,
    ConnectInfo(peer): Peer,
    method: Method,
    Path((mac, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let node = mac.parse::<Mac>().ok().and_then(|m| s.files.node_at(m, peer.ip()));
    let Some(node) = node else { return not_found() };
    if file == "script.ipxe" {
        return match s.files.script(&node, &file) {
            Some(text) => ([(header::CONTENT_TYPE, "text/plain")], text).into_response(),
            None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
    }
    let last = node.installing.as_ref().and_then(|i| i.ramdisks().last().copied());
    let last = last == Some(file.as_str());
    let count = Count::new(s.clone(), node.name.clone(), file.clone(), last);
    let count = (method == Method::GET).then_some(count);
    match s.files.own_file(node, &file) {
        None => not_found(),
        Some(Found::Text(text)) => text.into_response(),
        Some(Found::File(path)) => send_file(path, &headers, None, count).await,
        Some(Found::Agent(_)) => {
            if let Some(c) = count {
                c.report(s.agent.len() as u64, true);
            }
            s.agent.clone().into_response()
        }
    }
}

/// A file of the image as it is now: for people, and for scripts of a site.
async fn image_file(
    State(s): State<Arc<BootHttp>>,
    Path((image, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    send_image(&s, Wanting { image, profile: None, version: None, file }, &headers).await
}

async fn image_version(
    State(s): State<Arc<BootHttp>>,
    Path((image, version, file)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    send_image(&s, Wanting { image, profile: None, version: Some(version), file }, &headers).await
}

async fn baked_version(
    State(s): State<Arc<BootHttp>>,
    Path((image, profile, version, file)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let profile = Some(profile);
    send_image(&s, Wanting { image, profile, version: Some(version), file }, &headers).await
}

/// One file of an image, or of a profile baked into it.
struct Wanting {
    image: String,
    profile: Option<String>,
    version: Option<String>,
    file: String,
}

async fn send_image(s: &Arc<BootHttp>, w: Wanting, headers: &HeaderMap) -> Response {
    let Some(image) = open_image(s, &w.image).await else { return not_found() };
    let of_profile = |p: &String| {
        let baked = image.baked.get(&p.parse::<Name>().ok()?)?;
        Some((&baked.dir, &baked.description.files))
    };
    let found = match &w.profile {
        None => Some((&image.dir, &image.description.files)),
        Some(p) => of_profile(p),
    };
    if w.version.is_some() && found.and_then(|(_, files)| version(files)) != w.version {
        let text = format!("image {} was rebuilt while this build ran: install again", image.name);
        return (StatusCode::CONFLICT, text).into_response();
    }
    let Some((dir, files)) = found else { return not_found() };
    let Some(entry) = files.get(&w.file) else { return not_found() };
    send_file(dir.join(&w.file), headers, Some(entry.sha256.to_hex()), None).await
}

async fn open_image(s: &Arc<BootHttp>, name: &str) -> Option<crate::image::Image> {
    let name: Name = name.parse().ok()?;
    let images = s.images.clone();
    tokio::task::spawn_blocking(move || images.get(&name).ok()).await.ok()?
}

/// With a body: shim, which asks for files that are not there, waits for ever
/// on EDK2's HTTP when the answer has none.
fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "not found\n").into_response()
}

/// A file, or the range that is asked for; 404 where there is none. `etag`
/// without quotes; made of size and time where it is not given.
pub async fn send_file(
    path: PathBuf,
    headers: &HeaderMap,
    etag: Option<String>,
    count: Option<Count>,
) -> Response {
    let opened = tokio::task::spawn_blocking(move || {
        let f = std::fs::File::open(&path)?;
        let m = f.metadata()?;
        Ok::<_, std::io::Error>((f, m))
    })
    .await;
    let Ok(Ok((mut file, meta))) = opened else { return not_found() };
    if !meta.is_file() {
        return not_found();
    }
    let size = meta.len();
    let etag = etag.unwrap_or_else(|| {
        let t = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        format!("{size:x}-{:x}", t.map_or(0, |d| d.as_nanos()))
    });
    let etag = format!("\"{etag}\"");
    let header_is = |h: header::HeaderName, v: &str| {
        headers.get(h).is_some_and(|x| x.as_bytes() == v.as_bytes())
    };
    if header_is(header::IF_NONE_MATCH, &etag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
    }
    let range = headers.get(header::RANGE).and_then(|r| r.to_str().ok());
    let same = !headers.contains_key(header::IF_RANGE) || header_is(header::IF_RANGE, &etag);
    let (status, from, to) = match wanted(range.filter(|_| same), size) {
        Wanted::Whole => (StatusCode::OK, 0, size),
        Wanted::Part(r) => (StatusCode::PARTIAL_CONTENT, r.start, r.end),
        Wanted::Impossible => {
            let total = format!("bytes */{size}");
            return (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, total)])
                .into_response();
        }
    };
    if from > 0 && file.seek(SeekFrom::Start(from)).is_err() {
        return not_found();
    }
    let body = Body::from_stream(FileChunks::new(file, to - from, count));
    let mut r = (status, body).into_response();
    let h = r.headers_mut();
    h.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    h.insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
    h.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(v) = HeaderValue::from_str(&etag) {
        h.insert(header::ETAG, v);
    }
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(v) = HeaderValue::from_str(&format!("bytes {from}-{}/{size}", to - 1))
    {
        h.insert(header::CONTENT_RANGE, v);
    }
    r
}

/// Says what was sent, once, when the transfer ends either way.
pub struct Count {
    server: Arc<BootHttp>,
    node: NodeName,
    file: String,
    began: Instant,
    last: bool,
}

impl Count {
    fn new(server: Arc<BootHttp>, node: NodeName, file: String, last: bool) -> Self {
        Self { server, node, file, began: Instant::now(), last }
    }

    fn report(&self, bytes: u64, whole: bool) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let what = Fetch::File { name: self.file.clone(), bytes, millis, whole, last: self.last };
        self.server.files.boots().fetched(&self.node, what);
    }
}

type Reading = tokio::task::JoinHandle<std::io::Result<(std::fs::File, Bytes)>>;

/// A file as a stream of chunks, one read ahead of the socket.
struct FileChunks {
    reading: Option<Reading>,
    left: u64,
    sent: u64,
    count: Option<Count>,
}

impl FileChunks {
    fn new(file: std::fs::File, len: u64, count: Option<Count>) -> Self {
        Self { reading: Some(read_on(file, len)), left: len, sent: 0, count }
    }
}

fn read_on(mut file: std::fs::File, left: u64) -> Reading {
    tokio::task::spawn_blocking(move || {
        let mut buf = vec![0u8; usize::try_from(left.min(CHUNK)).unwrap_or(0)];
        let mut have = 0;
        while have < buf.len() {
            match file.read(&mut buf[have..])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => have += n,
            }
        }
        Ok((file, Bytes::from(buf)))
    })
}

impl Stream for FileChunks {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let Some(reading) = self.reading.as_mut() else { return Poll::Ready(None) };
        match Pin::new(reading).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(Ok((file, bytes)))) => {
                self.left -= bytes.len() as u64;
                self.sent += bytes.len() as u64;
                self.reading = (self.left > 0).then(|| read_on(file, self.left));
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Ok(Err(e))) => {
                self.reading = None;
                Poll::Ready(Some(Err(e)))
            }
            Poll::Ready(Err(e)) => {
                self.reading = None;
                Poll::Ready(Some(Err(std::io::Error::other(e))))
            }
        }
    }
}

impl Drop for FileChunks {
    fn drop(&mut self) {
        if let Some(c) = &self.count {
            c.report(self.sent, self.left == 0);
        }
    }
}
