//! Talks to the build server: every request is repeated until it is answered,
//! its deadline has passed, or the server says that the build is over. The
//! server may be killed and started again in any phase.

use super::journal::say;
use crate::model::plan::PhaseReport;
use crate::model::{Phase, Secret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::time::{Duration, Instant};

/// How long an answer is waited for over and over: long enough for a server
/// that is being upgraded, short enough to be found by the next morning.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// The plan with its scripts is the largest thing that is read whole.
const LARGEST_ANSWER: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// 401, 403, 404, 410: the token is not good (any more).
    #[error("answer {0}")]
    Over(String),
    /// Another refusal: the two do not understand each other.
    #[error("{what}: the server answered {status}: {text}")]
    Refused {
        /// Request.
        what: String,
        /// Status code.
        status: u16,
        /// First lines of the answer.
        text: String,
    },
    /// No answer until the deadline.
    #[error("{what}: no answer for {seconds} s; last: {last}")]
    Silent {
        /// Request.
        what: String,
        /// How long it was tried.
        seconds: u64,
        /// What came last.
        last: String,
    },
    /// An answer that does not parse.
    #[error("{what}: the answer is not understood: {reason}")]
    Garbled {
        /// Request.
        what: String,
        /// Why.
        reason: String,
    },
}

impl ServerError {
    /// As the end of the build in `phase`.
    pub fn in_phase(self, phase: Phase) -> super::AgentError {
        match self {
            Self::Over(text) => super::AgentError::Over(text),
            other => super::AgentError::failed(phase, other),
        }
    }
}

/// The server's leave to write a disk; only [`Server::may_write`] gives it.
#[derive(Debug)]
pub struct MayWrite(());

/// The server, as seen from this build.
#[derive(Debug, Clone)]
pub struct Server {
    base: String,
    token: Secret,
    http: ureq::Agent,
}

/// One try's outcome, judged.
enum Try {
    Answer(Vec<u8>),
    Again(String),
}

