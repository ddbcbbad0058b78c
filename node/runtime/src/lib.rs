//! What a Henge component is handed instead of reaching for it: time, chance and a place to run.
//!
//! - [`clock`]: wall time and monotonic time behind a trait, so that libraries never read the clock.
//! - [`failpoint`]: places where a test may end the process.
//! - [`log_limit`]: bounds on what somebody outside can write into the log.
//! - [`tasks`]: the scope through which every task, blocking job and thread of a node is started.
//!
//! It deliberately knows nothing of Henge: no ids, no limits, no errors of the product.

pub mod clock;
pub mod failpoint;
pub mod log_limit;
pub mod tasks;

pub use clock::{Clock, SystemClock};
pub use log_limit::LogLimit;
pub use tasks::Scope;

/// 16 bytes from the operating system's generator: ids, tokens, seeds.
pub fn random_bytes() -> [u8; 16] {
    rand::random()
}
