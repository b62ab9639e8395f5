//! The deployment server as the window shows it: asked with the token that
//! this server has for it.

use crate::api::deployment::catalog::Catalog;
use crate::api::deployment::ingest::Attestations;
use crate::client::{Client, ClientError, Target};
use crate::config::link::DeploymentLink;
use crate::ingest::run::{Run, RunId};
use crate::model::{Event, Secret};
use crate::ui::{Part, Software, Unheard};
use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;

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

fn unheard(e: ClientError) -> Unheard {
    match e {
        ClientError::Wrong(why) => Unheard::Absent(why),
        e => Unheard::Away(e.to_string()),
    }
}

#[async_trait]
impl Software for Remote {
    fn url(&self) -> &str {
        &self.url
    }

    async fn catalog(&self) -> Result<Catalog, Unheard> {
        self.client.get("/v1/registry/catalog").await.map_err(unheard)
    }

    async fn runs(&self) -> Result<Vec<Run>, Unheard> {
        let all: Items<Run> = self.client.get("/v1/ingest").await.map_err(unheard)?;
        Ok(all.items)
    }

    async fn run(&self, id: &RunId) -> Result<Run, Unheard> {
        self.client.get(&format!("/v1/ingest/{id}")).await.map_err(unheard)
    }

    async fn log(&self, id: &RunId, part: Part) -> Result<Bytes, Unheard> {
        let part = match part {
            Part::From(offset) => format!("offset={offset}"),
            Part::Last(bytes) => format!("tail={bytes}"),
        };
        self.client.bytes(&format!("/v1/ingest/{id}/log?{part}")).await.map_err(unheard)
    }

    async fn attestations(&self, image: &str) -> Result<Attestations, Unheard> {
        self.client.get(&format!("/v1/attestations/{image}")).await.map_err(unheard)
    }

    async fn promotions(&self, most: usize) -> Result<Vec<Event>, Unheard> {
        let path = format!("/v1/events?action=image.promote&limit={most}");
        let all: Items<Event> = self.client.get(&path).await.map_err(unheard)?;
        Ok(all.items)
    }
}
