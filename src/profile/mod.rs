//! Software stacks, applied last.
//!
//! A profile is a directory, `profiles/<name>/`: `profile.toml`, one script
//! per service, `verify.sh`. Scripts run in the order of their listing, as
//! root, in the new system's root: on the node, or ahead of time when the
//! profile is baked into an image. They must work in both places, so they
//! start nothing and ask nothing of the hardware.
//!
//! [`load`] reads and [`lint`] judges at load: a profile that does not pass is
//! never offered. May use `model`; called by the build server; runs no script
//! except `sh -n`.

pub mod lint;
pub mod load;

pub use lint::Finding;
pub use load::{Profile, ProfileError, ProfileFault, Profiles};
