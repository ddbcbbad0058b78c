//! The background task of a replica that fetches missing packs from other replicas.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use henge_cluster::BulkStream;
use henge_runtime::tasks::OnPanic;
use henge_state::ShardView;
use henge_types::{ConditionKind, LogIndex, NetworkId, NodeId};
use thiserror::Error;
use tokio::sync::Notify;

use crate::frames::{self, Claim, PACK, PackAnswer, PackRequest, StageRequest};
use crate::from_log::FromLog;
use crate::lacking::Lacking;
use crate::metrics;
use crate::parking::{Cause, Missing, Parking};
use crate::push::input::IDLE_TIMEOUT;
use crate::replica::{quarantine, receive_file};
use crate::repos::Inner;
use crate::retries::{Outcome, Retries};
use crate::staging::{KeepError, Trust};
use crate::sweeper::SWEEP_BARRIER;

/// Packs fetched at once.
const FETCHES_AT_ONCE: usize = 4;
/// How long opening a stream to a holder may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// The least time limit of a fetch, of any size.
const FETCH_TIME_MIN: Duration = Duration::from_secs(60);
/// Least rate of a fetch, in bytes per second: far below the share of one of [`FETCHES_AT_ONCE`] of
/// a line of 1 Mbit/s.
const FETCH_RATE_MIN: u64 = 16 * 1024;

/// The time limit of a fetch of so many bytes.
const fn time_for(bytes: u64) -> Duration {
    FETCH_TIME_MIN.saturating_add(Duration::from_secs(bytes / FETCH_RATE_MIN))
}

/// Drives a batch to its end. `newcomers` runs beside it whenever a pack becomes missing meanwhile,
/// and is never cancelled.
async fn beside<'a, T>(
    batch: BoxFuture<'a, T>,
    parking: &Parking,
    newcomers: impl Fn() -> BoxFuture<'a, ()>,
) -> T {
    let over = Notify::new();
    let batch = async {
        let outcome = batch.await;
        over.notify_one();
        outcome
    };
    let watched = async {
        loop {
            tokio::select! {
                biased;
                () = over.notified() => return,
                () = parking.wait_for_more() => {}
            }
            newcomers().await;
        }
    };
    let (outcome, ()) = tokio::join!(batch, watched);
    outcome
}

