//! A typed client of the build server's API: over TLS with a pinned or given
//! certificate, or over the local socket. Used by `cli` and tests.

use crate::model::{Operation, OperationId};
use crate::tls;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer.
    #[error("{server} cannot be reached: {why}")]
    Unreachable {
        /// Which server.
        server: String,
        /// Why.
        why: String,
    },
    /// 401 and 403.
    #[error("refused: {0}")]
    Refused(String),
    /// 4xx: the request is wrong.
    #[error("{0}")]
    Wrong(String),
    /// 5xx: the server could not.
    #[error("{0}")]
    Server(String),
    /// The server's address or certificate file cannot be used.
    #[error("{0}")]
    SetUp(String),
    /// The answer is not what this version expects.
    #[error("the server's answer cannot be read (another version?): {0}")]
    Answer(String),
}

/// Where the server is, and who asks.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// `https://host:port`, or `unix:/path`.
    pub server: String,
    /// Bearer token.
    pub token: Option<crate::model::Secret>,
    /// CA file; else the certificate is pinned at first use.
    pub ca: Option<PathBuf>,
    /// The file of pins.
    pub known_servers: PathBuf,
}

/// The client.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    server: String,
    token: Option<crate::model::Secret>,
}

impl Client {
    /// Prepares; nothing is sent yet.
    pub fn new(target: &Target) -> Result<Self, ClientError> {
        tls::install_provider();
        let set_up = |e: &dyn std::fmt::Display| ClientError::SetUp(e.to_string());
        let builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(5));
        let (builder, base) = match target.server.strip_prefix("unix:") {
            Some(path) => (builder.unix_socket(path), "http://provision".to_owned()),
            None => {
                let name = target.server.strip_prefix("https://").ok_or_else(|| {
                    ClientError::SetUp(format!(
                        "server {:?}: use https://HOST:8443 or unix:/run/provision/api.sock",
                        target.server
                    ))
                })?;
                let config = match &target.ca {
                    Some(ca) => tls::pin::with_ca(ca),
                    None => tls::pin::on_first_use(
                        name.trim_end_matches('/').to_owned(),
                        target.known_servers.clone(),
                    ),
                }
                .map_err(|e| set_up(&e))?;
                (builder.tls_backend_preconfigured(config), target.server.clone())
            }
        };
        Ok(Self {
            http: builder.build().map_err(|e| set_up(&e))?,
            base: base.trim_end_matches('/').to_owned(),
            server: target.server.clone(),
            token: target.token.clone(),
        })
    }

    fn lost(&self, e: reqwest::Error) -> ClientError {
        // The interesting part is at the bottom of the chain.
        let mut why: &dyn std::error::Error = &e;
        while let Some(s) = why.source() {
            why = s;
        }
        ClientError::Unreachable { server: self.server.clone(), why: why.to_string() }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
        accept: Option<&str>,
    ) -> Result<reqwest::Response, ClientError> {
        self.send_within(method, path, body, accept, Duration::from_secs(60)).await
    }

    async fn send_within(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
        accept: Option<&str>,
        most: Duration,
    ) -> Result<reqwest::Response, ClientError> {
        let mut r = self.http.request(method, format!("{}{path}", self.base));
        if let Some(t) = &self.token {
            r = r.bearer_auth(t.expose());
        }
        if let Some(b) = body {
            r = r.json(b);
        }
        match accept {
            Some(a) => r = r.header("accept", a),
            // A stream has no end; everything else has.
            None => r = r.timeout(most),
        }
        self.checked(r).await
    }

    /// Sends, and turns what is no success into an error.
    async fn checked(&self, r: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let r = r.send().await.map_err(|e| self.lost(e))?;
        let status = r.status();
        if status.is_success() {
            return Ok(r);
        }
        let text = r.text().await.unwrap_or_default();
        let detail = serde_json::from_str::<crate::api::Problem>(&text)
            .map(|p| p.detail)
            .ok()
            .or_else(|| registry_says(&text))
            .unwrap_or_else(|| format!("{status}: {text}"));
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE => {
                ClientError::Refused(detail)
            }
            s if s.is_client_error() => ClientError::Wrong(detail),
            _ => ClientError::Server(detail),
        })
    }

    async fn json<T: DeserializeOwned>(&self, r: reqwest::Response) -> Result<T, ClientError> {
        let text = r.text().await.map_err(|e| self.lost(e))?;
        let text = if text.is_empty() { "null" } else { &text };
        serde_json::from_str(text).map_err(|e| ClientError::Answer(e.to_string()))
    }

    /// A request as `shape` makes it, for the registry's own protocol; the
    /// answer's body is not read yet, and the deadline is the caller's.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        shape: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder + Send,
    ) -> Result<reqwest::Response, ClientError> {
        let mut r = self.http.request(method, format!("{}{path}", self.base));
        if let Some(t) = &self.token {
            r = r.bearer_auth(t.expose());
        }
        self.checked(shape(r)).await
    }

    /// GET.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let r = self.send(Method::GET, path, None::<&()>, None).await?;
        self.json(r).await
    }

    /// GET of a whole list, a page after the other.
    pub async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        #[derive(serde::Deserialize)]
        struct Page<T> {
            items: Vec<T>,
            next: Option<String>,
        }
        let mut all = Vec::new();
        let mut at = path.to_owned();
        loop {
            let page: Page<T> = self.get(&at).await?;
            all.extend(page.items);
            let Some(next) = page.next else { return Ok(all) };
            // Of letters, digits, `-` and `_`.
            at = format!("{path}{}next={next}", if path.contains('?') { '&' } else { '?' });
        }
    }

    /// GET of a text.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let r = self.send(Method::GET, path, None::<&()>, None).await?;
        r.text().await.map_err(|e| self.lost(e))
    }

    /// POST.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let r = self.send(Method::POST, path, Some(body), None).await?;
        self.json(r).await
    }

    /// POST of a stream, as long as it takes: whoever sends sees that it goes on.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &str,
        body: impl futures::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static,
    ) -> Result<T, ClientError> {
        let mut r = self.http.post(format!("{}{path}", self.base));
        if let Some(t) = &self.token {
            r = r.bearer_auth(t.expose());
        }
        let r = r.header("content-type", content_type).body(reqwest::Body::wrap_stream(body));
        let r = self.checked(r).await?;
        self.json(r).await
    }

    /// GET of bytes.
    pub async fn bytes(&self, path: &str) -> Result<bytes::Bytes, ClientError> {
        let r = self.send(Method::GET, path, None::<&()>, None).await?;
        r.bytes().await.map_err(|e| self.lost(e))
    }

    /// POST of what takes the server longer than a minute: at most `most`.
    pub async fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        most: Duration,
    ) -> Result<T, ClientError> {
        let r = self.send_within(Method::POST, path, Some(body), None, most).await?;
        self.json(r).await
    }

    /// PATCH.
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let r = self.send(Method::PATCH, path, Some(body), None).await?;
        self.json(r).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, None::<&()>, None).await.map(drop)
    }

    /// An operation as it now is.
    pub async fn operation(&self, id: &OperationId) -> Result<Operation, ClientError> {
        self.get(&format!("/v1/operations/{id}")).await
    }

    /// A stream of events: `each` is called with the JSON of each until the
    /// connection ends.
    pub async fn follow(&self, path: &str, mut each: impl FnMut(&str)) -> Result<(), ClientError> {
        let mut r = self.send(Method::GET, path, None::<&()>, Some("text/event-stream")).await?;
        let mut rest = String::new();
        while let Some(chunk) = r.chunk().await.map_err(|e| self.lost(e))? {
            rest.push_str(&String::from_utf8_lossy(&chunk));
            while let Some(end) = rest.find('\n') {
                let line: String = rest.drain(..=end).collect();
                if let Some(data) = line.trim_end().strip_prefix("data:") {
                    each(data.trim_start());
                }
            }
        }
        Ok(())
    }
}

/// The message in an error of the registry's protocol.
fn registry_says(text: &str) -> Option<String> {
    let v: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(v["errors"][0]["message"].as_str()?.to_owned())
}
