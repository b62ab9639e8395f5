//! Images of the distribution's own installer [M25]: kernel and ramdisk from
//! its netboot package, and what it takes to run them where the archive is not
//! complete.
//!
//! - `add`: from the archive to the image's directory, in order.
//! - `ramdisk`: what the installer's ramdisk brings along.
//! - `components`: which installer components an install loads, and whether
//!   they can be had.
//! - `repack`: those that the archive lists and does not have, made from its
//!   ordinary packages.
//! - `suite`: a suite of our own that has just these, signed by our key, and
//!   the key as a second ramdisk.
//!
//! | file of the image | what |
//! |---|---|
//! | `kernel`, `ramdisk` | as they are in the distribution's package |
//! | `extra` | a second ramdisk (newc): the distribution's keys and ours, and what gives ours to the installed system |
//! | `archive-key.gpg` | our public key |
//! | `components` | what an install loads of the installer, as an index |
//! | `packages.txt` | installer components, with version and origin |
//! | `suite/` | only where the archive is not complete: the suite of our own |

mod add;
mod components;
mod ramdisk;
mod repack;
mod suite;

pub use add::{AddRequest, add_installer};
pub use components::{COMPONENTS, DISPENSABLE};
