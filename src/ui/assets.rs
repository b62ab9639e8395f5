//! The script, the stylesheet and the icon: in the program, named with their
//! digest, so that a browser keeps them until there are others.

use crate::model::Digest;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use std::sync::LazyLock;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/app.js");
const ICON: &str = include_str!("assets/icon.svg");

static STYLE_DIGEST: LazyLock<String> = LazyLock::new(|| Digest::of(STYLE.as_bytes()).short());
static SCRIPT_DIGEST: LazyLock<String> = LazyLock::new(|| Digest::of(SCRIPT.as_bytes()).short());
static ICON_DIGEST: LazyLock<String> = LazyLock::new(|| Digest::of(ICON.as_bytes()).short());

/// The stylesheet's address.
pub(super) fn style_at() -> String {
    format!("/ui/style.css?v={}", *STYLE_DIGEST)
}

/// The script's address.
pub(super) fn script_at() -> String {
    format!("/ui/app.js?v={}", *SCRIPT_DIGEST)
}

fn serve(
    text: &'static str,
    kind: &'static str,
    digest: &str,
    asked: &Uri,
    h: &HeaderMap,
) -> Response {
    let tag = format!("\"{digest}\"");
    let this_very_one = asked.query() == Some(&format!("v={digest}"));
    let keep = if this_very_one { "public, max-age=31536000, immutable" } else { "no-cache" };
    let known = h.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let mut r = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response(),
    };
    r.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        r.headers_mut().insert(header::ETAG, tag);
    }
    r
}

pub(super) async fn style(uri: Uri, h: HeaderMap) -> Response {
    serve(STYLE, "text/css; charset=utf-8", &STYLE_DIGEST, &uri, &h)
}

pub(super) async fn script(uri: Uri, h: HeaderMap) -> Response {
    serve(SCRIPT, "text/javascript; charset=utf-8", &SCRIPT_DIGEST, &uri, &h)
}

pub(super) async fn icon(uri: Uri, h: HeaderMap) -> Response {
    serve(ICON, "image/svg+xml", &ICON_DIGEST, &uri, &h)
}
