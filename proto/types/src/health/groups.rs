//! Every group of a cluster, from the reports of all its replicas: its leader, whether it is
//! served, its lag.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::ids::{GroupId, NodeId};
use crate::status::{ClusterStatus, NodeReport, ReplicaStatus, Role};

/// Whether the states of a group's replicas agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// All that answered are at the same entry with the same hash.
    Equal,
    /// Those at the same entry agree; others are behind.
    Behind,
    /// Two are at the same entry with different hashes.
    Differ,
    /// Fewer than two answered.
    Unknown,
}

/// One replica of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaView {
    /// Its node.
    pub node: NodeId,
    /// Its role; `None` when its node did not answer.
    pub role: Option<Role>,
    /// The last entry it applied.
    pub applied_index: Option<u64>,
    /// Committed entries that it has not applied, by the highest commit index of any replica.
    pub lag: Option<u64>,
}

/// One group, from the reports of all its replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupView {
    /// The group.
    pub group: GroupId,
    /// Its leader, as that node itself reports, while a quorum confirms it.
    pub leader: Option<NodeId>,
    /// `Ok` where it is served, else the reason why not.
    #[serde(skip)]
    pub served: Result<(), String>,
    /// The highest term of any report.
    pub term: u64,
    /// Its voters, from the leader, or else from the replica of the highest term.
    pub voters: BTreeSet<NodeId>,
    /// The last entry in any log.
    pub last_index: u64,
    /// The last entry that any replica reports as committed.
    pub committed_index: u64,
    /// The nodes that should hold it; none where the status has no placements.
    #[serde(skip)]
    pub placed: BTreeSet<NodeId>,
    /// Its voters and all other nodes with a replica, by node.
    pub replicas: Vec<ReplicaView>,
    /// Whether their states agree.
    pub state: Agreement,
}

impl GroupView {
    /// The greatest lag of a replica that answered.
    pub fn lag(&self) -> Option<u64> {
        self.replicas.iter().filter_map(|replica| replica.lag).max()
    }

    /// Whether a node should hold a replica of it.
    pub fn should_be_on(&self, node: NodeId) -> bool {
        self.placed.contains(&node)
    }
}

/// Every group of the cluster, including those without a report.
pub fn groups(status: &ClusterStatus) -> Vec<GroupView> {
    let mut told: BTreeMap<GroupId, Vec<(NodeId, &ReplicaStatus)>> = (0..=status.shards)
        .map(|g| (GroupId::new(g), Vec::new()))
        .collect();
    for (node, report) in reports(status) {
        for replica in &report.replicas {
            told.entry(replica.group).or_default().push((node, replica));
        }
    }
    told.into_iter()
        .map(|(group, replicas)| {
            let placed = placed(status, group);
            group_view(group, placed, &replicas)
        })
        .collect()
}

/// The nodes that should hold a group: all members for the meta group, those of the placement for a
/// shard.
fn placed(status: &ClusterStatus, group: GroupId) -> BTreeSet<NodeId> {
    if group.is_meta() {
        return status.nodes.iter().map(|node| node.node).collect();
    }
    let placements = status.placements.iter();
    placements
        .filter(|placement| placement.group == group)
        .flat_map(|placement| placement.replicas.iter().copied())
        .collect()
}

/// The nodes that answered, with their reports.
pub(super) fn reports(status: &ClusterStatus) -> impl Iterator<Item = (NodeId, &NodeReport)> {
    status
        .nodes
        .iter()
        .filter_map(|node| node.report.as_ref().map(|report| (node.node, report)))
}

fn group_view(
    group: GroupId,
    placed: BTreeSet<NodeId>,
    told: &[(NodeId, &ReplicaStatus)],
) -> GroupView {
    let by_term = |(_, replica): &&(NodeId, &ReplicaStatus)| replica.term;
    let term = told.iter().map(|(_, replica)| replica.term).max();
    let claims = told.iter().filter(|(_, r)| r.role == Role::Leader);
    let claim = claims.max_by_key(by_term);
    // A deposed leader of an older term may not have noticed yet.
    let claim = claim.filter(|(_, replica)| Some(replica.term) == term);
    // A leader that lost its quorum still has the role of a leader, but does not name itself as the
    // group's leader.
    let leader = claim.filter(|(node, replica)| replica.leader == Some(*node));
    let knows_voters = leader.or_else(|| told.iter().max_by_key(by_term));
    let voters: BTreeSet<NodeId> = knows_voters
        .map(|(_, replica)| replica.voters.iter().copied().collect())
        .unwrap_or_default();
    let highest = |index: fn(&ReplicaStatus) -> u64| {
        told.iter()
            .map(|(_, replica)| index(replica))
            .max()
            .unwrap_or(0)
    };
    let committed_index = highest(|replica| replica.committed_index);
    GroupView {
        group,
        leader: leader.map(|(node, _)| *node),
        served: served(leader.is_some(), claim.is_some(), &voters, told),
        term: term.unwrap_or(0),
        last_index: highest(|replica| replica.last_index),
        committed_index,
        replicas: replica_views(&voters, told, committed_index),
        placed,
        voters,
        state: agreement(told),
    }
}

/// A group is served when its leader's lease is valid and a majority of its voters answers.
fn served(
    is_led: bool,
    is_claimed: bool,
    voters: &BTreeSet<NodeId>,
    told: &[(NodeId, &ReplicaStatus)],
) -> Result<(), String> {
    let alive = told
        .iter()
        .filter(|(node, replica)| voters.contains(node) && replica.role != Role::Stopped)
        .count();
    if voters.is_empty() {
        return Err("no replica answers".to_owned());
    }
    if alive * 2 <= voters.len() {
        return Err(format!(
            "no quorum: {alive} of {} voters answer",
            voters.len()
        ));
    }
    match (is_led, is_claimed) {
        (true, _) => Ok(()),
        (false, true) => Err("the leader's lease ran out: no quorum confirms it".to_owned()),
        (false, false) => Err("no leader yet".to_owned()),
    }
}

fn replica_views(
    voters: &BTreeSet<NodeId>,
    told: &[(NodeId, &ReplicaStatus)],
    committed_index: u64,
) -> Vec<ReplicaView> {
    let by_node: BTreeMap<NodeId, &ReplicaStatus> = told.iter().copied().collect();
    let nodes: BTreeSet<NodeId> = voters.iter().chain(by_node.keys()).copied().collect();
    nodes
        .into_iter()
        .map(|node| {
            let replica = by_node.get(&node);
            ReplicaView {
                node,
                role: replica.map(|replica| replica.role),
                applied_index: replica.map(|replica| replica.applied_index),
                lag: replica.map(|replica| committed_index.saturating_sub(replica.applied_index)),
            }
        })
        .collect()
}

fn agreement(told: &[(NodeId, &ReplicaStatus)]) -> Agreement {
    if told.len() < 2 {
        return Agreement::Unknown;
    }
    let mut hashes: BTreeMap<u64, &str> = BTreeMap::new();
    for (_, replica) in told {
        let hash = hashes
            .entry(replica.applied_index)
            .or_insert(&replica.state_hash);
        if *hash != replica.state_hash {
            return Agreement::Differ;
        }
    }
    if hashes.len() == 1 {
        Agreement::Equal
    } else {
        Agreement::Behind
    }
}
