//! The configuration of a node's cluster part.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use henge_types::NodeRecord;
use openraft::{Config, SnapshotPolicy};

use crate::transport::members::Identity;
use crate::transport::tls::TlsFiles;

/// The heartbeat interval and the election time-outs of a group's replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats of a leader, milliseconds.
    pub heartbeat_ms: u64,
    /// The least time without a leader before an election, milliseconds.
    pub election_ms_min: u64,
    /// The most; also the time for which a follower refuses every vote after its leader's last
    /// message.
    pub election_ms_max: u64,
}

impl Timings {
    /// The longest duration of a leader's lease.
    pub fn lease_max(&self) -> Duration {
        Duration::from_millis(self.election_ms_max)
    }
}

/// The configuration for [`crate::Cluster::start`].
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// This node's identity.
    pub identity: Identity,
    /// The address it listens on for the other nodes, TCP and UDP.
    pub listen: SocketAddr,
    /// Its address for the other nodes, `HOST:PORT`.
    pub rpc: String,
    /// Its address for clients, `HOST:PORT`.
    pub http: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its certificate and the cluster's CA.
    pub tls: TlsFiles,
    /// The members the cluster is formed with.
    pub founders: Vec<NodeRecord>,
    /// Shards the cluster is formed with.
    pub shards: u32,
    /// Replicas per group the cluster is formed with.
    pub replication: u32,
    /// Raft's clocks.
    pub timings: Timings,
    /// Bytes of one segment of the write-ahead log.
    pub wal_segment_bytes: u64,
    /// Bytes of all segments together.
    pub wal_bytes_max: u64,
    /// This build, for `cluster status`.
    pub version: String,
}

/// openraft's settings; `docs/adr/0001-openraft-pin-and-settings.md` gives the reasons.
pub fn raft_config(timings: &Timings) -> Result<Arc<Config>, openraft::ConfigError> {
    let config = Config {
        cluster_name: "henge".to_owned(),
        heartbeat_interval: timings.heartbeat_ms,
        election_timeout_min: timings.election_ms_min,
        election_timeout_max: timings.election_ms_max,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: henge_types::limits::LOG_ENTRIES_KEPT,
        purge_batch_size: 256,
        install_snapshot_timeout: 600_000,
        api_channel_size: Some(4096),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map(Arc::new)
}
