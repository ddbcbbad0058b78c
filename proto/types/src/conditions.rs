//! Conditions: the faults of a node, with their duration and the advice for an operator.

use serde::{Deserialize, Serialize};

/// How bad a condition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Everything is served, with less redundancy or less free space than there should be.
    Degraded,
    /// Something is not served, or acknowledged data is in danger.
    Failing,
}

impl Severity {
    /// The name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

/// The kind of a condition. Names are stored nowhere, but they travel between releases: unknown
/// names are read as [`Self::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionKind {
    /// A group has no leader with a valid lease that a majority of its voters answers.
    GroupNotServed,
    /// Replicas that applied the same entry differ in their state.
    StatesDiffer,
    /// A pack is on no replica, in no log and in no snapshot.
    PackLost,
    /// The meta group is unreachable: reads of names and members may be stale.
    MetaUnreachable,
    /// A member does not answer.
    NodeSilent,
    /// A member answers but does not serve: `/readyz` gives the reason.
    NodeNotReady,
    /// A group's replica ended on this node.
    GroupStopped,
    /// A node that should hold a replica of a group does not run one.
    ReplicaMissing,
    /// A replica is behind its group and its lag does not shrink.
    ReplicaLags,
    /// A replica that should vote is a learner.
    VoterIsLearner,
    /// The log of a replica ends before entries that it acknowledged.
    ReplicaLogWentBack,
    /// A start was refused, or a member runs on an old copy of a data directory.
    OldCopy,
    /// Packs could not be written into their stores: only the log has them.
    PacksUnwritten,
    /// Packs or their indexes are damaged on this disk.
    PacksDamaged,
    /// A group's latest snapshot on this disk is damaged.
    SnapshotDamaged,
    /// Packs that the state names are not on this disk yet.
    PacksMissing,
    /// Compactions of a repository fail again and again.
    CompactionFailing,
    /// A check of an object store could not be finished.
    CheckUnfinished,
    /// Free space is below the watermark.
    LowSpace,
    /// The write-ahead log is near its cap.
    LogNearCap,
    /// No spare segment of the write-ahead log can be made.
    LogSparesRefused,
    /// A node's clock differs too much from the others'.
    ClockSkew,
    /// A kind that a newer release reports.
    #[serde(other)]
    Other,
}

impl ConditionKind {
    /// Every kind that this release raises.
    pub const ALL: [Self; 22] = [
        Self::GroupNotServed,
        Self::StatesDiffer,
        Self::PackLost,
        Self::MetaUnreachable,
        Self::NodeSilent,
        Self::NodeNotReady,
        Self::GroupStopped,
        Self::ReplicaMissing,
        Self::ReplicaLags,
        Self::VoterIsLearner,
        Self::ReplicaLogWentBack,
        Self::OldCopy,
        Self::PacksUnwritten,
        Self::PacksDamaged,
        Self::SnapshotDamaged,
        Self::PacksMissing,
        Self::CompactionFailing,
        Self::CheckUnfinished,
        Self::LowSpace,
        Self::LogNearCap,
        Self::LogSparesRefused,
        Self::ClockSkew,
    ];

