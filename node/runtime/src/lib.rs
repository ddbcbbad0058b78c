//! Dependencies that a Henge component receives instead of creating: time, randomness, and a scope
//! for its tasks.
//!
//! - [`clock`]: wall time and monotonic time behind a trait, so that libraries never read the
//!   clock.
//! - [`failpoint`]: places where a test may end the process.
//! - [`log_limit`]: a rate limit for log lines that clients can cause.
//! - [`priority`]: permits that go to the waiter with the highest priority.
//! - [`random`]: chance behind a trait, so that a test draws the same numbers again.
//! - [`tasks`]: the scope through which every task, blocking job and thread of a node is started.
//!
//! It deliberately contains nothing of Henge: no ids, no limits, no errors of the product.

pub mod clock;
pub mod failpoint;
pub mod log_limit;
pub mod priority;
pub mod random;
pub mod tasks;

pub use clock::{Clock, SystemClock};
pub use log_limit::LogLimit;
pub use priority::{PriorityPermit, PriorityPermits};
pub use random::{Random, SeededRandom, SystemRandom};
pub use tasks::Scope;

/// 16 bytes from the operating system's generator: ids, tokens, seeds.
pub fn random_bytes() -> [u8; 16] {
    rand::random()
}
