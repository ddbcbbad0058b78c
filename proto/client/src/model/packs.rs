//! Packs of a repository: figures and compaction.

use henge_types::NodeId;
use henge_types::status::{CompactionDepth, CompactionState};
use serde::{Deserialize, Serialize};

/// What a repository's fork network takes on disk, as the leader of its shard says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStats {
    /// Who leads.
    pub leader: NodeId,
    /// Packs.
    pub packs: u64,
    /// Objects in them; one that lies in two counts twice.
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
    /// The last one; none when there was none since the leader began to lead.
    pub last_compaction: Option<Compaction>,
    /// Since when the tips are noted that refs lose, RFC 3339; none while they are not.
    #[serde(default)]
    pub prune_mark: Option<String>,
    /// What each replica found when it last checked its store. `None`: the field is absent, as in
    /// the answer to a request for a compaction. `Some(None)`: null, the replicas could not be
    /// asked; it is read as `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fsck: Option<Option<Vec<ReplicaFsck>>>,
}

/// What a replica found when it last checked its store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFsck {
    /// Whose replica.
    pub node: NodeId,
    /// None when there was none yet, and when [`failed`](Self::failed) says why it is not known.
    pub last: Option<LastFsck>,
    /// Why the node could not be asked.
    pub failed: Option<String>,
}

/// A check of a replica's store that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFsck {
    /// When, RFC 3339.
    pub at: String,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Objects that were read and hashed; one that lies in two packs counts twice.
    pub objects: u64,
    /// How much was found to be wrong.
    pub findings: u64,
    /// Packs that were damaged and were fetched again from another replica.
    pub repaired: u64,
    /// Why the check could not be finished, if it could not.
    pub failed: Option<String>,
}

/// A compaction that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// When, RFC 3339.
    pub at: String,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Packs that another one took the place of; 0 when all was well.
    pub replaced: u32,
    /// Bytes of that one with its index.
    pub bytes: u64,
    /// Why it failed, if it did.
    #[serde(default)]
    pub failed: Option<String>,
    /// Objects that were dropped because no ref reaches them; none when it was not looked for them.
    #[serde(default)]
    pub dropped: Option<u64>,
    /// Counts the leader's compactions: two that are alike otherwise are told apart by it.
    #[serde(default)]
    pub run: u64,
}

/// Asks for a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gc {
    /// Whether all packs become one.
    #[serde(default)]
    pub aggressive: bool,
    /// Drops what no ref has reached for so many seconds; all packs become one then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<u64>,
}

impl Gc {
    /// How much is merged.
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
