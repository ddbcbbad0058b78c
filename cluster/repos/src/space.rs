//! Free space: a node whose disk is nearly full stores no large packs, so that the log keeps room.
//!
//! A majority of voters with room is enough for a push. A voter without room lacks packs: reads of
//! them are passed to other replicas, and they are fetched when there is room again. A leader
//! without room hands over.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use henge_cluster::{Cluster, Effects};
use henge_git::http::ServiceError;
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use henge_types::{GroupId, NodeId};

use crate::error;
use crate::quorum::is_quorum;
use crate::repos::Inner;

/// Interval of the requests for the nodes' free space.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The nodes with low space, from the last reports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Space(Arc<RwLock<BTreeSet<NodeId>>>);

impl Space {
    /// Polls the reports of all nodes. A leader without room hands its shards to voters with room.
    pub(crate) fn watch(&self, cluster: Cluster, scope: &Scope) {
        let space = self.clone();
        scope.spawn("free space", OnPanic::EndProcess, async move {
            loop {
                let status = cluster.status().await;
                let reports = status
                    .nodes
                    .into_iter()
                    .filter_map(|node| Some((node.node, node.report?)));
                let low = reports
                    .filter(|(_, report)| report.low_space)
                    .map(|(node, _)| node);
                let low: BTreeSet<_> = low.collect();
                space.set(low.clone());
                if low.contains(&cluster.node()) {
                    for group in cluster.local_groups() {
                        hand_over(&cluster, group, &low).await;
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    fn set(&self, low: BTreeSet<NodeId>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for node in low.difference(&known) {
            tracing::warn!(%node, "disk space is low: the node takes no large packs until there is room");
        }
        for node in known.difference(&low) {
            tracing::info!(%node, "disk space is no longer low");
        }
        *known = low;
    }

    /// The nodes whose space is low.
    pub(crate) fn low(&self) -> BTreeSet<NodeId> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    /// Whether the space of a node is low.
    pub(crate) fn is_low(&self, node: NodeId) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.contains(&node)
    }
}

/// Hands a shard that is led here to a voter with room, if a majority has room.
async fn hand_over(cluster: &Cluster, group: GroupId, low: &BTreeSet<NodeId>) {
    let Some(leadership) = cluster.leadership(group).filter(|_| !group.is_meta()) else {
        return;
    };
    if let Ok(with_room) = with_room(&leadership.voters, low) {
        cluster.yield_leadership(group, &with_room).await;
    }
}

/// The voters with room, if they are a majority of every voter set; else the voters without room.
fn with_room(
    voters: &[BTreeSet<NodeId>],
    low: &BTreeSet<NodeId>,
) -> Result<BTreeSet<NodeId>, BTreeSet<NodeId>> {
    let all: BTreeSet<_> = voters.iter().flatten().copied().collect();
    let with_room: BTreeSet<_> = all.difference(low).copied().collect();
    if is_quorum(voters, &with_room) {
        return Ok(with_room);
    }
    Err(all.intersection(low).copied().collect())
}

/// The error message of a push that no majority can store.
fn no_majority(low: &BTreeSet<NodeId>) -> String {
    let nodes: Vec<_> = low.iter().map(ToString::to_string).collect();
    let nodes = nodes.join(", ");
    format!(
        "disk space is low on node {nodes}: no majority has room for a push. Nothing was changed, fetches go on. Ask the operator to free disk space, then push again"
    )
}

/// Whether a leader can take a push.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// A majority has room, this node included.
    Here,
    /// A majority has room, but not this node: another node is about to lead.
    Elsewhere,
    /// No majority has room, or this leader has no room for a push of this size.
    Nowhere(String),
}

impl Inner {
    /// The nodes without room. The local measurement replaces the report of this node.
    pub(crate) fn without_room(&self) -> BTreeSet<NodeId> {
        let mut low = self.space.low();
        let own = self.cluster.node();
        if self.effects.low_space() {
            low.insert(own);
        } else {
            low.remove(&own);
        }
        low
    }

    /// Whether a push of so many bytes to a shard that is led here can be stored. If only other
    /// voters have room, they are asked to lead.
    pub(crate) async fn room_to_lead(
        &self,
        group: GroupId,
        voters: &[BTreeSet<NodeId>],
        bytes: u64,
    ) -> Room {
        let low = self.without_room();
        let own = self.cluster.node();
        match with_room(voters, &low) {
            Err(low) => Room::Nowhere(no_majority(&low)),
            Ok(with_room) if low.contains(&own) => {
                self.cluster.yield_leadership(group, &with_room).await;
                Room::Elsewhere
            }
            Ok(_) if !self.effects.has_room_for(bytes) => Room::Nowhere(format!(
                "node {own}, which leads the repository's shard, has no room for a push of {bytes} bytes. Nothing was changed. Push in smaller steps, or ask the operator to free disk space"
            )),
            Ok(_) => Room::Here,
        }
    }

    /// Whether a majority has room to merge packs, this node included. The error is a node without
    /// room.
    pub(crate) fn has_room_to_merge(&self, voters: &[BTreeSet<NodeId>]) -> Result<(), NodeId> {
        let low = self.without_room();
        let own = self.cluster.node();
        if low.contains(&own) {
            return Err(own);
        }
        with_room(voters, &low)
            .map(drop)
            .map_err(|low| low.first().copied().unwrap_or(own))
    }

    /// Refuses a push before it is sent if no majority of the shard's replicas has room for it.
    pub(crate) fn refuse_without_room(&self, group: GroupId) -> Result<(), ServiceError> {
        let replicas: BTreeSet<_> = self.cluster.replicas(group).into_iter().collect();
        if replicas.is_empty() {
            return Ok(());
        }
        match with_room(&[replicas], &self.without_room()) {
            Ok(_) => Ok(()),
            Err(low) => Err(error::unavailable(no_majority(&low))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(NodeId::new).collect()
    }

    /// One full disk among three refused all pushes of the cluster.
    #[test]
    fn a_majority_with_room_is_enough() {
        let three = [nodes(&[1, 2, 3])];
        assert_eq!(with_room(&three, &nodes(&[2])), Ok(nodes(&[1, 3])));
        assert_eq!(with_room(&three, &nodes(&[2, 3])), Err(nodes(&[2, 3])));
        // Nodes without a vote do not count.
        assert_eq!(with_room(&three, &nodes(&[4, 5])), Ok(nodes(&[1, 2, 3])));
        assert_eq!(with_room(&[nodes(&[1])], &nodes(&[1])), Err(nodes(&[1])));
        let joint = [nodes(&[1, 2, 3]), nodes(&[3, 4, 5])];
        assert_eq!(with_room(&joint, &nodes(&[4, 5])), Err(nodes(&[4, 5])));
        assert_eq!(with_room(&joint, &nodes(&[1, 4])), Ok(nodes(&[2, 3, 5])));
    }

    #[test]
    fn what_is_low_is_what_was_heard_last() {
        let space = Space::default();
        space.set(nodes(&[2]));
        assert!(space.is_low(NodeId::new(2)) && !space.is_low(NodeId::new(1)));
        space.set(nodes(&[]));
        assert_eq!(space.low(), nodes(&[]));
    }
}
