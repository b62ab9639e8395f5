//! The suites of the specification once more, on a bucket: the harness sees
//! from the name of this program that it is to use one.

#![allow(clippy::duplicate_mod, reason = "both suites have the harness as a module of their own")]

#[path = "registry_discovery.rs"]
mod discovery;
#[path = "registry_spec.rs"]
mod spec;
