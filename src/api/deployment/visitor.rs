//! Who calls, where rights by repository decide and not a role: anybody the
//! [`Book`](super::Book) knows, also people and nodes.

use super::Desk;
use super::book::Who;
use crate::api::Problem;
use crate::auth::rights::Right;
use crate::model::{NewEvent, Outcome, Time};
use crate::store::Batch;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use std::sync::Arc;

/// Somebody known.
#[derive(Debug, Clone)]
pub struct Visitor(pub Who);

impl FromRequestParts<Arc<Desk>> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Problem> {
        let unknown = |why: String| Problem::new(StatusCode::UNAUTHORIZED, why);
        match desk.book.who(parts).await.map_err(unknown)? {
            Who::Anonymous => Err(unknown(
                "this needs a token: `Authorization: Bearer …`, or `provision --token-file FILE`"
                    .into(),
            )),
            who => Ok(Self(who)),
        }
    }
}

impl Visitor {
    /// Refuses who may not do `right` in `repository`, and says so in the log.
    ///
    /// # Errors
    /// 403.
    pub async fn needs(&self, desk: &Desk, repository: &str, right: Right) -> Result<(), Problem> {
        if desk.book.may(&self.0, repository, right) {
            return Ok(());
        }
        let (name, right) = (self.0.name(), right.as_str());
        let e = NewEvent::new(Time::now(), &name, "api.refused", Outcome::Refused)
            .with("what", right)
            .with("repository", repository);
        // A refusal stands also when it cannot be written down.
        let _ = desk.book.commit(Batch::new().event(e)).await;
        let m = format!("{name} has not the right '{right}' in {repository}");
        Err(Problem::new(StatusCode::FORBIDDEN, m))
    }
}
