//! `mirror.toml`.

use crate::image::FileEntry;
use crate::model::{Digest, Name, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the layout this program writes and reads.
pub const FORMAT: u32 = 1;

/// A suite that packages were taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Suite, such as `trixie-security`.
    pub suite: String,
    /// Date of its `Release`, as it is written there.
    pub date: String,
    /// Digest of its signed `InRelease`: whoever has an old copy can compare.
    pub release: Digest,
}

/// What a mirror is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// [`FORMAT`].
    pub format: u32,
    /// Name, the same as the directory's.
    pub name: Name,
    /// Suite in `dists/`, such as `trixie`.
    pub suite: String,
    /// Date of the newest index it was made from, seconds since 1970.
    pub date: u64,
    /// When it was made.
    pub made: Time,
    /// Version of the program that made it.
    pub builder: String,
    /// Image it is for.
    pub image: Name,
    /// Its digest then.
    pub image_digest: Digest,
    /// Profile it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Name>,
    /// Its digest then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_digest: Option<Digest>,
    /// Packages that were asked for by name.
    pub asked: Vec<String>,
    /// Those of them that this release does not have, and that may be missing.
    #[serde(default)]
    pub absent: Vec<String>,
    /// Packages.
    pub packages: u32,
    /// Installer components.
    pub components: u32,
    /// Fingerprint of the key.
    pub key: String,
    /// Where from.
    pub from: Vec<Origin>,
    /// Every other file, by path.
    pub files: BTreeMap<String, FileEntry>,
}

impl Description {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|f| f.size).sum()
    }
}
