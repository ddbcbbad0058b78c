//! What a node does for its groups by itself: snapshots by bytes of log, freeing the log, gauges.

use std::time::Duration;

use henge_runtime::tasks::OnPanic;
use henge_types::limits;
use openraft::async_runtime::watch::WatchReceiver;

use crate::cluster::Cluster;
use crate::group::Group;
use crate::log_store::slot;
use crate::metrics;

/// Between two looks at every group.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Between two questions to the members what they lead.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The same while an answer may make this node ready.
const ASK_EVERY_WHILE_NOT_READY: Duration = Duration::from_millis(100);

/// Starts the upkeep tasks.
pub(crate) fn start(cluster: &Cluster) {
    let looking = cluster.clone();
    cluster
        .shared
        .scope
        .spawn("upkeep", OnPanic::EndProcess, async move {
            let mut leaders = std::collections::BTreeMap::new();
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                for group in looking.groups().all() {
                    snapshot_if_due(&looking, &group).await;
                    let leader = group.leader();
                    if leaders.insert(group.id, leader) != Some(leader) && leader.is_some() {
                        metrics::leader_changed(group.id);
                    }
                }
                metrics::observe(&looking);
            }
        });
    let asking = cluster.clone();
    cluster
        .shared
        .scope
        .spawn("signs of life", OnPanic::EndProcess, async move {
            loop {
                asking.listen_for_leaders().await;
                let ready = asking.is_ready().is_ok();
                tokio::time::sleep(if ready {
                    ASK_EVERY
                } else {
                    ASK_EVERY_WHILE_NOT_READY
                })
                .await;
            }
        });
    let pressed = cluster.clone();
    cluster.shared.scope.spawn("wal pressure", OnPanic::EndProcess, async move {
        let mut pressure = pressed.shared.wal.pressure();
        while pressure.changed().await.is_ok() {
            let pinning = *pressure.borrow_and_update();
            let Some(group) = pinning.and_then(|group| pressed.groups().get(group).ok()) else { continue };
            tracing::info!(group = %group.id, "the write-ahead log is nearly full: snapshot and purge");
            free(&group).await;
        }
    });
}

async fn snapshot_if_due(cluster: &Cluster, group: &Group) {
    let covered = group.snapshot().map_or(0, |(_, index)| index);
    let applied = group.view.now().applied.get();
    let bytes = cluster.shared.wal.bytes_since(group.id, slot(covered));
    let due = bytes >= limits::SNAPSHOT_LOG_BYTES
        || applied.saturating_sub(covered) >= limits::SNAPSHOT_LOG_ENTRIES;
    if due && let Err(error) = group.raft.trigger().snapshot().await {
        tracing::warn!(group = %group.id, %error, "no snapshot: the group has stopped");
    }
}

/// Takes a snapshot now and lets the log forget everything behind it.
async fn free(group: &Group) {
    let applied = group.view.now().applied.get();
    if group.raft.trigger().snapshot().await.is_err() {
        return;
    }
    let mut receiver = group.raft.metrics();
    let taken = async {
        loop {
            let covered = receiver.borrow_watched().snapshot.map(|id| id.index());
            if covered.is_some_and(|covered| covered >= applied) {
                return covered;
            }
            if receiver.changed().await.is_err() {
                return None;
            }
        }
    };
    if let Ok(Some(upto)) = tokio::time::timeout(Duration::from_secs(60), taken).await
        && let Err(error) = group.raft.trigger().purge_log(upto).await
    {
        tracing::warn!(group = %group.id, %error, "log not purged: the group has stopped");
    }
}
