//! Pruning: one pack of all reachable objects replaces all packs.
//!
//! Pushes go on meanwhile. Their objects are in packs of their own, which stay. If a push builds on
//! an object that was not reached, the entry is refused. A push that was checked before the entry
//! is checked again after it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use henge_cluster::StateAt;
use henge_git::fsck::{FsckReport, Reached, fsck_pack, reach_anew, reach_from};
use henge_git::{QuarantinedPack, repack};
use henge_state::ShardView;
use henge_storage::objects::Quarantine;
use henge_types::command::VERSION_REPOS;
use henge_types::limits::{FORMER_TIP_MS, PACKS_REPLACED_MAX, TIME_STEP_MS_MAX};
use henge_types::{
    LogIndex, MarkFound, NetworkId, NotAccepted, ObjectFormat, ObjectId, PackId, PackRef,
    PruneMark, PrunePacks, Refusal, ShardCommand,
};

use crate::maintain::compact::{
    CompactError, Compacted, Exchange, Led, PROPOSE_WAIT, Proposed, stopped_on_drop,
};
use crate::readers::Reading;
use crate::replica::quarantine;
use crate::repos::Inner;

/// Attempts to propose the entry while refs move.
const TRIES: usize = 20;

/// The packs to replace, and the objects that were reached.
pub(crate) struct Walked {
    old: Vec<PackId>,
    reached: Arc<Reached>,
    marked_at: LogIndex,
    grace_ms: u64,
}

/// The result of the walk.
struct Written {
    reached: Reached,
    dropped: u64,
    /// `None` when no object is reachable.
    pack: Option<QuarantinedPack>,
    _quarantine: Quarantine,
}

impl Inner {
    /// Drops the objects that no ref of the network has reached since its mark, if the mark is at
    /// least `grace_ms` old. Makes the mark if there is none. `None` when there is nothing to do
    /// yet.
    ///
    /// # Errors
    /// See [`CompactError`]: in every case the packs of all replicas are unchanged.
    pub(crate) async fn prune(
        self: &Arc<Self>,
        led: Led,
        grace_ms: u64,
    ) -> Result<Option<Compacted>, CompactError> {
        let Led { group, network, .. } = led;
        let leadership = self.leadership_of(led)?;
        self.check_conditions(&leadership, network)?;
        self.cluster
            .raise_level(group, VERSION_REPOS, PROPOSE_WAIT)
            .await?;
        let Some(mark) = self.marked(led, grace_ms).await? else {
            return Ok(None);
        };
        // Before the state is read: a store that has no reader afterwards belongs to no live
        // repository.
        let reading = Arc::new(self.effects.readers().enter(network));
        let at = self.latest(group).await?;
        let old = manifest(&at, &network);
        if old.len() > PACKS_REPLACED_MAX {
            return Err(CompactError::TooManyPacks);
        }
        let written = self
            .write_reached(Arc::clone(&reading), led, &at, old.clone())
            .await?;
        let mut walked = Walked {
            old,
            reached: Arc::new(written.reached),
            marked_at: mark.at,
            grace_ms,
        };
        let mut done = Compacted {
            replaced: 0,
            bytes: 0,
            dropped: Some(written.dropped),
        };
        if written.dropped == 0 {
            self.mark(led, Some(mark.at), MarkFound::AllReached).await?;
            return Ok(Some(done));
        }
        if let Some(pack) = &written.pack {
            done.bytes = pack.pack_bytes.saturating_add(pack.idx_bytes);
            // One of the old packs may hold exactly the reachable objects, and be equal to the new
            // one.
            walked.old.retain(|old| *old != pack.id);
        }
        done.replaced = u32::try_from(walked.old.len()).unwrap_or(u32::MAX);
        let with = Exchange::Prune(walked);
        let exchanged = match &written.pack {
            Some(pack) => Box::pin(self.exchange(led, pack, &with)).await?,
            None => Box::pin(self.propose_exchange(led, None, &with)).await?,
        };
        drop(reading);
        Ok(exchanged.map(|()| done))
    }

