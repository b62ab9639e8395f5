//! Errors as problem+json (RFC 9457).

use crate::image::ImageError;
use crate::lifecycle::LifeError;
use crate::profile::ProfileError;
use crate::store::StoreError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

pub use super::ask::{Json, Path, Query, Whole};

/// What is wrong, and what would be right.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// Its usual words.
    #[schema(example = "Unprocessable Entity")]
    pub title: String,
    /// What is wrong here.
    #[schema(
        example = "MAC 52:54:00:12:34:56 of node02 belongs to node01; a MAC can have one node only"
    )]
    pub detail: String,
    /// The operation a node is busy with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// After how many seconds to ask again, where that makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// What of the request is at fault: a JSON pointer into the body
    /// (RFC 6901), such as `/macs/0`, or the name of a parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/macs/0")]
    pub field: Option<String>,
}

impl Problem {
    /// A problem.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("error").to_owned();
        // Nothing is done while the store is away; it may be back soon.
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(5);
        let status = status.as_u16();
        Self { status, title, detail: detail.into(), operation: None, retry_after, field: None }
    }

    /// Names what of the request is at fault, unless that is known already.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field.get_or_insert_with(|| field.into());
        self
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 400.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 422: it can be read, and is not possible here.
    pub fn unfit(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 500, with the detail in the log only when it may hold more than a
    /// caller should see.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut r = (status, axum::Json(&self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        r.headers_mut().insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1: a 401 says how to log in.
            let how = HeaderValue::from_static("Bearer realm=\"provision\"");
            r.headers_mut().insert(header::WWW_AUTHENTICATE, how);
        }
        if let Some(s) = self.retry_after {
            r.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(s));
        }
        r
    }
}

impl From<StoreError> for Problem {
    fn from(e: StoreError) -> Self {
        match &e {
            StoreError::Unavailable { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{e}; nothing was done, try again when it is back"),
            ),
            StoreError::Conflict { .. } => Self::new(StatusCode::CONFLICT, e.to_string()),
            StoreError::Corrupt(_) | StoreError::Unknown(_) => Self::internal(e.to_string()),
        }
    }
}

impl From<LifeError> for Problem {
    fn from(e: LifeError) -> Self {
        let text = e.to_string();
        match e {
            LifeError::UnknownNode { .. } | LifeError::NotFound(_) => Self::not_found(text),
            LifeError::Busy { operation, .. } => Self {
                operation: Some(operation.to_string()),
                ..Self::new(StatusCode::CONFLICT, text)
            },
            LifeError::Over(_) => Self::new(StatusCode::GONE, text),
            LifeError::NotNow(_) => Self::new(StatusCode::CONFLICT, text),
            LifeError::Unfit(u) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, text).at(u.field),
            LifeError::Refused(_) | LifeError::File(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, text)
            }
            LifeError::Store(s) => s.into(),
        }
    }
}

impl From<ImageError> for Problem {
    fn from(e: ImageError) -> Self {
        if e.is_unknown() { Self::not_found(e.to_string()) } else { Self::internal(e.to_string()) }
    }
}

impl From<ProfileError> for Problem {
    fn from(e: ProfileError) -> Self {
        if e.is_unknown() { Self::not_found(e.to_string()) } else { Self::internal(e.to_string()) }
    }
}

impl From<crate::auth::AuthError> for Problem {
    fn from(e: crate::auth::AuthError) -> Self {
        Self::internal(e.to_string())
    }
}
