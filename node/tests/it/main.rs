//! The binary, as a user runs it.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::too_many_lines,
    clippy::zombie_processes,
    reason = "tests start processes, wait for them, say what they did not check, and tell a story in one piece"
)]

mod compat;
mod dev;
mod flood;
mod gits;
mod node_run;
mod pages;
mod process;
mod ring;
mod serve_bare;
mod stdio;
