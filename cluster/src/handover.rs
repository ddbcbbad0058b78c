//! Leadership transfer: from a node that stops, and from one whose disk is nearly full.

use std::collections::BTreeSet;
use std::time::Duration;

use henge_types::{GroupId, NodeId};
use openraft::async_runtime::watch::WatchReceiver;

use crate::cluster::Cluster;
use crate::group::Group;

/// How long a leader waits for another node to take a group over.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(1);

impl Cluster {
    /// Asks one of `to` to take over a group that this node leads, and waits up to a second for it.
    /// After the transfer this leader proposes nothing more. If its successor is not elected in
    /// time, the voters elect another one. Returns whether a node was asked; a lagging one is never
    /// asked.
    pub async fn yield_leadership(&self, group: GroupId, to: &BTreeSet<NodeId>) -> bool {
        let Ok(group) = self.shared.groups.get(group) else {
            return false;
        };
        let is_allowed = |node: u64| to.contains(&NodeId::new(node));
        self.hand_over(&group, is_allowed).await
    }

    /// Asks a voter to take a group over, and waits up to a second for it. The voter is the one
    /// heard last, of those that are allowed and have all entries applied here. Returns whether a
    /// voter was asked.
    ///
    /// A lagging voter is never asked: it could not win, and this leader would have given up its
    /// lease without effect.
    pub(crate) async fn hand_over(&self, group: &Group, is_allowed: impl Fn(u64) -> bool) -> bool {
        let own = self.node().get();
        let target = {
            let metrics = group.raft.metrics().borrow_watched().clone();
            if metrics.current_leader != Some(own) {
                return false;
            }
            let heard = metrics.heartbeat.unwrap_or_default();
            let reached = metrics.replication.unwrap_or_default();
            let has_all = |node: &u64| {
                let reached = reached.get(node).and_then(Option::as_ref);
                reached.is_some_and(|reached| Some(reached) >= metrics.last_applied.as_ref())
            };
            heard
                .into_iter()
                .filter(|(node, _)| *node != own && is_allowed(*node) && has_all(node))
                .max_by_key(|(_, at)| at.map(|at| *at))
                .map(|(node, _)| node)
        };
        let Some(target) = target else {
            return false;
        };
        if group.raft.trigger().transfer_leader(target).await.is_err() {
            return false;
        }
        let mut metrics = group.raft.server_metrics();
        let moved = async {
            while metrics.borrow_watched().current_leader == Some(own) {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(HANDOVER_TIMEOUT, moved).await.is_err() {
            tracing::info!(group = %group.id, target, "leadership not taken over in time: the others will elect");
        }
        true
    }
}
