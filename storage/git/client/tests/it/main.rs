//! The client against stock git's server, against ours, and against servers that misbehave.

#![expect(clippy::disallowed_methods, reason = "tests start processes and tasks")]

mod copies;
mod hostile;
mod server;
