//! The binary as a person runs it.

#![allow(
    clippy::disallowed_methods,
    reason = "tests start processes and wait for them"
)]

mod dev;
mod node_run;
mod pages;
mod process;
mod serve_bare;
