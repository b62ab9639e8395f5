//! `provision nodes show`: what both servers know of one node.

use super::output::{Table, bytes, segment};
use super::{Fail, Session};
use crate::api::deployment::workload::ShownNode;
use crate::client::ClientError;
use crate::model::{Container, Node, Time};
use serde::Serialize;

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    node: Node,
    /// Containers, with the digests of their images.
    running: Vec<Container>,
    /// Silent since.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<Time>,
}

/// Prints `node`, with what runs on it where a deployment server says so.
pub(super) async fn node(s: &Session, node: Node) -> Result<(), Fail> {
    let path = format!("/v1/nodes/{}", segment(node.spec.name.as_str()));
    let told: Result<ShownNode, _> = s.deployment.get(&path).await;
    let (running, lost) = match told {
        Ok(t) => (t.running, t.lost),
        // No deployment server, or a node that it does not know.
        Err(ClientError::Unreachable { .. } | ClientError::Wrong(_)) => (Vec::new(), None),
        Err(e) => {
            eprintln!("what runs on it is not shown: {e}");
            (Vec::new(), None)
        }
    };
    s.out.show(&Shown { node, running, lost }, table)
}

fn table(shown: &Shown) -> Table {
    let n = &shown.node;
    let mut t = Table::plain();
    let mut row = |k: &str, v: String| t.row(&[k.to_owned(), v]);
    row("name", n.spec.name.to_string());
    row("state", n.status.life.to_string());
    if let Some(r) = &n.status.reason {
        row("why", r.clone());
    }
    row("address", n.spec.address.to_string());
    row("macs", n.spec.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    let signed = match n.status.secure_boot {
        Some(true) => ", Secure Boot on",
        _ => "",
    };
    row("firmware", format!("{}{signed}", n.effective_firmware()));
    if let Some(b) = &n.spec.bmc {
        let driver = format!("{:?}", b.driver).to_lowercase();
        row("bmc", format!("{}:{} as {} by {driver}", b.address, b.port, b.user));
    }
    if n.spec.disk.is_empty() {
        row("disk hint", "none: the node must have one disk".into());
    } else {
        row("disk hint", serde_json::to_string(&n.spec.disk).unwrap_or_default());
    }
    if n.spec.spare {
        row("spare", "yes".into());
    }
    for (k, v) in &n.spec.labels {
        row("label", format!("{k}={v}"));
    }
    if let (Some(i), Some(p)) = (&n.status.image, &n.status.profile) {
        row("installed", format!("{i} with {p}"));
    }
    if let Some(b) = &n.status.build {
        row("build", b.to_string());
    }
    if let Some(f) = &n.status.facts {
        row("hardware", format!("{} serial {}", f.hardware, f.serial));
        row("cpu", format!("{} x {}", f.cpus, f.cpu));
        row("memory", bytes(f.memory));
        for d in &f.disks {
            row("disk", format!("{} {} {} serial {}", d.name, bytes(d.bytes), d.model, d.serial));
        }
        for c in &f.nics {
            row(
                "card",
                format!(
                    "{} {} {} {}",
                    c.name,
                    c.mac,
                    c.driver,
                    if c.link { "link" } else { "no link" }
                ),
            );
        }
    }
    for c in &shown.running {
        let digest = if c.digest.is_empty() { "made on the node" } else { &c.digest };
        row("runs", format!("{} as {}, {digest}", c.image, c.name));
    }
    if let Some(t) = shown.lost {
        row("lost", format!("has told nothing since {t:.0}"));
    }
    for k in &n.status.host_keys {
        row("known_hosts", format!("{},{} {k}", n.spec.name, n.spec.address));
    }
    t
}
