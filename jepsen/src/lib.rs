//! Fault injection on a real cluster: processes of a release binary, stock git, damaged disks and
//! clocks, and a checker that records every acknowledged push.
//!
//! A fault without an effect, an unknown outcome counted as a failure and an undetected loss are
//! failures of the test, not of the product. Therefore every fault proves its effect, each branch
//! has a single writer that records its true state, and the pure parts have tests of their own with
//! an artificial loss.
//!
//! - `plan`: the schedule, drawn from the seed alone.
//! - `ring`: node processes with a file system each (`disk`); `process` starts and ends every
//!   program.
//! - `pushers`: the writers. `truth`: the allowed values of each branch. `checker`: comparison of
//!   listings and clones with it.
//! - `faults`: one file for each kind. `step`: a fault from its injection to the recovery of the
//!   ring.
//! - `probe`: readiness and status. `watch`: comparison of both with the facts. `exits`: whether a
//!   process may end.
//! - `soak`: a run. `ledger`: its findings, in one line.
//!
//! It deliberately does not depend on the product's code: it uses its command line, HTTP, git, and
//! its files as described in `docs/formats.md`.

pub mod args;
pub mod checker;
pub mod clock;
pub mod disk;
pub mod exits;
pub mod faults;
pub mod ledger;
pub mod plan;
pub mod probe;
pub mod process;
pub mod pushers;
pub mod ring;
pub mod soak;
pub mod step;
pub mod truth;
pub mod watch;
