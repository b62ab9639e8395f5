//! Images of the distribution's own installer [M25]: kernel and ramdisk from
//! its netboot package, and what it takes to run them where the archive is not
//! complete.
//!
//! - `add`: from the archive to the image's directory, in order.
//! - `files`: kernel and ramdisk from a directory or an ISO image instead, and
//!   firmware beside them.
//! - `digests`: whether these are the distribution's.
//! - `ubuntu`: Ubuntu's installers, from files alone.
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
//! | `kernel`, `ramdisk` | as they are in the distribution's package, or in the files named |
//! | `extra` | a second ramdisk (newc): the distribution's keys and ours, what gives ours to the installed system, and firmware |
//! | `archive-key.gpg` | our public key |
//! | `components` | what an install loads of the installer, as an index |
//! | `packages.txt` | installer components, with version and origin |
//! | `medium.iso` | only of Ubuntu 22.04 and later: the ISO image that its installer runs from |
//! | `suite/` | only where the archive is not complete: the suite of our own |

mod add;
mod components;
mod digests;
mod files;
mod ramdisk;
mod repack;
mod suite;
mod ubuntu;

pub use add::{AddRequest, add_installer};
pub use components::{COMPONENTS, DISPENSABLE};
pub use files::Files;
pub use ubuntu::MEDIUM;
