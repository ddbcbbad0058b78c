//! A node is stopped until the others' logs begin after its own end.

use henge_cluster::Cluster;
use henge_types::LogIndex;

use crate::ring::{NODES, Ring, SHARD, Stop, eventually};
use crate::seeds::for_seeds;

/// Entries that may have been in flight to a node when it stopped: more than there are clients.
const UNDER_WAY: u64 = 10;

/// No log has the entries that the node lacks: it installs a snapshot.
#[test]
fn snapshot_brings_a_node_that_was_away_up_to_date() {
    for_seeds("snapshot", snapshot);
}

async fn snapshot(seed: u64) {
    let ring = Ring::formed(seed).await;
    let away = ring.any_node();
    let faults = Box::pin(async {
        ring.more_writes(10, |_| true).await;
        let how = match seed % 2 {
            0 => Stop::Kill,
            _ => Stop::PowerCut,
        };
        ring.stop(away, how).await;
        let others = move || (1..=NODES).filter(move |node| *node != away);
        let applied = others().filter_map(|node| applied_at(&ring, node)).max();
        // The last entry that the node can have.
        let reached = LogIndex::new(applied.expect("they run").get() + UNDER_WAY);
        ring.more_writes(20, |_| true).await;
        for node in others() {
            eventually("the log is purged", async || {
                let free = |cluster: Cluster| async move { cluster.free_log(SHARD).await };
                let purged = ring.ask(node, free).await;
                purged.filter(|purged| *purged > reached)
            })
            .await;
        }
        ring.start(away).await;
        eventually("a snapshot is installed", async || {
            snapshot_at(&ring, away).filter(|covered| *covered > reached)
        })
        .await;
    });
    Box::pin(ring.under_load(faults)).await;
    Box::pin(ring.settle()).await;
}

fn applied_at(ring: &Ring, node: usize) -> Option<LogIndex> {
    let state = ring.look(node, |cluster| cluster.state(SHARD));
    Some(state.flatten()?.applied)
}

/// The last entry that a node's newest snapshot covers. No node of this test takes a snapshot by
/// itself.
fn snapshot_at(ring: &Ring, node: usize) -> Option<LogIndex> {
    let report = ring.look(node, Cluster::report)?;
    let replica = report
        .replicas
        .iter()
        .find(|replica| replica.group == SHARD);
    Some(LogIndex::new(replica?.snapshot_index))
}
