//! Who calls: a bearer token, or root on this host by the local socket.
//!
//! Every refusal is in the event log, by who is known or by where it came
//! from; of many in a row, the first of a minute and how many there were. So is
//! a request that would have changed something and could not be understood.

use super::{Clerk, Problem};
use crate::auth::Role;
use crate::model::{Asker, NewEvent, Outcome, RequestKey, Time};
use crate::store::Batch;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Marks requests that came by the local socket, which only root can open.
#[derive(Debug, Clone, Copy)]
pub struct LocalPeer;

/// The caller.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The actor in events.
    pub name: String,
    /// Role.
    pub role: Role,
    /// What the request is called, if its sender gave it a name.
    pub request: Option<RequestKey>,
}

impl Caller {
    /// For the operations that it asks for.
    pub fn asker(&self) -> Asker {
        Asker { name: self.name.clone(), request: self.request.clone() }
    }
}

impl<C: Clerk> FromRequestParts<Arc<C>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, clerk: &Arc<C>) -> Result<Self, Problem> {
        // Found already, on the way here.
        if let Some(known) = parts.extensions.get::<Self>() {
            return Ok(known.clone());
        }
        if parts.extensions.get::<LocalPeer>().is_some() {
            return Ok(Self { name: "root".into(), role: Role::Admin, request: None });
        }
        let why = match bearer(&parts.headers) {
            None => {
                "this needs a token: `Authorization: Bearer …`, or `provision --token-file FILE`"
                    .to_owned()
            }
            Some(token) => match clerk.token(token) {
                None => "this token is not known here".to_owned(),
                Some(t) if t.expired(Time::now()) => {
                    let at = t.expires.map(|t| t.to_string()).unwrap_or_default();
                    format!("the token {:?} is over since {at}", t.name)
                }
                Some(t) => {
                    return match clerk.refusals().takes(&t.name, Instant::now()) {
                        Ok(()) => Ok(Self { name: t.name, role: t.role, request: None }),
                        Err(wait) => {
                            let p = too_many(&t.name, wait);
                            write_down(&**clerk, &t.name, parts, &p.detail).await;
                            Err(p)
                        }
                    };
                }
            },
        };
        write_down(&**clerk, "nobody", parts, &why).await;
        Err(Problem::new(StatusCode::UNAUTHORIZED, why))
    }
}

fn too_many(name: &str, wait: Duration) -> Problem {
    let seconds = wait.as_secs().max(1);
    let m = format!(
        "the token {name:?} asks more than {RATE} times a second; ask again in {seconds} s, or \
         follow /v1/events instead of asking"
    );
    Problem { retry_after: Some(seconds), ..Problem::new(StatusCode::TOO_MANY_REQUESTS, m) }
}

/// Writes down who wanted something done and was refused for what the request
/// is: too long, not to be understood, about something that cannot be. What
/// the request says is not written down: it may be a password in the wrong
/// place.
pub(super) async fn misfits<C: Clerk>(
    State(clerk): State<Arc<C>>,
    request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let asked = parts.clone();
    let answer = next.run(Request::from_parts(parts, body)).await;
    let status = answer.status();
    // 401, 403 and 429 are written down where they are decided.
    if matches!(status.as_u16(), 400 | 404 | 405 | 413 | 415 | 422) {
        let who = match asked.extensions.get::<LocalPeer>() {
            Some(_) => Some("root".to_owned()),
            None => {
                let known = bearer(&asked.headers).and_then(|t| clerk.token(t));
                known.filter(|t| !t.expired(Time::now())).map(|t| t.name)
            }
        };
        let who = who.as_deref().unwrap_or("nobody");
        write_down(&*clerk, who, &asked, &status.to_string()).await;
    }
    answer
}

/// Where the request came from, for the log.
fn from(parts: &Parts) -> String {
    let peer = parts.extensions.get::<axum::extract::ConnectInfo<SocketAddr>>();
    peer.map_or_else(|| "unknown".to_owned(), |p| p.0.ip().to_string())
}

