//! What every answer of the window gets: the strict headers, and a page for
//! what went wrong. It also finds out, once, who asks.

use super::Window;
use super::frame::{Frame, show_as};
use super::session;
use crate::api::Problem;
use crate::lifecycle::LifeError;
use crate::model::Time;
use crate::store::StoreError;
use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const STRICT: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// A problem on its way to being a page.
#[derive(Debug, Clone)]
pub(super) struct Fault(pub Problem);

impl From<Problem> for Fault {
    fn from(p: Problem) -> Self {
        Self(p)
    }
}

impl From<LifeError> for Fault {
    fn from(e: LifeError) -> Self {
        Self(e.into())
    }
}

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Self {
        Self(e.into())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut r = status.into_response();
        r.extensions_mut().insert(self);
        r
    }
}

#[derive(Template)]
#[template(path = "fault.html")]
struct FaultPage {
    f: Frame,
    problem: Problem,
    path: String,
}

/// See the module.
pub(super) async fn dress(
    State(w): State<Arc<Window>>,
    mut request: Request,
    next: Next,
) -> Response {
    let seat = session::seat(&w, request.headers());
    let path: String = request.uri().path().chars().take(200).collect();
    if let Some(s) = &seat {
        request.extensions_mut().insert(s.clone());
    }
    let mut r = next.run(request).await;
    if let Some(Fault(problem)) = r.extensions_mut().remove::<Fault>() {
        let status = r.status();
        let who = seat.map(|s| s.who(&w));
        let f = Frame::plain(&problem.title, "", who, Time::now());
        let page = FaultPage { f, problem, path };
        r = show_as(status, &page).unwrap_or_else(|_| status.into_response());
    }
    let headers = r.headers_mut();
    for (name, value) in STRICT {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    r
}
