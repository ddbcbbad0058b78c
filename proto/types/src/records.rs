//! The records of the state machines: the values behind their keys.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{ClusterId, GroupId, Incarnation, LogIndex, NodeId};
use crate::names::{RefPattern, RefPatterns};
use crate::object::PackId;

mod repo;
mod shard_repo;

pub use repo::RepoRecord;
pub(crate) use repo::{RepoRecordV1, RepoRecordV2};
pub use shard_repo::ShardRepo;

/// The cluster at its formation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The cluster.
    pub cluster: ClusterId,
    /// Shards, fixed for ever.
    pub shards: u32,
    /// Replicas per group.
    pub replication: u32,
    /// The time of its formation, milliseconds since the Unix epoch.
    pub formed_at_ms: u64,
    /// The release level that every node must understand
    /// ([`crate::command::Command::VersionBarrier`]).
    pub version: u32,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its number.
    pub node: NodeId,
    /// Its data directory: an RPC from any other is refused.
    pub incarnation: Incarnation,
    /// `HOST:PORT` of its cluster listener (TCP and UDP).
    pub rpc: String,
    /// `HOST:PORT` of its HTTP listener.
    pub http: String,
}

/// The placement of a group's replicas. The meta group's record is authoritative; the ring only
/// proposes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardPlacement {
    /// The group.
    pub group: GroupId,
    /// Its replicas in placement order: the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// The number of moves.
    pub epoch: u64,
}

/// The state of a repository in the meta group's catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepoState {
    /// Name and id are reserved, the shard does not have the repository yet.
    Reserved,
    /// Served.
    Ready,
    /// Deleted for every caller; the shard has still to drop it.
    Deleting,
    /// The tombstone. Kept so that the id is never used again.
    Deleted,
}

/// Whether a shard serves a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardRepoState {
    /// The shard serves it.
    Live,
    /// Dropped: every update and read is refused.
    Deleted,
}

/// The entry from which the tips are recorded that refs of a network lose. Dropped objects have
/// been unreachable since then, for as long as the operator's grace period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneMark {
    /// The entry that set it.
    pub at: LogIndex,
    /// The time of that entry, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Tips that were recorded since.
    pub lost_tips: u32,
    /// Whether more tips were lost than are recorded. Then the mark is useless, and a new one is
    /// needed.
    pub is_full: bool,
    /// Whether the network may hold objects that neither a ref nor a recorded tip reaches. Causes:
    /// the network was not examined, refs had lost tips before the mark, a repository of the
    /// network was deleted, or a push was refused in part.
    pub may_hold_unreached: bool,
}

/// The quotas of a repository beyond the product's own bounds. `None`: no quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepoLimits {
    /// Bytes of all packs of its fork network; a push that would exceed them is refused.
    pub network_bytes_max: Option<u64>,
    /// Bytes of one push as received.
    pub push_bytes_max: Option<u64>,
    /// Bytes of one object, inflated.
    pub object_bytes_max: Option<u64>,
    /// Objects in one push.
    pub push_objects_max: Option<u32>,
    /// Refs.
    pub refs_max: Option<u64>,
}

/// How strictly the objects of pushes are checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FsckLevel {
    /// As git with `receive.fsckObjects` (git-config(1)).
    #[default]
    Strict,
    /// Faults that are common in old histories and harm no client are accepted.
    Lenient,
}

impl FsckLevel {
    /// The name in the API and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Lenient => "lenient",
        }
    }
}

/// A text that is not a [`FsckLevel`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a level is strict or lenient")]
pub struct InvalidFsckLevel;

impl FromStr for FsckLevel {
    type Err = InvalidFsckLevel;

    fn from_str(text: &str) -> Result<Self, InvalidFsckLevel> {
        match text {
            "strict" => Ok(Self::Strict),
            "lenient" => Ok(Self::Lenient),
            _ => Err(InvalidFsckLevel),
        }
    }
}

/// The rules for pushes to a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushRules {
    /// How strictly their objects are checked.
    pub fsck: FsckLevel,
}

/// A pack in a network's manifest: every replica must hold it.
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

/// The settings of a repository that its shard has not acknowledged yet. The catalogue has the
/// settings themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UntoldRecord {
    /// The entry of the meta group that changed them last.
    pub revision: LogIndex,
    /// Whether HEAD is among them: a push may have moved it since.
    pub head: bool,
}

/// A pattern of protected refs. No push may delete such a ref, or move it to a commit whose history
/// lacks the old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefProtection {
    /// The pattern of the refs.
    pub pattern: RefPattern,
    /// When it was set, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// The protected refs of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefProtections {
    /// The last entry that changed them: an older check must be repeated.
    pub changed_at: LogIndex,
    /// By pattern, none twice.
    pub rules: Vec<RefProtection>,
}

impl RefProtections {
    /// The patterns, compiled: the first that matches a ref protects it.
    pub fn patterns(&self) -> RefPatterns {
        RefPatterns::new(self.rules.iter().map(|rule| rule.pattern.clone()))
    }
}
