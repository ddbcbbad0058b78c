//! The formation of the cluster, and the addresses of its members.

use std::collections::BTreeSet;

use henge_types::limits::SHARDS_MAX;
use henge_types::{ClusterRecord, GroupId, NodeRecord, Refusal, Reply, ShardPlacement};

use super::MetaView;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::Outcome;
use crate::view::View;

/// The first entry of a cluster.
pub(super) fn form(
    changes: &mut Changes<'_, impl View>,
    cluster: &ClusterRecord,
    nodes: &[NodeRecord],
    placements: &[ShardPlacement],
) -> Outcome {
    if MetaView::new(changes.before()).cluster().is_some() {
        return Outcome::reply(Reply::Refused(Refusal::AlreadyFormed));
    }
    if !is_whole(cluster, nodes, placements) {
        return Outcome::reply(Reply::Refused(Refusal::Invalid));
    }
    changes.put_record(keys::cluster(), cluster);
    for node in nodes {
        put_node(changes, node);
    }
    for placement in placements {
        changes.put_record(keys::placement(placement.group), placement);
    }
    Outcome::reply(Reply::Done)
}

/// Whether the shards are groups 1..=S in order, each on one or more distinct members.
fn is_whole(cluster: &ClusterRecord, nodes: &[NodeRecord], placements: &[ShardPlacement]) -> bool {
    let members: BTreeSet<_> = nodes.iter().map(|node| node.node).collect();
    let lives: BTreeSet<_> = nodes.iter().map(|node| node.incarnation).collect();
    let in_order = (1..)
        .zip(placements)
        .all(|(group, placement)| placement.group == GroupId::new(group));
    let placed = placements.iter().all(|placement| {
        let replicas: BTreeSet<_> = placement.replicas.iter().copied().collect();
        !replicas.is_empty()
            && replicas.len() == placement.replicas.len()
            && replicas.is_subset(&members)
    });
    !members.is_empty()
        && members.len() == nodes.len()
        && lives.len() == nodes.len()
        && (1..=SHARDS_MAX).contains(&cluster.shards)
        && cluster.replication > 0
        && in_order
        && placed
}

/// Registers a member's addresses.
pub(super) fn register(changes: &mut Changes<'_, impl View>, node: &NodeRecord) -> Outcome {
    let known = MetaView::new(changes.before()).node(node.node);
    match known {
        Some(known) if known.incarnation == node.incarnation => {
            if known != *node {
                put_node(changes, node);
            }
            Outcome::reply(Reply::Done)
        }
        Some(_) | None => Outcome::reply(Reply::Refused(Refusal::UnknownNode)),
    }
}

fn put_node(changes: &mut Changes<'_, impl View>, node: &NodeRecord) {
    changes.put_record(keys::node(node.node), node);
}
