//! What a cluster's status means: who leads what, who lags, what is wrong. Pure: status in, view out.

use std::collections::{BTreeMap, BTreeSet};

use henge_types::status::{ClusterStatus, NodeReport, ReplicaStatus, Role};
use henge_types::{GroupId, NodeId};
use serde::Serialize;

mod problems;

pub use problems::problems;

/// Whether the states of a group's replicas agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// All that answered stand at the same entry with the same hash.
    Equal,
    /// Those that stand at the same entry agree; others are behind.
    Behind,
    /// Two stand at the same entry with different hashes.
    Differ,
    /// Fewer than two answered.
    Unknown,
}

/// One replica of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaView {
    /// Where it lives.
    pub node: NodeId,
    /// What it is; `None` when its node did not answer.
    pub role: Option<Role>,
    /// The last entry it applied.
    pub applied_index: Option<u64>,
    /// Entries known committed anywhere that it has not applied.
    pub lag: Option<u64>,
}

/// One group, as all its replicas together tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupView {
    /// The group.
    pub group: GroupId,
    /// Who leads it, as that node itself says.
    pub leader: Option<NodeId>,
    /// The highest term heard.
    pub term: u64,
    /// Its voters, as the leader or the replica of the highest term knows them.
    pub voters: BTreeSet<NodeId>,
    /// The last entry in any log.
    pub last_index: u64,
    /// The last entry that any replica knows committed.
    pub committed_index: u64,
    /// Its voters and whoever else has a replica, by node.
    pub replicas: Vec<ReplicaView>,
    /// Whether their states agree.
    pub state: Agreement,
}

impl GroupView {
    /// The greatest lag of a replica that answered.
    pub fn lag(&self) -> Option<u64> {
        self.replicas.iter().filter_map(|replica| replica.lag).max()
    }

    /// Voters whose node answered, and that did not stop.
    pub(crate) fn voters_alive(&self) -> usize {
        let alive = |replica: &&ReplicaView| {
            self.voters.contains(&replica.node)
                && replica.role.is_some_and(|role| role != Role::Stopped)
        };
        self.replicas.iter().filter(alive).count()
    }
}

/// Every group of the cluster, also one of which nobody spoke.
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
        .map(|(group, replicas)| group_view(group, &replicas))
        .collect()
}

/// The nodes that answered, with what they said.
pub(crate) fn reports(status: &ClusterStatus) -> impl Iterator<Item = (NodeId, &NodeReport)> {
    status
        .nodes
        .iter()
        .filter_map(|node| node.report.as_ref().map(|report| (node.node, report)))
}

fn group_view(group: GroupId, told: &[(NodeId, &ReplicaStatus)]) -> GroupView {
    let by_term = |(_, replica): &&(NodeId, &ReplicaStatus)| replica.term;
    let leader = told
        .iter()
        .filter(|(_, replica)| replica.role == Role::Leader)
        .max_by_key(by_term);
    let term = told.iter().map(|(_, replica)| replica.term).max();
    // A leader of an older term was deposed and has not noticed yet.
    let leader = leader.filter(|(_, replica)| Some(replica.term) == term);
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
        term: term.unwrap_or(0),
        last_index: highest(|replica| replica.last_index),
        committed_index,
        replicas: replica_views(&voters, told, committed_index),
        voters,
        state: agreement(told),
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
