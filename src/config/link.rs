//! `[deployment]` in the build server's file: where the deployment server is.

use super::resolved::{Fault, fault};
use super::wire;
use std::path::{Path, PathBuf};

/// How the deployment server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentLink {
    /// `https://host:port`.
    pub url: String,
    /// `host:port`, as it stands in image names.
    pub host: String,
    /// The authority that signed its certificate.
    pub ca_file: PathBuf,
    /// A token of the role `operate`.
    pub token_file: PathBuf,
}

pub(super) fn link(d: wire::Deployment, base: &Path) -> Result<DeploymentLink, Fault> {
    let url = d.url.get_ref().trim_end_matches('/');
    let host = url.strip_prefix("https://").filter(|h| !h.is_empty() && !h.contains('/'));
    let Some(host) = host else {
        return fault(d.url.span(), format!("url {url:?} must be https://HOST:PORT"));
    };
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:443") };
    Ok(DeploymentLink {
        url: url.to_owned(),
        host,
        ca_file: base.join(d.ca_file),
        token_file: base.join(d.token_file),
    })
}
