//! Compares the latest snapshots with their checksums while the node runs.
//!
//! The log before a snapshot is purged, and after a kill the kv is not trusted. If a snapshot was
//! damaged at rest and only the next start detects it, the group has no state on this node.
//! Detected while the group runs, the damage costs another snapshot, which the group takes at once
//! (`snapshot_policy`).

use std::collections::BTreeMap;
use std::time::Duration;

use henge_types::health::group_name;
use henge_types::{ConditionKind, limits};

use crate::cluster::Cluster;

/// Compares one group's snapshot after the other, without end.
pub(crate) async fn run(cluster: &Cluster) {
    let round = Duration::from_millis(limits::SNAPSHOT_CHECK_ROUND_MS);
    loop {
        let groups = cluster.groups().all();
        let share = u32::try_from(groups.len().max(1)).unwrap_or(u32::MAX);
        if groups.is_empty() {
            tokio::time::sleep(round).await;
        }
        for group in groups {
            let snapshots = cluster.shared.deps.snapshots.clone();
            let scope = &cluster.shared.scope;
            let checked = scope.blocking("check snapshot", move || snapshots.check(group.id));
            let bytes = match checked.await {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(error)) => {
                    tracing::warn!(group = %group.id, %error, "a snapshot at rest was not checked: tried again in the next round");
                    0
                }
                // The node stops.
                Err(_) => return,
            };
            let of_bytes =
                Duration::from_millis(bytes / (limits::SNAPSHOT_CHECK_BYTES_PER_S / 1000));
            tokio::time::sleep(of_bytes.max(round / share)).await;
        }
    }
}

/// Raises a condition for a damaged snapshot until another one has replaced it.
pub(crate) fn note(cluster: &Cluster) {
    let mut found = BTreeMap::new();
    for group in cluster.groups().all() {
        if let Some(path) = cluster.shared.deps.snapshots.damaged(group.id) {
            let detail = format!("{} does not match its checksum", path.display());
            found.insert(group_name(group.id), detail);
        }
    }
    let conditions = cluster.conditions();
    conditions.replace(ConditionKind::SnapshotDamaged, &found);
}
