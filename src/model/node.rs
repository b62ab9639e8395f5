//! A machine in the inventory: what the operator says of it, and what was
//! found out.

use super::{BuildId, LOADER_LABEL, Loader, Mac, Name, NodeName, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use utoipa::{PartialSchema as _, ToSchema as _};

/// Which firmware boots the node.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// Take what the node's DHCP packets say; for the BMC's boot flag, BIOS
    /// until a packet has said otherwise.
    #[default]
    Auto,
    /// Legacy PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Firmware::Auto => "auto",
            Firmware::Bios => "bios",
            Firmware::Uefi => "uefi",
        })
    }
}

/// Processor architecture.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// AMD64.
    #[default]
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

/// How power is controlled.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PowerDriver {
    /// Built in: IPMI 2.0 RMCP+, cipher suite 17, else 3.
    #[default]
    Ipmi,
    /// The `ipmitool` program: cipher suite 17 and odd BMCs.
    Ipmitool,
    /// In memory, for tests of everything above power.
    Fake,
}

fn default_ipmi_port() -> u16 {
    623
}

/// A node's BMC, without its password (that is kept encrypted elsewhere).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BmcSpec {
    /// Address of the BMC.
    #[schema(schema_with = ip_address)]
    pub address: IpAddr,
    /// UDP port, 623 unless said otherwise.
    #[serde(default = "default_ipmi_port")]
    pub port: u16,
    /// Driver.
    #[serde(default)]
    pub driver: PowerDriver,
    /// User name at the BMC, at most 16 characters (IPMI 2.0 §13.28).
    #[schema(
        min_length = 1,
        max_length = 16,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$",
        example = "root"
    )]
    pub user: String,
}

/// Which disk may be wiped. All the fields that are set must fit; when none
/// is set the node must have exactly one candidate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskHint {
    /// Serial number as the kernel shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World Wide Name (`naa.`, `eui.`), as the kernel shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// Device name or path, such as `/dev/sda`; not stable across boots, so
    /// last resort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Smallest size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_bytes: Option<u64>,
    /// Largest size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

impl DiskHint {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What the operator says of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Host name, unique.
    pub name: NodeName,
    /// MAC addresses, unique over the inventory; the first boots.
    #[schema(min_items = 1)]
    pub macs: Vec<Mac>,
    /// IPv4 address, unique, inside the subnet.
    #[schema(value_type = String, format = Ipv4, example = "10.1.0.11")]
    pub address: Ipv4Addr,
    /// Firmware.
    #[serde(default)]
    pub firmware: Firmware,
    /// Processor.
    #[serde(default)]
    pub arch: Arch,
    /// BMC, if power can be controlled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcSpec>,
    /// Which disk.
    #[serde(default, skip_serializing_if = "DiskHint::is_empty")]
    pub disk: DiskHint,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Kept in reserve: never chosen by anything automatic.
    #[serde(default)]
    pub spare: bool,
}

/// Where a node is in its life.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LifeCycle {
    /// Seen on the wire, not in the inventory.
    Discovered,
    /// In the inventory, may be installed.
    #[default]
    Ready,
    /// A build runs.
    Installing,
    /// Installed and verified.
    Deployed,
    /// The last build failed; the reason stands beside it.
    Failed,
    /// Booted into the rescue ramdisk.
    Rescue,
    /// Disk being wiped.
    Erasing,
    /// Out of service; never booted from us.
    Retired,
}

impl LifeCycle {
    /// All of them.
    pub const ALL: [LifeCycle; 8] = [
        LifeCycle::Discovered,
        LifeCycle::Ready,
        LifeCycle::Installing,
        LifeCycle::Deployed,
        LifeCycle::Failed,
        LifeCycle::Rescue,
        LifeCycle::Erasing,
        LifeCycle::Retired,
    ];
}

impl fmt::Display for LifeCycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LifeCycle::Discovered => "discovered",
            LifeCycle::Ready => "ready",
            LifeCycle::Installing => "installing",
            LifeCycle::Deployed => "deployed",
            LifeCycle::Failed => "failed",
            LifeCycle::Rescue => "rescue",
            LifeCycle::Erasing => "erasing",
            LifeCycle::Retired => "retired",
        })
    }
}

/// A disk as the agent found it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DiskFacts {
    /// Kernel name, such as `sda`.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Model.
    #[serde(default)]
    pub model: String,
    /// Serial number.
    #[serde(default)]
    pub serial: String,
    /// World Wide Name.
    #[serde(default)]
    pub wwn: String,
    /// Spinning.
    #[serde(default)]
    pub rotational: bool,
    /// USB, optical or other removable medium: never a candidate.
    #[serde(default)]
    pub removable: bool,
    /// Write-protected: never a candidate.
    #[serde(default)]
    pub read_only: bool,
}

