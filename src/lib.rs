//! Provision, as a tour from the bottom up.
//!
//! 1. [`model`]: the words (node, phase, build, event …). No I/O.
//! 2. [`config`]: the configuration as written and as used; inventory files.
//! 3. [`store`]: documents and the chained event log, on SQLite or Redis.
//!    [`tls`], [`auth`], [`template`]: certificates, tokens and sealed
//!    secrets, templates people edit.
//!    [`archive`]: package archives, read and written.
//! 4. [`image`], [`profile`]: what can be put on a disk, and what on top.
//!    [`power`]: BMCs. [`mirror`]: all that an install takes, to be kept or
//!    carried away.
//! 5. [`lifecycle`]: the only place where a node changes state.
//!    [`netboot`]: what a node gets at each step of its boot. [`preseed`]:
//!    what the distributions' own installers are answered. [`dhcp`] and
//!    [`tftp`], [`dns`], [`time`] and [`syslog`]: one protocol
//!    each. [`console`]: what machines write on theirs. [`cache`]: packages,
//!    fetched once. [`agent`]: what runs on the node.
//!    [`registry`]: an OCI registry, to be mounted by a server. [`ingest`]:
//!    from a folder or git repository to a built, signed image in it.
//!    [`metrics`]: how well all of it is delivered, from the event log.
//! 6. [`api`], [`ui`], [`cli`], [`client`]: how people and programs ask.
//!    [`lab`]: the virtual rack.
//! 7. [`app`]: the daemons, put together.

pub mod agent;
pub mod api;
pub mod app;
pub mod archive;
pub mod auth;
pub mod cache;
pub mod cli;
pub mod client;
pub mod config;
pub mod console;
pub mod dhcp;
pub mod dns;
pub mod image;
pub mod ingest;
pub mod lab;
pub mod lifecycle;
pub mod metrics;
pub mod mirror;
pub mod model;
pub mod netboot;
pub mod power;
pub mod preseed;
pub mod profile;
pub mod registry;
pub mod store;
pub mod syslog;
pub mod template;
pub mod tftp;
pub mod time;
pub mod tls;
pub mod ui;
