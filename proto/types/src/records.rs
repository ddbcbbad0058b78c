//! What the state machines keep, as values behind their keys.

use serde::{Deserialize, Serialize};

use crate::ids::{
    ClusterId, Generation, GroupId, Incarnation, LogIndex, NetworkId, NodeId, RepoId,
};
use crate::names::{RefName, RepoPath};
use crate::object::PackId;

/// The cluster as it was formed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The cluster.
    pub cluster: ClusterId,
    /// Shards, fixed for ever.
    pub shards: u32,
    /// Replicas per group.
    pub replication: u32,
    /// When it was formed, milliseconds since the Unix epoch.
    pub formed_at_ms: u64,
    /// The release level that every node must understand ([`crate::command::Command::VersionBarrier`]).
    pub version: u32,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its number.
    pub node: NodeId,
    /// The data directory it lives in: an RPC from any other is refused.
    pub incarnation: Incarnation,
    /// `HOST:PORT` of its cluster listener (TCP and UDP).
    pub rpc: String,
    /// `HOST:PORT` of its HTTP listener.
    pub http: String,
}

/// Where a group's replicas live. The meta group's record is the truth; the ring only proposes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardPlacement {
    /// The group.
    pub group: GroupId,
    /// Its replicas in placement order: the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// Counts the moves.
    pub epoch: u64,
}

/// Where a repository stands in the meta group's catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepoState {
    /// Name and id are taken, the shard does not yet know it.
    Reserved,
    /// Serving.
    Ready,
    /// Deleted for every caller; the shard has still to drop it.
    Deleting,
    /// Gone. Kept so that the id is never used again.
    Deleted,
}

/// A repository in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoRecord {
    /// Its id.
    pub repo: RepoId,
    /// Its fork network.
    pub network: NetworkId,
    /// Its owner and name, in the spelling of its creator.
    pub path: RepoPath,
    /// The life of the name: a repository made again under it has a higher one.
    pub generation: Generation,
    /// Where it stands.
    pub state: RepoState,
    /// Whether only its owner sees it.
    pub private: bool,
    /// One line about it.
    pub description: String,
    /// The default branch asked for.
    pub default_branch: RefName,
    /// When it was reserved, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// Whether a shard serves a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardRepoState {
    /// It does.
    Live,
    /// Dropped: every update and read is refused.
    Deleted,
}

/// A repository in its shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRepo {
    /// Its id.
    pub repo: RepoId,
    /// Its fork network: the object store.
    pub network: NetworkId,
    /// Every update and read must name it.
    pub generation: Generation,
    /// Live or deleted.
    pub state: ShardRepoState,
    /// What HEAD points at; it need not exist.
    pub head: RefName,
    /// The last entry that changed a ref or HEAD of it.
    pub updated_at: LogIndex,
    /// When that was, milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
}

/// A pack in a network's manifest: every replica has to hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackRecord {
    /// Its name and trailing checksum.
    pub pack: PackId,
    /// Bytes of the pack file.
    pub pack_bytes: u64,
    /// Bytes of its index.
    pub idx_bytes: u64,
    /// Objects in it.
    pub objects: u32,
    /// The entry that named it first.
    pub named_at: LogIndex,
}
