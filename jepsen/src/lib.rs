//! Fault injection on a real cluster: processes of a release binary, stock git, damaged disks and clocks, and a
//! checker that knows what was acknowledged.
//!
//! A fault that never bit, an unknown outcome taken for a failure and a loss that is not found are failures of the
//! test, not of the product. So every fault brings a proof that it bit, the truth about every branch is kept by its
//! one writer, and the pure parts have tests of their own in which a loss is planted.
//!
//! - `plan`: the schedule, drawn from the seed alone.
//! - `ring`: node processes with a file system each (`disk`); `process` starts every program and ends it.
//! - `pushers`: the writers. `truth`: what each branch may show. `checker`: listings and clones against it.
//! - `faults`: one file for each kind. `step`: a fault from its injection to a whole ring.
//! - `probe`: readiness and status. `watch`: whether they agree with the truth. `exits`: whether a process may end.
//! - `soak`: a run. `ledger`: what it found, in one line.
//!
//! It deliberately knows nothing of the product's code: it speaks its command line, HTTP, git, and its files as
//! `docs/formats.md` names them.

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
