//! One compaction: written by the leader, durable on a quorum, then proposed.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use henge_cluster::{LeaderTerm, Leadership, LevelError, ProposeError, StateAt};
use henge_git::fsck::{Finding, FsckError, fsck_pack};
use henge_git::repack::{
    self, CoverError, PackSize, PlanLimits, RepackError, RepackOptions, ReverseIndex,
};
use henge_git::{Deadline, QuarantinedPack, Stop};
use henge_runtime::failpoint;
use henge_state::ShardView;
use henge_storage::objects::Quarantine;
use henge_types::command::VERSION_REPLACE_PACKS;
use henge_types::limits::PACKS_REPLACED_MAX;
use henge_types::status::CompactionDepth as Depth;
use henge_types::{
    Command, GroupId, NetworkId, NodeId, NotAccepted, ObjectFormat, PackId, PackRef, Refusal,
    ReplacePacks, ShardCommand,
};
use thiserror::Error;

use crate::frames::{Claim, StageRequest};
use crate::maintain::prune::Walked;
use crate::push::commit::{by_reference, inline, is_small};
use crate::push::replicate::{NotDurable, make_durable, release};
use crate::readers::Reading;
use crate::replica::quarantine;
use crate::repos::Inner;
use crate::staging::{KeepError, Trust};

/// How long writing one pack may take.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30 * 60);
/// How long delta bases are searched for; an object without one by then is copied unchanged.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// How long an entry may take to be applied.
pub(super) const PROPOSE_WAIT: Duration = Duration::from_secs(5);
/// How long a new leader may take to learn the entries that were committed before it.
const BARRIER_WAIT: Duration = Duration::from_secs(4);

/// The result of a compaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// The number of replaced packs; 0 when there was nothing to do.
    pub replaced: u32,
    /// Bytes of the new pack and its index.
    pub bytes: u64,
    /// The number of dropped objects; `None` for a compaction that drops none.
    pub dropped: Option<u64>,
}

