//! Who calls: a bearer token, or root on this host by the local socket.

use super::{Clerk, Problem};
use crate::auth::Role;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use std::sync::Arc;

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
}

impl<C: Clerk> FromRequestParts<Arc<C>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, clerk: &Arc<C>) -> Result<Self, Problem> {
        if parts.extensions.get::<LocalPeer>().is_some() {
            return Ok(Self { name: "root".into(), role: Role::Admin });
        }
        let token = bearer(parts).ok_or_else(|| {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "this needs a token: `Authorization: Bearer …`, or `provision --token-file FILE`",
            )
        })?;
        match clerk.token(token) {
            Some(t) => Ok(Self { name: t.name, role: t.role }),
            None => Err(Problem::new(StatusCode::UNAUTHORIZED, "this token is not known here")),
        }
    }
}

/// The token of an `Authorization: Bearer` header.
pub fn bearer(parts: &Parts) -> Option<&str> {
    parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}
