//! Answers: headers that every one has, JSON bodies, errors.

use crate::registry::error::Fault;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response as Http, StatusCode, header};
use axum::response::Response;
use serde_json::Value;

/// An answer in the making. A header whose value cannot stand in a header is
/// left out.
pub(super) struct Answer {
    response: Http<Body>,
    head: bool,
}

impl Answer {
    pub fn new(status: StatusCode) -> Self {
        let mut response = Http::new(Body::empty());
        *response.status_mut() = status;
        // "SHOULD be set" by older texts of the specification; docker and
        // helm of some years ago ask for it.
        let version = HeaderValue::from_static("registry/2.0");
        response.headers_mut().insert("docker-distribution-api-version", version);
        response
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Self { response, head: false }
    }

    /// For HEAD: all headers, no body.
    pub fn head(mut self, head: bool) -> Self {
        self.head = head;
        self
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        if let (Ok(n), Ok(v)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value.to_string()))
        {
            self.response.headers_mut().insert(n, v);
        }
        self
    }

    pub fn body(mut self, body: Body, length: u64) -> Self {
        *self.response.body_mut() = body;
        self.header("content-length", length)
    }

    pub fn json(self, v: &Value) -> Self {
        self.typed_json(v, "application/json")
    }

    pub fn typed_json(self, v: &Value, media_type: &str) -> Self {
        let text = v.to_string();
        let length = text.len() as u64;
        self.header("content-type", media_type).body(text.into(), length)
    }

    pub fn done(mut self) -> Response {
        if self.head {
            *self.response.body_mut() = Body::empty();
        }
        self.response
    }
}

pub(super) fn fault(f: &Fault) -> Response {
    let status = StatusCode::from_u16(f.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut a = Answer::new(status).json(&f.body());
    for (name, value) in &f.headers {
        a = a.header(name, value);
    }
    a.done()
}