    /// The network's mark, if it is old enough.
    async fn marked(
        self: &Arc<Self>,
        led: Led,
        grace_ms: u64,
    ) -> Result<Option<PruneMark>, CompactError> {
        let look = |at: &StateAt| ShardView::new(&at.state).prune_mark(&led.network);
        let mut mark = look(&self.latest(led.group).await?);
        let now_ms = self.cluster.now_ms(led.group);
        if mark.is_none_or(|mark| mark.is_full || is_ahead(&mark, now_ms)) {
            let instead_of = mark.map(|mark| mark.at);
            self.mark(led, instead_of, MarkFound::Unknown).await?;
            mark = look(&self.latest(led.group).await?);
        }
        // The age at the time of the entry: the local clock may be ahead of the group's time, and
        // the walk would be wasted.
        let entry_ms = self.cluster.entry_time_ms(led.group, PROPOSE_WAIT).await;
        let entry_ms = entry_ms.ok_or(CompactError::WrongClock)?;
        let age_ms = |mark: &PruneMark| entry_ms.saturating_sub(mark.at_ms);
        Ok(mark.filter(|mark| age_ms(mark) >= grace_ms))
    }

    /// Makes a mark, in the place of the mark `instead_of` if there is one.
    pub(super) async fn mark(
        &self,
        led: Led,
        instead_of: Option<LogIndex>,
        found: MarkFound,
    ) -> Result<(), CompactError> {
        let network = led.network;
        let mark = ShardCommand::MarkUnreachable {
            network,
            instead_of,
            found,
        };
        match self.propose_once(led, mark).await? {
            Proposed::Done | Proposed::Gone => Ok(()),
            Proposed::Other(reply) => Err(CompactError::Refused(reply)),
        }
    }

    /// Walks from all tips that must be kept, and writes the reached objects as one pack into a
    /// quarantine.
    async fn write_reached(
        self: &Arc<Self>,
        reading: Arc<Reading>,
        led: Led,
        at: &StateAt,
        old: Vec<PackId>,
    ) -> Result<Written, CompactError> {
        let network = led.network;
        let tips = self.kept_tips(at, &network);
        let format = object_format(at, &network);
        let options = self.repack_options(format);
        let stop = options.stop.clone();
        let objects = self.objects().clone();
        let writing = self.work_of_maintenance.blocking("prune", move || {
            // The job runs on for a moment after its caller has been dropped.
            let _reading = reading;
            let quarantine = quarantine(&objects)?;
            let idx = |pack: &PackId| objects.side_file(&network, pack, "idx");
            let indexes: Vec<PathBuf> = old.iter().map(idx).collect();
            let (reached, report) = reach_from(&indexes, format, &tips, &options.stop)?;
            let dropped = report.unreachable.unwrap_or(0);
            all_found(report)?;
            let pack = if dropped == 0 || reached.is_empty() {
                None
            } else {
                let into = quarantine.path();
                Some(repack::write_reached(&indexes, &reached, into, &options)?.pack)
            };
            if let Some(pack) = &pack {
                // It becomes the only copy of these objects, on every replica: all of it is read
                // and hashed, and walked once more using only its own objects.
                let report = fsck_pack(&pack.idx_path, format, &options.stop)?;
                if let Some(finding) = report.findings.into_iter().next() {
                    return Err(CompactError::Broken(Box::new(finding)));
                }
                let (again, report) = reach_from(
                    std::slice::from_ref(&pack.idx_path),
                    format,
                    &tips,
                    &options.stop,
                )?;
                all_found(report)?;
                if again.len() != reached.len() {
                    return Err(CompactError::RefsMoved);
                }
            }
            Ok::<_, CompactError>(Written {
                reached,
                dropped,
                pack,
                _quarantine: quarantine,
            })
        });
        stopped_on_drop(stop, writing).await
    }

