//! Checks this node's groups and the other members every few seconds: conditions are raised after a
//! delay and cleared when they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use henge_types::health::{self, group_name, group_names, lag_subject};
use henge_types::status::{ClusterStatus, ReplicaStatus, Role};
use henge_types::{ConditionKind, GroupId, NodeId};
use openraft::async_runtime::watch::WatchReceiver;

use crate::cluster::Cluster;
use crate::group::Group;

/// A replica lags when it lacks an entry that was committed this long ago.
const LAG_PATIENCE: Duration = Duration::from_secs(15);
/// How long any other fault has to last: an election, or a push's packs in transfer, are no
/// condition.
const PATIENCE: Duration = Duration::from_secs(4);

type Finding = (ConditionKind, String);

/// The findings so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    found_since: BTreeMap<Finding, Instant>,
    raised: BTreeSet<Finding>,
    goals: BTreeMap<(GroupId, NodeId), Goal>,
}

/// An entry that a replica should reach.
#[derive(Debug, Clone, Copy)]
struct Goal {
    index: u64,
    set_at: Instant,
}

impl Watch {
    /// Checks everything once.
    pub(crate) fn look(&mut self, cluster: &Cluster) {
        let now = cluster.clock().instant();
        let mut found = BTreeMap::new();
        for group in cluster.groups().all() {
            self.replica(cluster, &group, now, &mut found);
        }
        if let Some(status) = cluster.heard() {
            others(&status, cluster.node(), &mut found);
        }
        self.settle(cluster, now, found);
    }

    /// Raises the lasting findings, and clears those that are gone.
    fn settle(&mut self, cluster: &Cluster, now: Instant, found: BTreeMap<Finding, String>) {
        let conditions = cluster.conditions();
        self.found_since.retain(|key, _| found.contains_key(key));
        self.raised.retain(|key| {
            let stays = found.contains_key(key);
            if !stays {
                conditions.clear(key.0, &key.1);
            }
            stays
        });
        for (key, detail) in found {
            let since = *self.found_since.entry(key.clone()).or_insert(now);
            // Lag already includes its own delay.
            let lasted = now.duration_since(since) >= PATIENCE;
            if lasted || key.0 == ConditionKind::ReplicaLags {
                conditions.raise(key.0, key.1.clone(), detail);
                self.raised.insert(key);
            }
        }
    }

    fn replica(
        &mut self,
        cluster: &Cluster,
        group: &Group,
        now: Instant,
        found: &mut BTreeMap<Finding, String>,
    ) {
        let parked = cluster.shared.deps.effects.parked(group.id);
        let status = group.status(cluster.node(), cluster.patience(), parked);
        let name = || group_name(group.id);
        match status.role {
            Role::Stopped => {
                let why = group.ended().unwrap_or_default();
                found.insert((ConditionKind::GroupStopped, name()), why);
            }
            Role::Learner => {
                found.insert((ConditionKind::VoterIsLearner, name()), String::new());
            }
            Role::Leader | Role::Follower | Role::Candidate => {}
        }
        if group.id.is_meta() && status.leader.is_none() {
            let detail = "no leader is heard".to_owned();
            found.insert((ConditionKind::MetaUnreachable, name()), detail);
        }
        if parked > 0 {
            let detail = format!("{parked} repositories");
            found.insert((ConditionKind::PacksMissing, name()), detail);
        }
        self.lags(cluster.node(), group, &status, now, found);
    }

    /// Checks the own replica against its committed index; on the leader, the others by their
    /// acknowledgements.
    fn lags(
        &mut self,
        own: NodeId,
        group: &Group,
        status: &ReplicaStatus,
        now: Instant,
        found: &mut BTreeMap<Finding, String>,
    ) {
        let committed = status.committed_index;
        let mut reached = vec![(own, status.applied_index)];
        if status.role == Role::Leader && status.leader == Some(own) {
            reached.extend(group.acknowledged(own));
        } else {
            // Only a leader knows the others' progress: notes of an earlier leadership are void.
            self.goals
                .retain(|(id, node), _| *id != group.id || *node == own);
        }
        for (node, index) in reached {
            let key = (group.id, node);
            let goal = self.goals.entry(key).or_insert(Goal {
                index: committed,
                set_at: now,
            });
            if index >= goal.index {
                *goal = Goal {
                    index: committed,
                    set_at: now,
                };
                continue;
            }
            let waited = now.duration_since(goal.set_at);
            if waited >= LAG_PATIENCE {
                let detail = format!(
                    "at entry {index} of {committed}, and entry {} was committed {} s ago",
                    goal.index,
                    waited.as_secs()
                );
                found.insert(
                    (ConditionKind::ReplicaLags, lag_subject(group.id, node)),
                    detail,
                );
            }
        }
    }
}

/// Findings from the reports of all members together.
fn others(status: &ClusterStatus, own: NodeId, found: &mut BTreeMap<Finding, String>) {
    for node in &status.nodes {
        if node.node != own && node.report.is_none() {
            let subject = format!("node {}", node.node);
            found.insert((ConditionKind::NodeSilent, subject), node.rpc.clone());
        }
    }
    if status.placements.is_empty() {
        return;
    }
    let groups = health::groups(status);
    let unserved: Vec<GroupId> = groups
        .iter()
        .filter(|group| group.served.is_err())
        .map(|group| group.group)
        .collect();
    if !unserved.is_empty() {
        let subject = "groups".to_owned();
        let names = group_names(&unserved);
        found.insert((ConditionKind::GroupNotServed, subject), names);
    }
}

impl Group {
    /// The last entry that each other replica acknowledged to this leader; 0 for one that never
    /// did.
    fn acknowledged(&self, own: NodeId) -> Vec<(NodeId, u64)> {
        let receiver = self.raft.metrics();
        let replication = receiver.borrow_watched().replication.clone();
        let others = replication.unwrap_or_default().into_iter();
        others
            .map(|(node, id)| (NodeId::new(node), id.map_or(0, |id| id.index())))
            .filter(|(node, _)| *node != own)
            .collect()
    }
}
