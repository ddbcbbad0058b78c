//! The client against servers in this process: the order of the addresses, and the errors of
//! failures.

mod calls;
mod failures;
mod server;
