//! Three nodes in one process, real sockets, real disks, stock git.

#![allow(
    clippy::disallowed_methods,
    reason = "tests start git, read the clock for deadlines and look at files"
)]

mod catalogue;
mod failures;
mod pushes;
mod replay;
mod ring;
