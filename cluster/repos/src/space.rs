//! Free space: below the watermark pushes are refused, before the disk is full and the log meets it.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use henge_cluster::Cluster;
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use henge_types::NodeId;

/// How often the nodes are asked for their free space.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The nodes whose space is low, as this node last heard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Space(Arc<RwLock<BTreeSet<NodeId>>>);

impl Space {
    /// Asks all nodes now and then: a replica without space asks its leaders this way to refuse.
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
                space.set(low.collect());
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    fn set(&self, low: BTreeSet<NodeId>) {
        let mut known = self
            .0
            .write()
            .expect("invariant: replacing a set does not panic");
        for node in low.difference(&known) {
            tracing::warn!(%node, "disk space is low: pushes are refused");
        }
        *known = low;
    }

    /// One of the nodes among `nodes` whose space is low.
    pub(crate) fn low_among(&self, nodes: &[NodeId]) -> Option<NodeId> {
        let known = self
            .0
            .read()
            .expect("invariant: replacing a set does not panic");
        nodes.iter().find(|node| known.contains(node)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_counts_only_among_those_asked_about() {
        let space = Space::default();
        let node = NodeId::new;
        space.set(BTreeSet::from([node(2)]));
        assert_eq!(space.low_among(&[node(1), node(2)]), Some(node(2)));
        assert_eq!(space.low_among(&[node(1), node(3)]), None);
        space.set(BTreeSet::new());
        assert_eq!(space.low_among(&[node(2)]), None);
    }
}