    /// The name in JSON and in the label of a metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GroupNotServed => "group_not_served",
            Self::StatesDiffer => "states_differ",
            Self::PackLost => "pack_lost",
            Self::MetaUnreachable => "meta_unreachable",
            Self::NodeSilent => "node_silent",
            Self::NodeNotReady => "node_not_ready",
            Self::GroupStopped => "group_stopped",
            Self::ReplicaMissing => "replica_missing",
            Self::ReplicaLags => "replica_lags",
            Self::VoterIsLearner => "voter_is_learner",
            Self::ReplicaLogWentBack => "replica_log_went_back",
            Self::OldCopy => "old_copy",
            Self::PacksUnwritten => "packs_unwritten",
            Self::PacksDamaged => "packs_damaged",
            Self::SnapshotDamaged => "snapshot_damaged",
            Self::PacksMissing => "packs_missing",
            Self::CompactionFailing => "compaction_failing",
            Self::CheckUnfinished => "check_unfinished",
            Self::LowSpace => "low_space",
            Self::LogNearCap => "log_near_cap",
            Self::LogSparesRefused => "log_spares_refused",
            Self::ClockSkew => "clock_skew",
            Self::Other => "other",
        }
    }

    /// A title of a few words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::GroupNotServed => "not served",
            Self::StatesDiffer => "replicas at the same entry differ in their state",
            Self::PackLost => "a pack is lost",
            Self::MetaUnreachable => "the meta group is not reached",
            Self::NodeSilent => "does not answer",
            Self::NodeNotReady => "not ready",
            Self::GroupStopped => "the replica has stopped",
            Self::ReplicaMissing => "the replica is missing",
            Self::ReplicaLags => "the replica lags and does not catch up",
            Self::VoterIsLearner => "the replica should vote and is a learner",
            Self::ReplicaLogWentBack => "the replica's log went back",
            Self::OldCopy => "an old copy of a data directory",
            Self::PacksUnwritten => "packs are not written, they are only in the log",
            Self::PacksDamaged => "packs are damaged on disk",
            Self::SnapshotDamaged => "a snapshot is damaged on disk",
            Self::PacksMissing => "packs are still being fetched",
            Self::CompactionFailing => "compaction fails",
            Self::CheckUnfinished => "a check could not be finished",
            Self::LowSpace => "free disk space is low",
            Self::LogNearCap => "the write-ahead log is near its cap",
            Self::LogSparesRefused => "no spare log segment can be made",
            Self::ClockSkew => "the clock is wrong",
            Self::Other => "something else is wrong",
        }
    }

    /// The severity of this kind.
    pub const fn severity(self) -> Severity {
        match self {
            Self::GroupNotServed | Self::StatesDiffer | Self::PackLost | Self::MetaUnreachable => {
                Severity::Failing
            }
            Self::NodeSilent
            | Self::NodeNotReady
            | Self::GroupStopped
            | Self::ReplicaMissing
            | Self::ReplicaLags
            | Self::VoterIsLearner
            | Self::ReplicaLogWentBack
            | Self::OldCopy
            | Self::PacksUnwritten
            | Self::PacksDamaged
            | Self::SnapshotDamaged
            | Self::PacksMissing
            | Self::CompactionFailing
            | Self::CheckUnfinished
            | Self::LowSpace
            | Self::LogNearCap
            | Self::LogSparesRefused
            | Self::ClockSkew
            | Self::Other => Severity::Degraded,
        }
    }

    /// The advice for an operator.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::GroupNotServed => "bring nodes back until a majority of the voters answers",
            Self::StatesDiffer => "keep every data directory as it is and report this",
            Self::PackLost => {
                "put the pack and its index back from a copy of a data directory and restart the node; or delete the repository and import it anew from a clone"
            }
            Self::MetaUnreachable => "bring nodes back, and look at the network between them",
            Self::NodeSilent => "start the node, and look at the network between the nodes",
            Self::NodeNotReady => "wait while the reason moves; else read the node's log",
            Self::GroupStopped => {
                "read the node's log for the reason, mend it, restart the node if it does not start again by itself"
            }
            Self::ReplicaMissing => "read the node's log for the reason, restart the node",
            Self::ReplicaLags => {
                "look at the node's disk, network and log; restart it if nothing moves"
            }
            Self::VoterIsLearner => {
                "wait until it has caught up; if it does not, look at the leader's log"
            }
            Self::ReplicaLogWentBack => {
                "leave that node stopped: its disk lost acknowledged entries, which the other nodes have; start it with its newest data directory where there is one"
            }
            Self::OldCopy => {
                "leave the copy stopped; start the node with its newest data directory, and where there is none leave the node stopped: the others have what was acknowledged"
            }
            Self::PacksUnwritten => {
                "make the data directory writable and give it room; the packs are written by themselves then"
            }
            Self::PacksDamaged => {
                "nothing at once: packs are fetched again from another replica; if it stays or comes back, replace the disk"
            }
            Self::SnapshotDamaged => {
                "let the node run: the group takes another snapshot by itself; if this stays, read the node's log; if it comes back, replace the disk"
            }
            Self::PacksMissing => {
                "nothing: they are fetched from other replicas; if it stays, see that those are up"
            }
            Self::CompactionFailing => {
                "read the node's log for the reason; see that its disk has room"
            }
            Self::CheckUnfinished => "run `henge repo fsck OWNER/NAME` and read its answer",
            Self::LowSpace => "free disk space or add some: the node takes no packs until then",
            Self::LogNearCap => {
                "mend what keeps the group named here from taking a snapshot, or raise `[storage] wal_max` and restart the node"
            }
            Self::LogSparesRefused => {
                "mend what the reason names (space, quota, file descriptors, permissions): writes go on until the spares are used, and wait then"
            }
            Self::ClockSkew => "set the clock, and keep it set with NTP",
            Self::Other => "ask a node of the newer release with `henge cluster status`",
        }
    }
}

/// A condition that holds now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Its kind.
    pub kind: ConditionKind,
    /// Its subject: a group, a node, a repository or network, a path.
    pub subject: String,
    /// Its begin, milliseconds since the Unix epoch on the clock of the node that reports it.
    pub since_ms: u64,
    /// Figures and reasons, for people.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node of an older release must read the report of a newer one. If a new kind made the whole
    /// report unreadable, the newer node would be shown as one that does not answer.
    #[test]
    fn kinds_of_newer_releases_are_read() {
        let json = r#"{"kind":"gravity_off","subject":"x","since_ms":1,"detail":""}"#;
        let read: Condition = serde_json::from_str(json).unwrap();
        assert_eq!(read.kind, ConditionKind::Other);
    }

    #[test]
    fn names_are_those_of_json() {
        for kind in ConditionKind::ALL {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{}\"", kind.name()));
            assert!(!kind.advice().is_empty() && !kind.title().is_empty());
        }
    }
}
