//! What the state machines keep, as values behind their keys.

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

/// Whether a shard serves a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardRepoState {
    /// It does.
    Live,
    /// Dropped: every update and read is refused.
    Deleted,
}

/// From which entry on the tips are noted that refs of a network lose, so that what is dropped was out of reach for as
/// long as the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneMark {
    /// The entry.
    pub at: LogIndex,
    /// When that was, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Tips that were noted since.
    pub lost_tips: u32,
    /// Whether more were lost than are noted: then nothing can be told any more, and a new mark is needed.
    pub is_full: bool,
    /// Whether the network may hold what neither a ref nor a noted tip reaches: nobody has looked, refs had lost tips
    /// before the mark was made, a repository of the network was deleted, or a push was refused in part.
    pub may_hold_unreached: bool,
}

/// What a repository may hold beyond the product's own bounds. None: no bound of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepoLimits {
    /// Bytes of all packs of its fork network; a push that would exceed them is refused.
    pub network_bytes_max: Option<u64>,
    /// Bytes of one push, as it comes over the wire.
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
    /// As git checks them where `receive.fsckObjects` is set (git-config(1)).
    #[default]
    Strict,
    /// What old histories are known for and harms no client is taken.
    Lenient,
}

impl FsckLevel {
    /// As people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Lenient => "lenient",
        }
    }
}

/// A text that is no [`FsckLevel`].
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

/// What is asked of pushes to a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushRules {
    /// How strictly their objects are checked.
    pub fsck: FsckLevel,
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

/// What a repository's shard has still to be told of its settings. The catalogue has the settings themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UntoldRecord {
    /// The entry of the meta group that changed them last.
    pub revision: LogIndex,
    /// Whether HEAD is among them: a push may have moved it since.
    pub head: bool,
}

/// A pattern of refs that no push may delete or move to a commit that does not have the old one in its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefProtection {
    /// Which refs.
    pub pattern: RefPattern,
    /// When it was set, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// The protected refs of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefProtections {
    /// The last entry that changed them: what was checked before it has to be checked again.
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
