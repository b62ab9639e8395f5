//! `image.toml` and `baked.toml`, as types. Field order is the order on disk,
//! and the text is a pure function of the value: its digest is the image's.

pub use crate::model::Method;
use crate::model::{Arch, Digest, Name};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the layout this program writes and reads.
pub const FORMAT: u32 = 1;

/// One file of the image's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Digest of the content.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
}

/// The root file system in `rootfs.zst`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rootfs {
    /// Size of the file system, unpacked, before it is grown.
    pub bytes: u64,
    /// Bytes of it that hold data and are written.
    pub data: u64,
}

/// What the image was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The clock of the build: the date of the distribution's newest index,
    /// seconds since 1970.
    pub source_date_epoch: u64,
    /// Suite, such as `bookworm`.
    pub suite: String,
    /// Archive components.
    pub components: Vec<String>,
    /// Digest of `packages.txt`.
    pub packages: Digest,
    /// Lines of `packages.txt`.
    pub package_count: u32,
    /// Version of the program that built it.
    pub builder: String,
}

/// The distribution's own installer, in an image of method `preseed` or
/// `autoinstall`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Installer {
    /// The distribution's suite, such as `trixie`.
    pub suite: String,
    /// The suite with the installer's components, when it is not the
    /// distribution's own: in `suite/` of the image, signed by our key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udeb_suite: Option<String>,
    /// What the package cache calls the archive: the installer asks for
    /// `/apt/ORIGIN/…`, or `/installer/IMAGE/…` with a suite of our own. None
    /// when the archive was not fetched through the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Name and version of the package with kernel and ramdisk; `files`, with
    /// the version if it is known, where they came from files.
    pub netboot: String,
    /// Date of the archive's index, seconds since 1970; 0 where none was read.
    pub release_date: u64,
    /// Fingerprint of our key, in `archive-key.gpg`; empty without one.
    pub key: String,
    /// What could not be checked, a sentence each.
    #[serde(default)]
    pub unchecked: Vec<String>,
    /// Components that the archive does not have and an install can do without.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Components that were made here, by name.
    #[serde(default)]
    pub repacked: BTreeMap<String, Repacked>,
    /// Files of `suite/`, by their path in the image's directory.
    #[serde(default)]
    pub files: BTreeMap<String, FileEntry>,
}

/// A component of the installer that was made from ordinary packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Repacked {
    /// Its version.
    pub version: String,
    /// Its path in `suite/`.
    pub file: String,
    /// Its digest.
    pub sha256: Digest,
    /// What it was made from.
    pub from: String,
}

/// `image.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// [`FORMAT`].
    pub format: u32,
    /// Name, the same as the directory's.
    pub name: Name,
    /// Distribution, such as `debian`.
    pub os: String,
    /// Release, such as `12`.
    pub release: String,
    /// Point release or build, such as `12.11`.
    pub version: String,
    /// Processor.
    pub arch: Arch,
    /// Install method.
    pub method: Method,
    /// Arguments that the kernel in `kernel` always wants: with method `image`
    /// also the installed system's, else only the installer's.
    pub kernel_args: String,
    /// Release of the kernel, such as `6.1.0-35-amd64`.
    pub kernel: String,
    /// Root file system, for method `image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Rootfs>,
    /// The distribution's installer, for methods `preseed` and `autoinstall`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installer: Option<Installer>,
    /// Provenance.
    pub provenance: Provenance,
    /// Every file, by name.
    pub files: BTreeMap<String, FileEntry>,
}

/// `baked/<profile>/baked.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BakedDescription {
    /// [`FORMAT`].
    pub format: u32,
    /// Digest of the image it was made from.
    pub image: Digest,
    /// Profile.
    pub profile: Name,
    /// Digest of the profile.
    pub profile_digest: Digest,
    /// Root file system.
    pub rootfs: Rootfs,
    /// `rootfs.zst`, `rootfs.idx` and `packages.txt`.
    pub files: BTreeMap<String, FileEntry>,
}
