//! Asks the [`Book`] for the registry, and tells clients how to log in.

use super::book::{Book, Who};
use crate::auth::rights::Right;
use crate::registry::{Action, Caller, Gate, Refusal, Verb};
use async_trait::async_trait;
use axum::http::header;
use axum::http::request::Parts;
use std::sync::Arc;

/// The registry's gate.
pub struct Keeper(pub Arc<Book>);

#[async_trait]
impl Gate for Keeper {
    async fn admit(&self, request: &Parts, action: &Action) -> Result<Caller, Refusal> {
        let who = match self.0.who(request).await {
            Ok(w) => w,
            Err(why) => return Err(unknown(request, action, why)),
        };
        let repository = action.repository.as_ref().map(|r| r.as_str());
        let may = match (&action.verb, repository) {
            // Docker asks so whether it must log in: only those who have
            // something to show are let through.
            (Verb::Base, _) => who != Who::Anonymous,
            (Verb::Catalog, _) => matches!(who, Who::Root | Who::Token(..)),
            (Verb::Mount { from }, Some(r)) => {
                self.0.may(&who, r, Right::Push) && self.0.may(&who, from.as_str(), Right::Pull)
            }
            (verb, Some(r)) => self.0.may(&who, r, right(verb)),
            (_, None) => false,
        };
        if may {
            return Ok(Caller { name: who.name() });
        }
        let what = describe(action);
        if who == Who::Anonymous {
            let m = format!(
                "{what} needs a login (`docker login`) or a node's client certificate; this \
                 request came with neither"
            );
            return Err(unknown(request, action, m));
        }
        let m = format!("{} may not {what}", who.name());
        Err(Refusal { status: 403, message: m, challenge: None })
    }
}

fn right(verb: &Verb) -> Right {
    match verb {
        Verb::Push | Verb::Mount { .. } => Right::Push,
        Verb::Delete => Right::Delete,
        Verb::Pull | Verb::Base | Verb::Catalog => Right::Pull,
    }
}

fn describe(action: &Action) -> String {
    let at = action.repository.as_ref().map(|r| r.as_str().to_owned()).unwrap_or_default();
    match &action.verb {
        Verb::Base => "using this registry".into(),
        Verb::Catalog => "list all repositories (an API token may)".into(),
        Verb::Pull => format!("pull from {at}"),
        Verb::Push => format!("push to {at}"),
        Verb::Delete => format!("delete in {at}"),
        Verb::Mount { from } => format!("mount from {from} in {at}"),
    }
}

/// 401 with where to get a token (Docker's token flow, as RFC 6750 `Bearer`).
fn unknown(request: &Parts, action: &Action, message: String) -> Refusal {
    let scope = action.repository.as_ref().map(|r| {
        let actions = match action.verb {
            Verb::Push | Verb::Mount { .. } => "pull,push",
            Verb::Delete => "delete",
            _ => "pull",
        };
        format!(",scope=\"repository:{}:{actions}\"", r.as_str())
    });
    let challenge = host(request).map(|h| {
        format!(
            "Bearer realm=\"https://{h}/auth/token\",service=\"{h}\"{}",
            scope.unwrap_or_default()
        )
    });
    // Without a usable host there is still a way in.
    let challenge = challenge.unwrap_or_else(|| "Basic realm=\"registry\"".into());
    Refusal { status: 401, message, challenge: Some(challenge) }
}

/// The host the client used, if it can stand in a header.
fn host(request: &Parts) -> Option<String> {
    let h = request.headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let h = h.or_else(|| request.uri.authority().map(|a| a.as_str()))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    (!h.is_empty() && h.len() <= 260 && h.chars().all(plain)).then(|| h.to_owned())
}
