//! A node whose logs begin after its newest state of the groups.

use std::sync::mpsc;

use henge_runtime::SystemClock;
use henge_storage::disk::OsDisk;
use henge_storage::wal::{Purged, Wal, WalConfig};
use henge_types::stored::{self, number::LOG_ID};

use crate::ring::Ring;

/// Purges the logs of a stopped node up to the known commit index, as after a snapshot.
async fn purge_all(ring: &Ring, node: usize) -> usize {
    let config = WalConfig {
        segment_bytes: 4 * 1024 * 1024,
        bytes_max: 256 * 1024 * 1024,
        ..WalConfig::new(ring.data_dir(node).join("wal"))
    };
    let wal = Wal::open(OsDisk::shared(), SystemClock::shared(), config).unwrap();
    let mut purged = 0;
    for group in wal.recovered_groups() {
        let Some(id) = wal.group(group).committed else {
            continue;
        };
        let (_, index): (u64, u64) = stored::decode_v1(LOG_ID, &id).unwrap();
        let (sender, done) = mpsc::sync_channel(1);
        let index = index + 1;
        let said = Box::new(move |result| sender.send(result).unwrap());
        wal.purge(group, Purged { index, id }, said).await.unwrap();
        done.recv().unwrap().unwrap();
        purged += 1;
    }
    wal.close().unwrap();
    purged
}

/// The snapshots of a killed node were damaged. Its groups no longer started, over all restarts:
/// their logs begin after the snapshots, and no leader can send a snapshot to a group that does not
/// run.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_takes_lost_state_from_the_others() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    for commit in ["a", "b", "c"] {
        work.commit(commit, b"1\n");
        work.git(&["push", "-q", &ring.url(1, "admin/lost"), "main"])
            .await;
    }
    let node = 3;
    ring.kill_node(node).await;
    work.commit("d", b"1\n");
    work.git(&["push", "-q", &ring.url(1, "admin/lost"), "main"])
        .await;
    let purged = purge_all(&ring, node).await;
    assert_eq!(purged, 3, "the meta group and both shards");
    ring.start_node(node).await;
    ring.wait_until_ready(node).await;
    let clone = ring.clone(&ring.url(node, "admin/lost"), "clone").await;
    assert_eq!(
        clone.now(&["rev-parse", "HEAD"]),
        work.now(&["rev-parse", "HEAD"])
    );
}
