//! The leader, asked by the Distribution Specification's own requests with a
//! token of its API. Whatever it answers is bounded in time and size, and
//! nothing is believed that was not hashed.

use crate::model::Secret;
use crate::registry::digest::Digest;
use crate::registry::error::{Fault, RegistryError};
use crate::registry::manifest::{Descriptor, LARGEST};
use crate::registry::name::{RepositoryName, Tag};
use crate::registry::storage::StorageError;
use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// For a small answer, to its end.
const PATIENCE: Duration = Duration::from_secs(60);
/// For a large one to begin.
const BEGINNING: Duration = Duration::from_secs(30);
/// Pages of one list, at most.
const PAGES: usize = 10_000;
/// Largest page, in bytes.
const LARGEST_PAGE: u64 = 8 * 1024 * 1024;
/// What manifests are asked for.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, */*;q=0.5";

/// Why something did not come.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// No answer.
    #[error("{leader} cannot be reached: {why}")]
    Unreachable {
        /// Who.
        leader: String,
        /// Why.
        why: String,
    },
    /// 401 or 403.
    #[error("{leader} refuses, so its token (role read) must be made anew: {why}")]
    Refused {
        /// Who.
        leader: String,
        /// Its words.
        why: String,
    },
    /// Another answer than expected.
    #[error("{leader} answers {status} to {what}: {why}")]
    Answer {
        /// Who.
        leader: String,
        /// What was asked.
        what: String,
        /// Status.
        status: u16,
        /// Its words.
        why: String,
    },
    /// What came is not what was asked for, or stopped coming.
    #[error("{0}")]
    Content(String),
    /// It could not be kept here.
    #[error("here: {0}")]
    Here(String),
}

impl FollowError {
    /// Whether the next request would end the same way.
    pub(super) fn ends_the_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { .. })
    }
}

impl From<StorageError> for FollowError {
    fn from(e: StorageError) -> Self {
        Self::Here(e.to_string())
    }
}

impl From<Fault> for FollowError {
    fn from(f: Fault) -> Self {
        Self::Here(f.message)
    }
}

impl From<RegistryError> for FollowError {
    fn from(e: RegistryError) -> Self {
        Self::Here(e.to_string())
    }
}

/// See the module.
pub struct Leader {
    http: reqwest::Client,
    base: String,
    token: Secret,
}

fn bottom(e: &reqwest::Error) -> String {
    let mut at: &dyn std::error::Error = e;
    while let Some(s) = at.source() {
        at = s;
    }
    at.to_string()
}

