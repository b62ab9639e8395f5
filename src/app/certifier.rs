//! Asks the deployment server for nodes' certificates, and tells it which
//! nodes to refuse. What it could not be told is in the store and told later,
//! also after a restart.

use crate::api::Certifier;
use crate::api::deployment::certificates::{RevokeRequest, SignRequest};
use crate::api::nodes::{REVOCATION, Revocation};
use crate::client::{Client, Target};
use crate::config::link::DeploymentLink;
use crate::model::plan::SignedCertificate;
use crate::model::{BuildId, NodeName, Secret};
use crate::store::{Batch, Store};
use anyhow::{Context, Result};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often a server that is away is told again.
const AGAIN: Duration = Duration::from_secs(15);

/// See the module.
pub struct Remote {
    client: Client,
    store: Arc<dyn Store>,
    news: Notify,
}

impl Remote {
    /// Prepares; nothing is sent yet.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn new(link: &DeploymentLink, store: Arc<dyn Store>) -> Result<Self> {
        let file = &link.token_file;
        let token = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let target = Target {
            server: link.url.clone(),
            token: Some(Secret::new(token.trim())),
            ca: Some(link.ca_file.clone()),
            known_servers: Default::default(),
        };
        let client = Client::new(&target).context("[deployment]")?;
        Ok(Self { client, store, news: Notify::new() })
    }

    /// Tells what is to be told, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let left = self.tell().await;
            if let Err(e) = &left {
                tracing::warn!(error = %e, "the deployment server is not told which nodes to refuse; trying again");
            }
            let again = async {
                match left {
                    Ok(()) => std::future::pending().await,
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.news.notified() => {}
                () = again => {}
            }
        }
    }

    async fn tell(&self) -> Result<()> {
        for doc in self.store.list(REVOCATION).await? {
            let r: Revocation = serde_json::from_value(doc.value)?;
            let node: NodeName = doc.key.parse()?;
            let body = RevokeRequest { node, reason: r.reason };
            let _: serde_json::Value = self.client.post("/v1/certificates/revoke", &body).await?;
            self.store.commit(Batch::new().delete(REVOCATION, &doc.key)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Certifier for Remote {
    async fn sign(
        &self,
        node: &NodeName,
        build: &BuildId,
        csr: String,
    ) -> Result<SignedCertificate, String> {
        let body = SignRequest { node: node.clone(), build: Some(build.as_str().to_owned()), csr };
        let answer = self.client.post("/v1/certificates", &body).await;
        answer.map_err(|e| format!("the deployment server gives no certificate: {e}"))
    }

    fn wake(&self) {
        self.news.notify_one();
    }
}
