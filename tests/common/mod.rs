//! Real parts that several tests start: each is ended by the pid it was
//! started with, also when the test fails.

#![allow(dead_code, reason = "each test binary uses some of these")]

pub mod desk;
pub mod host;
pub mod nobody;
pub mod rack;
pub mod redis;
pub mod relay;
pub mod upstream;
