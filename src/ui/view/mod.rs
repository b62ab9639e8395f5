//! What a page shows, from what the server knows and the time. Pure: no I/O,
//! no clock, no HTTP; the handlers beside it fetch and hand over.
//!
//! - `text`: times, durations, sizes, and the marks of states.
//! - `rack`, `alerts`, `node`, `timeline`, `confirm`, `records`, `events`,
//!   `software`: one page's, or a part's of several.

pub mod alerts;
pub mod confirm;
pub mod events;
pub mod node;
pub mod rack;
pub mod records;
pub mod software;
pub mod text;
pub mod timeline;

#[cfg(test)]
mod tests;
