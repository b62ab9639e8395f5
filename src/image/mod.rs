//! Operating systems that can be put on a disk.
//!
//! An image is a directory, `images/<name>/`, whose `image.toml` names every
//! file in it with digest and size; the digest of `image.toml` is the image's
//! own. Nothing about a host or the hour goes into it, so that the same inputs
//! give the same digest.
//!
//! | file | what |
//! |---|---|
//! | `image.toml` | the description ([`Description`]) |
//! | `kernel`, `ramdisk` | what the node boots to be installed; the agent travels as a second ramdisk, so a new agent needs no new image |
//! | `rootfs.zst`, `rootfs.idx` | an ext4 file system cut into chunks and its index ([`format`]) |
//! | `packages.txt` | name, version and architecture of every package |
//! | `baked/<profile>/` | the same root file system with a profile applied, and `baked.toml` that says of which image and profile |
//!
//! [`catalogue`] reads what is there, [`build`] makes it, [`format`] is shared
//! with the agent; [`installer`] makes images of the distributions' own
//! installers. It may use `model`, `config` and `archive`; it is called by the build
//! server and the agent; it knows neither profiles' directories (it is handed
//! their scripts) nor the network.

pub mod apt;
pub mod bake;
pub mod build;
pub mod catalogue;
pub mod child;
pub mod cpio;
pub mod description;
pub mod ext4;
pub mod format;
pub mod installer;
pub mod modules;
pub mod pack;
pub(crate) mod publish;
pub mod ramdisk;
pub mod recipe;
pub mod rootfs;
pub mod sources;

pub use bake::{BakeProfile, bake_image};
pub use build::{BuildError, BuildRequest, Progress, Silent, build_image};
pub use catalogue::{Baked, Catalogue, Image, ImageError, ImageFault};
pub use description::{BakedDescription, Description, FileEntry, Installer, Provenance};
pub use installer::{AddRequest, Files, add_installer};
pub use ramdisk::agent_cpio;
