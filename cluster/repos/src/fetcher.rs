//! The background of a replica: missing packs fetched from others, claims of past terms dropped, replaced packs
//! and stores of deleted networks removed.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use henge_cluster::BulkStream;
use henge_runtime::tasks::OnPanic;
use henge_state::ShardView;
use henge_types::{GroupId, LogIndex, NetworkId, NodeId, RequestId};
use thiserror::Error;

use crate::frames::{self, Claim, PACK, PackAnswer, PackRequest, StageRequest};
use crate::lacking::Lacking;
use crate::metrics;
use crate::parking::{Cause, Missing};
use crate::push::input::IDLE_TIMEOUT;
use crate::replica::{quarantine, receive_file};
use crate::repos::Inner;
use crate::staging::Trust;

/// Packs fetched at once.
const FETCHES_AT_ONCE: usize = 4;
/// The first pause after a pack could not be fetched.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long opening a stream to a holder may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// How often staged packs and dead networks are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// How long a sweep waits for a leader to confirm itself.
pub(crate) const SWEEP_BARRIER: Duration = Duration::from_secs(2);

/// Why a pack was not fetched from anybody.
#[derive(Debug, Error)]
pub(crate) enum NotFetched {
    /// Every other replica was asked and lacks it.
    #[error("no other replica has it")]
    Nobody,
    /// Some replica could not be asked, or what it sent could not be kept.
    #[error("node {node}: {source}")]
    Failed {
        /// Which.
        node: NodeId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no other replica.
    #[error("the group has no other replica")]
    Alone,
}

/// What a fetched pack takes the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InPlaceOf {
    /// Nothing: its network is parked for it.
    Nothing,
    /// Files of its name that are damaged.
    Damaged,
}

/// Starts the background tasks of a replica.
pub(crate) fn start(inner: &Arc<Inner>) {
    let fetching = Arc::clone(inner);
    inner
        .scope
        .spawn("pack fetcher", OnPanic::EndProcess, async move {
            fetching.fetch_missing().await;
        });
    let sweeping = Arc::clone(inner);
    inner
        .scope
        .spawn("store sweeper", OnPanic::EndProcess, async move {
            sweeping.sweep().await;
        });
}

impl Inner {
    async fn fetch_missing(self: Arc<Self>) {
        let mut backoff = BACKOFF_MIN;
        let mut lacking = Lacking::default();
        loop {
            let missing = self.effects.parking().all();
            self.show_damaged();
            if missing.is_empty() {
                metrics::orphaned_packs(0);
                self.show_lost(&[]);
                lacking = Lacking::default();
                backoff = BACKOFF_MIN;
                self.effects.parking().wait_for_more().await;
                continue;
            }
            let total = missing.len();
            let this = &self;
            let lacked: BTreeSet<Missing> = futures::stream::iter(missing)
                .map(|missing| async move { this.fetch_one(missing).await.then_some(missing) })
                .buffer_unordered(FETCHES_AT_ONCE)
                .filter_map(futures::future::ready)
                .collect()
                .await;
            let lost = lacking.round(&lacked, self.clock.instant());
            metrics::orphaned_packs(lost.packs.len());
            self.show_lost(&lost.packs);
            for missing in lost.to_say {
                say_lost(missing);
            }
            if self.effects.parking().all().len() < total {
                backoff = BACKOFF_MIN;
                continue;
            }
            // Something new is tried at once, the rest after a pause.
            let pause = backoff.mul_f64(rand::random_range(0.5..1.0));
            drop(tokio::time::timeout(pause, self.effects.parking().wait_for_more()).await);
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Whether every other replica answered that it lacks the pack.
    async fn fetch_one(&self, missing: Missing) -> bool {
        let Missing {
            group,
            network,
            pack,
        } = missing;
        if self.arrivals.has(&network, &pack) {
            // A leader is sending it: then it takes its place, or else the next round asks for it.
            return false;
        }
        let cause = self.effects.parking().cause(&missing);
        match self.fetch_from_anybody(missing, InPlaceOf::Nothing).await {
            Ok(()) => {
                metrics::pack_fetched();
                if cause == Some(Cause::Damaged) {
                    // Readers from here on open the new files.
                    self.drop_opened(&network);
                }
                false
            }
            Err(NotFetched::Nobody | NotFetched::Alone) if self.is_replaced(&missing).await => {
                false
            }
            Err(error @ (NotFetched::Nobody | NotFetched::Alone)) => {
                tracing::debug!(%group, %network, %pack, %error, "missing pack not found on any replica yet");
                true
            }
            Err(error @ NotFetched::Failed { .. }) => {
                tracing::debug!(%group, %network, %pack, %error, "missing pack not fetched yet");
                false
            }
        }
    }

    /// Whether entries that this replica has not applied yet put another pack in its place, or its network goes:
    /// then nobody has it any more, and nobody needs it.
    async fn is_replaced(&self, missing: &Missing) -> bool {
        // Without a leader nothing is known: then it is not called lost either.
        let barrier = self
            .cluster
            .read_barrier(missing.group, SWEEP_BARRIER)
            .await;
        barrier.is_err() || !self.effects.parking().contains(missing)
    }

    /// Fetches a pack from any other replica, verifies it and puts it in place.
    ///
    /// # Errors
    /// See [`NotFetched`]: what was there is there still.
    pub(crate) async fn fetch_from_anybody(
        &self,
        missing: Missing,
        in_place_of: InPlaceOf,
    ) -> Result<(), NotFetched> {
        let own = self.cluster.node();
        let others: Vec<_> = self
            .cluster
            .replicas(missing.group)
            .into_iter()
            .filter(|node| *node != own)
            .collect();
        if others.is_empty() {
            return Err(NotFetched::Alone);
        }
        let mut failed = None;
        for node in others {
            match self.fetch_from(node, missing, in_place_of).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(source) => failed = Some(NotFetched::Failed { node, source }),
            }
        }
        Err(failed.unwrap_or(NotFetched::Nobody))
    }

    /// `false` when that node lacks it too.
    async fn fetch_from(
        &self,
        node: NodeId,
        missing: Missing,
        in_place_of: InPlaceOf,
    ) -> io::Result<bool> {
        let request = PackRequest {
            network: missing.network,
            pack: missing.pack,
        };
        let opened = self
            .cluster
            .bulk()
            .open(node, PACK, frames::head(&request), OPEN_TIMEOUT)
            .await;
        let mut stream: BulkStream = opened.map_err(io::Error::other)?;
        let answer = tokio::time::timeout(IDLE_TIMEOUT, frames::read(&mut stream)).await;
        let (pack_bytes, idx_bytes) =
            match answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
                PackAnswer::Missing => return Ok(false),
                PackAnswer::Here {
                    pack_bytes,
                    idx_bytes,
                } => (pack_bytes, idx_bytes),
            };
        let objects = self.objects().clone();
        let quarantine = self
            .work_of_replica
            .blocking("quarantine", move || quarantine(&objects))
            .await??;
        let (pack, idx) = (
            quarantine.path().join("pack"),
            quarantine.path().join("idx"),
        );
        receive_file(&mut stream, pack_bytes, &pack).await?;
        receive_file(&mut stream, idx_bytes, &idx).await?;
        let effects = Arc::clone(&self.effects);
        // Staged first: that is where packs are verified and made durable.
        let stage = StageRequest {
            network: missing.network,
            pack: missing.pack,
            pack_bytes,
            idx_bytes,
            claim: own_claim(missing.group, u64::MAX),
        };
        let kept = self.work_of_replica.blocking("keep fetched pack", move || {
            effects
                .staging()
                .keep(&stage, (&pack, &idx), Trust::Received)?;
            drop(quarantine);
            match in_place_of {
                InPlaceOf::Nothing => effects.promote_missing(&missing),
                InPlaceOf::Damaged => effects.promote_over(&missing),
            }
        });
        kept.await?.map_err(io::Error::other)?;
        Ok(true)
    }

