//! The disk of one node is slow.

use std::time::Duration;

use henge_runtime::Random as _;

use crate::disk::SyncPace;
use crate::ring::{Ring, SHARD};
use crate::seeds::for_seeds;

/// The others commit, and the slow node catches up. With an even seed a follower's syncs do not end
/// at all.
#[test]
fn slow_disk_of_one_node_holds_no_write_up() {
    for_seeds("slow_disk", slow_disk);
}

async fn slow_disk(seed: u64) {
    let ring = Ring::formed(seed).await;
    let faults = Box::pin(async {
        ring.more_writes(10, |_| true).await;
        let (node, pace) = match seed % 2 {
            0 => (ring.any_other(ring.leader(SHARD).await), SyncPace::Held),
            _ => {
                let pause = Duration::from_millis(ring.random.within(20..120));
                (ring.any_node(), SyncPace::Slow(pause))
            }
        };
        ring.set_pace(node, pace);
        ring.more_writes(20, |_| true).await;
        ring.set_pace(node, SyncPace::Fast);
        ring.more_writes(5, |by| by == node).await;
    });
    Box::pin(ring.under_load(faults)).await;
    Box::pin(ring.settle()).await;
}
