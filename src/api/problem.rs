//! Errors as problem+json (RFC 9457).

use crate::image::ImageError;
use crate::lifecycle::LifeError;
use crate::profile::ProfileError;
use crate::store::StoreError;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// What is wrong, and what would be right.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Its usual words.
    pub title: String,
    /// What is wrong here.
    pub detail: String,
    /// The operation a node is busy with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

impl Problem {
    /// A problem.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("error").to_owned();
        Self { status: status.as_u16(), title, detail: detail.into(), operation: None }
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 400.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
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
        if status == StatusCode::SERVICE_UNAVAILABLE {
            r.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
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

/// JSON bodies whose faults are problems too.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> axum::extract::FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(r: axum::extract::Request, s: &S) -> Result<Self, Problem> {
        let axum::Json(v) = axum::Json::<T>::from_request(r, s)
            .await
            .map_err(|e| Problem::new(e.status(), e.body_text()))?;
        Ok(Self(v))
    }
}

/// Queries whose faults are problems too.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, s: &S) -> Result<Self, Problem> {
        let axum::extract::Query(v) = axum::extract::Query::<T>::from_request_parts(parts, s)
            .await
            .map_err(|e| Problem::new(e.status(), e.body_text()))?;
        Ok(Self(v))
    }
}

/// Parts of a path whose faults are problems too.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, s: &S) -> Result<Self, Problem> {
        let axum::extract::Path(v) = axum::extract::Path::<T>::from_request_parts(parts, s)
            .await
            .map_err(|e| Problem::new(e.status(), e.body_text()))?;
        Ok(Self(v))
    }
}