    async fn sweep(self: Arc<Self>) {
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
        // The effect comes before its entry is in the state: a later sweep sees the entry.
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
            }
            Err(error) => tracing::error!(%group, %network, %error, "cannot remove a store"),
        }
    }

    /// Drops claims of terms that are over.
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
                effects.staging().term_applied(group, term)
            });
            if let Err(error) = swept
                .await
                .and_then(|swept| swept.map_err(io::Error::other))
            {
                tracing::error!(%group, %error, "cannot remove staged packs of a past term");
            }
        }
    }

    /// A term whose leader confirmed itself, and of which this replica has applied an entry: no entry of a
    /// lower term can be applied any more.
    async fn confirmed_term(&self, group: GroupId) -> Option<u64> {
        let term = self.cluster.term(group);
        let leader = self.cluster.leader(group).await?;
        // A read index is no lower than the first entry of the leader's own term.
        self.cluster.read_barrier(group, SWEEP_BARRIER).await.ok()?;
        let same =
            self.cluster.term(group) == term && self.cluster.leader(group).await == Some(leader);
        same.then_some(term)
    }

    /// Parks what the manifests of this node's groups name and its disk lacks. Groups looked at before are
    /// not looked at again: from then on effects say what is missing.
    ///
    /// # Errors
    /// When the store cannot be looked into.
    pub(crate) async fn scan(&self, group: GroupId) -> io::Result<()> {
        if self.is_scanned(group) {
            return Ok(());
        }
        let Some(at) = self.cluster.state(group) else {
            return Ok(());
        };
        let effects = Arc::clone(&self.effects);
        let scanned = self.work_of_replica.blocking("scan packs", move || {
            effects.scan(group, &at.state);
        });
        scanned.await?;
        self.mark_scanned(group);
        Ok(())
    }

    /// Looks at all groups that run here.
    pub(crate) async fn scan_all(&self) -> io::Result<()> {
        let groups: BTreeSet<_> = self.cluster.local_groups().into_iter().collect();
        for group in groups.into_iter().filter(|group| !group.is_meta()) {
            self.scan(group).await?;
        }
        Ok(())
    }
}

/// What only an operator can mend.
fn say_lost(missing: Missing) {
    let Missing {
        group,
        network,
        pack,
    } = missing;
    tracing::error!(%group, %network, %pack, "a pack is lost: every replica answered, and has it neither in its store nor staged nor in its log: restore it from a copy of the repository");
}

/// A claim of this node's own: made for no push.
fn own_claim(group: GroupId, term: u64) -> Claim {
    let nobody = henge_types::Incarnation::from_bytes([0; 16]);
    Claim {
        group,
        term,
        request: RequestId {
            made_at_ms: 0,
            incarnation: nobody,
            counter: 0,
        },
    }
}
