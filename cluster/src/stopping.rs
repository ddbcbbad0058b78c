//! The graceful shutdown of a node's part in the cluster.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use crate::cluster::Cluster;

/// How long a shutdown waits for calls on groups to end.
const CALLS_TIMEOUT: Duration = Duration::from_secs(1);

impl Cluster {
    /// Hands leadership over, stops the groups and drains the kv, so that the next start trusts it.
    pub async fn shutdown(&self, deadline: Duration) {
        let groups = self.shared.groups.all();
        let handovers = groups.iter().map(|group| self.hand_over(group, |_| true));
        futures::future::join_all(handovers).await;
        let groups = self.shared.groups.close(CALLS_TIMEOUT).await;
        let stops = futures::stream::iter(&groups).for_each_concurrent(None, |group| async move {
            if let Err(error) = group.raft.shutdown().await {
                tracing::warn!(group = %group.id, %error, "group did not stop cleanly");
            }
        });
        if tokio::time::timeout(deadline, stops).await.is_err() {
            tracing::warn!(
                "groups did not stop in time: the next start rebuilds from snapshot and log"
            );
            return;
        }
        if let Err(error) = self.close_kv().await {
            tracing::warn!(%error, "the stop is not a clean one: the next start replays the log");
        }
        let wal = self.shared.wal.clone();
        let closed = self
            .shared
            .scope
            .blocking("close wal", move || wal.close())
            .await;
        if let Ok(Err(error)) | Err(error) = closed {
            tracing::warn!(%error, "write-ahead log not closed cleanly");
        }
        self.shared.scope.cancel();
    }

    /// Leaves the marker of a clean shutdown, after every pack that the kv names was made durable.
    /// The next start trusts the kv and replays no entry that it covers.
    async fn close_kv(&self) -> io::Result<()> {
        let effects = Arc::clone(&self.shared.deps.effects);
        let scope = &self.shared.scope;
        scope
            .blocking("sync packs", move || effects.before_clean_stop())
            .await??;
        self.shared.deps.kv.close().await
    }
}
