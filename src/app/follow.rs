//! Follows another deployment server: its images, and which nodes'
//! certificates it signed and refuses, so that a node that may pull there may
//! pull here, and one that may not may not.

use super::images_at;
use crate::api::deployment::Book;
use crate::api::deployment::book::Certificate;
use crate::api::deployment::follow::Following;
use crate::client::{Client, Target};
use crate::config::bucket::private;
use crate::config::deployment::Deployment;
use crate::config::follow::Follow;
use crate::model::{NewEvent, Outcome, Secret, Time};
use crate::registry::follow::{Follower, Leader};
use crate::registry::{Registry, Settings, follow::Followed};
use crate::store::Batch;
use crate::tls;
use anyhow::{Context, Result, anyhow};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// For the leader to take a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// What the leader signed.
#[derive(serde::Deserialize)]
struct Signed {
    items: Vec<Certificate>,
}

/// See the module.
pub struct Follows {
    following: Arc<Following>,
    client: Client,
    book: Arc<Book>,
    /// Our authority's certificate, to be compared with the leader's.
    authority: String,
}

/// The registry's settings, with what is followed read-only.
///
/// # Errors
/// See [`images_at::settings`].
pub fn settings(c: &Deployment) -> Result<Settings> {
    let mut s = images_at::settings(c)?;
    if let Some(f) = c.follow.as_ref().filter(|f| f.images) {
        s.followed = Some(Followed::new(&f.leader, f.repositories.clone()));
    }
    Ok(s)
}

/// The token and the authority's file.
///
/// # Errors
/// What cannot be read, and what would be right.
pub fn access(c: &Deployment, f: &Follow) -> Result<(Secret, PathBuf)> {
    let token = private(&f.token_file).map_err(|e| anyhow!("[follow] token_file: {e}"))?;
    let ca = f.ca_file.clone().unwrap_or_else(|| c.state_dir.join("tls/ca.pem"));
    Ok((Secret::new(token.trim()), ca))
}

/// Prepares; nothing is asked yet.
///
/// # Errors
/// Files that cannot be read.
pub fn prepare(
    c: &Deployment,
    f: &Follow,
    registry: &Arc<Registry>,
    book: Arc<Book>,
    authority: &str,
) -> Result<Follows> {
    let (token, ca) = access(c, f)?;
    tls::install_provider();
    let config = tls::pin::with_ca(&ca).context("[follow] ca_file")?;
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .tls_backend_preconfigured(config)
        .build()
        .context("[follow]")?;
    let target = Target {
        server: f.leader.clone(),
        token: Some(token.clone()),
        ca: Some(ca),
        known_servers: PathBuf::new(),
    };
    let leader = Leader::new(http, &f.leader, token);
    let images = f.images.then(|| Arc::new(Follower::new(registry.clone(), leader)));
    let following = Following::new(&f.leader, f.repositories.clone(), f.every, images);
    Ok(Follows {
        following: Arc::new(following),
        client: Client::new(&target).context("[follow]")?,
        book,
        authority: authority.to_owned(),
    })
}

impl Follows {
    /// What others may see of it.
    pub fn following(&self) -> Arc<Following> {
        self.following.clone()
    }

    /// Until `stop`. After a failure the leader is asked again sooner than
    /// otherwise, and less and less often.
    ///
    /// # Errors
    /// None: what fails is shown, and tried again.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let mut failures = 0u32;
        let mut was: Option<bool> = None;
        loop {
            let good = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                good = self.look() => good,
            };
            if was != Some(good) {
                self.say(good).await;
            }
            was = Some(good);
            failures = if good { 0 } else { failures.saturating_add(1) };
            let again = Duration::from_secs(1 << failures.min(8));
            let wait = if good { self.following.every } else { again.min(self.following.every) };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn look(&self) -> bool {
        let known = self.certificates().await.map_err(|e| format!("{e:#}"));
        let mut good = known.is_ok();
        self.following.certificates_followed(known);
        if let Some(f) = &self.following.images {
            good &= f.pass().await;
        }
        good
    }

    /// How many certificates of the leader are known here now.
    async fn certificates(&self) -> Result<u64> {
        let ca = self.client.text("/v1/ca").await?;
        if ca.trim() != self.authority.trim() {
            return Err(anyhow!(
                "{} has another authority, so certificates of its nodes are not good here: stop \
                 this server, copy tls/ca.pem and tls/ca.key from there to its state_dir, remove \
                 tls/server.pem there, and start it again",
                self.following.leader
            ));
        }
        let all: Signed = self.client.get("/v1/certificates").await?;
        Ok(self.book.take_certificates(all.items).await?)
    }

    /// In the record and the log, when it begins and when it fails.
    async fn say(&self, good: bool) {
        let leader = &self.following.leader;
        let e = if good {
            tracing::info!(%leader, "all that is followed is here");
            NewEvent::new(Time::now(), "server", "follow.ok", Outcome::Ok)
        } else {
            let reason = self.following.problem().unwrap_or_default();
            tracing::warn!(%leader, reason, "following fails; what is here is served");
            NewEvent::new(Time::now(), "server", "follow.failing", Outcome::Failed)
                .with("reason", reason)
        };
        if let Err(e) = self.book.commit(Batch::new().event(e.with("leader", leader))).await {
            tracing::warn!(error = %e, "the record does not say how following goes");
        }
    }
}