async fn write_down<C: Clerk>(clerk: &C, who: &str, parts: &Parts, why: &str) {
    let from = from(parts);
    // Of one kind the first of a minute, so that none hides another.
    let source = format!("{who} {from} {why}");
    let Some(before) = clerk.refusals().worth_writing(&source, Instant::now()) else { return };
    let e = NewEvent::new(Time::now(), who, "api.refused", Outcome::Refused)
        .with("from", &from)
        .with("path", parts.uri.path().chars().take(200).collect::<String>())
        .with("reason", why)
        .with("more_since_last", before);
    // A refusal stands also when it cannot be written down.
    let _ = clerk.commit(Batch::new().event(e)).await;
}

/// Requests a second that a token may make in the long run, and at once.
pub const RATE: f64 = 50.0;
const BURST: f64 = 300.0;
/// One refusal of an address is written down in so long.
const QUIET: Duration = Duration::from_secs(60);
/// Addresses, and tokens, remembered at most.
const REMEMBERED: usize = 4096;

/// What was refused lately, and how much each token asks.
#[derive(Debug, Default)]
pub struct Refusals {
    addresses: Mutex<HashMap<String, (Instant, u64)>>,
    tokens: Mutex<HashMap<String, (Instant, f64)>>,
}

impl Refusals {
    /// Whether a refusal of `from` is to be written down, and how many before
    /// it were not.
    fn worth_writing(&self, from: &str, now: Instant) -> Option<u64> {
        let mut all = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED && !all.contains_key(from) {
            all.retain(|_, (at, _)| now.saturating_duration_since(*at) < QUIET);
        }
        // With too many at once, the rest is one stranger.
        let full = all.len() >= REMEMBERED && !all.contains_key(from);
        let name = if full { "others" } else { from };
        if let Some((at, more)) = all.get_mut(name)
            && now.saturating_duration_since(*at) < QUIET
        {
            *more += 1;
            return None;
        }
        let before = all.remove(name).map_or(0, |(_, more)| more);
        all.insert(name.to_owned(), (now, 0));
        Some(before)
    }

    /// Takes a request of a token in (a bucket of [`BURST`] that fills with
    /// [`RATE`]); or how long until it may ask again.
    fn takes(&self, name: &str, now: Instant) -> Result<(), Duration> {
        let mut all = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.clear();
        }
        let (at, left) = all.entry(name.to_owned()).or_insert((now, BURST));
        let gained = now.saturating_duration_since(*at).as_secs_f64() * RATE;
        *left = (*left + gained).min(BURST);
        *at = now;
        if *left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - *left) / RATE));
        }
        *left -= 1.0;
        Ok(())
    }
}

/// The token of an `Authorization: Bearer` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_ask_much_at_once_and_then_so_often() {
        let (r, now) = (Refusals::default(), Instant::now());
        let at_once = (0..1000).take_while(|_| r.takes("a", now).is_ok()).count();
        assert_eq!(at_once, 300);
        assert!(r.takes("a", now).unwrap_err() <= Duration::from_millis(20));
        assert!(r.takes("b", now).is_ok(), "another token has its own");
        let later = now + Duration::from_secs(1);
        assert_eq!((0..1000).take_while(|_| r.takes("a", later).is_ok()).count(), 50);
    }

    #[test]
    fn of_many_refusals_the_first_of_a_minute_is_written_down() {
        let (r, now) = (Refusals::default(), Instant::now());
        assert_eq!(r.worth_writing("192.0.2.1", now), Some(0));
        assert_eq!(r.worth_writing("192.0.2.1", now), None);
        assert_eq!(r.worth_writing("192.0.2.2", now), Some(0));
        assert_eq!(r.worth_writing("192.0.2.1", now + QUIET), Some(1));
        let many = (0..10_000).filter(|n| r.worth_writing(&format!("host {n}"), now).is_some());
        assert_eq!(many.count(), REMEMBERED - 1, "those that fit, and the others as one");
    }
}
