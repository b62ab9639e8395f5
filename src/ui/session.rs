//! Login by API token, and the gate that every post passes: a session, a form
//! of ours, from our own page.

use super::Window;
use super::dress::Fault;
use super::frame::{Frame, Who, show, show_as};
use crate::api::{Caller, Problem};
use crate::auth::{Role, Session, session};
use crate::model::{Digest, NewEvent, Outcome, Time};
use askama::Template;
use axum::extract::{Form, FromRequest, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The cookie's name.
const COOKIE: &str = "provision";
/// Sessions that were logged out and are remembered until they would end.
const OVER: usize = 4096;
/// Refusals of strangers that are written down in a minute: nobody may fill
/// the record without a token.
const WRITTEN: u32 = 10;
/// Wrong tokens in a minute, after which a wrong one is answered 429.
const WRONG: u32 = 60;

/// What is kept of sessions, in memory alone.
#[derive(Default)]
pub(super) struct Book {
    over: Mutex<HashMap<String, Time>>,
    minute: Mutex<(i64, u32)>,
}

impl Book {
    fn is_over(&self, s: &Session) -> bool {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&s.number)
    }

    fn end(&self, s: &Session, now: Time) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        over.retain(|_, until| *until > now);
        if over.len() < OVER {
            over.insert(s.number.clone(), s.until);
        }
    }

    /// Counts a refusal of somebody without a session; how many there were in
    /// this minute.
    fn refusals(&self, now: Time, one_more: bool) -> u32 {
        let mut m = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        let this = now.as_second() / 60;
        if m.0 != this {
            *m = (this, 0);
        }
        m.1 = m.1.saturating_add(u32::from(one_more));
        m.1
    }
}

/// Somebody who is logged in.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    /// Who acts, and what the token may.
    pub caller: Caller,
    session: Session,
}

impl Seat {
    /// Whether the buttons are there.
    pub fn may_act(&self) -> bool {
        self.caller.role >= Role::Controller
    }

    pub fn who(&self, w: &Window) -> Who {
        let form = w.ctx.key.form_token(&self.session);
        Who {
            name: self.caller.name.clone(),
            role: self.caller.role.to_string(),
            form: form.expose().to_owned(),
        }
    }

    /// Whether the session still holds: it has not ended, and its token is
    /// still there.
    pub fn holds(&self, w: &Window) -> bool {
        found(w, self.session.clone(), Time::now()).is_some()
    }
}

fn found(w: &Window, session: Session, now: Time) -> Option<Seat> {
    if session.until <= now || w.sessions.is_over(&session) {
        return None;
    }
    let tokens = w.ctx.tokens.read().unwrap_or_else(PoisonError::into_inner);
    let t = tokens.get(&session.token).filter(|t| !t.expired(now))?;
    Some(Seat { caller: Caller { name: t.name.clone(), role: t.role, request: None }, session })
}

/// Who sends these headers, if anybody. A cookie alone counts.
pub(super) fn seat(w: &Window, headers: &HeaderMap) -> Option<Seat> {
    let now = Time::now();
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|v| v.to_str().ok());
    let ours = all.flat_map(|v| v.split(';')).filter_map(|c| c.trim().split_once('='));
    let mut values = ours.filter(|(name, _)| *name == COOKIE).map(|(_, v)| v);
    values.find_map(|v| found(w, w.ctx.key.session(v, now)?, now))
}

impl FromRequestParts<Arc<Window>> for Seat {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Window>) -> Result<Self, Response> {
        if let Some(s) = parts.extensions.get::<Seat>() {
            return Ok(s.clone());
        }
        let by_script = parts.headers.contains_key("x-part")
            || parts.headers.get(header::ACCEPT).is_some_and(|a| a == "text/event-stream");
        if parts.method == Method::GET && !by_script {
            let here = parts.uri.path_and_query().map_or("/ui/", |p| p.as_str());
            let to = format!(
                "/ui/login?next={}",
                askama::filters::urlencode_strict(here).map(|t| t.to_string()).unwrap_or_default()
            );
            return Err(Redirect::to(&to).into_response());
        }
        let why = "nobody is logged in here, or the session has ended; nothing was done: log in";
        Err(Fault(Problem::new(StatusCode::UNAUTHORIZED, why)).into_response())
    }
}

