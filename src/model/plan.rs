//! What the build server and the agent say to each other: the install plan
//! one way, reports the other. Node-facing HTTP, JSON, bearer token of the
//! build; every report may be sent again and changes nothing the second time.
//!
//! | request | body | when |
//! |---|---|---|
//! | `GET /node/plan` | → [`InstallPlan`] | once the network is up |
//! | `GET /node/early`, `/node/late` | → shell | by the distribution's installer, in place of the agent |
//! | `GET /node/agent` | → the agent's program | by `late`, for the installed system |
//! | `POST /node/facts` | [`Facts`](super::Facts) | before anything is touched |
//! | `POST /node/phase` | [`PhaseReport`] | a phase begins, and once a second while bytes move |
//! | `POST /node/log?offset=N` | text | new log text, `N` bytes of which came before |
//! | `POST /node/failed` | [`FailureReport`] | the build cannot go on |
//! | `POST /node/installed` | [`InstalledReport`] | disk is complete, just before restart |
//! | `POST /node/booted` | [`BootedReport`] | the installed system runs |
//! | `POST /node/certificate` | [`CertificateRequest`] → [`SignedCertificate`] | in phase `profile`, where there is a registry |
//! | `POST /node/verified` | [`VerifiedReport`] | `verify.sh` has ended |

use super::{BuildId, Digest, DiskHint, Firmware, Mac, Name, NodeName, Phase, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// How the installed system is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootMethod {
    /// Through the firmware: proves that the disk boots.
    #[default]
    Reboot,
    /// Straight into the new kernel: skips minutes of self test.
    Kexec,
}

/// The root file system to write. See `image` for the two files' format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsPlan {
    /// Path of the compressed file system on the server, such as
    /// `/images/debian-12/0123456789abcdef/rootfs.zst`.
    pub data: String,
    /// Path of its chunk index.
    pub index: String,
    /// SHA-256 of the index, which holds the digest of every chunk.
    pub index_digest: Digest,
    /// Size of the file system in bytes, before it is grown to the disk.
    pub bytes: u64,
}

/// A user to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPlan {
    /// Login name; gets sudo without a password.
    pub name: String,
    /// Lines for `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// `$6$…` or yescrypt hash; none: the password is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
}

/// The node's address on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// Card the configuration is bound to.
    pub mac: Mac,
    /// Address.
    pub address: Ipv4Addr,
    /// Prefix length, 1 to 30.
    pub prefix: u8,
    /// Default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Time servers.
    #[serde(default)]
    pub ntp: Vec<Ipv4Addr>,
    /// Domain of the node.
    #[serde(default)]
    pub domain: String,
}

/// One script of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptPlan {
    /// File name, such as `10-docker.sh`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What to apply last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfilePlan {
    /// Name.
    pub name: Name,
    /// Digest of the profile.
    pub digest: Digest,
    /// Already in the image: do not run `scripts`.
    pub baked: bool,
    /// Scripts in order, to be run in the new system's root.
    pub scripts: Vec<ScriptPlan>,
    /// Groups the users join, where they exist by then.
    #[serde(default)]
    pub groups: Vec<String>,
    /// `verify.sh`, run after first boot as root.
    pub verify: String,
    /// Seconds `verify.sh` may take.
    pub verify_seconds: u64,
}

/// The deployment server's registry, as the node is to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryPlan {
    /// `host:port`, as in image names.
    pub host: String,
}

/// Asks for the node's client certificate; the key stays on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CertificateRequest {
    /// PKCS #10 request, PEM.
    pub csr: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SignedCertificate {
    /// The node's certificate, PEM.
    pub certificate: String,
    /// The authority that signed it and the registry's own, PEM.
    pub ca: String,
    /// Not good after.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Time,
}

/// What the distribution's own installer is told beside the rest, where it
/// makes the node and not the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallerPlan {
    /// Which release's preseed file, such as `debian-13`; empty: autoinstall.
    pub release: String,
    /// Directory of the packages on this server, such as `/installer/debian-13`.
    pub directory: String,
    /// Suite, such as `trixie`.
    pub suite: String,
    /// Suite of the installer's components, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udeb_suite: Option<String>,
    /// Directory of the security updates on this server; none: not during
    /// the install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<String>,
    /// Packages beside the base system.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Labels of the node.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Everything the agent needs to make the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallPlan {
    /// Build.
    pub build: BuildId,
    /// Host name.
    pub node: NodeName,
    /// The server's clock; the agent sets its own when it is off by more than
    /// two seconds.
    pub now: Time,
    /// Disk to wipe.
    pub disk: DiskHint,
    /// Root file system, where the agent writes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<RootfsPlan>,
    /// For the distribution's own installer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installer: Option<InstallerPlan>,
    /// Arguments for the installed kernel, such as consoles.
    pub kernel_args: String,
    /// Users.
    pub users: Vec<UserPlan>,
    /// Network.
    pub network: NetworkPlan,
    /// Profile.
    pub profile: ProfilePlan,
    /// Restart method.
    pub boot: BootMethod,
    /// Time zone of the node, such as `Etc/UTC`.
    pub timezone: String,
    /// Text for the node's `sources.list`; images hold none, since a mirror
    /// belongs to a site. Empty: the node gets none, and a profile that is not
    /// baked cannot install packages.
    #[serde(default)]
    pub apt_sources: String,
    /// The registry the node pulls from, if the site has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryPlan>,
}

/// A phase has begun or moved on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// Which.
    pub phase: Phase,
    /// Bytes done.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes in all; 0 when not known.
    #[serde(default)]
    pub total: u64,
    /// What is being done, readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The build cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// Where.
    pub phase: Phase,
    /// Why, in a sentence an operator can act on.
    pub reason: String,
}

/// The disk is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledReport {
    /// Digest over what was put on the disk, identity left out.
    pub manifest: Digest,
    /// The disk written: name, size, model, serial, readable.
    pub disk: String,
    /// Firmware it was made to boot with.
    pub firmware: Firmware,
    /// Public SSH host keys, as in `ssh_host_*_key.pub`.
    pub host_keys: Vec<String>,
}

/// The installed system runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootedReport {
    /// Kernel release.
    pub kernel: String,
    /// Seconds since the kernel started.
    pub uptime: u64,
}

/// `verify.sh` has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedReport {
    /// Exit code 0.
    pub ok: bool,
    /// Exit code, or 124 when it ran out of time.
    pub code: i32,
    /// Last lines of its output, at most 4 KiB.
    pub output: String,
}