impl Server {
    /// The server at `base`, such as `http://10.0.0.1:8080`.
    pub fn new(base: &str, token: Secret) -> Self {
        let http = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(20)))
            .timeout_per_write(Some(Duration::from_secs(20)))
            .build()
            .new_agent();
        Self { base: base.to_owned(), token, http }
    }

    /// Its address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Its token.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// `GET path`, as JSON.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ServerError> {
        let what = format!("GET {path}");
        let bytes = self.until(&what, PATIENCE, || self.once_get(path, &what))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| ServerError::Garbled { what, reason: e.to_string() })
    }

    /// `GET path`, at most `limit` bytes.
    pub fn get_bytes(&self, path: &str, limit: u64) -> Result<Vec<u8>, ServerError> {
        let what = format!("GET {path}");
        let bytes = self.until(&what, PATIENCE, || self.once_get(path, &what))?;
        if bytes.len() as u64 > limit {
            let reason = format!("{} bytes, at most {limit} expected", bytes.len());
            return Err(ServerError::Garbled { what, reason });
        }
        Ok(bytes)
    }

    /// `POST path` with a JSON body.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<(), ServerError> {
        self.post_for(path, body, PATIENCE)
    }

    /// The same, tried for at most `patience`.
    pub fn post_for(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<(), ServerError> {
        let what = format!("POST {path}");
        let json = serde_json::to_vec(body)
            .map_err(|e| ServerError::Garbled { what: what.clone(), reason: e.to_string() })?;
        self.until(&what, patience, || self.once_post(path, &what, "application/json", &json))?;
        Ok(())
    }

    /// `POST path` with a JSON body, for a JSON answer; tried for `patience`.
    pub fn post_get<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<T, ServerError> {
        let what = format!("POST {path}");
        let garbled = |e: serde_json::Error| ServerError::Garbled {
            what: what.clone(),
            reason: e.to_string(),
        };
        let json = serde_json::to_vec(body).map_err(garbled)?;
        let bytes =
            self.until(&what, patience, || self.once_post(path, &what, "application/json", &json))?;
        serde_json::from_slice(&bytes).map_err(garbled)
    }

    /// Asks right before a disk is touched, since a build may have been given
    /// up while the network was away, and what the reporter knows may be old.
    pub fn may_write(&self, disk: &str) -> Result<MayWrite, ServerError> {
        let message = Some(format!("partitioning {disk}"));
        let report = PhaseReport { phase: Phase::Disk, bytes: 0, total: 0, message };
        self.post("/node/phase", &report)?;
        Ok(MayWrite(()))
    }

    /// Log text, tried once: the journal keeps what did not arrive.
    pub fn post_log(&self, offset: u64, text: &[u8]) -> Result<bool, ServerError> {
        let path = format!("/node/log?offset={offset}");
        match self.once_post(&path, "POST /node/log", "text/plain; charset=utf-8", text)? {
            Try::Answer(_) => Ok(true),
            Try::Again(_) => Ok(false),
        }
    }

    /// A part of a file, from `from` to `to` (not included), as a stream.
    /// Tried once; any answer but 206 (or 200 for a whole file) is an error.
    pub fn get_range(&self, path: &str, from: u64, to: u64) -> Result<impl Read, RangeError> {
        let response = self
            .http
            .get(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token.expose()))
            .header("range", format!("bytes={from}-{}", to.saturating_sub(1)))
            .call()
            .map_err(|e| RangeError::Again(e.to_string()))?;
        match response.status().as_u16() {
            206 => {}
            200 if from == 0 => {}
            code @ (401 | 403 | 410) => return Err(RangeError::Over(code.to_string())),
            404 => return Err(RangeError::Gone(format!("{path} is not on the server (404)"))),
            // The server says what is wrong, and what to do.
            409 => {
                let body = response.into_body().into_with_config().limit(300).read_to_vec();
                let text = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
                return Err(RangeError::Gone(text));
            }
            416 => {
                return Err(RangeError::Gone(format!("{path} is shorter than its index says")));
            }
            code @ (408 | 429 | 500..) => return Err(RangeError::Again(format!("answer {code}"))),
            code => return Err(RangeError::Gone(format!("{path}: answer {code}"))),
        }
        Ok(response.into_body().into_with_config().limit(u64::MAX).reader())
    }

    fn once_get(&self, path: &str, what: &str) -> Result<Try, ServerError> {
        let sent = self
            .http
            .get(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token.expose()))
            .call();
        judge(what, sent)
    }

    fn once_post(
        &self,
        path: &str,
        what: &str,
        kind: &str,
        body: &[u8],
    ) -> Result<Try, ServerError> {
        let sent = self
            .http
            .post(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token.expose()))
            .header("content-type", kind)
            .send(body);
        judge(what, sent)
    }

    fn until(
        &self,
        what: &str,
        patience: Duration,
        mut once: impl FnMut() -> Result<Try, ServerError>,
    ) -> Result<Vec<u8>, ServerError> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(250);
        loop {
            let last = match once()? {
                Try::Answer(bytes) => return Ok(bytes),
                Try::Again(why) => why,
            };
            if start.elapsed() + pause > patience {
                let seconds = start.elapsed().as_secs();
                return Err(ServerError::Silent { what: what.to_owned(), seconds, last });
            }
            say(format_args!("{what}: {last}; trying again in {} ms", pause.as_millis()));
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}

/// Why a part of a file did not come.
#[derive(Debug)]
pub enum RangeError {
    /// Worth another try.
    Again(String),
    /// Never going to come.
    Gone(String),
    /// The build is over.
    Over(String),
}

fn judge(
    what: &str,
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Try, ServerError> {
    let response = match sent {
        Ok(response) => response,
        Err(e) => return Ok(Try::Again(e.to_string())),
    };
    let status = response.status();
    let read = response.into_body().into_with_config().limit(LARGEST_ANSWER).read_to_vec();
    let body = match (read, status.is_success()) {
        (Ok(body), _) => body,
        (Err(e), true) => return Ok(Try::Again(e.to_string())),
        (Err(_), false) => Vec::new(),
    };
    let text = || -> String { String::from_utf8_lossy(&body).chars().take(300).collect() };
    match status.as_u16() {
        200..=299 => Ok(Try::Answer(body)),
        401 | 403 | 410 => Err(ServerError::Over(format!("{status} to {what}"))),
        408 | 425 | 429 | 500..=599 => Ok(Try::Again(format!("answer {status}: {}", text()))),
        code => Err(ServerError::Refused { what: what.to_owned(), status: code, text: text() }),
    }
}
