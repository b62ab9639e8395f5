//! Who may do what, and what nobody may see.
//!
//! - `token`: API tokens with a role, kept as digests; the one-time token of
//!   a build, derived, so that it is written down nowhere.
//! - `password`, `rights`: people's passwords, and who may do what in the
//!   registry.
//! - `seal`: BMC passwords encrypted before they reach the store.
//! - `session`: who is logged in at the window, and which forms are ours.
//!
//! The last two hang on one master key, a 0600 file beside the state. Servers that
//! share a Redis share that file.

pub mod password;
pub mod rights;
pub mod seal;
pub mod session;
pub mod token;

pub use seal::MasterKey;
pub use session::Session;
pub use token::{Role, TokenRecord};

use std::path::PathBuf;

/// Why something is not allowed, or a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The key file.
    #[error("key file {}: {why}", path.display())]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// What is wrong and what would be right.
        why: String,
    },
    /// A sealed secret that this key does not open.
    #[error("the stored secret {0:?} was sealed with another key; set it again")]
    Unsealable(String),
    /// No randomness.
    #[error("the system gives no random numbers")]
    NoRandom,
}