/// Why a compaction failed.
#[derive(Debug, Error)]
pub(crate) enum CompactError {
    /// This node is no longer the leader.
    #[error("this node does not lead the shard any more")]
    NotLeader,
    /// This node's clock is wrong: it proposes nothing.
    #[error("this node's clock is not known to be right: nothing is dropped by it")]
    WrongClock,
    /// A pack to merge is missing here.
    #[error("packs of the repository are missing on its leader and are being fetched")]
    Parked,
    /// The new pack needs space before the old ones free theirs.
    #[error("disk space is low on node {0}")]
    LowSpace(NodeId),
    /// A replica does not support the command, or its level is unknown.
    #[error("compaction of the shard cannot begin: {0}")]
    Level(#[from] LevelError),
    /// Nothing was written.
    #[error(transparent)]
    Repack(#[from] RepackError),
    /// The new pack does not contain all objects of the old ones.
    #[error("the new pack may not take the place of the old ones: {0}")]
    NotCovered(#[from] CoverError),
    /// The new pack could not be read completely.
    #[error("the new pack could not be checked: {0}")]
    Unchecked(#[from] FsckError),
    /// The new pack is broken: a defect of the program or of the machine.
    #[error("the new pack is broken and was thrown away: {0}")]
    Broken(Box<Finding>),
    /// The new pack could not be stored here.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The new pack could not be stored on a quorum.
    #[error("the new pack is not durable on a majority: {0}")]
    NotDurable(String),
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The outcome is unknown.
    #[error("the exchange was not proposed, or has no answer yet: {0}")]
    Propose(#[from] ProposeError),
    /// A tip reaches a missing object on the leader's replica.
    #[error("what the refs reach is not whole, so nothing is dropped: {0}")]
    NotWhole(Box<Finding>),
    /// An object that was to be dropped is reachable again.
    #[error("refs moved to what was to be dropped, or move too fast")]
    RefsMoved,
    /// More packs than one entry may name.
    #[error("the repository has more packs than can be replaced at once: compact it first")]
    TooManyPacks,
    /// The shard refused the exchange.
    #[error("the shard did not accept the exchange: {0}")]
    Refused(NotAccepted),
}

impl CompactError {
    /// Whether every retry would fail until an operator acts.
    pub(crate) const fn is_defect(&self) -> bool {
        match self {
            Self::NotCovered(CoverError::Stopped)
            | Self::Repack(RepackError::Stopped)
            | Self::Unchecked(FsckError::Stopped) => false,
            Self::NotCovered(_)
            | Self::Repack(_)
            | Self::Unchecked(_)
            | Self::Broken(_)
            | Self::NotWhole(_)
            | Self::Refused(_) => true,
            Self::NotLeader
            | Self::WrongClock
            | Self::RefsMoved
            | Self::TooManyPacks
            | Self::Parked
            | Self::LowSpace(_)
            | Self::Level(_)
            | Self::Keep(_)
            | Self::NotDurable(_)
            | Self::Io(_)
            | Self::Propose(_) => false,
        }
    }
}

/// Stops the work when its waiting caller is dropped.
pub(crate) struct StopOnDrop(pub(crate) Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Waits for blocking work. The work stops when the wait is dropped: the steps of a leader task are
/// dropped when the term ends.
pub(super) async fn stopped_on_drop<T>(
    stop: Stop,
    work: impl Future<Output = io::Result<Result<T, CompactError>>>,
) -> Result<T, CompactError> {
    let _stopped = StopOnDrop(stop);
    work.await?
}

/// A network of a shard that this node leads, in one term.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Led {
    /// The shard.
    pub group: GroupId,
    /// The term of the leadership.
    pub term: u64,
    /// The network.
    pub network: NetworkId,
}

impl Led {
    /// A network of the shard of this term.
    pub(super) const fn of(term: LeaderTerm, network: NetworkId) -> Self {
        let LeaderTerm { group, term } = term;
        Self {
            group,
            term,
            network,
        }
    }
}

/// The packs that a new pack replaces.
pub(super) enum Exchange {
    /// The new pack holds all their objects.
    Replace {
        /// The replaced packs.
        old: Vec<PackId>,
    },
    /// The new pack holds their reachable objects.
    Prune(Walked),
}

/// The new pack, in its quarantine, and the packs it replaces.
struct Merged {
    old: Vec<PackId>,
    pack: QuarantinedPack,
    _quarantine: Quarantine,
}

impl Inner {
    /// Merges packs of a network of a shard that this node leads. `None` when there is nothing to
    /// do.
    ///
    /// # Errors
    /// See [`CompactError`]: in every case the packs of all replicas are unchanged.
    pub(crate) async fn compact(
        self: &Arc<Self>,
        led: Led,
        depth: Depth,
    ) -> Result<Option<Compacted>, CompactError> {
        if let Depth::Prune { grace_ms } = depth {
            return Box::pin(self.prune(led, grace_ms)).await;
        }
        let Led { group, network, .. } = led;
        let leadership = self.leadership_of(led)?;
        let at = self.latest(group).await?;
        let packs = ShardView::new(&at.state).packs(&network);
        let packs: Vec<_> = packs
            .map(|record| PackSize {
                id: record.pack,
                objects: record.objects,
                bytes: record.pack_bytes,
            })
            .collect();
        let Some(old) = choose(&packs, depth) else {
            return Ok(None);
        };
        self.check_conditions(&leadership, network)?;
        // Not after the work: an older replica would stop at the exchange.
        self.cluster
            .raise_level(group, VERSION_REPLACE_PACKS, PROPOSE_WAIT)
            .await?;
        let reading = Arc::new(self.effects.readers().enter(network));
        let mut merged = self.merge(Arc::clone(&reading), network, old).await?;
        // One of the old packs may contain all objects, and be equal to the new one.
        merged.old.retain(|pack| *pack != merged.pack.id);
        if merged.old.is_empty() {
            return Ok(None);
        }
        let done = Compacted {
            replaced: u32::try_from(merged.old.len()).unwrap_or(u32::MAX),
            bytes: merged.pack.pack_bytes.saturating_add(merged.pack.idx_bytes),
            dropped: None,
        };
        let with = Exchange::Replace { old: merged.old };
        let exchanged = Box::pin(self.exchange(led, &merged.pack, &with)).await?;
        drop(reading);
        Ok(exchanged.map(|()| done))
    }

    /// A state with all entries that were committed before the call.
    pub(super) async fn latest(&self, group: GroupId) -> Result<StateAt, CompactError> {
        let barrier = self.cluster.read_barrier(group, BARRIER_WAIT).await;
        barrier.map_err(|_| CompactError::NotLeader)?;
        self.cluster.state(group).ok_or(CompactError::NotLeader)
    }

    pub(super) fn check_conditions(
        &self,
        leadership: &Leadership,
        network: NetworkId,
    ) -> Result<(), CompactError> {
        if self.effects.parking().is_parked(&network) {
            return Err(CompactError::Parked);
        }
        self.has_room_to_merge(&leadership.voters)
            .map_err(CompactError::LowSpace)
    }

    /// Writes the new pack into a quarantine and verifies that it holds all objects of the old
    /// ones.
    async fn merge(
        self: &Arc<Self>,
        reading: Arc<Reading>,
        network: NetworkId,
        old: Vec<PackId>,
    ) -> Result<Merged, CompactError> {
        // All packs of a store use one hash.
        let named = old.first().map(|pack| pack.checksum().format());
        let options = self.repack_options(named.unwrap_or_default());
        let stop = options.stop.clone();
        let objects = self.objects().clone();
        let writing = self.work_of_maintenance.blocking("compact", move || {
            // The job runs on for a moment after its caller has been dropped.
            let _reading = reading;
            let quarantine = quarantine(&objects)?;
            let idx = |pack: &PackId| objects.side_file(&network, pack, "idx");
            let indexes: Vec<PathBuf> = old.iter().map(idx).collect();
            let pack = repack::write(&indexes, quarantine.path(), &options)?.pack;
            let format = options.object_format;
            repack::verify_covers(&pack.idx_path, &indexes, format, &options.stop)?;
            // It becomes the only copy of these objects, on every replica: all of it is read and
            // hashed first.
            let report = fsck_pack(&pack.idx_path, format, &options.stop)?;
            if let Some(finding) = report.findings.into_iter().next() {
                return Err(CompactError::Broken(Box::new(finding)));
            }
            Ok::<_, CompactError>(Merged {
                old,
                pack,
                _quarantine: quarantine,
            })
        });
        stopped_on_drop(stop, writing).await
    }

    pub(super) fn repack_options(&self, object_format: ObjectFormat) -> RepackOptions {
        let until = |within| Deadline::after(Arc::clone(&self.clock), within);
        RepackOptions {
            object_format,
            // Only the leader would have one. A replica that needs one makes it with its bitmap.
            reverse_index: ReverseIndex::Omitted,
            search_until: Stop::at(until(SEARCH_TIME_MAX)),
            stop: Stop::at(until(WRITE_TIME_MAX)),
            ..RepackOptions::default()
        }
    }

    /// The leadership, if it is still that of the term.
    pub(super) fn leadership_of(&self, led: Led) -> Result<Leadership, CompactError> {
        let leadership = self.cluster.leadership(led.group);
        let leadership = leadership.filter(|leadership| leadership.term == led.term);
        leadership.ok_or(CompactError::NotLeader)
    }

    /// Makes the new pack durable and proposes it in the place of the old ones. `None` when the
    /// packs were replaced meanwhile, or the network is gone.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        led: Led,
        pack: &QuarantinedPack,
        with: &Exchange,
    ) -> Result<Option<()>, CompactError> {
        if is_small(pack) {
            let new = inline(pack).await?;
            return Box::pin(self.propose_exchange(led, Some(new), with)).await;
        }
        let stage = self.stage_request(led.group, led.term, led.network, pack);
        self.stage(&stage, pack).await?;
        let new = by_reference(pack);
        let proposed = Box::pin(self.propose_exchange(led, Some(new), with)).await;
        let named = match &proposed {
            Ok(named) => named.is_some(),
            // An entry may name it yet: the claim ends with the term.
            Err(CompactError::Propose(ProposeError::UnknownOutcome | ProposeError::Stopped(_))) => {
                true
            }
            Err(_) => false,
        };
        if !named {
            release(self, &stage);
        }
        proposed
    }

    /// Proposes the exchange. The entry contains `new`, or `new` is durable on a quorum already, or
    /// it is `None`.
    pub(super) async fn propose_exchange(
        self: &Arc<Self>,
        led: Led,
        new: Option<PackRef>,
        with: &Exchange,
    ) -> Result<Option<()>, CompactError> {
        let network = led.network;
        match (with, new) {
            (Exchange::Prune(walked), new) => self.propose_prune(led, new, walked).await,
            (Exchange::Replace { old }, Some(new)) => {
                let old = old.clone();
                let replace = ReplacePacks { network, old, new };
                match self
                    .propose_once(led, ShardCommand::ReplacePacks(replace))
                    .await?
                {
                    Proposed::Done => Ok(Some(())),
                    Proposed::Gone => Ok(None),
                    Proposed::Other(reply) => Err(CompactError::Refused(reply)),
                }
            }
            (Exchange::Replace { .. }, None) => Ok(None),
        }
    }

    fn stage_request(
        &self,
        group: GroupId,
        term: u64,
        network: NetworkId,
        pack: &QuarantinedPack,
    ) -> StageRequest {
        StageRequest {
            network,
            pack: pack.id,
            pack_bytes: pack.pack_bytes,
            idx_bytes: pack.idx_bytes,
            claim: Claim::of_no_request(group, term),
        }
    }

    /// The new pack is durable on a quorum before the entry names it, like that of a large push.
    async fn stage(
        self: &Arc<Self>,
        stage: &StageRequest,
        pack: &QuarantinedPack,
    ) -> Result<(), CompactError> {
        let (effects, own, made) = (Arc::clone(&self.effects), stage.clone(), pack.clone());
        let kept = self.work_of_replica.blocking("stage", move || {
            let files = (made.pack_path.as_path(), made.idx_path.as_path());
            effects.staging().keep(&own, files, Trust::Made)
        });
        kept.await??;
        if let Err(not_durable) = make_durable(self, stage).await {
            release(self, stage);
            return Err(match not_durable {
                NotDurable::NotLeader => CompactError::NotLeader,
                NotDurable::NoQuorum { why } => CompactError::NotDurable(why),
            });
        }
        Ok(())
    }

    pub(super) async fn propose_once(
        &self,
        led: Led,
        command: ShardCommand,
    ) -> Result<Proposed, CompactError> {
        failpoint::hit("compaction.durable");
        self.leadership_of(led)?;
        let applied = self
            .cluster
            .propose_in_term(
                led.group,
                led.term,
                Command::Shard(command),
                None,
                PROPOSE_WAIT,
            )
            .await?;
        failpoint::hit("compaction.committed");
        Ok(match applied.reply.accepted() {
            Ok(()) => Proposed::Done,
            Err(NotAccepted::Refused(
                Refusal::NoSuchPack { .. } | Refusal::NoSuchNetwork { .. },
            )) => Proposed::Gone,
            Err(not_accepted) => Proposed::Other(not_accepted),
        })
    }
}

/// The outcome of a proposal.
pub(super) enum Proposed {
    /// It was applied.
    Done,
    /// The packs were replaced meanwhile, or the network is gone.
    Gone,
    /// It was not accepted for another reason.
    Other(NotAccepted),
}

/// The packs to merge, if any: at most as many as one entry may name.
fn choose(packs: &[PackSize], depth: Depth) -> Option<Vec<PackId>> {
    let known: BTreeSet<_> = packs.iter().map(|pack| pack.id).collect();
    let mut old = match depth {
        Depth::Geometric => repack::plan(packs, PlanLimits::default())?,
        Depth::Everything if packs.len() > 1 => {
            let mut all: Vec<_> = packs.iter().collect();
            all.sort_by_key(|pack| (pack.objects, pack.id));
            all.iter().map(|pack| pack.id).collect()
        }
        Depth::Everything | Depth::Prune { .. } => return None,
    };
    old.retain(|pack| known.contains(pack));
    // The smallest come first.
    old.truncate(PACKS_REPLACED_MAX);
    (old.len() > 1).then_some(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::ObjectId;

    fn packs(objects: impl IntoIterator<Item = u32>) -> Vec<PackSize> {
        let pack = |(number, objects): (u32, u32)| {
            let mut id = [0; 20];
            id[..4].copy_from_slice(&number.to_be_bytes());
            PackSize {
                id: PackId::new(ObjectId::Sha1(id)),
                objects,
                bytes: 100,
            }
        };
        (0..).zip(objects).map(pack).collect()
    }

    #[test]
    fn one_entry_names_no_more_packs_than_it_may() {
        let many = packs((0..5000).rev());
        for depth in [Depth::Geometric, Depth::Everything] {
            let old = choose(&many, depth).unwrap();
            assert_eq!(old.len(), PACKS_REPLACED_MAX, "{depth:?}");
            assert!(old.contains(&many[4999].id), "the smallest goes first");
            assert!(!old.contains(&many[0].id));
        }
    }

    #[test]
    fn there_is_nothing_to_do_for_one_pack_or_for_a_progression() {
        assert_eq!(choose(&packs([]), Depth::Everything), None);
        assert_eq!(choose(&packs([7]), Depth::Everything), None);
        assert_eq!(choose(&packs([1, 2, 4, 8]), Depth::Geometric), None);
        assert_eq!(
            choose(&packs([1, 2, 4, 8]), Depth::Everything)
                .unwrap()
                .len(),
            4
        );
    }
}
