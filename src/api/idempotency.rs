//! `Idempotency-Key`: a request that is sent again, since its answer was lost
//! or its sender was restarted, finds the operation that it began and begins
//! nothing (draft-ietf-httpapi-idempotency-key-header). The key is written in
//! the same commit as the operation, so this holds after a restart of the
//! server too, and for as long as operations are kept: for ever.

use super::{BODY, Caller, Ctx, Problem};
use crate::model::{Digest, RequestKey};
use axum::body::Body;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::sync::{Arc, PoisonError};

/// As it is called in the document.
const HEADER: &str = "Idempotency-Key";
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that nothing was begun.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key.
const LONGEST: usize = 128;

/// The key of a request: as a structured string in quotes (RFC 8941 §3.3.3),
/// or bare, as most send it.
fn parse(value: &HeaderValue) -> Result<String, Problem> {
    let text = value.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    let good = !text.is_empty()
        && text.len() <= LONGEST
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    match good {
        true => Ok(text.to_owned()),
        false => Err(Problem::bad(format!(
            "Idempotency-Key has 1 to {LONGEST} visible characters of ASCII, such as a UUID, \
             another one for each new request"
        ))
        .at(HEADER)),
    }
}

/// Takes a name off the list when the request has ended, however.
struct Answering<'a>(&'a Ctx, (String, String));

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.answering.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// Answers what was answered before; gives everything else on.
pub(super) async fn once(State(ctx): State<Arc<Ctx>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    named(&ctx, request, next).await.unwrap_or_else(Problem::into_response)
}

async fn named(ctx: &Arc<Ctx>, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = parts.headers.get(KEY).map(parse).transpose()?.unwrap_or_default();
    let caller = Caller::from_request_parts(&mut parts, ctx).await?;
    let body = axum::body::to_bytes(body, BODY).await.map_err(|_| {
        let m = format!("a request with Idempotency-Key has at most {BODY} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, m)
    })?;
    let target = parts.uri.path_and_query().map_or("", |p| p.as_str());
    let digest = Digest::of(
        &[parts.method.as_str().as_bytes(), b" ", target.as_bytes(), b"\n", &body].concat(),
    );

    let own = (caller.name.clone(), key.clone());
    let free = ctx.answering.lock().unwrap_or_else(PoisonError::into_inner).insert(own.clone());
    if !free {
        let m = format!("the request {key:?} is being answered just now; ask again");
        return Err(Problem { retry_after: Some(1), ..Problem::new(StatusCode::CONFLICT, m) });
    }
    let _answering = Answering(ctx, own);
    if let Some(o) = ctx.rack.by_request(&caller.name, &key) {
        if o.request.as_ref().is_some_and(|r| r.digest == digest) {
            let answer = (StatusCode::ACCEPTED, axum::Json((*o).clone())).into_response();
            return Ok(replayed(answer));
        }
        let m = format!(
            "the key {key:?} belongs to another request, which began operation {}; use a new key",
            o.id
        );
        return Err(Problem { operation: Some(o.id.to_string()), ..Problem::unfit(m).at(HEADER) });
    }
    let request = Some(RequestKey { key, digest });
    parts.extensions.insert(Caller { request, ..caller });
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}

fn replayed(mut r: Response) -> Response {
    r.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    r
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_bare_or_in_quotes_and_of_bounded_length() {
        let key = |s: &str| parse(&HeaderValue::from_str(s).unwrap()).map_err(|p| p.status);
        assert_eq!(key("8e03978e-40d5"), Ok("8e03978e-40d5".to_owned()));
        assert_eq!(key("\"8e03978e\""), Ok("8e03978e".to_owned()));
        for bad in ["", "\"\"", "a b", "a\"b", "\"", &"x".repeat(129)] {
            assert_eq!(key(bad), Err(400), "{bad:?}");
        }
    }
}
