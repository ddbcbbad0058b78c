//! Three nodes in one process, over a network in memory and with a simulated disk each: clients
//! write and read while nodes fail.
//!
//! Every test runs for ten seeds. A seed decides which faults occur, when they occur (counted in
//! writes), and the delays of the network. A failure prints the command that runs its seed again:
//! `HENGE_SEED=7 cargo test -p henge-cluster --test it failover`.
//!
//! The time is the machine's, with short time-outs. A clock that the test moves does not fit yet:
//! the runtime advances a paused clock when its own tasks are idle, without regard to the threads
//! of the log and of the kv, which have work then. So a seed does not give the same trace twice.
//!
//! A deterministic simulation needs one thread for all nodes; a log that takes its steps there
//! (`Wal::open_stepped`); the blocking jobs of `Scope` and the kv on that thread; one clock behind
//! the timers of openraft, tonic and this crate; seeds for the hash maps and the TLS of libraries.

// The future of a whole node is deeply nested.
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
