//! `GET /auth/token`: Docker's token flow. Who shows a password, an API token
//! or a certificate gets a pass for a quarter of an hour; what the pass may do
//! is asked of the book each time.

use super::Desk;
use super::book::Who;
use crate::api::Problem;
use crate::model::{NewEvent, Outcome, Time};
use crate::store::Batch;
use axum::Json as Out;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Serialize;
use std::sync::Arc;

/// Seconds a pass is good.
const LIFE: i64 = 900;

/// The answer, as Docker's clients expect it.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Pass {
    token: String,
    access_token: String,
    expires_in: i64,
    #[schema(value_type = String, format = DateTime)]
    issued_at: Time,
}

/// Docker's token flow: a pass for who shows a password, an API token or a certificate.
#[utoipa::path(
    get,
    path = "/auth/token",
    tag = "registry",
    responses((status = 200, description = "A pass", body = Pass)),
    security(())
)]
pub(super) async fn token(
    State(desk): State<Arc<Desk>>,
    request: Request,
) -> Result<Out<Pass>, Problem> {
    let (parts, _) = request.into_parts();
    let now = Time::now();
    let who = match desk.book.who(&parts).await {
        Ok(w) => w,
        Err(why) => {
            let name = super::book::basic(&parts).map(|(n, _)| n).unwrap_or_default();
            let name: String = name.chars().filter(|c| !c.is_control()).take(32).collect();
            let e = NewEvent::new(now, "anonymous", "login.refused", Outcome::Refused);
            // A refusal stands also when it cannot be written down.
            let _ = desk.book.commit(Batch::new().event(e.with("as", name))).await;
            return Err(Problem::new(StatusCode::UNAUTHORIZED, why));
        }
    };
    let subject = match &who {
        Who::Person(n) => format!("user:{n}"),
        Who::Token(n, _) => format!("token:{n}"),
        Who::Node(n) => format!("node:{n}"),
        // A pass for nobody is no pass; the gate knows what everybody may do.
        Who::Anonymous | Who::Root => "anonymous".into(),
    };
    let until = now + jiff::SignedDuration::from_secs(LIFE);
    let pass = desk.book.key.pass(&subject, until).expose().to_owned();
    Ok(Out(Pass { token: pass.clone(), access_token: pass, expires_in: LIFE, issued_at: now }))
}
