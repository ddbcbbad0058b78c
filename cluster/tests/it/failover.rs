//! The leader fails under writes.

use crate::ring::{Ring, SHARD, Stop};
use crate::seeds::for_seeds;

/// No acknowledged write is lost, no term has two leaders, and writes go on.
#[test]
fn failover_loses_nothing_that_was_acknowledged() {
    for_seeds("failover", failover);
}

async fn failover(seed: u64) {
    let ring = Ring::formed(seed).await;
    let faults = Box::pin(async {
        ring.more_writes(10, |_| true).await;
        let leader = ring.leader(SHARD).await;
        let how = match seed % 2 {
            0 => Stop::Kill,
            _ => Stop::PowerCut,
        };
        ring.stop(leader, how).await;
        ring.more_writes(20, |_| true).await;
        ring.start(leader).await;
        ring.more_writes(10, |by| by == leader).await;
    });
    Box::pin(ring.under_load(faults)).await;
    Box::pin(ring.settle()).await;
}
