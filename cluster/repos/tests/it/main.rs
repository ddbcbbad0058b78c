//! Three nodes in one process, real sockets, real disks, stock git.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests start git, read the clock for deadlines, look at files, and fail by panicking"
)]

mod bundles;
mod catalogue;
mod checks;
mod clocks;
mod compaction;
mod damage;
mod failures;
mod forks;
mod levels;
mod lost_state;
mod places;
mod pruning;
mod push_rules;
mod pushes;
mod quotas;
mod replay;
mod ring;
mod settings;
mod sha256;
mod space;
mod unwritten;
