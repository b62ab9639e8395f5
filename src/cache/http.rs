//! `/apt/ORIGIN/PATH`: an archive as apt, mmdebstrap and the installers want
//! it. GET and HEAD, one range a request (RFC 9110 §14), `If-Modified-Since`.

use super::disk::Meta;
use super::flight::{End, Head, State as Stand};
use super::path::{Key, Kind};
use super::{Cache, Counts};
use crate::model::range::{Wanted, wanted};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use tokio::sync::watch;

/// Bytes read at a time.
const PIECE: u64 = 256 << 10;
/// RFC 9111 §5.5 has done away with it; apt and people still read it.
const STALE: &str = "111 - \"upstream did not answer; this is what it was\"";

/// The routes.
pub fn router(cache: Arc<Cache>) -> Router {
    Router::new().route("/apt/{origin}/{*path}", get(file)).with_state(cache)
}

async fn file(
    State(cache): State<Arc<Cache>>,
    Path((origin, path)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    answer(&cache, &origin, &path, &method, &headers).await
}

/// The answer for a file of an archive, by whatever address it was asked for.
pub async fn answer(
    cache: &Arc<Cache>,
    origin: &str,
    path: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    let refused = |status: StatusCode, why: String| {
        Counts::add(&cache.counts.refused, 1);
        tracing::info!(origin, path, why, "refused by the package cache");
        (status, format!("{why}\n")).into_response()
    };
    let Some(from) = cache.origin(origin) else {
        let known: Vec<&str> = cache.settings.origins.iter().map(|o| o.name.as_str()).collect();
        let m = format!("{origin:?} is not an archive of this cache: {}", known.join(", "));
        return refused(StatusCode::FORBIDDEN, m);
    };
    let key = match Key::new(origin, path) {
        Ok(k) => k,
        Err(e) => return refused(StatusCode::BAD_REQUEST, e.to_string()),
    };
    let url = format!("{}/{}", from.url, escaped(&key.path));
    let answer = Answer { cache, key: &key, headers, head: *method == Method::HEAD };
    if key.kind() != Kind::Index
        && let Some((file, size)) = cache.disk.get(&key)
    {
        Counts::add(&cache.counts.hits, 1);
        return answer.whole(file, size, Meta::default());
    }
    if let Some((file, size, meta)) = cache.as_listed(&key) {
        Counts::add(&cache.counts.hits, 1);
        return answer.whole(file, size, meta);
    }
    let mut watch = cache.join(&key, url.clone()).watch();
    let begun = watch.wait_for(|s| s.head.is_some() || s.end.is_some()).await;
    let stand = begun.map(|s| s.clone()).ok();
    let Some(stand) = stand else { return failed(500, "the fetch was given up") };
    if let Some(head) = stand.head {
        return answer.arriving(head, watch);
    }
    let on_disk = || Some((cache.disk.get(&key)?, cache.disk.meta(&key)));
    match stand.end {
        Some(End::Unchanged) => match on_disk() {
            Some(((file, size), meta)) => {
                Counts::add(&cache.counts.hits, 1);
                answer.whole(file, size, meta)
            }
            None => failed(503, "it was removed to make room just now; ask again"),
        },
        Some(End::Failed(status, why)) if status >= 500 => match on_disk() {
            Some(((file, size), meta)) => {
                Counts::add(&cache.counts.stale, 1);
                cache.given_out(&key, true);
                tracing::warn!(origin, path, why, "an old index is served: upstream is away");
                let mut r = answer.whole(file, size, meta);
                r.headers_mut().insert(header::WARNING, HeaderValue::from_static(STALE));
                r
            }
            None => failed(status, &why),
        },
        Some(End::Failed(status, why)) => failed(status, &why),
        Some(End::NoRoom) => pass_on(cache, &url).await,
        Some(End::Whole) | None => failed(500, "the fetch ended without a file"),
    }
}

fn failed(status: u16, why: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, format!("{why}\n")).into_response()
}

