//! Mirrors [M24 M41]: everything that an install of one image with one profile
//! takes, dated, signed by our key, in one directory. It can be served here,
//! kept for years, or carried in a file into a room without a network.
//!
//! | file | what |
//! |---|---|
//! | `mirror.toml` | what it is made from and for, and the digest of every file |
//! | `mirror.toml.asc` | our signature of it |
//! | `key.gpg` | the key that signs it and its suite |
//! | `dists/SUITE/` | the indices, as the distribution's suite is called |
//! | `pool/` | packages and installer components, under their usual paths |
//!
//! - `description`: `mirror.toml`.
//! - `closure`: which packages an install takes; apt says.
//! - `build`: fetches them and writes the directory.
//! - `shelf`: the mirrors there are: list, verify, remove.
//! - `carry`: as one file, out and in; `image`: with the image it was made for.
//!
//! Made in `.build` and moved in when complete, as images are: there is no
//! half mirror. It is called by the build server and knows neither the store
//! nor HTTP.

mod build;
mod carry;
mod closure;
mod description;
mod image;
mod shelf;

pub use build::{MirrorRequest, build_mirror};
pub use carry::{Accept, Imported, export, import};
pub use description::{Description, FORMAT, Origin};
pub use image::{ImageHere, OtherImage};
pub use shelf::{Mirror, Mirrors, Verdict};

use crate::archive::ArchiveError;
use crate::image::{BuildError, ImageError};
use crate::model::Name;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// No such mirror.
    #[error("no mirror '{name}'; there {}", list(.known))]
    Unknown {
        /// What was asked for.
        name: Name,
        /// What there is.
        known: Vec<Name>,
    },
    /// The name is taken.
    #[error("there is a mirror '{0}' already: remove it first, or choose another name (--name)")]
    Taken(Name),
    /// The description does not parse, or is not what was signed.
    #[error("{}: {reason}", .path.display())]
    Invalid {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Packages that are asked for and not to be had.
    #[error("not in the archive: {}", .0.join(" "))]
    Packages(Vec<String>),
    /// apt finds no way to install what is asked for.
    #[error("apt cannot resolve what the install takes: {0}")]
    Resolve(String),
    /// An image whose release has no archive.
    #[error("image '{0}' is of a release that no mirror can be made for")]
    Release(Name),
    /// An image whose installer would not believe this server's signature.
    #[error(
        "the installer of image '{image}' believes the key {believes}, and this server signs with \
         another: add the image again here (`provision images add`), then make the mirror"
    )]
    ForeignImage {
        /// Image.
        image: Name,
        /// The key of the server that added it.
        believes: String,
    },
    /// What is imported is not what was exported.
    #[error("the file cannot be imported: {0}")]
    Import(String),
    /// The key that signed it is not believed here.
    #[error(
        "it is signed by the key {0}, which is not this server's: compare that with the server \
         it comes from, and say --key {0}"
    )]
    Stranger(String),
    /// There is another image of the name of the one in the file.
    #[error(
        "image '{0}' here is not the one that the mirror was made for, or is damaged; nothing was \
         changed. Say --other-image replace to have the one in the file take its place (not while \
         nodes are being installed from it), or --other-image keep to take in the mirror alone"
    )]
    OtherImage(Name),
    /// Fetching failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The archive cannot be read or written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file could not be written or read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl MirrorError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// Whether it does not exist, as against being unusable.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

fn list(known: &[Name]) -> String {
    if known.is_empty() {
        return "are none yet: 'provision mirror build' makes one".to_owned();
    }
    let names: Vec<&str> = known.iter().map(Name::as_str).collect();
    format!("{} {}", if names.len() == 1 { "is" } else { "are" }, names.join(", "))
}

/// Whether `path` stays inside a directory: plain parts, none that begins with
/// a dot.
fn plain(path: &str) -> bool {
    path.len() < 1024
        && path.split('/').all(|p| {
            !p.is_empty()
                && !p.starts_with('.')
                && p.len() < 256
                && p.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
        })
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn only_paths_that_stay_inside_are_taken() {
        assert!(plain("pool/main/g/gcc/libstdc++6_14.2.0-19_amd64.deb") && plain("mirror.toml"));
        for bad in ["", "/x", "a//b", "../x", "a/../b", ".x", "a/", "a b", "a\\b", "a\0"] {
            assert!(!plain(bad), "{bad:?}");
        }
    }
}
