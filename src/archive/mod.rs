//! Package archives as Debian keeps them: reading their indices and packages,
//! and writing suites of our own that apt and the Debian installer believe.
//!
//! - `deb822`: paragraphs of fields, the form of every index.
//! - `version`: which of two versions is newer (Debian Policy §5.6.12).
//! - `index`: what a `Packages` file says; what fulfils a dependency.
//! - `deb`: what is inside a package, and packing one.
//! - `openpgp`, `signing`: our key, and signatures with it.
//! - `suite`: `dists/SUITE/` with its `Release`, signed.
//!
//! Fetching and checking what others signed is apt's work (`image::apt`): it
//! does it every day on every Debian host, with the host's proxies and keys.
//! This room does no network.

pub mod deb;
pub mod deb822;
pub mod index;
pub mod openpgp;
pub mod signing;
pub mod suite;
pub mod version;

pub use index::{Index, Package};
pub use signing::SigningKey;

use std::io;
use std::path::{Path, PathBuf};

/// Why an archive could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A package cannot be unpacked or packed.
    #[error("{}: {reason}", .path.display())]
    Package {
        /// File.
        path: PathBuf,
        /// What dpkg-deb said.
        reason: String,
    },
    /// The key file holds no key.
    #[error("{}: {reason}; move it away to have a new key made", .path.display())]
    Key {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A signature or key that is not what it must be.
    #[error("{what}: {reason}")]
    Signature {
        /// What was signed.
        what: String,
        /// Why it is not believed.
        reason: String,
    },
}

impl ArchiveError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
