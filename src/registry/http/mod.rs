//! The protocol: `/v2/…`. A repository's name holds slashes, so paths are read
//! from their end here and not by the router. Each request is parsed, then the
//! gate is asked, then it is done.

mod answer;
mod blobs;
mod manifests;
mod path;
mod range;
mod uploads;

use super::error::{Code, Fault};
use super::seams::{Action, Caller, Counters, Verb};
use super::{Registry, RepositoryName};
use answer::Answer;
use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use futures::StreamExt as _;
use http::request::Parts;
use path::{Query, Target};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// How long the rest of a request is read that was refused or failed.
const LINGER: Duration = Duration::from_secs(5);

/// The routes, to be mounted at the root of a server.
pub fn routes(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*path}", any(serve))
        .with_state(registry)
}

async fn serve(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    Counters::add(&registry.counters.requests, 1);
    let (parts, body) = request.into_parts();
    let rest = Rest::of(body);
    let response = match answer(&registry, &parts, rest.body()).await {
        Ok(r) => r,
        Err(f) => {
            rest.drain().await;
            answer::fault(&f)
        }
    };
    match response.status().as_u16() {
        400..=499 => Counters::add(&registry.counters.errors, 1),
        500.. => Counters::add(&registry.counters.faults, 1),
        _ => {}
    }
    response
}

/// What every handler is given.
struct Call<'a> {
    registry: &'a Arc<Registry>,
    parts: &'a Parts,
    query: Query,
    caller: Caller,
}

impl Call<'_> {
    fn head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// Asks the gate for something beside the request's own action.
    async fn may(&self, repository: &RepositoryName, verb: Verb) -> bool {
        let action = Action { repository: Some(repository.clone()), verb };
        self.registry.settings.gate.admit(self.parts, &action).await.is_ok()
    }
}

/// A body of which something may be left when its handler has failed.
struct Rest(Arc<Mutex<BodyDataStream>>);

impl Rest {
    fn of(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body.into_data_stream())))
    }

    fn next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, axum::Error>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(cx)
    }

    /// The same body, for a handler.
    fn body(&self) -> Body {
        let this = Self(self.0.clone());
        Body::from_stream(futures::stream::poll_fn(move |cx| this.next(cx)))
    }

    /// Reads for a while what is not wanted any more: a client that is still
    /// sending when its connection is closed takes that for the error, and
    /// never shows the answer that says why.
    async fn drain(self) {
        let all =
            async { while let Some(Ok(_)) = std::future::poll_fn(|cx| self.next(cx)).await {} };
        let _ = tokio::time::timeout(LINGER, all).await;
    }
}

async fn answer(registry: &Arc<Registry>, parts: &Parts, body: Body) -> Result<Response, Fault> {
    let target = Target::parse(parts.uri.path());
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let read = matches!(parts.method, Method::GET | Method::HEAD);
    let (repository, verb) = match &target {
        // Of no repository, so only whether the caller may be here at all.
        Ok(Target::Base) | Err(_) => (None, Verb::Base),
        Ok(Target::Catalog) => (None, Verb::Catalog),
        Ok(Target::Upload(name, _)) => (Some(name), Verb::Push),
        Ok(t) => {
            let verb = match parts.method {
                _ if read => Verb::Pull,
                Method::DELETE => Verb::Delete,
                _ => Verb::Push,
            };
            (t.repository(), verb)
        }
    };
    let action = Action { repository: repository.cloned(), verb };
    let caller = registry.settings.gate.admit(parts, &action).await.map_err(|r| {
        let code = if r.status == 401 { Code::Unauthorized } else { Code::Denied };
        let f = Fault::new(code, r.message).status(if r.status == 401 { 401 } else { 403 });
        match r.challenge {
            Some(c) => f.header("WWW-Authenticate", c),
            None => f,
        }
    })?;
    if let (Verb::Push | Verb::Delete, Some(name)) = (&action.verb, &action.repository) {
        registry.refuse_if_followed(name)?;
    }
    let call = Call { registry, parts, query, caller };
    let allow = target.as_ref().map(Target::methods).unwrap_or_default();
    let unsupported = || {
        let m = format!("{} does not work here", parts.method);
        Fault::new(Code::Unsupported, m).header("Allow", allow)
    };
    match (target?, &parts.method) {
        (Target::Base, &Method::GET | &Method::HEAD) => {
            Ok(Answer::new(StatusCode::OK).json(&serde_json::json!({})).head(call.head()).done())
        }
        (Target::Catalog, &Method::GET) => manifests::catalog(&call).await,
        (Target::Tags(name), &Method::GET) => manifests::tags(&call, &name).await,
        (Target::Manifest(name, r), m) => match *m {
            Method::GET | Method::HEAD => manifests::get(&call, &name, &r).await,
            Method::PUT => manifests::put(&call, &name, &r, body).await,
            Method::DELETE => manifests::delete(&call, &name, &r).await,
            _ => Err(unsupported()),
        },
        (Target::Referrers(name, d), &Method::GET) => manifests::referrers(&call, &name, &d).await,
        (Target::Blob(name, d), m) => match *m {
            Method::GET | Method::HEAD => blobs::get(&call, &name, &d).await,
            Method::DELETE => blobs::delete(&call, &name, &d).await,
            _ => Err(unsupported()),
        },
        (Target::Uploads(name), &Method::POST) => uploads::post(&call, &name, body).await,
        (Target::Upload(name, id), m) => match *m {
            Method::GET => uploads::state(&call, &name, id).await,
            Method::PATCH => uploads::patch(&call, &name, id, body).await,
            Method::PUT => uploads::put(&call, &name, id, body).await,
            Method::DELETE => uploads::cancel(&call, &name, id).await,
            _ => Err(unsupported()),
        },
        _ => Err(unsupported()),
    }
}
