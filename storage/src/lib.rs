//! The data of a node on its disk: the write-ahead log, the store of applied state, snapshots, and
//! the object stores of the repositories.
//!
//! The crate does not depend on consensus: the log takes opaque entries of numbered groups, the
//! store opaque pairs. Clocks and tasks are passed in by the caller.
//!
//! - [`disk`]: files behind a trait, with a simulated disk that loses power.
//! - [`wal`]: one log for all groups of the node.
//! - [`kv`]: the store of applied state, trusted only after a clean shutdown.
//! - [`objects`]: the git objects of every fork network.
//! - [`snapshots`]: snapshot files of the groups.
//! - [`metrics`]: the metrics of this crate.

pub mod disk;
pub mod kv;
pub mod metrics;
pub mod objects;
pub mod snapshots;
pub mod wal;