/// Why these headers are not those of a form on one of our pages. Browsers
/// that say nothing are left to the form's token.
fn foreign(h: &HeaderMap) -> Option<&'static str> {
    let text = |name: &str| h.get(name).map(|v| v.to_str().unwrap_or("?"));
    match text("sec-fetch-site") {
        Some("same-origin" | "none") => return None,
        Some(_) => return Some("the post came from another site"),
        None => {}
    }
    // Our own pages send no referrer, and therefore `Origin: null`.
    let origin = text("origin").filter(|o| *o != "null")?;
    let host = origin.split_once("://").map_or("?", |(_, host)| host);
    (text("host") != Some(host)).then_some("the post came from a page of another server")
}

/// Writes a refusal down, also when nobody knows of whom.
async fn refused(w: &Window, seat: Option<&Seat>, path: &str, why: &str) {
    let now = Time::now();
    if seat.is_none() && w.sessions.refusals(now, true) > WRITTEN {
        return;
    }
    let actor = seat.map_or("nobody", |s| s.caller.name.as_str());
    let e = NewEvent::new(now, actor, "ui.refused", Outcome::Refused);
    // A refusal stands also when it cannot be written down.
    let _ = w.ctx.rack.log(vec![e.with("what", path).with("reason", why)]).await;
}

/// A post that may be acted on.
pub(super) struct Posted {
    pub seat: Seat,
    pub fields: HashMap<String, String>,
}

impl Posted {
    /// A field that was filled in.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|v| v.trim()).filter(|v| !v.is_empty())
    }
}

impl FromRequest<Arc<Window>> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, w: &Arc<Window>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let refuse = |why: &str| Fault(Problem::new(StatusCode::FORBIDDEN, why)).into_response();
        let seat = parts.extensions.get::<Seat>().cloned();
        if let Some(why) = foreign(&parts.headers) {
            refused(w, seat.as_ref(), &path, why).await;
            return Err(refuse(&format!("{why}; nothing was done: use the page here itself")));
        }
        let seat = Seat::from_request_parts(&mut parts, w).await?;
        let request = Request::from_parts(parts, body);
        let form = Form::<HashMap<String, String>>::from_request(request, w).await;
        let Form(fields) =
            form.map_err(|e| Fault(Problem::new(e.status(), e.body_text())).into_response())?;
        let given = fields.get("form").map_or("", String::as_str);
        if !w.ctx.key.form_token_fits(&seat.session, given) {
            let why = if given.is_empty() { "no form token" } else { "a wrong form token" };
            refused(w, Some(&seat), &path, why).await;
            return Err(refuse(
                "this form is not of your session; nothing was done: load the page anew and send \
                 it from there",
            ));
        }
        Ok(Self { seat, fields })
    }
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    f: Frame,
    next: String,
    wrong: Option<String>,
}

/// Where to go after the login.
#[derive(Deserialize)]
pub(super) struct Next {
    next: Option<String>,
}

/// Only a path of ours: a link must not lead to another site by way of our
/// login.
fn ours(next: Option<&str>) -> &str {
    let plain = |s: &&str| {
        let rest = s.strip_prefix("/ui/");
        rest.is_some_and(|r| !r.starts_with(['/', '\\']) && !r.contains("..") && s.len() <= 500)
            && s.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'\\')
            && !s.starts_with("/ui/login")
    };
    next.filter(plain).unwrap_or("/ui/")
}

fn login_page(next: &str, wrong: Option<String>) -> LoginPage {
    let f = Frame::plain("Log in", "", None, Time::now());
    LoginPage { f, next: next.to_owned(), wrong }
}

pub(super) async fn form(Query(n): Query<Next>) -> Result<Response, Fault> {
    show(&login_page(ours(n.next.as_deref()), None))
}

