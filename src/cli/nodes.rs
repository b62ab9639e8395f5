//! `provision nodes`.

use super::output::{Table, segment};
use super::watch::List;
use super::{Fail, Session};
use crate::api::Discovered;
use crate::api::nodes::{Import, NewNode, NodeChange};
use crate::config::nodes::PasswordSource;
use crate::lifecycle::Rack;
use crate::model::{BmcSpec, DiskHint, Firmware, Mac, Node, NodeName, NodeSpec, PowerDriver};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `provision nodes`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision nodes
  provision nodes import rack.toml
  provision nodes add node07 --mac b0:83:fe:00:00:07 --bmc 10.2.0.7 --bmc-user root --bmc-password-file idrac.pw
  provision nodes set node07 --disk-serial S3Z1NX0K --label row=3
  provision nodes discovered")]
pub struct NodesArgs {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// All nodes
    List,
    /// One node, with hardware and host keys
    Show {
        /// Name or address
        node: String,
    },
    /// Machines seen on the wire that are not in the inventory
    Discovered,
    /// Add a node
    Add(Box<AddArgs>),
    /// Add the nodes of a TOML file: all or none
    Import {
        /// File with [[node]] tables
        file: PathBuf,
    },
    /// Change a node
    Set(Box<SetArgs>),
    /// Take a node out of the inventory; its record stays
    Rm {
        /// Name or address
        node: String,
    },
}

#[derive(clap::Args)]
struct BmcArgs {
    /// Address of the BMC (iDRAC)
    #[arg(long)]
    bmc: Option<IpAddr>,
    /// Its UDP port; 623 unless said otherwise
    #[arg(long)]
    bmc_port: Option<u16>,
    /// User there
    #[arg(long)]
    bmc_user: Option<String>,
    /// ipmi (built in) or ipmitool
    #[arg(long, value_parser = driver)]
    bmc_driver: Option<PowerDriver>,
    /// File with the password, mode 0600; else PROVISION_BMC_PASSWORD
    #[arg(long)]
    bmc_password_file: Option<PathBuf>,
}

#[derive(clap::Args)]
struct DiskArgs {
    /// Serial number of the disk to install on
    #[arg(long)]
    disk_serial: Option<String>,
    /// World Wide Name of the disk
    #[arg(long)]
    disk_wwn: Option<String>,
    /// Device path of the disk; not stable, so last resort
    #[arg(long)]
    disk_path: Option<String>,
}

#[derive(clap::Args)]
struct AddArgs {
    /// Name
    name: NodeName,
    /// MAC address; the first boots
    #[arg(long, required = true)]
    mac: Vec<Mac>,
    /// Address; the first free one of the range when left out
    #[arg(long)]
    address: Option<Ipv4Addr>,
    /// bios, uefi or auto
    #[arg(long, default_value = "auto", value_parser = firmware)]
    firmware: Firmware,
    #[command(flatten)]
    bmc: BmcArgs,
    #[command(flatten)]
    disk: DiskArgs,
    /// Label KEY=VALUE
    #[arg(long, value_parser = label)]
    label: Vec<(String, String)>,
    /// Keep in reserve
    #[arg(long)]
    spare: bool,
}

#[derive(clap::Args)]
struct SetArgs {
    /// Name or address
    node: String,
    /// New MACs
    #[arg(long)]
    mac: Vec<Mac>,
    /// New address
    #[arg(long)]
    address: Option<Ipv4Addr>,
    /// bios, uefi or auto
    #[arg(long, value_parser = firmware)]
    firmware: Option<Firmware>,
    #[command(flatten)]
    bmc: BmcArgs,
    #[command(flatten)]
    disk: DiskArgs,
    /// Label KEY=VALUE; an empty value removes it
    #[arg(long, value_parser = label)]
    label: Vec<(String, String)>,
    /// In reserve, or not
    #[arg(long)]
    spare: Option<bool>,
    /// Take out of service: never booted from us
    #[arg(long, conflicts_with = "in_service")]
    retire: bool,
    /// Bring back into service
    #[arg(long)]
    in_service: bool,
}

