//! `/installer/IMAGE/PATH` on the boot network: the archive as the installer
//! of an image is to see it. What the image brings itself, components that
//! the archive lacks and the signed list of them, lies over the archive.

use super::packages;
use crate::cache::{self, Cache};
use crate::image::sources;
use crate::model::Name;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::path::{Component, PathBuf};
use std::sync::Arc;

/// What the route needs.
pub struct InstallerFiles {
    /// Images.
    pub images: PathBuf,
    /// The archives.
    pub cache: Arc<Cache>,
    /// The one of them that has the distribution's main suite.
    pub origin: Option<String>,
}

impl InstallerFiles {
    /// With the host's first Debian archive.
    pub fn new(images: PathBuf, cache: Arc<Cache>, c: &crate::config::Config) -> Self {
        // Of any release: it is the archive that is looked for.
        let all = sources::for_suite(std::path::Path::new(packages::APT), "trixie");
        let main = all.unwrap_or_default().into_iter().find(|s| s.suite == "trixie");
        let origin = main.and_then(|s| {
            packages::origins(c).into_iter().find(|o| o.url == s.uri).map(|o| o.name)
        });
        Self { images, cache, origin }
    }
}

/// The route.
pub fn router(state: Arc<InstallerFiles>) -> Router {
    Router::new().route("/installer/{image}/{*path}", get(file)).with_state(state)
}

async fn file(
    State(s): State<Arc<InstallerFiles>>,
    Path((image, path)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    if let Some(own) = own(&s, &image, &path)
        && let Ok(file) = tokio::fs::File::open(&own).await
        && let Ok(about) = file.metadata().await
        && about.is_file()
    {
        let length = [(header::CONTENT_LENGTH, about.len())];
        if method == Method::HEAD {
            return (length, ()).into_response();
        }
        let body = tokio_util::io::ReaderStream::with_capacity(file, 256 << 10);
        return (length, Body::from_stream(body)).into_response();
    }
    match &s.origin {
        Some(origin) => cache::http::answer(&s.cache, origin, &path, &method, &headers).await,
        None => {
            (StatusCode::NOT_FOUND, "apt on this host names no Debian archive\n").into_response()
        }
    }
}

/// A path below the image's own part of the archive, and nowhere else.
fn own(s: &InstallerFiles, image: &str, path: &str) -> Option<PathBuf> {
    let image: Name = image.parse().ok()?;
    let path = std::path::Path::new(path);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    plain.then(|| s.images.join(image.as_str()).join("suite").join(path))
}
