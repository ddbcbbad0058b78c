//! The client against stock git's server, against Henge, and against servers that misbehave.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "tests start processes and tasks, say what they did not check, and fail where they stand"
)]

mod copies;
mod damaged_sources;
mod fuzz;
mod hostile;
#[path = "../../fuzz/inputs.rs"]
mod inputs;
mod server;
