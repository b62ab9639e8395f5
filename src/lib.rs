//! Provision, as a tour from the bottom up.
//!
//! 1. [`model`]: the words (node, phase, build, event …). No I/O.

pub mod dhcp;
pub mod model;
pub mod power;
pub mod tftp;