    /// All tips to walk from. They include former tips of twice [`FORMER_TIP_MS`], for replicas
    /// that serve these longer because their clocks are behind.
    fn kept_tips(&self, at: &StateAt, network: &NetworkId) -> Vec<ObjectId> {
        let view = ShardView::new(&at.state);
        let since_ms = view
            .now_ms(self.clock.unix_ms())
            .saturating_sub(2 * FORMER_TIP_MS);
        view.kept_tips(network, since_ms)
    }

    /// Proposes the exchange at a state whose refs reach no object to be dropped. A ref that moved
    /// in between causes another attempt, at most [`TRIES`] in all.
    pub(super) async fn propose_prune(
        self: &Arc<Self>,
        led: Led,
        new: Option<PackRef>,
        walked: &Walked,
    ) -> Result<Option<()>, CompactError> {
        for _ in 0..TRIES {
            let at = self.latest(led.group).await?;
            self.check_moved(led, &at, walked).await?;
            let prune = PrunePacks {
                network: led.network,
                old: walked.old.clone(),
                new: new.clone(),
                walked_at: at.applied,
                marked_at: walked.marked_at,
                grace_ms: walked.grace_ms,
            };
            match self
                .propose_once(led, ShardCommand::PrunePacks(prune))
                .await?
            {
                Proposed::Done => return Ok(Some(())),
                Proposed::Gone => return Ok(None),
                Proposed::Other(NotAccepted::Refused(Refusal::WrongState { .. })) => {}
                Proposed::Other(not_accepted) => return Err(CompactError::Refused(not_accepted)),
            }
        }
        Err(CompactError::RefsMoved)
    }

    /// Walks on from the tips of a later state: they must lead to reached objects, or to packs that
    /// stay.
    async fn check_moved(
        self: &Arc<Self>,
        led: Led,
        at: &StateAt,
        walked: &Walked,
    ) -> Result<(), CompactError> {
        let network = led.network;
        if self.effects.parking().is_parked(&network) {
            return Err(CompactError::Parked);
        }
        let tips = self.kept_tips(at, &network);
        let old: BTreeSet<_> = walked.old.iter().copied().collect();
        let mut staying = manifest(at, &network);
        staying.retain(|pack| !old.contains(pack));
        let objects = self.objects().clone();
        let reached = Arc::clone(&walked.reached);
        let format = object_format(at, &network);
        let stop = self.repack_options(format).stop;
        let until = stop.clone();
        let walking = self.work_of_maintenance.blocking("prune", move || {
            let idx = |pack: &PackId| objects.side_file(&network, pack, "idx");
            let indexes: Vec<PathBuf> = staying.iter().map(idx).collect();
            let (_, report) = reach_anew(&indexes, format, &tips, &reached, &until)?;
            match report.findings.is_empty() {
                true => Ok(()),
                false => Err(CompactError::RefsMoved),
            }
        });
        stopped_on_drop(stop, walking).await
    }
}

/// Whether a mark has a time far in the future, from a wrong clock: its age would stay 0 until
/// then.
pub(super) const fn is_ahead(mark: &PruneMark, now_ms: u64) -> bool {
    mark.at_ms > now_ms.saturating_add(TIME_STEP_MS_MAX)
}

fn manifest(at: &StateAt, network: &NetworkId) -> Vec<PackId> {
    let packs = ShardView::new(&at.state).packs(network);
    packs.map(|record| record.pack).collect()
}

/// The object format of a network.
pub(super) fn object_format(at: &StateAt, network: &NetworkId) -> ObjectFormat {
    let repo = ShardView::new(&at.state).any_repo_of(network);
    repo.map(|repo| repo.object_format).unwrap_or_default()
}

fn all_found(report: FsckReport) -> Result<(), CompactError> {
    match report.findings.into_iter().next() {
        Some(finding) => Err(CompactError::NotWhole(Box::new(finding))),
        None => Ok(()),
    }
}
