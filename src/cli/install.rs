//! `provision install`.

use super::images::shown_or_watched;
use super::output::segment;
use super::watch::watch;
use super::{Fail, Session};
use crate::api::install::InstallRequest;
use crate::api::installs::InstallMany;
use crate::model::{Node, Operation};
use std::io::{IsTerminal, Write};

/// `provision install`
#[derive(clap::Args)]
#[command(after_help = "\
The node's disk is wiped. On a terminal you are asked first; --yes answers.

Examples:
  provision install node07 --profile docker
  provision install node07 node08 --profile base --image debian-13 --yes
  provision install node07 --profile docker --no-wait
  provision install node{01..40} --profile docker --at-once 10 --stop-after 3 --yes
  provision install node07 --profile docker --image debian-13-installer --mirror room7")]
pub struct InstallArgs {
    /// Nodes, by name or address
    #[arg(required = true)]
    nodes: Vec<String>,
    /// Software stack; `provision profiles` lists them
    #[arg(long, short)]
    profile: String,
    /// Operating system; the server's default when left out
    #[arg(long, short)]
    image: Option<String>,
    /// Take all packages from this mirror; for images of an installer
    #[arg(long)]
    mirror: Option<String>,
    /// Of several nodes, how many at once
    #[arg(long)]
    at_once: Option<usize>,
    /// Of several nodes, after how many that failed no other is begun
    #[arg(long)]
    stop_after: Option<usize>,
    /// Return at once and print the operations
    #[arg(long)]
    no_wait: bool,
    /// Do not ask before the disks are wiped
    #[arg(long, short)]
    yes: bool,
}

fn disk_of(n: &Node) -> String {
    let hint = &n.spec.disk;
    let by = [
        hint.serial.as_ref().map(|s| format!("serial {s}")),
        hint.wwn.as_ref().map(|s| format!("WWN {s}")),
        hint.path.clone(),
    ];
    match by.into_iter().flatten().next() {
        Some(d) => d,
        None => match n.status.facts.as_ref().map(|f| f.disks.as_slice()) {
            Some([d]) => format!("its only disk, {} ({})", d.name, super::output::bytes(d.bytes)),
            _ => "its only disk".to_owned(),
        },
    }
}

pub(super) async fn run(s: &Session, a: InstallArgs) -> Result<(), Fail> {
    // All names are checked before the first node is touched.
    let mut nodes = Vec::new();
    for n in &a.nodes {
        nodes.push(s.client.get::<Node>(&format!("/v1/nodes/{}", segment(n))).await?);
    }
    if !a.yes && std::io::stdin().is_terminal() {
        for n in &nodes {
            eprintln!("{}: {} will be wiped (now {})", n.spec.name, disk_of(n), n.status.life);
        }
        eprint!("install {}? [y/N] ", if nodes.len() == 1 { "it" } else { "them" });
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Fail::Use("nothing was done".into()));
        }
    }
    if a.at_once.is_some() || a.stop_after.is_some() {
        let body = InstallMany {
            nodes: nodes.iter().map(|n| n.spec.name.to_string()).collect(),
            profile: a.profile,
            image: a.image,
            mirror: a.mirror,
            at_once: a.at_once,
            stop_after: a.stop_after,
        };
        let op: Operation = s.client.post("/v1/installs", &body).await?;
        return shown_or_watched(s, op, a.no_wait).await;
    }
    let body = InstallRequest { profile: a.profile, image: a.image, mirror: a.mirror };
    let mut ops: Vec<Operation> = Vec::new();
    for n in &nodes {
        let started = s.client.post(&format!("/v1/nodes/{}/install", n.spec.name), &body).await;
        match started {
            Ok(op) => ops.push(op),
            Err(e) if ops.is_empty() => return Err(e.into()),
            // Those that were started go on; they are watched all the same.
            Err(e) => eprintln!("provision: {}: {e}", n.spec.name),
        }
    }
    let all = ops.len() == nodes.len();
    let not_all = || Fail::Operation("not all nodes could be started".into());
    if a.no_wait {
        s.out.show(&ops, |ops| {
            let mut t = super::output::Table::new(&["node", "operation", "build"]);
            for o in ops {
                let name = o.node.as_ref().map(ToString::to_string).unwrap_or_default();
                let build = o.build.as_ref().map(ToString::to_string).unwrap_or_default();
                t.row(&[name, o.id.to_string(), build]);
            }
            t
        })?;
        return if all { Ok(()) } else { Err(not_all()) };
    }
    watch(s, ops).await?;
    if all { Ok(()) } else { Err(not_all()) }
}