pub(super) async fn login(
    State(w): State<Arc<Window>>,
    headers: HeaderMap,
    Form(fields): Form<HashMap<String, String>>,
) -> Result<Response, Fault> {
    if let Some(why) = foreign(&headers) {
        refused(&w, None, "/ui/login", why).await;
        return Err(Problem::new(StatusCode::FORBIDDEN, why).into());
    }
    let now = Time::now();
    let next = ours(fields.get("next").map(String::as_str));
    let digest = Digest::of(fields.get("token").map_or("", |t| t.trim()).as_bytes());
    let record = {
        let tokens = w.ctx.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&digest).filter(|t| !t.expired(now)).cloned()
    };
    let Some(record) = record else {
        // Whoever has the right one is let in all the same: nobody is to be
        // kept out by somebody who tries.
        if w.sessions.refusals(now, false) > WRONG {
            let wait = "too many wrong tokens in this minute; try again in the next".to_owned();
            return show_as(StatusCode::TOO_MANY_REQUESTS, &login_page(next, Some(wait)));
        }
        refused(&w, None, "/ui/login", "a token that is not known").await;
        let wrong = "This token is not known here. It begins with pv_, and is shown once, when it \
                     is made; it may be over, or revoked since."
            .to_owned();
        return show_as(StatusCode::UNAUTHORIZED, &login_page(next, Some(wrong)));
    };
    let cookie = w.ctx.key.open_session(&digest, now + session::LASTS).map_err(Problem::from)?;
    let e = NewEvent::new(now, &record.name, "ui.login", Outcome::Ok);
    w.ctx.rack.log(vec![e.with("role", record.role)]).await?;
    let seconds = session::LASTS.as_secs();
    set_cookie(&w, cookie.expose(), seconds, Redirect::to(next))
}

pub(super) async fn logout(State(w): State<Arc<Window>>, p: Posted) -> Result<Response, Fault> {
    w.sessions.end(&p.seat.session, Time::now());
    set_cookie(&w, "", 0, Redirect::to("/ui/login"))
}

fn set_cookie(w: &Window, value: &str, seconds: i64, to: Redirect) -> Result<Response, Fault> {
    let secure = if w.secure { "; Secure" } else { "" };
    let text =
        format!("{COOKIE}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}");
    let text = HeaderValue::from_str(&text).map_err(|e| Problem::internal(e.to_string()))?;
    let mut r = to.into_response();
    r.headers_mut().insert(header::SET_COOKIE, text);
    Ok(r)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_login_one_is_led_to_a_page_of_ours_and_nowhere_else() {
        for there in ["/ui/", "/ui/nodes/node01", "/ui/events?node=a&page=2"] {
            assert_eq!(ours(Some(there)), there);
        }
        for away in [
            "//evil",
            "https://evil/ui/",
            "/ui//evil",
            "/ui/\\evil",
            "/v1/nodes",
            "",
            "/ui/login",
            "/ui/../x",
            "/ui/a\r\nSet-Cookie: x",
            "/ui/\u{202e}",
        ] {
            assert_eq!(ours(Some(away)), "/ui/", "{away:?}");
        }
    }

    #[test]
    fn a_post_from_elsewhere_is_told_by_its_headers() {
        let h = |pairs: &[(&'static str, &'static str)]| {
            let mut h = HeaderMap::new();
            for (k, v) in pairs {
                h.insert(*k, HeaderValue::from_static(v));
            }
            foreign(&h).is_some()
        };
        assert!(!h(&[("host", "a:1"), ("origin", "https://a:1")]));
        assert!(!h(&[("host", "a:1"), ("origin", "null"), ("sec-fetch-site", "same-origin")]));
        assert!(!h(&[("host", "a:1")]));
        assert!(h(&[("host", "a:1"), ("origin", "https://b:1")]));
        assert!(h(&[("host", "a:1"), ("origin", "https://a:2")]));
        assert!(h(&[("host", "a:1"), ("sec-fetch-site", "cross-site")]));
        assert!(h(&[("host", "a:1"), ("sec-fetch-site", "same-site")]));
    }
}
