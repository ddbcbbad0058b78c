//! What a cluster says of itself: the shape of `cluster status`, of its API and of the nodes' answers.

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, GroupId, Incarnation, NodeId};

/// The cluster as one node sees it; also answered without a quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Who answers.
    pub asked: NodeId,
    /// Whether every group has a leader that this node hears.
    pub healthy: bool,
    /// Shards of the cluster.
    pub shards: u32,
    /// Its members, by number.
    pub nodes: Vec<NodeStatus>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its number.
    pub node: NodeId,
    /// Its data directory's life.
    pub incarnation: Incarnation,
    /// `HOST:PORT` of its HTTP listener.
    pub http: String,
    /// `HOST:PORT` of its cluster listener.
    pub rpc: String,
    /// What it says of itself; `None` when it did not answer in time.
    pub report: Option<NodeReport>,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its release.
    pub version: String,
    /// Milliseconds since its process started.
    pub uptime_ms: u64,
    /// Free space is below the watermark: pushes are refused.
    pub low_space: bool,
    /// Its replicas, by group.
    pub replicas: Vec<ReplicaStatus>,
}

/// What a replica is in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Leads.
    Leader,
    /// Votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Has stopped: the node's log says why.
    Stopped,
}

/// One replica of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The group.
    pub group: GroupId,
    /// What the replica is in it.
    pub role: Role,
    /// The term it is in.
    pub term: u64,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// The last entry in its log.
    pub last_index: u64,
    /// The last entry it knows committed.
    pub committed_index: u64,
    /// The last entry it applied.
    pub applied_index: u64,
    /// The entry its last snapshot covers.
    pub snapshot_index: u64,
    /// Hash of the state at `applied_index`, lower-case hex.
    pub state_hash: String,
    /// Repositories whose packs it still lacks.
    pub parked: u32,
    /// The voters it knows.
    pub voters: Vec<NodeId>,
}
