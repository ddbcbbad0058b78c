//! What a node keeps on its disk: the write-ahead log, the store of applied state, snapshots, and the
//! object stores of the repositories.
//!
//! It knows nothing of consensus: the log takes opaque entries of numbered groups, the store opaque
//! pairs. It reads no clock and starts no task but through what it is handed.
//!
//! - [`disk`]: files behind a trait, with a simulated disk that loses power.
//! - [`wal`]: one log for all groups of the node.
//! - [`kv`]: the store of applied state, believed only after a clean stop.
//! - [`objects`]: the git objects of every fork network.
//! - [`snapshots`]: snapshot files of the groups.
//! - [`metrics`]: what is counted and measured.

pub mod disk;
pub mod kv;
pub mod metrics;
pub mod objects;
pub mod snapshots;
pub mod wal;