impl NodesArgs {
    /// `provision nodes import FILE`.
    pub(super) fn import(file: PathBuf) -> Self {
        Self { what: Some(What::Import { file }) }
    }
}

fn word<T: serde::de::DeserializeOwned>(s: &str, known: &str) -> Result<T, String> {
    serde_json::from_value(s.into()).map_err(|_| format!("use one of {known}"))
}

fn firmware(s: &str) -> Result<Firmware, String> {
    word(s, "bios, uefi, auto")
}

fn driver(s: &str) -> Result<PowerDriver, String> {
    word(s, "ipmi, ipmitool, fake")
}

fn label(s: &str) -> Result<(String, String), String> {
    let (k, v) = s.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((k.to_owned(), v.to_owned()))
}

/// Reads a password file that only its owner may read.
fn password_file(path: &Path) -> Result<String, Fail> {
    let bad = |why: String| Fail::Use(format!("{}: {why}", path.display()));
    let mode = path.metadata().map_err(|e| bad(e.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(bad(format!(
            "mode {:o}: others can read this password; chmod 600",
            mode & 0o777
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

impl BmcArgs {
    /// The BMC as described here, on top of what is known of it.
    fn spec(&self, known: Option<BmcSpec>) -> Result<Option<BmcSpec>, Fail> {
        let nothing = self.bmc.is_none()
            && self.bmc_user.is_none()
            && self.bmc_port.is_none()
            && self.bmc_driver.is_none();
        if nothing {
            return Ok(None);
        }
        let known = known.as_ref();
        let address = self.bmc.or(known.map(|k| k.address));
        let user = self.bmc_user.clone().or(known.map(|k| k.user.clone()));
        let (Some(address), Some(user)) = (address, user) else {
            return Err(Fail::Use("a BMC needs both --bmc ADDRESS and --bmc-user USER".into()));
        };
        Ok(Some(BmcSpec {
            address,
            user,
            port: self.bmc_port.or(known.map(|k| k.port)).unwrap_or(623),
            driver: self.bmc_driver.or(known.map(|k| k.driver)).unwrap_or_default(),
        }))
    }

    /// The environment's password counts only when a BMC is named: it may
    /// stand there for another node.
    fn password(&self) -> Result<Option<String>, Fail> {
        match &self.bmc_password_file {
            Some(f) => password_file(f).map(Some),
            None if self.bmc.is_none() => Ok(None),
            None => Ok(std::env::var("PROVISION_BMC_PASSWORD").ok()),
        }
    }
}

impl DiskArgs {
    fn hint(self) -> Option<DiskHint> {
        let h = DiskHint {
            serial: self.disk_serial,
            wwn: self.disk_wwn,
            path: self.disk_path,
            ..DiskHint::default()
        };
        (!h.is_empty()).then_some(h)
    }
}

pub(super) async fn run(s: &Session, a: NodesArgs) -> Result<(), Fail> {
    match a.what.unwrap_or(What::List) {
        What::List => {
            let all: Vec<Node> = s.client.all("/v1/nodes").await?;
            s.out.show(&all, |nodes| table(nodes))
        }
        What::Show { node } => {
            let n: Node = s.client.get(&format!("/v1/nodes/{}", segment(&node))).await?;
            super::shown::node(s, n).await
        }
        What::Discovered => {
            let l: List<Discovered> = s.client.get("/v1/discovered").await?;
            s.out.show(&l.items, |all| {
                let mut t = Table::new(&["mac", "vendor", "client", "packets", "last seen"]);
                for d in all {
                    let class = d.vendor_class.clone().unwrap_or_default();
                    t.row(&[
                        d.mac.to_string(),
                        d.vendor.clone(),
                        class,
                        d.packets.to_string(),
                        d.last_seen.to_string(),
                    ]);
                }
                t
            })
        }
        What::Add(a) => {
            let (bmc, bmc_password) = (a.bmc.spec(None)?, a.bmc.password()?);
            let new = NewNode {
                name: a.name,
                macs: a.mac,
                address: a.address,
                firmware: a.firmware,
                arch: Default::default(),
                bmc_password: bmc_password.filter(|_| bmc.is_some()),
                bmc,
                disk: a.disk.hint().unwrap_or_default(),
                labels: a.label.into_iter().collect(),
                spare: a.spare,
            };
            let n: Node = s.client.post("/v1/nodes", &new).await?;
            s.out.show(&n, |n| table(std::slice::from_ref(n)))
        }
        What::Import { file } => import(s, &file).await,
        What::Set(a) => {
            let path = format!("/v1/nodes/{}", segment(&a.node));
            let known: Node = s.client.get(&path).await?;
            let labels: BTreeMap<_, _> = a.label.into_iter().collect();
            let change = NodeChange {
                macs: (!a.mac.is_empty()).then_some(a.mac),
                address: a.address,
                firmware: a.firmware,
                bmc: a.bmc.spec(known.spec.bmc)?,
                bmc_password: a.bmc.password()?,
                disk: a.disk.hint(),
                labels: (!labels.is_empty()).then_some(labels),
                spare: a.spare,
                retired: match (a.retire, a.in_service) {
                    (true, _) => Some(true),
                    (_, true) => Some(false),
                    _ => None,
                },
            };
            let n: Node =
                s.client.patch(&format!("/v1/nodes/{}", segment(&a.node)), &change).await?;
            s.out.show(&n, |n| table(std::slice::from_ref(n)))
        }
        What::Rm { node } => {
            s.client.delete(&format!("/v1/nodes/{}", segment(&node))).await?;
            s.out.say(format!("{node} is out of the inventory; its record stays"))
        }
    }
}

/// Sends an inventory file with the passwords that it points to.
async fn import(s: &Session, file: &Path) -> Result<(), Fail> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|e| Fail::Use(format!("{name}: {e}")))?;
    let entries = Rack::read_import(&text, &name).map_err(|e| Fail::Use(e.to_string()))?;
    let base = file.parent().unwrap_or(Path::new("."));
    let mut passwords = BTreeMap::new();
    for e in entries {
        let p = match &e.password {
            Some(PasswordSource::File(f)) => password_file(&base.join(f))?,
            Some(PasswordSource::Env(v)) => std::env::var(v)
                .map_err(|_| Fail::Use(format!("{name}:{}: the environment has no {v}", e.line)))?,
            None => continue,
        };
        passwords.insert(e.spec.name, p);
    }
    let done: List<NodeSpec> =
        s.client.post("/v1/nodes/import", &Import { file: name, text, passwords }).await?;
    s.out.show(&done.items, |specs| {
        let mut t = Table::new(&["name", "address", "mac"]);
        for n in specs {
            t.row(&[
                n.name.to_string(),
                n.address.to_string(),
                n.macs.first().map(ToString::to_string).unwrap_or_default(),
            ]);
        }
        t
    })
}

fn table(nodes: &[Node]) -> Table {
    let mut t =
        Table::new(&["name", "state", "address", "mac", "firmware", "image", "profile", "why"]);
    for n in nodes {
        let or_dash =
            |o: &Option<crate::model::Name>| o.as_ref().map_or("-".into(), ToString::to_string);
        t.row(&[
            n.spec.name.to_string(),
            n.status.life.to_string(),
            n.spec.address.to_string(),
            n.spec.macs.first().map(ToString::to_string).unwrap_or_default(),
            n.effective_firmware().to_string(),
            or_dash(&n.status.image),
            or_dash(&n.status.profile),
            n.status.reason.clone().unwrap_or_default(),
        ]);
    }
    t
}
