//! Periodic removals on a replica: staged packs of terms that are over, replaced packs, stores of
//! deleted networks, unused bundles.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use henge_state::ShardView;
use henge_types::{GroupId, LogIndex, NetworkId};

use crate::repos::Inner;

/// Interval of the sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// How long a sweep waits for the confirmation of a leader.
pub(crate) const SWEEP_BARRIER: Duration = Duration::from_secs(2);

impl Inner {
    /// Sweeps until the node stops.
    pub(crate) async fn sweep(self: Arc<Self>) {
        loop {
            drop(tokio::time::timeout(SWEEP_EVERY, self.effects.wait_for_less()).await);
            self.sweep_staged().await;
            self.sweep_bundles().await;
            self.retire_all().await;
            for (group, network, lost_at) in self.effects.bereaved() {
                self.remove_if_dead(group, network, lost_at).await;
            }
        }
    }

    async fn remove_if_dead(&self, group: GroupId, network: NetworkId, lost_at: LogIndex) {
        let Some(view) = self.cluster.view(group) else {
            return;
        };
        let (live, applied) =
            view.with(|state, applied| (ShardView::new(state).network_is_live(&network), applied));
        // The effect runs before its entry is in the state: a later sweep sees the entry.
        if applied < lost_at {
            return;
        }
        if live {
            self.effects.consoled(group, network, lost_at);
            return;
        }
        if !self.effects.readers().are_gone(&network) {
            return;
        }
        self.close(&network);
        self.forget_bundles(&network);
        let effects = Arc::clone(&self.effects);
        let removed = self
            .work_of_replica
            .blocking("remove network", move || effects.remove_network(&network));
        match removed
            .await
            .and_then(|removed| removed.map_err(io::Error::other))
        {
            Ok(()) => {
                tracing::info!(%group, %network, "store of a deleted repository removed");
                self.effects.consoled(group, network, lost_at);
                self.forget_findings(&network);
            }
            Err(error) => tracing::error!(%group, %network, %error, "cannot remove a store"),
        }
    }

    /// Ends claims of terms that are over.
    async fn sweep_staged(&self) {
        let doubtful = self
            .effects
            .staging()
            .doubtful(|group| self.cluster.term(group));
        for group in doubtful {
            let Some(term) = self.confirmed_term(group).await else {
                continue;
            };
            let effects = Arc::clone(&self.effects);
            let swept = self.work_of_replica.blocking("sweep staged", move || {
                let (staging, parking) = (effects.staging(), effects.parking());
                staging.term_applied(group, term, |pack| parking.contains(pack))
            });
            if let Err(error) = swept
                .await
                .and_then(|swept| swept.map_err(io::Error::other))
            {
                tracing::error!(%group, %error, "cannot remove staged packs of a past term");
            }
        }
    }

    /// A term whose leader confirmed itself, and of which this replica has applied an entry:
    /// entries of lower terms can no longer be applied.
    async fn confirmed_term(&self, group: GroupId) -> Option<u64> {
        let term = self.cluster.term(group);
        let leader = self.cluster.leader(group).await?;
        // A read index is not below the first entry of the leader's own term.
        self.cluster.read_barrier(group, SWEEP_BARRIER).await.ok()?;
        let same =
            self.cluster.term(group) == term && self.cluster.leader(group).await == Some(leader);
        same.then_some(term)
    }
}
