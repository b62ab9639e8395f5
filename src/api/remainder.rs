//! What is still on its way of a request that was refused.
//!
//! A refusal is often decided before the request has come in whole: a body too
//! long, a token too weak. A server that answers then and closes has its host
//! reset the connection, which may throw the answer away before the client has
//! read it; and a client that reads it may send its next request into a
//! connection that is no more (RFC 9112, section 9.6). So the rest is read and
//! thrown away, up to a limit; past that the answer says that the connection
//! ends with it.

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes of a refused request that are read for the sake of its connection.
const MOST: u64 = 16 << 20;
/// And for how long.
const LONGEST: Duration = Duration::from_secs(5);

/// Answers a refused request when the client has sent all of it, or with
/// `Connection: close`.
pub async fn read(request: Request, next: Next) -> Response {
    // Who expects `100 Continue` sends nothing after a refusal, unless it is
    // asked for: a first read would be the asking.
    let waits = request.headers().contains_key(header::EXPECT);
    let closes = request.version() <= Version::HTTP_11;
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let body = Arc::new(Mutex::new(body));
    let lent = Body::new(Lent(body.clone()));
    let mut answer = next.run(Request::from_parts(parts, lent)).await;
    let refused = answer.status().is_client_error() || answer.status().is_server_error();
    if refused && closes && (waits || !is_over(Lent(body)).await) {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Reads what is left; whether that was all within the limits.
async fn is_over(mut body: Lent) -> bool {
    let all = async {
        let mut left = MOST;
        loop {
            if body.is_end_stream() {
                return true;
            }
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            let read = match &frame {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(f)) => f.data_ref().map_or(0, |d| d.len() as u64),
            };
            match left.checked_sub(read) {
                Some(l) if l >= body.size_hint().lower() => left = l,
                _ => return false,
            }
        }
    };
    tokio::time::timeout(LONGEST, all).await.unwrap_or(false)
}

/// A body that its reader may drop before its end.
struct Lent(Arc<Mutex<Body>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::extract::DefaultBodyLimit;
    use axum::http::StatusCode;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    async fn server() -> TcpStream {
        let routes = Router::new()
            .route("/read", post(|b: Bytes| async move { b.len().to_string() }))
            .route("/refuse", post(|| async { StatusCode::FORBIDDEN }))
            .layer(DefaultBodyLimit::max(1 << 20))
            .layer(axum::middleware::from_fn(read));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        TcpStream::connect(at).await.unwrap()
    }

    async fn send(s: &mut TcpStream, path: &str, says: u64, more: &str, sent: usize) {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {says}\r\n{more}\r\n");
        s.write_all(head.as_bytes()).await.unwrap();
        s.write_all(&vec![b'x'; sent]).await.unwrap();
    }

    /// An answer's head and body, these are short.
    async fn answer(s: &mut TcpStream) -> String {
        let mut all = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&all).to_lowercase();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.split("content-length: ").nth(1).unwrap_or("0");
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                if body.len() == length {
                    return text;
                }
            }
            let mut some = [0; 4096];
            let n = s.read(&mut some).await.unwrap();
            assert!(n > 0, "the connection ended within {text:?}");
            all.extend_from_slice(&some[..n]);
        }
    }

    #[tokio::test]
    async fn a_connection_lives_on_after_a_refusal() {
        for path in ["/read", "/refuse"] {
            let mut s = server().await;
            for _ in 0..3 {
                send(&mut s, path, 3 << 20, "", 3 << 20).await;
                let said = answer(&mut s).await;
                assert!(said.starts_with("http/1.1 4") && !said.contains("close"), "{said}");
                send(&mut s, "/read", 5, "", 5).await;
                assert!(answer(&mut s).await.ends_with("\r\n\r\n5"));
            }
        }
    }

    #[tokio::test]
    async fn what_is_too_much_to_be_read_ends_the_connection_with_the_answer() {
        // No more than buffers hold on the way: nobody reads it all.
        for (says, more, sent) in
            [(MOST + (2 << 20), "", 64 << 10), (3 << 20, "Expect: 100-continue\r\n", 0)]
        {
            let mut s = server().await;
            send(&mut s, "/refuse", says, more, sent).await;
            let said = answer(&mut s).await;
            assert!(said.starts_with("http/1.1 403"), "{said}");
            assert!(said.contains("connection: close"), "{said}");
        }
    }
}
