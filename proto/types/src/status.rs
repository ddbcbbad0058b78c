//! The status report of a cluster: the shape of `cluster status`, of its API and of the nodes'
//! answers.

use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::ids::{ClusterId, GroupId, Incarnation, NodeId};
use crate::records::ShardPlacement;

/// The cluster as one node reports it; also answered without a quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node that answers.
    pub asked: NodeId,
    /// Whether every group is served.
    pub healthy: bool,
    /// Shards of the cluster.
    pub shards: u32,
    /// Its members, by number.
    pub nodes: Vec<NodeStatus>,
    /// The nodes that should hold the shards; empty from releases without this field, and before
    /// the cluster is formed.
    #[serde(default)]
    pub placements: Vec<ShardPlacement>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its number.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// `HOST:PORT` of its HTTP listener.
    pub http: String,
    /// `HOST:PORT` of its cluster listener.
    pub rpc: String,
    /// Its own report; `None` when it did not answer in time.
    pub report: Option<NodeReport>,
}

/// The report of a node about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its release.
    pub version: String,
    /// The highest release level that it understands; 0 from releases without this field.
    #[serde(default)]
    pub level: u32,
    /// Milliseconds since its process started.
    pub uptime_ms: u64,
    /// Free space is below the watermark: the node takes no large packs.
    pub low_space: bool,
    /// The reason why the node does not serve, as in its `/readyz`; `None` when it serves.
    #[serde(default)]
    pub not_ready: Option<String>,
    /// Whether it still opens its groups: groups that are not listed yet are not missing.
    #[serde(default)]
    pub starting: bool,
    /// Its clock, milliseconds since the Unix epoch: the reference of its conditions' times.
    #[serde(default)]
    pub now_ms: u64,
    /// Its clock; `None` from releases without this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<NodeClock>,
    /// Its replicas, by group.
    pub replicas: Vec<ReplicaStatus>,
    /// Its conditions, by kind and subject; empty from releases without this field.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// A lower bound on the number of conditions beyond those listed.
    #[serde(default)]
    pub conditions_left_out: u32,
}

/// The clock of a node, compared with those of the other members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeClock {
    /// Its lead over the median of the members' clocks, milliseconds; negative when it is behind.
    pub ahead_ms: i64,
    /// Its fault and the remedy; `None` when there is none.
    pub fault: Option<String>,
}

/// The role of a replica in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The leader.
    Leader,
    /// A voter.
    Follower,
    /// A voter in an election.
    Candidate,
    /// A follower without a vote.
    Learner,
    /// The replica has stopped: the node's log has the reason.
    Stopped,
}

/// One replica of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The group.
    pub group: GroupId,
    /// Its role in the group.
    pub role: Role,
    /// The term it is in.
    pub term: u64,
    /// The leader, as the replica knows it.
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
    /// Repositories with missing packs on the replica.
    pub parked: u32,
    /// The generation of request records that is being filled; `None` below the release level of
    /// replicated time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_generation: Option<u64>,
    /// The voters, as the replica knows them.
    pub voters: Vec<NodeId>,
}

/// The disk use of a repository's fork network, as the leader of its shard reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStats {
    /// The leader.
    pub leader: NodeId,
    /// Packs of the manifest.
    pub packs: u64,
    /// Objects in them; an object in two packs counts twice.
    pub objects: u64,
    /// Bytes of the packs.
    pub pack_bytes: u64,
    /// Bytes of their indexes.
    pub idx_bytes: u64,
    /// Whether one of the packs has a reachability bitmap on the leader.
    pub bitmap: bool,
    /// Whether a compaction waits, runs, or neither.
    pub compaction: CompactionState,
    /// The last compaction since the leader began to lead.
    pub last_compaction: Option<LastCompaction>,
    /// The time from which lost tips of refs are recorded, milliseconds since the Unix epoch:
    /// objects that were unreachable then and still are can be dropped. `None` while they are not
    /// recorded.
    pub prune_mark_ms: Option<u64>,
}

/// The state of a network's compaction or check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompactionState {
    /// None waits or runs.
    Idle,
    /// It waits for a permit.
    Queued,
    /// It runs.
    Running,
}

/// The extent of a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompactionDepth {
    /// As few and as small packs as keep the rest in a geometric progression.
    Geometric,
    /// All packs.
    Everything,
    /// All packs, without the objects that have been unreachable for a time.
    Prune {
        /// That time, milliseconds, counted from the begin of the record of lost tips.
        grace_ms: u64,
    },
}

/// A compaction that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCompaction {
    /// The time of its end, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Its duration, milliseconds.
    pub took_ms: u64,
    /// Packs that were replaced by another one; 0 when none had to be.
    pub replaced: u32,
    /// Bytes of that one with its index.
    pub bytes: u64,
    /// The reason of its failure.
    pub failed: Option<String>,
    /// Objects that were left out as unreachable; `None` when unreachable objects were not looked
    /// for.
    pub dropped: Option<u64>,
    /// The node's number of this compaction: it distinguishes two that are equal otherwise.
    pub run: u64,
}

/// The checks of a repository's object store, replica by replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoCheck {
    /// The queried replicas, by node.
    pub replicas: Vec<ReplicaCheck>,
}

/// The check of one replica's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaCheck {
    /// The node of the replica.
    pub node: NodeId,
    /// Whether a check waits, runs, or neither.
    pub state: CompactionState,
    /// The number of the last requested check: that check has ended when [`CheckOutcome::run`] is
    /// no lower. Grows with every request, also over restarts; 0 when there was none.
    pub run: u64,
    /// The progress of the running one.
    pub progress: Option<CheckProgress>,
    /// The last one that ended since the node started.
    pub last: Option<CheckOutcome>,
    /// The reason why the node could not be queried; the other fields have no meaning then.
    pub failed: Option<String>,
}

/// The progress of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckProgress {
    /// `packs`, `loose`, `connectivity` or `repair`.
    pub stage: String,
    /// Objects done in this stage; packs, where packs are repaired.
    pub done: u64,
    /// Their total, where it is known.
    pub total: Option<u64>,
}

/// The findings of a check of one replica's store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// The number of this check.
    pub run: u64,
    /// The time of its end, milliseconds since the Unix epoch.
    pub ended_at_ms: u64,
    /// Its duration, milliseconds.
    pub took_ms: u64,
    /// Packs that were read.
    pub packs: u64,
    /// Objects in them that were read and hashed; an object in two packs counts twice.
    pub objects: u64,
    /// Objects that refs of the fork network reach; `None` when the walk was not possible.
    pub reachable: Option<u64>,
    /// Unreachable objects in packs; `None` as above.
    pub unreachable: Option<u64>,
    /// The first problems.
    pub problems: Vec<CheckProblem>,
    /// The number of further problems.
    pub more_problems: u64,
    /// Packs that were damaged and were fetched again from another replica. `problems` is from
    /// after the repair.
    pub repaired: Vec<String>,
    /// The reason why the check could not be finished, if so.
    pub failed: Option<String>,
}

impl CheckOutcome {
    /// Whether the check was complete and found no problem.
    pub const fn is_clean(&self) -> bool {
        self.failed.is_none() && self.problems.is_empty() && self.more_problems == 0
    }
}

/// A problem of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckProblem {
    /// The pack, lower-case hex, if it concerns one.
    pub pack: Option<String>,
    /// The object, lower-case hex, if it concerns one.
    pub object: Option<String>,
    /// The problem, for people.
    pub text: String,
}