/// Percent-encodes what may not stand in a path (RFC 3986 §3.3).
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '%' | '[' | ']' => out.push_str(&format!("%{:02X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Nothing can be kept: a client gets its file all the same.
async fn pass_on(cache: &Arc<Cache>, url: &str) -> Response {
    let r = match cache.client.get(url).send().await {
        Ok(r) => r,
        Err(e) => return failed(502, &e.without_url().to_string()),
    };
    let status = r.status();
    let mut out = HeaderMap::new();
    for h in [header::CONTENT_LENGTH, header::LAST_MODIFIED, header::ETAG] {
        if let Some(v) = r.headers().get(&h) {
            out.insert(h, v.clone());
        }
    }
    let counts = cache.clone();
    let body = r.bytes_stream().inspect(move |b| {
        if let Ok(b) = b {
            Counts::add(&counts.counts.bytes_in, b.len() as u64);
            Counts::add(&counts.counts.bytes_out, b.len() as u64);
        }
    });
    (status, out, Body::from_stream(body)).into_response()
}

/// What is needed to answer one request.
struct Answer<'a> {
    cache: &'a Arc<Cache>,
    key: &'a Key,
    headers: &'a HeaderMap,
    head: bool,
}

impl Answer<'_> {
    /// A file that is complete.
    fn whole(&self, file: File, size: u64, meta: Meta) -> Response {
        let stand = Stand {
            head: Some(Head { file: Arc::new(file), total: Some(size), meta: meta.clone() }),
            len: size,
            end: Some(End::Whole),
        };
        let (_, watch) = watch::channel(stand.clone());
        match stand.head {
            Some(head) => self.arriving(head, watch),
            None => failed(500, "no file"),
        }
    }

    fn is(&self, name: header::HeaderName, value: Option<&String>) -> bool {
        let asked = self.headers.get(name).map(HeaderValue::as_bytes);
        asked.is_some() && asked == value.map(|v| v.as_bytes())
    }

    /// A file of which the rest may still come.
    fn arriving(&self, head: Head, watch: watch::Receiver<Stand>) -> Response {
        let meta = &head.meta;
        let mut out = HeaderMap::new();
        let mut put = |h: header::HeaderName, v: Option<&String>| {
            if let Some(v) = v.and_then(|v| HeaderValue::from_str(v).ok()) {
                out.insert(h, v);
            }
        };
        put(header::ETAG, meta.etag.as_ref());
        put(header::LAST_MODIFIED, meta.modified.as_ref());
        if self.is(header::IF_NONE_MATCH, meta.etag.as_ref())
            || (!self.headers.contains_key(header::IF_NONE_MATCH)
                && self.is(header::IF_MODIFIED_SINCE, meta.modified.as_ref()))
        {
            return (StatusCode::NOT_MODIFIED, out).into_response();
        }
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        // A part of what never changes fits to any other part of it.
        let same = self.key.kind() != Kind::Index
            || !self.headers.contains_key(header::IF_RANGE)
            || self.is(header::IF_RANGE, meta.etag.as_ref())
            || self.is(header::IF_RANGE, meta.modified.as_ref());
        let range = self.headers.get(header::RANGE).and_then(|r| r.to_str().ok());
        let asked = match (range.filter(|_| same), head.total) {
            (Some(r), Some(total)) => wanted(Some(r), total),
            _ => Wanted::Whole,
        };
        let (status, from, to) = match (asked, head.total) {
            (Wanted::Whole, total) => (StatusCode::OK, 0, total),
            (Wanted::Part(r), Some(total)) => {
                let v = format!("bytes {}-{}/{total}", r.start, r.end - 1);
                put_text(&mut out, header::CONTENT_RANGE, &v);
                (StatusCode::PARTIAL_CONTENT, r.start, Some(r.end))
            }
            (_, total) => {
                let v = format!("bytes */{}", total.unwrap_or(0));
                put_text(&mut out, header::CONTENT_RANGE, &v);
                return (StatusCode::RANGE_NOT_SATISFIABLE, out).into_response();
            }
        };
        if let Some(to) = to {
            out.insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
        }
        if self.head {
            return (status, out).into_response();
        }
        let body = pieces(self.cache.clone(), head.file, watch, from, to);
        (status, out, Body::from_stream(body)).into_response()
    }
}

fn put_text(out: &mut HeaderMap, name: header::HeaderName, text: &str) {
    if let Ok(v) = HeaderValue::from_str(text) {
        out.insert(name, v);
    }
}

/// The bytes from `from` to `to` (or the end), as they come.
fn pieces(
    cache: Arc<Cache>,
    file: Arc<File>,
    watch: watch::Receiver<Stand>,
    from: u64,
    to: Option<u64>,
) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::try_unfold((watch, from), move |(mut watch, at)| {
        let (cache, file) = (cache.clone(), file.clone());
        async move {
            if to == Some(at) {
                return Ok(None);
            }
            let stand = watch.wait_for(|s| s.len > at || s.end.is_some()).await;
            let stand = stand.map(|s| (s.len, s.end.clone())).ok();
            let (len, end) = stand.ok_or_else(|| io::Error::other("the fetch was given up"))?;
            if len <= at {
                return match end {
                    Some(End::Whole) if to.is_none() => Ok(None),
                    _ => Err(io::Error::other("upstream broke off")),
                };
            }
            let n = (len.min(to.unwrap_or(len)) - at).min(PIECE);
            let read = tokio::task::spawn_blocking(move || {
                let mut buf = vec![0; usize::try_from(n).unwrap_or(0)];
                file.read_exact_at(&mut buf, at).map(|()| Bytes::from(buf))
            });
            let bytes = read.await.map_err(io::Error::other)??;
            Counts::add(&cache.counts.bytes_out, n);
            Ok(Some((bytes, (watch, at + n))))
        }
    })
}