/// A network card as the agent found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NicFacts {
    /// Kernel name.
    pub name: String,
    /// Address.
    pub mac: Mac,
    /// Kernel driver.
    #[serde(default)]
    pub driver: String,
    /// Carrier seen.
    #[serde(default)]
    pub link: bool,
}

/// What the agent found out about the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Facts {
    /// Processor model.
    #[serde(default)]
    pub cpu: String,
    /// Logical processors.
    #[serde(default)]
    pub cpus: u32,
    /// Memory in bytes.
    #[serde(default)]
    pub memory: u64,
    /// Disks.
    #[serde(default)]
    pub disks: Vec<DiskFacts>,
    /// Network cards.
    #[serde(default)]
    pub nics: Vec<NicFacts>,
    /// Firmware the machine booted with.
    #[serde(default)]
    pub firmware: Firmware,
    /// Whether that firmware starts signed loaders only; absent where it does
    /// not say (BIOS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    /// SMBIOS manufacturer and product.
    #[serde(default)]
    pub hardware: String,
    /// SMBIOS serial number (Dell: the service tag).
    #[serde(default)]
    pub serial: String,
    /// Firmware version.
    #[serde(default)]
    pub bios_version: String,
    /// The machine's clock when it told all this, before it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub clock: Option<Time>,
}

/// What was found out and decided about a node; written by the life cycle.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeStatus {
    /// State.
    #[serde(default)]
    pub life: LifeCycle,
    /// Why it is in it, where that needs saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The running or last build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildId>,
    /// What is installed, once deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Name>,
    /// What is installed, once deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Name>,
    /// Firmware seen in DHCP packets.
    #[serde(default)]
    pub firmware_seen: Firmware,
    /// Whether the firmware starts signed loaders only: as the agent read it,
    /// or as was concluded from a loader that it fetched and did not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    /// Last packet or report from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_seen: Option<Time>,
    /// Hardware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// `ssh-ed25519 AAAA…` lines of the installed system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<String>,
    /// Times of the state changes that matter for statistics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deployed_at: Option<Time>,
}

/// An address of either family, as a schema.
fn ip_address() -> utoipa::openapi::Schema {
    use utoipa::openapi::{KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, Type};
    let of = |format| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(format)))
    };
    let either = OneOfBuilder::new().item(of(KnownFormat::Ipv4)).item(of(KnownFormat::Ipv6));
    either.examples(["10.2.0.11"]).into()
}

/// A node: specification and status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What the operator says.
    #[serde(flatten)]
    pub spec: NodeSpec,
    /// What we know.
    #[serde(default)]
    pub status: NodeStatus,
}

/// One object: a derived schema would join two, and the first, being closed to
/// unknown fields when somebody writes it, would refuse the second.
impl utoipa::PartialSchema for Node {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::{Ref, RefOr, Schema};
        let mut schema = NodeSpec::schema();
        if let RefOr::T(Schema::Object(o)) = &mut schema {
            o.description = Some("A node: what the operator says of it, and what is known.".into());
            o.additional_properties = None;
            let status = Ref::from_schema_name(NodeStatus::name());
            o.properties.insert("status".into(), status.into());
            o.required.push("status".into());
        }
        schema
    }
}

impl utoipa::ToSchema for Node {
    fn schemas(all: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
        all.push((NodeStatus::name().into_owned(), NodeStatus::schema()));
        NodeStatus::schemas(all);
        NodeSpec::schemas(all);
    }
}

impl Node {
    /// A new node in state `ready`.
    pub fn new(spec: NodeSpec) -> Self {
        Self { spec, status: NodeStatus::default() }
    }

    /// What the label `loader` says; checked when it is set.
    pub fn loader(&self) -> Loader {
        let label = self.spec.labels.get(LOADER_LABEL);
        label.and_then(|l| l.parse().ok()).unwrap_or_default()
    }

    /// The firmware to set boot flags for: what the operator says, else what
    /// was seen, else BIOS.
    pub fn effective_firmware(&self) -> Firmware {
        match (self.spec.firmware, self.status.firmware_seen) {
            (Firmware::Auto, Firmware::Auto) => Firmware::Bios,
            (Firmware::Auto, seen) => seen,
            (said, _) => said,
        }
    }
}
