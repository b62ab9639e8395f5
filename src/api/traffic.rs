//! HTTP as it goes through a server: requests by route and status, how long
//! until the answer begins, bytes of bodies, what is under way. Routes are the
//! patterns of the router, never paths that were asked for.

use crate::metrics::{Exposition, Kind};
use crate::model::Times;
use crate::model::tally::MOMENTS;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

/// What is not of a route of ours.
const OTHER: &str = "other";

#[derive(Debug, Clone, Default)]
struct Counted {
    /// By listener, method, route, status.
    requests: BTreeMap<(&'static str, &'static str, String, u16), u64>,
    /// By listener and route.
    sent: BTreeMap<(&'static str, String), u64>,
    took: BTreeMap<&'static str, Option<Times>>,
    active: BTreeMap<&'static str, u64>,
}

/// The counts; see the module.
#[derive(Debug, Default)]
pub struct Traffic(Mutex<Counted>);

/// The same routes, counted. `listener` is a word for where they are served.
pub fn counted(routes: Router, traffic: &Arc<Traffic>, listener: &'static str) -> Router {
    let traffic = traffic.clone();
    // Listed from the start, for a rate of the first request.
    traffic.open().active.insert(listener, 0);
    let count = move |request: Request, next: Next| {
        let traffic = traffic.clone();
        async move { traffic.pass(listener, request, next).await }
    };
    routes.layer(axum::middleware::from_fn(count))
}

fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}

impl Traffic {
    fn open(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(
        self: Arc<Self>,
        listener: &'static str,
        request: Request,
        next: Next,
    ) -> Response {
        let method = word(request.method());
        let path = request.extensions().get::<MatchedPath>();
        let route = path.map_or(OTHER, MatchedPath::as_str).to_owned();
        let under_way = UnderWay::begin(self.clone(), listener, route.clone());
        let began = Instant::now();
        let response = next.run(request).await;
        let took = began.elapsed();
        let status = response.status().as_u16();
        {
            let mut c = self.open();
            *c.requests.entry((listener, method, route, status)).or_default() += 1;
            let times = c.took.entry(listener).or_default();
            times.get_or_insert_with(|| Times::new(MOMENTS)).took(took);
        }
        response.map(|inner| Body::new(CountedBody { inner, under_way }))
    }

    /// Writes them.
    pub fn write(&self, e: &mut Exposition) {
        let all = self.open().clone();
        let mut f = e.family(
            "provision_http_requests_total",
            Kind::Counter,
            "Requests that were answered, by route.",
        );
        for ((listener, method, route, status), n) in &all.requests {
            let status = status.to_string();
            let labels = [
                ("listener", *listener),
                ("method", method),
                ("route", route),
                ("code", status.as_str()),
            ];
            f.is(&labels, *n);
        }
        let mut f = e.family(
            "provision_http_sent_bytes_total",
            Kind::Counter,
            "Bytes of answers' bodies, of answers that are over.",
        );
        for ((listener, route), n) in &all.sent {
            f.is(&[("listener", listener), ("route", route)], *n);
        }
        let mut f = e.family(
            "provision_http_request_duration_seconds",
            Kind::Histogram,
            "From a request to the beginning of its answer.",
        );
        for (listener, times) in &all.took {
            if let Some(times) = times {
                f.took(&[("listener", listener)], times);
            }
        }
        let mut f = e.family(
            "provision_http_requests_active",
            Kind::Gauge,
            "Requests under way, bodies and event streams too.",
        );
        for (listener, n) in &all.active {
            f.is(&[("listener", listener)], *n);
        }
    }
}

/// A request until its answer is over, or its client is gone.
struct UnderWay {
    traffic: Arc<Traffic>,
    listener: &'static str,
    route: String,
    sent: u64,
}

impl UnderWay {
    fn begin(traffic: Arc<Traffic>, listener: &'static str, route: String) -> Self {
        *traffic.open().active.entry(listener).or_default() += 1;
        Self { traffic, listener, route, sent: 0 }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let route = std::mem::take(&mut self.route);
        let mut c = self.traffic.open();
        *c.sent.entry((self.listener, route)).or_default() += self.sent;
        if let Some(n) = c.active.get_mut(self.listener) {
            *n = n.saturating_sub(1);
        }
    }
}

/// A body as it was, its size too: GRUB knows a file's end by it.
struct CountedBody {
    inner: Body,
    under_way: UnderWay,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(f))) = &frame
            && let Some(data) = f.data_ref()
        {
            self.under_way.sent += data.len() as u64;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tower::ServiceExt as _;

    async fn ask(routes: &Router, path: &str) -> Response {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        routes.clone().oneshot(request).await.unwrap()
    }

    fn text(t: &Traffic) -> String {
        let mut e = Exposition::new();
        t.write(&mut e);
        e.text()
    }

    #[tokio::test]
    async fn requests_are_counted_by_route_and_bodies_until_they_are_over() {
        let traffic = Arc::new(Traffic::default());
        let routes = Router::new()
            .route("/nodes/{n}", get(|| async { "hello" }))
            .fallback(|| async { StatusCode::NOT_FOUND });
        let routes = counted(routes, &traffic, "api");
        let answer = ask(&routes, "/nodes/one").await;
        assert_eq!(answer.body().size_hint().exact(), Some(5), "the size is known");
        assert!(text(&traffic).contains("provision_http_requests_active{listener=\"api\"} 1"));
        let body = axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
        assert_eq!(body, "hello");
        drop(ask(&routes, "/nodes/two").await);
        for path in ["/etc/passwd", "/a", "/b"] {
            ask(&routes, path).await;
        }
        let all = text(&traffic);
        for line in [
            "provision_http_requests_total{listener=\"api\",method=\"GET\",route=\"/nodes/{n}\",code=\"200\"} 2",
            "provision_http_requests_total{listener=\"api\",method=\"GET\",route=\"other\",code=\"404\"} 3",
            "provision_http_sent_bytes_total{listener=\"api\",route=\"/nodes/{n}\"} 5",
            "provision_http_request_duration_seconds_count{listener=\"api\"} 5",
            "provision_http_requests_active{listener=\"api\"} 0",
        ] {
            assert!(all.lines().any(|l| l == line), "{line} is not in\n{all}");
        }
        assert!(!all.contains("passwd"), "{all}");
    }
}
