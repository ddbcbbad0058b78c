//! Handover of a shard's leadership when its leader lacks packs (a read-only folder, damaged files,
//! packs still being fetched) or cannot store a push. Such a leader refuses pushes to that
//! repository, or all pushes; another voter may accept them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use henge_types::health::group_name;
use henge_types::status::{ClusterStatus, NodeReport, Role};
use henge_types::{ConditionKind, ErrorCode, GroupId, NodeId};

use crate::frames::PushAnswer;
use crate::repos::Inner;

/// How long a group is not handed over again for the same reason: two leaders with the same fault
/// must not pass the group back and forth.
const HANDED_OVER_FOR: Duration = Duration::from_secs(60);

/// Why a group is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
enum Why {
    #[error("it lacks packs of its repositories")]
    LacksPacks,
    #[error("it cannot store a push")]
    CannotStore,
}

/// The groups that were handed over, why, and when.
#[derive(Debug, Default)]
pub(crate) struct HandedOver(Mutex<BTreeMap<(GroupId, Why), Instant>>);

impl HandedOver {
    /// Records a handover of a group. `false`, without a record, when the last one for this reason
    /// was less than [`HANDED_OVER_FOR`] ago.
    fn note(&self, group: GroupId, why: Why, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, at| now.saturating_duration_since(*at) < HANDED_OVER_FOR);
        let is_first = !all.contains_key(&(group, why));
        all.entry((group, why)).or_insert(now);
        is_first
    }

    /// Removes the record: the handover did not happen.
    fn forget(&self, group: GroupId, why: Why) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(group, why));
    }
}

impl Inner {
    /// Asks a voter with fewer parked networks of a group than this node, its leader, to take it
    /// over. `false` when no such voter is known, or when one was asked less than a minute ago.
    pub(crate) async fn hand_over_lacking(&self, group: GroupId) -> bool {
        let lacking = self.effects.parking().networks(group).len();
        self.hand_over_group(group, lacking, Why::LacksPacks).await
    }

    /// The answer to a push that this node, the leader of `group`, cannot store. Hands the group
    /// over to a voter with at most as many parked networks as this node, if one is known: its disk
    /// may have room.
    pub(crate) async fn cannot_store(&self, group: GroupId, error: &io::Error) -> PushAnswer {
        tracing::error!(%group, %error, "a push cannot be stored");
        let lacking = self
            .effects
            .parking()
            .networks(group)
            .len()
            .saturating_add(1);
        if self.hand_over_group(group, lacking, Why::CannotStore).await {
            return PushAnswer::Again(
                "the leader cannot store the push: another node takes the lead".to_owned(),
            );
        }
        let message = "the leader cannot store the push: its log says why. Nothing was changed";
        PushAnswer::Refused(ErrorCode::Unavailable, message.to_owned())
    }

    async fn hand_over_group(&self, group: GroupId, lacking: usize, why: Why) -> bool {
        let Some(leadership) = self.cluster.leadership(group) else {
            return false;
        };
        let Some(status) = self.cluster.heard() else {
            return false;
        };
        let without_room = self.without_room();
        let voters = leadership.voters.iter().flatten();
        let voters: BTreeSet<_> = voters
            .filter(|node| **node != self.cluster.node() && !without_room.contains(node))
            .copied()
            .collect();
        let better = better(&status, group, lacking, &voters);
        if better.is_empty() || !self.handed_over.note(group, why, self.clock.instant()) {
            return false;
        }
        tracing::warn!(%group, %why, "this node hands a group over that it leads");
        let is_asked = self.cluster.yield_leadership(group, &better).await;
        if !is_asked {
            // The better voters may have lagged for a moment.
            self.handed_over.forget(group, why);
        }
        is_asked
    }
}

/// The voters with the fewest parked networks of the group, if these are fewer than `lacking`.
fn better(
    status: &ClusterStatus,
    group: GroupId,
    lacking: usize,
    voters: &BTreeSet<NodeId>,
) -> BTreeSet<NodeId> {
    let lack = |report: &NodeReport| {
        let replica = report.replicas.iter().find(|of| of.group == group)?;
        let may_lead = replica.role == Role::Follower && is_fit(report, group);
        let parked = usize::try_from(replica.parked).unwrap_or(usize::MAX);
        (may_lead && parked < lacking).then_some(parked)
    };
    let found = status.nodes.iter();
    let found = found.filter(|node| voters.contains(&node.node));
    let found: Vec<_> = found
        .filter_map(|node| Some((node.node, lack(node.report.as_ref()?)?)))
        .collect();
    let least = found.iter().map(|(_, parked)| *parked).min();
    found
        .into_iter()
        .filter(|(_, parked)| Some(*parked) == least)
        .map(|(node, _)| node)
        .collect()
}

