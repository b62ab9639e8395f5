//! `/installer/IMAGE/PATH` on the boot network: the archive as the installer
//! of an image is to see it. What the image brings itself, components that
//! the archive lacks and the signed list of them, lies over the archive.

use crate::cache::{self, Cache};
use crate::image::Catalogue;
use crate::model::Name;
use crate::netboot::http::send_file;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::path::PathBuf;
use std::sync::Arc;

/// What the route needs.
pub struct InstallerFiles {
    /// Images.
    pub images: Catalogue,
    /// The archives.
    pub cache: Arc<Cache>,
}

/// Where a path leads.
enum Leads {
    /// To a file of the image, with its digest.
    Here(PathBuf, String),
    /// To an archive of the cache.
    Archive(String),
    /// Nowhere, and why.
    Nowhere(String),
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
    let (images, asked) = (s.images.clone(), path.clone());
    let found = tokio::task::spawn_blocking(move || leads(&images, &image, &asked)).await;
    match found {
        Ok(Leads::Here(own, digest)) => send_file(own, &headers, Some(digest), None).await,
        Ok(Leads::Archive(origin)) => {
            cache::http::answer(&s.cache, &origin, &path, &method, &headers).await
        }
        Ok(Leads::Nowhere(why)) => (StatusCode::NOT_FOUND, why + "\n").into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// Looked up in the image's list, never joined: no path leads anywhere else.
fn leads(images: &Catalogue, image: &str, path: &str) -> Leads {
    let Ok(name) = image.parse::<Name>() else {
        return Leads::Nowhere(format!("{image:?} is no image's name"));
    };
    let image = match images.get(&name) {
        Ok(i) => i,
        Err(e) => return Leads::Nowhere(e.to_string()),
    };
    let Some(installer) = &image.description.installer else {
        return Leads::Nowhere(format!("image '{name}' has no installer"));
    };
    let own = format!("suite/{path}");
    if let Some(entry) = installer.files.get(&own) {
        return Leads::Here(image.dir.join(&own), entry.sha256.to_hex());
    }
    match &installer.origin {
        Some(origin) => Leads::Archive(origin.clone()),
        None => Leads::Nowhere(format!("image '{name}' was not made from an archive of the cache")),
    }
}
