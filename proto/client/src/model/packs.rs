//! Packs of a repository: figures and compaction.

use henge_types::NodeId;
use henge_types::status::{CompactionDepth, CompactionState};
use serde::{Deserialize, Serialize};

/// The disk use of a repository's fork network, as the leader of its shard reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStats {
    /// The leader.
    pub leader: NodeId,
    /// Packs.
    pub packs: u64,
    /// Objects in them; an object in two packs counts twice.
    pub objects: u64,
    /// Bytes of the packs.
    pub pack_bytes: u64,
    /// Bytes of their indexes.
    pub idx_bytes: u64,
    /// Whether one of the packs has a reachability bitmap on the leader.
    #[serde(default)]
    pub bitmap: bool,
    /// Whether a compaction waits, runs, or neither.
    pub compaction: CompactionState,
    /// The last compaction since the leader began to lead.
    pub last_compaction: Option<Compaction>,
    /// The time from which lost tips of refs are recorded, RFC 3339; `None` while they are not.
    #[serde(default)]
    pub prune_mark: Option<String>,
    /// The last check of each replica's store. `None`: the field is absent, as in the answer to a
    /// request for a compaction. `Some(None)`: null, the replicas could not be queried; it is read
    /// as `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fsck: Option<Option<Vec<ReplicaFsck>>>,
}

/// The last check of a replica's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFsck {
    /// The node of the replica.
    pub node: NodeId,
    /// `None` before the first one, and when [`failed`](Self::failed) has a reason.
    pub last: Option<LastFsck>,
    /// The reason why the node could not be queried.
    pub failed: Option<String>,
}

/// A check of a replica's store that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFsck {
    /// The time of its end, RFC 3339.
    pub at: String,
    /// Its duration, milliseconds.
    pub took_ms: u64,
    /// Objects that were read and hashed; an object in two packs counts twice.
    pub objects: u64,
    /// The number of problems.
    pub findings: u64,
    /// Packs that were damaged and were fetched again from another replica.
    pub repaired: u64,
    /// The reason why the check could not be finished, if so.
    pub failed: Option<String>,
}

/// A compaction that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// The time of its end, RFC 3339.
    pub at: String,
    /// Its duration, milliseconds.
    pub took_ms: u64,
    /// Packs that were replaced by another one; 0 when none had to be.
    pub replaced: u32,
    /// Bytes of that one with its index.
    pub bytes: u64,
    /// The reason of its failure.
    #[serde(default)]
    pub failed: Option<String>,
    /// Objects that were dropped as unreachable; `None` when unreachable objects were not looked
    /// for.
    #[serde(default)]
    pub dropped: Option<u64>,
    /// The leader's number of this compaction: it distinguishes two that are equal otherwise.
    #[serde(default)]
    pub run: u64,
}

/// A request for a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gc {
    /// Whether all packs become one.
    #[serde(default)]
    pub aggressive: bool,
    /// Drops the objects that have been unreachable for so many seconds; all packs become one then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<u64>,
}

impl Gc {
    /// The extent of the compaction.
    pub const fn depth(self) -> CompactionDepth {
        match (self.prune, self.aggressive) {
            (Some(seconds), _) => CompactionDepth::Prune {
                grace_ms: seconds.saturating_mul(1000),
            },
            (None, true) => CompactionDepth::Everything,
            (None, false) => CompactionDepth::Geometric,
        }
    }
}

impl From<CompactionDepth> for Gc {
    fn from(depth: CompactionDepth) -> Self {
        Self {
            aggressive: depth == CompactionDepth::Everything,
            prune: match depth {
                CompactionDepth::Prune { grace_ms } => Some(grace_ms / 1000),
                CompactionDepth::Geometric | CompactionDepth::Everything => None,
            },
        }
    }
}
