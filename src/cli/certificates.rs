//! `provision certificates`.

use super::output::Table;
use super::watch::List;
use super::{Fail, Session};
use crate::api::deployment::book::Certificate;
use crate::api::deployment::certificates::RevokeRequest;
use crate::model::{NodeName, Time};

/// `provision certificates`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision certificates
  provision certificates --node node07
  provision certificates revoke node07 --reason 'disk was sent back'")]
pub struct CertificatesArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Only of this node
    #[arg(long)]
    node: Option<NodeName>,
}

#[derive(clap::Subcommand)]
enum What {
    /// Refuse all certificates of a node from now on
    Revoke {
        /// Node
        node: NodeName,
        /// Why; it is in the record and in what the node is told
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(s: &Session, a: CertificatesArgs) -> Result<(), Fail> {
    if let Some(What::Revoke { node, reason }) = a.what {
        let request = RevokeRequest { node: node.clone(), reason };
        let () = s.client.post("/v1/certificates/revoke", &request).await?;
        return s.out.say(format!("the certificates of {node} are refused"));
    }
    let mut l: List<Certificate> = s.client.get("/v1/certificates").await?;
    l.items.retain(|c| a.node.as_ref().is_none_or(|n| c.node == *n));
    l.items.sort_by(|a, b| (&a.node, a.issued).cmp(&(&b.node, b.issued)));
    let now = Time::now();
    s.out.show(&l.items, |all| {
        let mut t = Table::new(&["node", "serial", "issued", "expires", "state"]);
        for c in all {
            let state = match &c.revoked {
                Some(r) => format!("refused since {:.19}: {}", r.at.to_string(), r.reason),
                None if c.expires < now => "over".into(),
                None => "good".into(),
            };
            t.row(&[
                c.node.to_string(),
                c.serial.clone(),
                format!("{:.19}", c.issued.to_string()),
                format!("{:.19}", c.expires.to_string()),
                state,
            ]);
        }
        t
    })
}
