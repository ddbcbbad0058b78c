//! Many Raft groups on every node: one meta group, S shards, one log, one transport.
//!
//! This crate connects openraft to Henge's own log, machines and transport. It holds the registry
//! of groups, formation and placement, proposals, linearizable reads and status. It has no code for
//! repositories: packs and pushes are in the layer above (henge-repos), which it calls through
//! [`Effects`].
//!
//! - [`cluster`]: the handle, and its start; `stopping`: its shutdown. [`host`]: the environment of
//!   a node.
//! - [`group`]: a replica and the registry of them; `formation`: how groups come to be; `revival`:
//!   the restart of groups that ended.
//! - [`conditions`]: the faults of this node, with their start times.
//! - [`start_progress`]: the progress of a start. `watch`: the checks of groups and members.
//! - `handover`: leadership transfer. `status`: the status of the cluster. [`proposals`],
//!   [`reads`]: writes through the leader, linearizable reads from anywhere.
//! - [`leader`]: work that the leader of a group does on its own initiative.
//! - [`levels`]: release levels: features of a release begin when every replica runs it.
//! - `clocks`: the offset of this node's clock from the others'; `time`: the time of groups;
//!   `renewal`: ids of long pushes.
//! - [`machine`], `log_store`, `snapshot_file`, `kv_writer`: openraft's storage over henge-storage.
//! - [`offline`]: the groups of a stopped node.
//! - [`logged`]: single entries of the log, for the layer above.
//! - `network`, `server`, `wire`: openraft's messages over gRPC; [`transport`]: the connections
//!   under them.
//! - [`starts`]: the starts of nodes, by which an old copy of a data directory is refused;
//!   `acknowledged`: the entries that followers must still have.
//! - [`placement`]: the ring that proposes; `upkeep`, `snapshot_policy`, [`builds`]: snapshots,
//!   purge, gauges.
//! - `snapshot_check`: damage of snapshots while the node runs; `lost_state`, `snapshot_copies`:
//!   the recovery when a start finds such damage.

mod acknowledged;
pub mod builds;
mod clocks;
pub mod cluster;
pub mod conditions;
pub mod config;
pub mod effects;
mod formation;
pub mod group;
mod handover;
pub mod host;
mod kv_writer;
pub mod leader;
pub mod levels;
mod log_store;
pub mod logged;
#[cfg(test)]
mod lone_replica;
mod lost_state;
pub mod machine;
pub mod metrics;
mod network;
pub mod offline;
#[cfg(test)]
mod one_node_tests;
pub mod placement;
pub mod proposals;
mod raft;
pub mod reads;
mod renewal;
mod revival;
mod server;
mod snapshot_check;
mod snapshot_copies;
mod snapshot_file;
mod snapshot_policy;
mod snapshot_service;
#[cfg(test)]
mod snapshot_tests;
mod start_error;
pub mod start_progress;
pub mod starts;
mod status;
mod stopping;
#[cfg(test)]
mod suite;
mod time;
pub mod transport;
mod upkeep;
mod watch;
mod wire;

pub use clocks::ClockState;
pub use cluster::{Cluster, Reporting};
pub use conditions::Conditions;
pub use config::{ClusterConfig, Timings};
pub use effects::{AppliedEntry, Effects, StartedFrom};
pub use group::Leadership;
pub use host::Host;
pub use leader::{LeaderTask, LeaderTerm, Next, Step, TaskGroups, Wakes};
pub use levels::LevelError;
pub use logged::LoggedEntries;
pub use machine::{StateAt, View};
pub use proposals::{ClusterError, ProposeError};
pub use raft::Applied;
pub use renewal::{Handling, Renewed};
pub use start_error::StartError;
pub use start_progress::StartProgress;
pub use starts::adopt_moved;
pub use transport::bulk::{Bulk, BulkError, BulkHandler, BulkStream};
pub use transport::members::Identity;
pub use transport::tcp::TcpNetwork;
pub use transport::tls::{ALPN_BULK, TlsFiles};