/// Why no replica delivered a pack.
#[derive(Debug, Error)]
pub(crate) enum NotFetched {
    /// Every other replica was asked and lacks it.
    #[error("no other replica has it")]
    Nobody,
    /// Some replica could not be asked, or its copy could not be stored.
    #[error("node {node}: {source}")]
    Failed {
        /// That replica.
        node: NodeId,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is no other replica.
    #[error("the group has no other replica")]
    Alone,
}

/// The files that a fetched pack replaces.
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
        let mut retries = Retries::default();
        let mut lacking = Lacking::default();
        loop {
            let mut missing = self.effects.parking().all();
            missing.retain(|missing| !self.effects.is_replaying(missing.group));
            self.show_damaged();
            retries.retain(&missing);
            let now = self.clock.instant();
            let lost = lacking.round(&retries.lacked(), now);
            metrics::orphaned_packs(lost.packs.len());
            self.show_lost(&lost.packs);
            for missing in lost.to_say {
                say_lost(missing);
            }
            let known: BTreeSet<_> = missing.iter().copied().collect();
            let due = retries.due(missing, now);
            if due.is_empty() {
                self.report_unwritten();
                // A newly missing pack is tried at once, the others after their backoff.
                let more = self.effects.parking().wait_for_more();
                match retries.next_in(self.clock.instant()) {
                    Some(pause) => drop(tokio::time::timeout(pause, more).await),
                    None => more.await,
                }
                continue;
            }
            // First, and for new packs at once: the log takes no snapshot until it was searched,
            // and a fetch may take hours. A log that was searched without success is searched again
            // after the pack's backoff.
            let waiting = known.into_iter().filter(|missing| !due.contains(missing));
            let asked = Mutex::new(waiting.collect());
            self.ask_log(&asked).await;
            let batch = self.fetch_all(due).boxed();
            let newcomers = || self.ask_log(&asked).boxed();
            let outcomes = beside(batch, self.effects.parking(), newcomers).await;
            let now = self.clock.instant();
            for (missing, outcome) in outcomes {
                retries.note(missing, outcome, (now, self.cluster.random().as_ref()));
            }
        }
    }

    async fn fetch_all(&self, due: Vec<Missing>) -> Vec<(Missing, Outcome)> {
        futures::stream::iter(due)
            .map(|missing| async move { (missing, self.fetch_one(missing).await) })
            .buffer_unordered(FETCHES_AT_ONCE)
            .collect()
            .await
    }

    /// Writes missing packs from the log, each pack at most once.
    async fn ask_log(&self, asked: &Mutex<BTreeSet<Missing>>) {
        for missing in self.effects.parking().in_log_only() {
            let is_busy = self.effects.is_replaying(missing.group)
                || self.arrivals.has(&missing.network, &missing.pack);
            if is_busy || self.drop_if_unnamed(&missing) {
                continue;
            }
            let is_new = asked
                .lock()
                .expect("invariant: noting does not panic")
                .insert(missing);
            if !is_new {
                continue;
            }
            let cause = self.effects.parking().cause(&missing);
            if self.install_logged(missing).await {
                self.reopen_repaired(&missing.network, cause);
            }
        }
    }

    /// Reports packs that could not be written to the operator: each was tried at least once.
    fn report_unwritten(&self) {
        let unwritten = self.effects.parking().unwritten().into_iter();
        let unwritten = unwritten.map(|(group, packs)| {
            let detail = format!("{packs} packs are in the log only, which keeps them");
            (format!("group {group}"), detail)
        });
        let conditions = self.effects.conditions();
        conditions.replace(ConditionKind::PacksUnwritten, &unwritten.collect());
    }

    /// Moves a missing pack that is staged here into its store: this failed when its entry was
    /// applied. `false` when it is not staged for its network, or still cannot be moved.
    async fn promote_staged(&self, missing: Missing) -> bool {
        let named_at = self.named_at(&missing);
        let effects = Arc::clone(&self.effects);
        let promoted = self.work_of_replica.blocking("promote", move || {
            let (network, pack) = (&missing.network, &missing.pack);
            if !effects.staging().is_staged_for(network, pack) {
                return Ok(false);
            }
            // Without the request in the log the pack stays staged until the term ends.
            let logged = match named_at {
                Some(named_at) => effects.logged_pack(missing.group, named_at, pack)?,
                None => None,
            };
            let request = logged.and_then(|named| named.request);
            effects.promote_missing(&missing, request)?;
            Ok::<_, KeepError>(!effects.parking().contains(&missing))
        });
        match promoted
            .await
            .and_then(|promoted| promoted.map_err(io::Error::other))
        {
            Ok(is_here) => is_here,
            Err(error) => {
                tracing::warn!(group = %missing.group, network = %missing.network, pack = %missing.pack, %error, "a staged pack cannot be put in place: tried again");
                false
            }
        }
    }

    /// Writes a missing pack from this node's own log. `false` when the log does not hold it, or it
    /// cannot be written.
    async fn install_logged(&self, missing: Missing) -> bool {
        let named_at = match self.effects.parking().cause(&missing) {
            None => return false,
            Some(Cause::NotWritten { named_at }) => Some(named_at),
            Some(Cause::Damaged { in_log }) => in_log.or_else(|| self.named_at(&missing)),
            Some(Cause::Elsewhere) => self.named_at(&missing),
        };
        let Some(named_at) = named_at else {
            return false;
        };
        let effects = Arc::clone(&self.effects);
        let installed = self.work_of_replica.blocking("pack from the log", move || {
            effects.install_from_log(&missing, named_at)
        });
        match installed
            .await
            .and_then(|installed| installed.map_err(io::Error::other))
        {
            Ok(from_log) => from_log == FromLog::Installed,
            Err(error) => {
                tracing::warn!(group = %missing.group, network = %missing.network, pack = %missing.pack, %error, "a pack cannot be written from the log: tried again");
                false
            }
        }
    }

    /// Readers open the new files from here on.
    fn reopen_repaired(&self, network: &NetworkId, cause: Option<Cause>) {
        if cause.is_some_and(Cause::is_damage) {
            self.drop_opened(network);
        }
    }

    /// Removes a pack that the state does not name from the missing ones: a check of an older state
    /// may have parked it after the entry that replaced it. Returns whether it was removed.
    fn drop_if_unnamed(&self, missing: &Missing) -> bool {
        let Some(view) = self.cluster.view(missing.group) else {
            return false;
        };
        let reached = self.effects.reached(missing.group);
        let is_named = view.with(|state, applied| {
            // Effects run before their entry is in the state.
            applied < reached
                || ShardView::new(state)
                    .pack(&missing.network, &missing.pack)
                    .is_some()
        });
        // No entry has started since: none has named the pack again.
        let parking = self.effects.parking();
        !is_named && parking.remove_if(missing, || self.effects.reached(missing.group) == reached)
    }

    /// The entry that named a pack of the manifest.
    pub(crate) fn named_at(&self, missing: &Missing) -> Option<LogIndex> {
        let view = self.cluster.view(missing.group)?;
        view.with(|state, _| {
            let record = ShardView::new(state).pack(&missing.network, &missing.pack);
            record.map(|record| record.named_at)
        })
    }

    async fn fetch_one(&self, missing: Missing) -> Outcome {
        let Missing {
            group,
            network,
            pack,
        } = missing;
        let is_here = !self.effects.parking().contains(&missing);
        if is_here || self.drop_if_unnamed(&missing) {
            return Outcome::Over;
        }
        if self.arrivals.has(&network, &pack) {
            // A leader is sending it: the pack arrives that way, or the next round fetches it.
            return Outcome::Again;
        }
        let cause = self.effects.parking().cause(&missing);
        if self.promote_staged(missing).await || self.install_logged(missing).await {
            self.reopen_repaired(&network, cause);
            return Outcome::Over;
        }
        match self.fetch_from_anybody(missing, InPlaceOf::Nothing).await {
            Ok(()) => {
                metrics::pack_fetched();
                self.reopen_repaired(&network, cause);
                Outcome::Over
            }
            Err(NotFetched::Nobody | NotFetched::Alone) if self.is_replaced(&missing).await => {
                Outcome::Again
            }
            Err(error @ (NotFetched::Nobody | NotFetched::Alone)) => {
                tracing::debug!(%group, %network, %pack, %error, "missing pack not found on any replica yet");
                Outcome::Lacked
            }
            Err(error @ NotFetched::Failed { .. }) => {
                tracing::debug!(%group, %network, %pack, %error, "missing pack not fetched yet");
                Outcome::Again
            }
        }
    }

    /// Whether an entry that this replica has not applied yet replaces the pack or drops its
    /// network: then no replica has it, and none needs it.
    async fn is_replaced(&self, missing: &Missing) -> bool {
        // Without a leader this is unknown: the pack is not reported as lost.
        let barrier = self
            .cluster
            .read_barrier(missing.group, SWEEP_BARRIER)
            .await;
        barrier.is_err() || !self.effects.parking().contains(missing)
    }

    /// Fetches a pack from any other replica, verifies it and puts it in place.
    ///
    /// # Errors
    /// See [`NotFetched`]; existing files stay as they are.
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

    /// `false` when that node lacks the pack as well.
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
        if !self
            .effects
            .has_room_for(pack_bytes.saturating_add(idx_bytes))
        {
            let message = "disk space is low here: the pack is fetched when there is room";
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        let objects = self.objects().clone();
        let quarantine = self
            .work_of_replica
            .blocking("quarantine", move || quarantine(&objects))
            .await??;
        let (pack, idx) = (
            quarantine.path().join("pack"),
            quarantine.path().join("idx"),
        );
        let received =
            tokio::time::timeout(time_for(pack_bytes.saturating_add(idx_bytes)), async {
                receive_file(&mut stream, pack_bytes, &pack).await?;
                receive_file(&mut stream, idx_bytes, &idx).await
            });
        received
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let effects = Arc::clone(&self.effects);
        // Staged first: staging verifies packs and makes them durable.
        let stage = StageRequest {
            network: missing.network,
            pack: missing.pack,
            pack_bytes,
            idx_bytes,
            claim: Claim::of_fetch(missing.group),
        };
        let kept = self.work_of_replica.blocking("keep fetched pack", move || {
            effects
                .staging()
                .keep(&stage, (&pack, &idx), Trust::Received)?;
            drop(quarantine);
            match in_place_of {
                InPlaceOf::Nothing => effects.promote_missing(&missing, None),
                InPlaceOf::Damaged => effects.promote_over(&missing),
            }
        });
        kept.await?.map_err(io::Error::other)?;
        Ok(true)
    }
}

