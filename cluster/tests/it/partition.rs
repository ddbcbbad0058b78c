//! The leader is cut off from the others.

use crate::ring::{NODES, Ring, SHARD, eventually};
use crate::seeds::for_seeds;

/// Which directions are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The leader neither hears the others nor is heard.
    Both,
    /// It hears them and is not heard.
    Outgoing,
    /// It is heard and does not hear them.
    Incoming,
}

/// It acknowledges nothing that the others lack, and no read through it is stale.
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
        // Heartbeats that arrive keep the others from an election.
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
