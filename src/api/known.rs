//! Requests that no handler knows what to do with: a parameter that the
//! document does not have for this operation, a method that the resource does
//! not have. A mistyped filter that is silently ignored answers with too
//! much, and nobody notices.

use super::Problem;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;

/// 405; axum adds `Allow`.
pub(super) async fn other_method(method: Method) -> Problem {
    let m = format!("this resource does not know {method}; the header Allow says what it knows");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, m)
}

/// Parameters by method and path.
type Known = HashMap<(String, String), BTreeSet<String>>;

fn of(json: &str) -> Known {
    let doc: Value = serde_json::from_str(json).unwrap_or_default();
    let mut known = Known::new();
    for (path, item) in doc["paths"].as_object().into_iter().flatten() {
        for (method, o) in item.as_object().into_iter().flatten() {
            let all = o["parameters"].as_array().into_iter().flatten();
            let query = all.filter(|p| p["in"] == "query");
            let names = query.filter_map(|p| p["name"].as_str().map(str::to_owned)).collect();
            known.insert((method.clone(), path.clone()), names);
        }
    }
    known
}

/// The first parameter of `query` that is not among `known`.
fn stranger(query: &str, known: &BTreeSet<String>) -> Option<Problem> {
    let mut names = query.split('&').filter_map(|p| p.split('=').next());
    let name = names.find(|n| !n.is_empty() && !known.contains(*n))?;
    let name: String = name.chars().take(80).collect();
    let all: Vec<&str> = known.iter().map(String::as_str).collect();
    let m = match all.as_slice() {
        [] => format!("parameter {name}: this takes no parameters"),
        all => format!("parameter {name}: not known here; known are {}", all.join(", ")),
    };
    Some(Problem::bad(m).at(name))
}

/// Refuses parameters below `/v1` that the document does not know. A hook's
/// address is written into a forge by others, and may have more.
pub(super) fn parameters(
    json: &'static str,
) -> impl Fn(Request, Next) -> Pin<Box<dyn Future<Output = Response> + Send>> + Clone {
    let known = Arc::new(of(json));
    move |request, next| {
        let at = request.extensions().get::<MatchedPath>().map(|p| p.as_str().replace("{*", "{"));
        let at = at.filter(|p| p.starts_with("/v1/") && !p.starts_with("/v1/hooks"));
        let method = match request.method() {
            &Method::HEAD => "get".to_owned(),
            m => m.as_str().to_ascii_lowercase(),
        };
        let query = request.uri().query().unwrap_or_default();
        let known = at.and_then(|p| known.get(&(method, p)));
        let refused = known.and_then(|k| stranger(query, k));
        Box::pin(async move {
            match refused {
                Some(p) => p.into_response(),
                None => next.run(request).await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tower::ServiceExt as _;

    const DOC: &str = r#"{"paths":{"/v1/things/{n}":{"get":{"parameters":[
        {"name":"n","in":"path"},{"name":"limit","in":"query"},{"name":"state","in":"query"}]}}}}"#;

    async fn ask(method: &str, path: &str) -> (u16, Option<String>, Value) {
        let router = axum::Router::new()
            .route("/v1/things/{n}", get(|| async { "{}" }))
            .route("/healthz", get(|| async { "{}" }))
            .method_not_allowed_fallback(other_method)
            .route_layer(axum::middleware::from_fn(parameters(DOC)));
        let r = Request::builder().method(method).uri(path);
        let r = router.oneshot(r.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        let status = r.status().as_u16();
        let allow = r.headers().get("allow").map(|a| a.to_str().unwrap().to_owned());
        let body = axum::body::to_bytes(r.into_body(), 10_000).await.unwrap();
        (status, allow, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_parameter_that_nobody_knows_is_refused_with_those_that_are_known() {
        for good in ["/v1/things/1?limit=1&state=on", "/v1/things/1", "/healthz?x=1"] {
            assert_eq!(ask("GET", good).await.0, 200, "{good}");
        }
        let (status, _, p) = ask("GET", "/v1/things/1?limit=1&stat=on").await;
        assert_eq!((status, p["field"].as_str()), (400, Some("stat")));
        assert!(p["detail"].as_str().unwrap().contains("known are limit, state"), "{p}");
        assert_eq!(ask("HEAD", "/v1/things/1?stat=on").await.0, 400);
    }

    #[tokio::test]
    async fn another_method_is_a_problem_that_says_which_there_are() {
        let (status, allow, p) = ask("DELETE", "/v1/things/1").await;
        assert_eq!((status, allow.as_deref()), (405, Some("GET,HEAD")));
        assert!(p["detail"].as_str().unwrap().contains("DELETE"), "{p}");
    }
}
