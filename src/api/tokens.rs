//! `/v1/tokens`: made, listed, revoked. A token is shown once, when it is
//! made; what is kept is its digest.

use super::events::parse_since;
use super::problem::{Json, Path};
use super::{Caller, Clerk, List, Problem, demand};
use crate::auth::{Role, TokenRecord, token};
use crate::model::{NewEvent, Outcome, Time};
use crate::store::{Batch, Expect, kind};
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, PoisonError};

/// A token to make.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Who it is for: the actor in events. 1 to 32 letters, digits, `-`, `_`,
    /// `.`, `@` and spaces within, the first a letter or digit; not `root`,
    /// `server`, `nobody` or `anonymous`, who are others in the record.
    #[schema(
        min_length = 1,
        max_length = 32,
        pattern = r"^[A-Za-z0-9]([A-Za-z0-9_.@ -]*[A-Za-z0-9_.@-])?$",
        example = "telescope"
    )]
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Until when it is good: a time (RFC 3339) or how long from now (`30d`,
    /// `12h`); for ever, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = r"^([1-9][0-9]{0,3}[smhd]|[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:[0-5][0-9]))$",
        example = "30d"
    )]
    pub expires: Option<String>,
}

/// A token just made.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MadeToken {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// When it stops being good, if ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Time>,
    /// The token; not shown again.
    pub token: String,
}

/// API tokens, without what is secret.
#[utoipa::path(
    get,
    path = "/v1/tokens",
    tag = "tokens",
    responses((status = 200, description = "Tokens", body = List<TokenRecord>))
)]
pub(super) async fn list<C: Clerk>(
    caller: Caller,
    State(ctx): State<Arc<C>>,
) -> Result<Out<List<TokenRecord>>, Problem> {
    demand(&*ctx, &caller, Role::Admin, "listing tokens").await?;
    let all = ctx.tokens().read().unwrap_or_else(PoisonError::into_inner);
    let mut items: Vec<TokenRecord> = all.values().cloned().collect();
    items.sort_by_key(|t| t.made);
    Ok(Out(List { items }))
}

/// A name that cannot be taken for another actor's, nor for a path.
fn is_name(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-_.@ ".contains(&b);
    (1..=32).contains(&name.len())
        && name.bytes().all(known)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !name.ends_with(' ')
        && !["root", "server", "nobody", "anonymous"].iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// Makes an API token; it is shown this once.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    tag = "tokens",
    request_body(content = NewToken, example = json!({ "name": "telescope", "role": "operate" })),
    responses((status = 201, description = "The token", body = MadeToken))
)]
pub(super) async fn add<C: Clerk>(
    caller: Caller,
    State(ctx): State<Arc<C>>,
    Json(n): Json<NewToken>,
) -> Result<(StatusCode, Out<MadeToken>), Problem> {
    demand(&*ctx, &caller, Role::Admin, "making a token").await?;
    if !is_name(&n.name) {
        let m = "a token's name is 1 to 32 letters, digits, '-', '_', '.', '@' and spaces within, \
                 begins with a letter or digit, and is not root, server, nobody or anonymous";
        return Err(Problem::unfit(m).at("/name"));
    }
    let taken = {
        let all = ctx.tokens().read().unwrap_or_else(PoisonError::into_inner);
        all.values().any(|t| t.name == n.name)
    };
    if taken {
        let m = format!("there is a token named {:?}; revoke it first", n.name);
        return Err(Problem::new(StatusCode::CONFLICT, m));
    }
    let (secret, digest) = token::generate()?;
    let now = Time::now();
    let expires = n.expires.as_deref().map(|e| until(e, now)).transpose()?;
    let record = TokenRecord { name: n.name.clone(), role: n.role, made: now, expires };
    let mut event = NewEvent::new(now, &caller.name, "token.make", Outcome::Ok)
        .with("name", &n.name)
        .with("role", n.role);
    if let Some(t) = expires {
        event = event.with("expires", t);
    }
    let batch =
        Batch::new().put(kind::TOKEN, &digest.to_string(), &record, Expect::Absent)?.event(event);
    ctx.commit(batch).await?;
    ctx.tokens().write().unwrap_or_else(PoisonError::into_inner).insert(digest, record);
    let token = secret.expose().to_owned();
    let made = MadeToken { name: n.name, role: n.role, expires, token };
    Ok((StatusCode::CREATED, Out(made)))
}

/// A time that is to come.
fn until(text: &str, now: Time) -> Result<Time, Problem> {
    let at = match text.parse::<Time>() {
        Ok(t) => t,
        Err(_) => {
            // As long ago, turned round.
            let ago = parse_since(text, now).map_err(|_| {
                Problem::unfit(format!(
                    "expires={text:?} is neither a time like 2027-01-31T09:00:00Z nor a span like \
                     12h or 30d"
                ))
                .at("/expires")
            })?;
            now + now.duration_since(ago)
        }
    };
    if at <= now {
        return Err(Problem::unfit(format!("expires={text:?} is over already")).at("/expires"));
    }
    Ok(at)
}

/// Takes an API token away.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{name}",
    tag = "tokens",
    params(("name" = String, Path, description = "Name of the token")),
    responses((status = 204, description = "Gone"))
)]
pub(super) async fn revoke<C: Clerk>(
    caller: Caller,
    State(ctx): State<Arc<C>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    demand(&*ctx, &caller, Role::Admin, "revoking a token").await?;
    let digests: Vec<_> = {
        let all = ctx.tokens().read().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(_, t)| t.name == name).map(|(d, _)| *d).collect()
    };
    if digests.is_empty() {
        return Err(Problem::not_found(format!("there is no token named {name:?}")));
    }
    let event = NewEvent::new(Time::now(), &caller.name, "token.revoke", Outcome::Ok);
    let mut batch = Batch::new().event(event.with("name", &name));
    for d in &digests {
        batch = batch.delete(kind::TOKEN, &d.to_string());
    }
    ctx.commit(batch).await?;
    let mut all = ctx.tokens().write().unwrap_or_else(PoisonError::into_inner);
    digests.iter().for_each(|d| drop(all.remove(d)));
    Ok(StatusCode::NO_CONTENT)
}
