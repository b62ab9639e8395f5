//! What machines write on their serial consoles: from bytes to lines that
//! people and programs can read, and the lines that tell how far a machine
//! came or why it stopped.
//!
//! `lines` takes firmware's painted screens and a kernel's messages alike and
//! leaves text; `remarks` is the table of what is known to mean something.
//! Pure: where the bytes come from and where the lines go is for others.

mod lines;
mod remarks;

pub use lines::Lines;
pub use remarks::{Remark, remark};
