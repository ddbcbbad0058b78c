//! Three nodes in one process, over a network in memory and with a simulated disk each: clients
//! write and read while nodes fail.
//!
//! Every test runs for ten seeds. A seed decides what fails, when it fails counted in writes, and
//! the delays of the network. A failure prints the command that runs its seed again:
//! `HENGE_SEED=7 cargo test -p henge-cluster --test it failover`.
//!
//! The time is the machine's, with short time-outs. A clock that the test moves does not fit yet:
//! the runtime moves a paused clock on when its own tasks rest, and does not know of the threads of
//! the log and of the kv, which have work then. So a seed does not give the same trace twice.
//!
//! A deterministic simulation needs one thread for all nodes; a log that takes its turns there
//! (`Wal::open_stepped`); the blocking jobs of `Scope` and the kv on that thread; one clock behind
//! the timers of openraft, tonic and this crate; seeds for the hash maps and the TLS of libraries.

// The futures of a whole node nest deeply.
#![recursion_limit = "256"]
#![expect(
    clippy::print_stderr,
    reason = "the seed of a failed test is printed, with how to run it again"
)]

mod disk;
mod effects;
mod failover;
mod history;
mod partition;
mod restart;
mod ring;
mod seeds;
mod slow_disk;
mod snapshot;
