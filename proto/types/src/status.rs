//! What a cluster says of itself: the shape of `cluster status`, of its API and of the nodes' answers.

use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::ids::{ClusterId, GroupId, Incarnation, NodeId};
use crate::records::ShardPlacement;

/// The cluster as one node sees it; also answered without a quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Who answers.
    pub asked: NodeId,
    /// Whether every group is served.
    pub healthy: bool,
    /// Shards of the cluster.
    pub shards: u32,
    /// Its members, by number.
    pub nodes: Vec<NodeStatus>,
    /// Where the shards should live; none from releases that did not say, and before the cluster is formed.
    #[serde(default)]
    pub placements: Vec<ShardPlacement>,
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
    /// The highest release level it understands; 0 from releases that did not say.
    #[serde(default)]
    pub level: u32,
    /// Milliseconds since its process started.
    pub uptime_ms: u64,
    /// Free space is below the watermark: the node takes no large packs.
    pub low_space: bool,
    /// Why the node does not serve, as its `/readyz` says; none when it does.
    #[serde(default)]
    pub not_ready: Option<String>,
    /// Whether it still opens its groups: those that are not listed yet are not missing.
    #[serde(default)]
    pub starting: bool,
    /// Its clock, milliseconds since the Unix epoch: what its conditions' times are counted against.
    #[serde(default)]
    pub now_ms: u64,
    /// Its clock; none from releases that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<NodeClock>,
    /// Its replicas, by group.
    pub replicas: Vec<ReplicaStatus>,
    /// What is wrong there, by kind and subject; none from releases that did not say.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// At least so many conditions more than those listed.
    #[serde(default)]
    pub conditions_left_out: u32,
}

/// A node's clock beside those of the other members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeClock {
    /// How far it was ahead of the median of the members' clocks, milliseconds; negative when it was behind.
    pub ahead_ms: i64,
    /// What is wrong with it and what to do; none when nothing is.
    pub fault: Option<String>,
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
    /// The generation of request records that it fills; none below the release level of replicated time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_generation: Option<u64>,
    /// The voters it knows.
    pub voters: Vec<NodeId>,
}

/// What a repository's fork network takes on disk, as the leader of its shard says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStats {
    /// Who leads.
    pub leader: NodeId,
    /// Packs of the manifest.
    pub packs: u64,
    /// Objects in them; one that lies in two counts twice.
    pub objects: u64,
    /// Bytes of the packs.
    pub pack_bytes: u64,
    /// Bytes of their indexes.
    pub idx_bytes: u64,
    /// Whether one of the packs has a reachability bitmap on the leader.
    pub bitmap: bool,
    /// Whether a compaction waits, runs, or neither.
    pub compaction: CompactionState,
    /// The last one; none when there was none since the leader began to lead.
    pub last_compaction: Option<LastCompaction>,
    /// Since when the tips are noted that refs lose, milliseconds since the Unix epoch: what was out of reach then and is
    /// now can be dropped. None while they are not.
    pub prune_mark_ms: Option<u64>,
}

/// Whether a network is being compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompactionState {
    /// No.
    Idle,
    /// It waits for its turn.
    Queued,
    /// Yes.
    Running,
}

/// How much a compaction merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompactionDepth {
    /// As few and as small packs as keep the rest in a geometric progression.
    Geometric,
    /// All of them.
    Everything,
    /// All of them, and what no ref has reached for so long is left out.
    Prune {
        /// How long, milliseconds: counted from when tips that refs lose began to be noted.
        grace_ms: u64,
    },
}

/// A compaction that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCompaction {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Packs that another one took the place of; 0 when all was well.
    pub replaced: u32,
    /// Bytes of that one with its index.
    pub bytes: u64,
    /// Why it failed, if it did.
    pub failed: Option<String>,
    /// Objects that were left out because no ref reaches them; none when it was not looked for them.
    pub dropped: Option<u64>,
    /// Counts the node's compactions: two that are alike otherwise are told apart by it.
    pub run: u64,
}

/// How the checks of a repository's object store stand, replica by replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoCheck {
    /// The replicas that were asked, by node.
    pub replicas: Vec<ReplicaCheck>,
}

/// How the check of one replica's store stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaCheck {
    /// Whose replica.
    pub node: NodeId,
    /// Whether a check waits, runs, or neither.
    pub state: CompactionState,
    /// The check that was asked for last: it has ended when [`CheckOutcome::run`] is no lower. Grows with every one that
    /// is asked for, also over restarts; 0 when none was.
    pub run: u64,
    /// How far the one that runs is.
    pub progress: Option<CheckProgress>,
    /// The last one that ended since the node started.
    pub last: Option<CheckOutcome>,
    /// Why the node could not be asked; the rest then says nothing.
    pub failed: Option<String>,
}

/// How far a check is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckProgress {
    /// `packs`, `loose`, `connectivity` or `repair`.
    pub stage: String,
    /// Objects done in this stage; packs, where packs are repaired.
    pub done: u64,
    /// How many there are, where that is known.
    pub total: Option<u64>,
}

/// What a check of one replica's store found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// Which check this was.
    pub run: u64,
    /// When it ended, milliseconds since the Unix epoch.
    pub ended_at_ms: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Packs that were read.
    pub packs: u64,
    /// Objects in them that were read and hashed, one that lies in two as often.
    pub objects: u64,
    /// Objects that refs of the fork network reach; none when that could not be told.
    pub reachable: Option<u64>,
    /// Objects in packs that no ref reaches; none as above.
    pub unreachable: Option<u64>,
    /// What is wrong, the first of it.
    pub problems: Vec<CheckProblem>,
    /// How much more is wrong.
    pub more_problems: u64,
    /// Packs that were damaged and were fetched again from another replica; what is in `problems` was found after.
    pub repaired: Vec<String>,
    /// Why the check could not be finished, if it could not.
    pub failed: Option<String>,
}

impl CheckOutcome {
    /// Whether everything was looked at and found well.
    pub const fn is_clean(&self) -> bool {
        self.failed.is_none() && self.problems.is_empty() && self.more_problems == 0
    }
}

/// Something that is wrong in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckProblem {
    /// The pack, lower-case hex, where it is about one.
    pub pack: Option<String>,
    /// The object, lower-case hex, where it is about one.
    pub object: Option<String>,
    /// What is wrong, for a person.
    pub text: String,
}
