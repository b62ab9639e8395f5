//! Provision, as a tour from the bottom up.
//!
//! 1. [`model`]: the words (node, phase, build, event …). No I/O.

pub mod agent;
pub mod image;
pub mod model;
pub mod profile;
