//! All nodes stop and start again.

use crate::ring::Ring;
use crate::seeds::for_seeds;

/// Each node stops in one of three ways: cleanly, killed, or with a power cut of its disk.
#[test]
fn restart_of_all_nodes_keeps_what_was_acknowledged() {
    for_seeds("restart", restart);
}

async fn restart(seed: u64) {
    let ring = Ring::formed(seed).await;
    let faults = Box::pin(async {
        ring.more_writes(20, |_| true).await;
        for node in ring.shuffled() {
            ring.stop(node, ring.any_stop()).await;
        }
        for node in ring.shuffled() {
            ring.start(node).await;
        }
        ring.more_writes(20, |_| true).await;
    });
    Box::pin(ring.under_load(faults)).await;
    Box::pin(ring.settle()).await;
}
