//! The leader is partitioned from the others.

use crate::ring::{NODES, Ring, SHARD, eventually};
use crate::seeds::for_seeds;

/// The directions that are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// No message of the others reaches the leader, and none of its messages reaches them.
    Both,
    /// The leader receives messages; its own do not arrive.
    Outgoing,
    /// The leader's messages arrive; it receives none.
    Incoming,
}

/// The leader acknowledges no write that the others lack, and no read through it is stale.
#[test]
fn partition_of_the_leader_shows_no_stale_state() {
    for_seeds("partition", partition);
}

async fn partition(seed: u64) {
    let ring = Ring::formed(seed).await;
    let cut = match seed % 3 {
        0 => Cut::Both,
        1 => Cut::Outgoing,
        _ => Cut::Incoming,
    };
    let faults = Box::pin(async {
        ring.more_writes(10, |_| true).await;
        let leader = ring.leader(SHARD).await;
        for other in (1..=NODES).filter(|other| *other != leader) {
            if cut != Cut::Incoming {
                ring.part(leader, other);
            }
            if cut != Cut::Outgoing {
                ring.part(other, leader);
            }
        }
        // Arriving heartbeats keep the others from an election.
        if cut != Cut::Incoming {
            ring.more_writes(10, |by| by != leader).await;
        }
        eventually("reads through the leader of before end", async || {
            (!ring.read(leader).await).then_some(())
        })
        .await;
        ring.heal();
        if ring.any_node() == leader {
            ring.reset(leader);
        }
        ring.more_writes(10, |by| by == leader).await;
    });
    Box::pin(ring.under_load(faults)).await;
    Box::pin(ring.settle()).await;
}
