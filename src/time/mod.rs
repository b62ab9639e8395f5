//! Time for the boot network: an SNTP server (RFC 4330 §6, RFC 5905 in server
//! mode) that answers from this host's clock.
//!
//! `decide` is pure: from a packet, the moment it came, and what the kernel
//! says of its clock to an answer, as long as the question at most. `clock`
//! asks the kernel; `server` is the loop, with a limit for each asker. The
//! module uses nothing else of this crate. It sets no clock: keeping this
//! host's is chrony's or timesyncd's work. Why it is so, and what stratum we
//! say: `docs/decisions/time.md`.

pub mod clock;
pub mod decide;
pub mod server;

pub use clock::{Clock, Kernel, Leap};
pub use decide::{Ignored, decide};
pub use server::{Counters, Server, Settings, TimeError};