/// Whether a node would keep the group: a node with a clock fault or a log near its cap hands it
/// over.
fn is_fit(report: &NodeReport, group: GroupId) -> bool {
    let clock = report.clock.as_ref().and_then(|clock| clock.fault.as_ref());
    let has_log_near_cap = report.conditions.iter().any(|condition| {
        condition.kind == ConditionKind::LogNearCap && condition.subject == group_name(group)
    });
    !report.starting && clock.is_none() && !has_log_near_cap
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_runtime::{Clock, SystemClock};
    use henge_types::status::{NodeStatus, ReplicaStatus};
    use henge_types::{ClusterId, Condition, Incarnation};

    const GROUP: GroupId = GroupId::new(1);

    fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(NodeId::new).collect()
    }

    fn replica(parked: u32) -> ReplicaStatus {
        ReplicaStatus {
            group: GROUP,
            role: Role::Follower,
            term: 1,
            leader: Some(NodeId::new(1)),
            last_index: 1,
            committed_index: 1,
            applied_index: 1,
            snapshot_index: 0,
            state_hash: String::new(),
            parked,
            request_generation: None,
            voters: Vec::new(),
        }
    }

    fn report(parked: u32) -> NodeReport {
        NodeReport {
            version: String::new(),
            level: 1,
            uptime_ms: 1,
            low_space: false,
            not_ready: None,
            starting: false,
            now_ms: 1,
            clock: None,
            replicas: vec![replica(parked)],
            conditions: Vec::new(),
            conditions_left_out: 0,
        }
    }

    /// Nodes 1, 2 and so on.
    fn status(reports: Vec<Option<NodeReport>>) -> ClusterStatus {
        let nodes = (1..).zip(reports).map(|(node, report)| NodeStatus {
            node: NodeId::new(node),
            incarnation: Incarnation::from_bytes([1; 16]),
            http: String::new(),
            rpc: String::new(),
            report,
        });
        ClusterStatus {
            cluster_id: ClusterId::from_bytes([1; 16]),
            asked: NodeId::new(1),
            healthy: true,
            shards: 1,
            nodes: nodes.collect(),
            placements: Vec::new(),
        }
    }

    #[test]
    fn a_voter_that_lacks_less_is_better() {
        let all = status(vec![
            Some(report(2)),
            Some(report(1)),
            Some(report(0)),
            None,
        ]);
        let better = |lacking, voters: &[u64]| better(&all, GROUP, lacking, &nodes(voters));
        assert_eq!(better(2, &[2, 3, 4]), nodes(&[3]));
        assert_eq!(better(2, &[2, 4]), nodes(&[2]), "a silent one is not known");
        assert_eq!(better(1, &[2]), nodes(&[]), "no better than here");
        assert_eq!(better(0, &[2, 3]), nodes(&[]));
    }

    #[test]
    fn a_voter_that_would_hand_over_itself_is_not_better() {
        let mut starting = report(0);
        starting.starting = true;
        let mut full = report(0);
        full.conditions.push(Condition {
            kind: ConditionKind::LogNearCap,
            subject: group_name(GROUP),
            since_ms: 1,
            detail: String::new(),
        });
        let mut stopped = report(0);
        stopped.replicas[0].role = Role::Stopped;
        let all = status(vec![Some(starting), Some(full), Some(stopped)]);
        assert_eq!(better(&all, GROUP, 1, &nodes(&[1, 2, 3])), nodes(&[]));
    }

    /// Two nodes that both lacked packs passed a group back and forth. Later a folder of each of
    /// three nodes refused files, and then another folder of the next leader: for a minute that
    /// leader could not hand over, and refused every push.
    #[test]
    fn a_group_is_handed_over_once_a_minute_for_each_reason() {
        let handed_over = HandedOver::default();
        let start = SystemClock.instant();
        let note = |group, why, seconds| {
            let now = start + Duration::from_secs(seconds);
            handed_over.note(GroupId::new(group), why, now)
        };
        assert!(note(1, Why::CannotStore, 0));
        assert!(!note(1, Why::CannotStore, 59));
        assert!(note(1, Why::LacksPacks, 20), "another reason");
        assert!(!note(1, Why::LacksPacks, 59));
        assert!(note(2, Why::CannotStore, 59), "another group");
        assert!(note(1, Why::CannotStore, HANDED_OVER_FOR.as_secs()));
    }
}