/// Logs a loss that only an operator can repair.
fn say_lost(missing: Missing) {
    let Missing {
        group,
        network,
        pack,
    } = missing;
    tracing::error!(%group, %network, %pack, "a pack is lost: every replica answered, and has it neither in its store nor staged nor in its log: restore it from a copy of the repository");
}

#[cfg(test)]
mod tests {
    use henge_types::GroupId;

    use super::*;
    use henge_types::{ObjectId, PackId};

    /// A pack was found damaged while large ones were fetched: the log was held until the last of
    /// these had arrived.
    #[tokio::test]
    async fn the_log_is_asked_while_others_are_fetched() {
        let parking = Parking::default();
        let missing = Missing {
            group: GroupId::new(1),
            network: NetworkId::from_bytes([1; 16]),
            pack: PackId::new(ObjectId::Sha1([1; 20])),
        };
        let asked = Notify::new();
        let in_log = Some(LogIndex::new(7));
        let batch = async {
            parking.park(missing, Cause::Damaged { in_log });
            asked.notified().await;
        };
        let ask = async || {
            if parking.in_log_only() == [missing] {
                parking.is_not_logged(&missing, Cause::Elsewhere);
                asked.notify_one();
            }
        };
        let newcomers = || ask().boxed();
        let ended = tokio::time::timeout(IDLE_TIMEOUT, beside(batch.boxed(), &parking, newcomers));
        ended.await.expect("the log is asked");
        assert_eq!(parking.in_log_only(), []);
    }

    /// A fetch from a holder that sent a byte now and then had no time limit.
    #[test]
    fn a_fetch_has_a_time_by_its_size() {
        assert_eq!(time_for(0), FETCH_TIME_MIN);
        let hour = Duration::from_secs(60 * 60);
        assert_eq!(time_for(FETCH_RATE_MIN * 60 * 60), FETCH_TIME_MIN + hour);
        assert!(time_for(u64::MAX) > hour);
    }
}
