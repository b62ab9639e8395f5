//! What is asked: bodies, queries and parts of a path, read so that a fault is a
//! problem that names the field ([`Problem::field`]).

use super::Problem;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_path_to_error::Segment;

/// A JSON body.
pub struct Json<T>(pub T);

/// `application/json`, or a kind of it (RFC 6839 §3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|k| k.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// `/macs/0`, as RFC 6901 writes it.
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut text = String::new();
    for s in path {
        match s {
            Segment::Seq { index } => text.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                text.push('/');
                text.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

/// The word between the first pair of backquotes, as serde writes names.
fn quoted(text: &str) -> Option<&str> {
    text.split('`').nth(1)
}

/// A client may send what it likes: names of its fields are cut.
fn short(text: String) -> String {
    text.chars().take(200).collect()
}

/// Reads a body; syntax errors are 400, what does not fit is 422.
pub(in crate::api) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut de = serde_json::Deserializer::from_slice(bytes);
    let fault = |e: &serde_json::Error, at: String| {
        let status = match e.classify() {
            Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut at = at;
        let text = e.to_string();
        if text.starts_with("missing field")
            && let Some(name) = quoted(&text)
        {
            at = format!("{at}/{name}");
        }
        let place = if at.is_empty() { "the body".to_owned() } else { short(at.clone()) };
        let p = Problem::new(status, short(format!("{place}: {text}")));
        if at.is_empty() { p } else { p.at(short(at)) }
    };
    let v = serde_path_to_error::deserialize(&mut de)
        .map_err(|e| fault(e.inner(), pointer(e.path())))?;
    de.end().map_err(|e| fault(&e, String::new()))?;
    Ok(v)
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(r: Request, s: &S) -> Result<Self, Problem> {
        if !is_json(r.headers()) {
            let m = "send JSON, and say so: `Content-Type: application/json`";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, m));
        }
        let bytes = Bytes::from_request(r, s)
            .await
            .map_err(|e| Problem::new(e.status(), format!("the body: {}", e.body_text())))?;
        read(&bytes).map(Self)
    }
}

/// The parameters behind the question mark.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, s: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, s).await {
            Ok(axum::extract::Query(v)) => Ok(Self(v)),
            Err(e) => Err(query_fault(&e.body_text())),
        }
    }
}

/// axum says `Failed to deserialize query string: limit: invalid digit …`.
fn query_fault(text: &str) -> Problem {
    let text = text.split_once(": ").map_or(text, |(_, rest)| rest);
    let (name, why) = match text.split_once(": ") {
        Some((name, why)) if !name.contains([' ', '`']) => (Some(name), why),
        _ => (quoted(text), text),
    };
    let why = why.replace("unknown field", "unknown parameter");
    let why = why.replace("missing field", "missing parameter");
    match name {
        Some(n) => Problem::bad(short(format!("parameter {n}: {why}"))).at(short(n.to_owned())),
        None => Problem::bad(short(format!("the query: {why}"))),
    }
}

/// A number that every reader of JSON has exactly (RFC 8259 §6): to 2^53 - 1.
#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
#[serde(try_from = "u64")]
pub struct Whole(pub u64);

impl TryFrom<u64> for Whole {
    type Error = &'static str;

    fn try_from(n: u64) -> Result<Self, Self::Error> {
        if n < 1 << 53 { Ok(Self(n)) } else { Err("a number is at most 9007199254740991") }
    }
}

/// Parts of a path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, s: &S) -> Result<Self, Problem> {
        let axum::extract::Path(v) = axum::extract::Path::<T>::from_request_parts(parts, s)
            .await
            .map_err(|e| Problem::new(e.status(), e.body_text()))?;
        Ok(Self(v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::nodes::NewNode;
    use serde::Deserialize;

    #[test]
    fn a_fault_in_a_body_is_named_by_its_pointer() {
        for (body, status, field) in [
            (r#"{"name":"a","macs":["52:54:00:00:00:01","nonsense"]}"#, 422, Some("/macs/1")),
            (r#"{"name":"a"}"#, 422, Some("/macs")),
            (r#"{"name":"a","macs":[],"colour":1}"#, 422, Some("/colour")),
            (r#"{"name":"a","macs":[],"bmc":{"user":"u"}}"#, 422, Some("/bmc/address")),
            (r#"{"name":"a","macs":[],"disk":{"min_bytes":-1}}"#, 422, Some("/disk/min_bytes")),
            (r#"{"name":"a","macs":[]"#, 400, None),
            (r#"{"name":"a","macs":[]} x"#, 400, None),
            ("[]", 422, None),
        ] {
            let p = read::<NewNode>(body.as_bytes()).unwrap_err();
            assert_eq!((p.status, p.field.as_deref()), (status, field), "{body}: {}", p.detail);
        }
        let long = format!(r#"{{"name":"a","macs":[],"{}":1}}"#, "x".repeat(100_000));
        let p = read::<NewNode>(long.as_bytes()).unwrap_err();
        assert!(p.detail.len() < 1000 && p.field.is_some_and(|f| f.len() < 1000));
    }

    #[tokio::test]
    async fn a_fault_in_a_query_is_named_by_its_parameter() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "only read")]
        struct Ask {
            node: Option<String>,
            limit: Option<u16>,
        }
        for (query, field, word) in [
            ("limit=many", "limit", "invalid digit"),
            ("limit=-1", "limit", "invalid digit"),
            ("colour=red", "colour", "expected `node` or `limit`"),
            ("limit=1&limit=2", "limit", "duplicate"),
        ] {
            let (mut parts, ()) =
                http::Request::get(format!("/x?{query}")).body(()).unwrap().into_parts();
            let p = Query::<Ask>::from_request_parts(&mut parts, &()).await.err().unwrap();
            assert_eq!((p.status, p.field.as_deref()), (400, Some(field)), "{query}: {}", p.detail);
            assert!(p.detail.contains(word), "{query}: {}", p.detail);
        }
    }
}