/// What stands in an error body of the specification, or its beginning.
fn words(body: &[u8]) -> String {
    let v: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = v["errors"][0]["message"].as_str().or(v["detail"].as_str());
    let text = said.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

impl Leader {
    /// `base` is `https://HOST:PORT`; `http` knows which authority to trust.
    pub fn new(http: reqwest::Client, base: &str, token: Secret) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned(), token }
    }

    /// For people.
    pub fn name(&self) -> &str {
        &self.base
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(self.token.expose())
    }

    fn lost(&self, e: &reqwest::Error) -> FollowError {
        let why = if e.is_timeout() { "no answer in time".into() } else { bottom(e) };
        FollowError::Unreachable { leader: self.base.clone(), why }
    }

    /// The answer, if it is a good one; `None` for 404.
    async fn checked(
        &self,
        what: &str,
        r: Result<Response, reqwest::Error>,
    ) -> Result<Option<Response>, FollowError> {
        let r = r.map_err(|e| self.lost(&e))?;
        let status = r.status();
        match status {
            s if s.is_success() => return Ok(Some(r)),
            StatusCode::NOT_FOUND => return Ok(None),
            _ => {}
        }
        let why = words(&self.body(r, 64 * 1024).await.unwrap_or_default());
        let leader = self.base.clone();
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                FollowError::Refused { leader, why }
            }
            s => FollowError::Answer { leader, what: what.into(), status: s.as_u16(), why },
        })
    }

    async fn body(&self, mut r: Response, most: u64) -> Result<Vec<u8>, FollowError> {
        let mut all = Vec::new();
        while let Some(b) = r.chunk().await.map_err(|e| self.lost(&e))? {
            if (all.len() + b.len()) as u64 > most {
                let m =
                    format!("{} sends more than {most} bytes for {}", self.base, r.url().path());
                return Err(FollowError::Content(m));
            }
            all.extend_from_slice(&b);
        }
        Ok(all)
    }

    /// A list in pages; `None` when what it is of is not there.
    async fn list(&self, path: String, of: &str) -> Result<Option<Vec<Value>>, FollowError> {
        let (mut all, mut next) = (Vec::new(), path);
        for _ in 0..PAGES {
            let r = self.request(Method::GET, &next).timeout(PATIENCE).send().await;
            let Some(r) = self.checked(&next, r).await? else { return Ok(None) };
            let link = r.headers().get("link").and_then(|l| l.to_str().ok()).and_then(after);
            let body = self.body(r, LARGEST_PAGE).await?;
            let mut v: Value = serde_json::from_slice(&body).map_err(|e| {
                FollowError::Content(format!("{}{next} cannot be read: {e}", self.base))
            })?;
            if let Value::Array(some) = v[of].take() {
                all.extend(some);
            }
            match link {
                Some(l) if l != next => next = l,
                _ => return Ok(Some(all)),
            }
        }
        Err(FollowError::Content(format!("{}{next}: the list has no end", self.base)))
    }

    /// All repositories.
    pub(super) async fn repositories(&self) -> Result<Vec<String>, FollowError> {
        let all = self.list("/v2/_catalog?n=1000".into(), "repositories").await?;
        Ok(texts(all.unwrap_or_default()))
    }

    /// All tags of a repository.
    pub(super) async fn tags(&self, repo: &RepositoryName) -> Result<Vec<String>, FollowError> {
        let all = self.list(format!("/v2/{repo}/tags/list?n=1000"), "tags").await?;
        Ok(texts(all.unwrap_or_default()))
    }

    /// What refers to `d`.
    pub(super) async fn referrers(
        &self,
        repo: &RepositoryName,
        d: &Digest,
    ) -> Result<Vec<Descriptor>, FollowError> {
        let all = self.list(format!("/v2/{repo}/referrers/{d}"), "manifests").await?;
        let all = all.unwrap_or_default().into_iter();
        Ok(all.filter_map(|v| serde_json::from_value(v).ok()).collect())
    }

    /// Where a tag points, or whether there is a manifest of this digest.
    pub(super) async fn digest_of(
        &self,
        repo: &RepositoryName,
        reference: &str,
    ) -> Result<Option<Digest>, FollowError> {
        let path = format!("/v2/{repo}/manifests/{reference}");
        let r = self.request(Method::HEAD, &path).header("accept", MANIFESTS).timeout(PATIENCE);
        let Some(r) = self.checked(&path, r.send().await).await? else { return Ok(None) };
        let said = r.headers().get("docker-content-digest").and_then(|d| d.to_str().ok());
        said.and_then(|d| d.parse().ok()).map(Some).ok_or_else(|| {
            FollowError::Content(format!("{}{path}: the answer names no digest", self.base))
        })
    }

    /// Where a tag points.
    pub(super) async fn tag(
        &self,
        repo: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, FollowError> {
        self.digest_of(repo, tag.as_str()).await
    }

    /// A manifest, hashed.
    pub(super) async fn manifest(
        &self,
        repo: &RepositoryName,
        d: &Digest,
    ) -> Result<Bytes, FollowError> {
        let path = format!("/v2/{repo}/manifests/{d}");
        let r = self.request(Method::GET, &path).header("accept", MANIFESTS).timeout(PATIENCE);
        let Some(r) = self.checked(&path, r.send().await).await? else {
            let m = format!("{} has the manifest {d} no more: looked at again soon", self.base);
            return Err(FollowError::Content(m));
        };
        let bytes: Bytes = self.body(r, LARGEST).await?.into();
        let real = Digest::with(d.algorithm(), &bytes);
        if real != *d {
            let m = format!("{} sent a manifest {real} for {d}", self.base);
            return Err(FollowError::Content(m));
        }
        Ok(bytes)
    }

    /// A blob from the byte `from` on; `None` when it is not there. The
    /// answer's body is not read yet.
    pub(super) async fn blob(
        &self,
        repo: &RepositoryName,
        d: &Digest,
        from: u64,
    ) -> Result<Option<Response>, FollowError> {
        let path = format!("/v2/{repo}/blobs/{d}");
        let mut r = self.request(Method::GET, &path);
        if from > 0 {
            r = r.header("range", format!("bytes={from}-"));
        }
        let sent = tokio::time::timeout(BEGINNING, r.send()).await.map_err(|_| {
            let why = format!("no answer within {} s", BEGINNING.as_secs());
            FollowError::Unreachable { leader: self.base.clone(), why }
        })?;
        self.checked(&path, sent).await
    }
}

fn texts(all: Vec<Value>) -> Vec<String> {
    all.into_iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The path of the next page: `</v2/…>; rel="next"`, on the same server.
fn after(link: &str) -> Option<String> {
    let (path, rest) = link.strip_prefix('<')?.split_once('>')?;
    (path.starts_with("/v2/") && rest.contains("next")).then(|| path.to_owned())
}
