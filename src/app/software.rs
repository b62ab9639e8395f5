//! The deployment server as the window shows it: asked with the token that
//! this server has for it.

use crate::api::deployment::catalog::Catalog;
use crate::client::{Client, Target};
use crate::config::link::DeploymentLink;
use crate::ingest::run::Run;
use crate::model::Secret;
use crate::ui::Software;
use anyhow::{Context, Result};
use async_trait::async_trait;

/// See the module.
pub struct Remote {
    client: Client,
    url: String,
}

/// A list as the API gives it.
#[derive(serde::Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

impl Remote {
    /// Prepares; nothing is sent yet.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn new(link: &DeploymentLink) -> Result<Self> {
        let file = &link.token_file;
        let token = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let target = Target {
            server: link.url.clone(),
            token: Some(Secret::new(token.trim())),
            ca: Some(link.ca_file.clone()),
            known_servers: Default::default(),
        };
        let client = Client::new(&target).context("[deployment]")?;
        Ok(Self { client, url: link.url.clone() })
    }
}

#[async_trait]
impl Software for Remote {
    fn url(&self) -> &str {
        &self.url
    }

    async fn catalog(&self) -> Result<Catalog, String> {
        self.client.get("/v1/registry/catalog").await.map_err(|e| e.to_string())
    }

    async fn runs(&self) -> Result<Vec<Run>, String> {
        let all: Items<Run> = self.client.get("/v1/ingest").await.map_err(|e| e.to_string())?;
        Ok(all.items)
    }
}
