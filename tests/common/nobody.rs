//! What a server is handed that has nothing to do in a test.

use provision::api::{Bmcs, ImageBuilder, Report};
use provision::model::{Digest, Name, Node, NodeName};
use provision::power::{Fake, PowerControl};
use std::io::Read;
use std::sync::Arc;

/// BMCs, images and boots of a server that has none.
pub struct Nothing;

#[async_trait::async_trait]
impl Bmcs for Nothing {
    async fn open(&self, _: &Node) -> Result<Arc<dyn PowerControl>, String> {
        Ok(Arc::new(Fake::default()))
    }
    fn forget(&self, _: &NodeName) {}
}

#[async_trait::async_trait]
impl ImageBuilder for Nothing {
    /// One of Debian 13 is never done.
    async fn build(&self, image: Name, _: Vec<Name>, r: Report) -> Result<Digest, String> {
        if image.as_str() == "debian-13" {
            r.wait("making the root file system", std::future::pending::<()>()).await?;
        }
        Err("not here".into())
    }

    async fn add(
        &self,
        _: Name,
        _: provision::api::images::AddImage,
        _: Report,
    ) -> Result<Digest, String> {
        Err("not here".into())
    }
}

/// No mirrors.
pub struct NoMirrors(pub provision::mirror::Mirrors);

#[async_trait::async_trait]
impl provision::api::mirrors::MirrorKeeper for NoMirrors {
    fn shelf(&self) -> &provision::mirror::Mirrors {
        &self.0
    }

    async fn build(&self, _: provision::api::mirrors::Order, _: Report) -> Result<Digest, String> {
        Err("not here".into())
    }

    async fn import(
        &self,
        _: Box<dyn Read + Send>,
        _: provision::mirror::Accept,
    ) -> Result<provision::mirror::Imported, provision::mirror::MirrorError> {
        Err(provision::mirror::MirrorError::Import("not here".into()))
    }
}
