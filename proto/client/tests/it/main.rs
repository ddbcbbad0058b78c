//! The client against servers in this process: which address is asked when, and what failures become.

mod calls;
mod failures;
mod server;
