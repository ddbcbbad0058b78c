//! Removal of replaced packs on a replica: their files are removed only when no object is lost with
//! them.
//!
//! The replacing pack is verified against its checksums and flushed with its folder, and its index
//! must name every object of the replaced packs. A pack that is not covered is kept for ever and
//! raises an alert: a store never loses objects.
//!
//! After a prune the old packs are not covered. There the replica itself walks from all tips that
//! must be kept, through the packs of the manifest only. The old packs are removed only if the walk
//! finds every object.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use henge_git::fsck::{FsckError, reach_from};
use henge_runtime::failpoint;
use henge_state::{ShardView, State};
use henge_storage::objects::{ObjectError, Presence};
use henge_types::limits::FORMER_TIP_MS;
use henge_types::{GroupId, LogIndex, NetworkId, PackId};

use crate::effects::PackEffects;
use crate::metrics;
use crate::parking::Missing;
use crate::repos::Inner;
use crate::retiring::Retired;
use crate::staging::end_after_failed_sync;
use crate::sweeper::SWEEP_BARRIER;

/// Time limit of a walk from all tips that must be kept.
const WALK_TIME_MAX: Duration = Duration::from_secs(60 * 60);

impl PackEffects {
    /// Records the packs in a network's store that are not in its manifest: a crash came between an
    /// entry and the removal of the packs that it replaced, or a fetch ended after its pack was
    /// replaced.
    pub(crate) fn note_leftovers(
        &self,
        group: GroupId,
        network: NetworkId,
        manifest: &BTreeSet<PackId>,
    ) {
        for pack in manifest {
            self.retiring().named(&network, pack);
        }
        let here = match self.objects().packs(&network) {
            Ok(here) => here,
            Err(error) => {
                tracing::error!(%group, %network, %error, "cannot look for packs that nobody names");
                return;
            }
        };
        // Read after the listing: every file in the listing belongs to an entry that is counted by
        // now.
        let after = self.reached(group);
        for pack in here.into_iter().filter(|pack| !manifest.contains(pack)) {
            self.set_torn_aside(group, network, pack);
            let retired = Retired {
                group,
                by: None,
                after,
            };
            self.retiring().note(network, pack, retired);
        }
        self.note_set_aside((group, network), manifest, after);
    }

    /// Records a pack that no manifest names, unless it is recorded already.
    pub(crate) fn note_unnamed(&self, group: GroupId, network: NetworkId, pack: PackId) {
        let after = self.reached(group);
        let known = self.retiring().of(&network);
        if known.iter().all(|(known, _)| *known != pack) {
            let by = None;
            let retired = Retired { group, by, after };
            self.retiring().note(network, pack, retired);
        }
    }

    /// Records the packs that earlier processes set aside: listings of packs omit them.
    fn note_set_aside(
        &self,
        (group, network): (GroupId, NetworkId),
        manifest: &BTreeSet<PackId>,
        after: LogIndex,
    ) {
        let noted = self.objects().packs_set_aside(&network).and_then(|aside| {
            for pack in aside {
                if !manifest.contains(&pack) {
                    let by = None;
                    let retired = Retired { group, by, after };
                    self.retiring().note(network, pack, retired);
                } else if self.objects().has_pack(&network, &pack) {
                    self.objects().forget_set_aside(&network, &pack)?;
                }
            }
            Ok(())
        });
        if let Err(error) = noted {
            tracing::warn!(%group, %network, %error, "cannot look for packs that were set aside");
        }
    }

    /// Renames the index of a torn pack that no manifest names: git opens all packs of a folder or
    /// none. A power cut leaves such packs, and a replay writes only packs that are still named.
    fn set_torn_aside(&self, group: GroupId, network: NetworkId, pack: PackId) {
        let Presence::Damaged(fault) = self.objects().presence(&network, &pack, None) else {
            return;
        };
        match self.objects().set_aside(&network, &pack) {
            Ok(()) => {
                tracing::warn!(%group, %network, %pack, %fault, "a torn pack that no manifest names is set aside");
            }
            Err(error) => {
                tracing::error!(%group, %network, %pack, %error, "cannot set a torn pack aside: reads of its network fail");
            }
        }
    }

    /// Removes the packs of a network that `state`, of the entry `applied`, does not name and that
    /// other packs cover; returns their number. Blocking.
    ///
    /// # Errors
    /// When the disk fails; the caller then retries.
    pub(crate) fn retire(
        &self,
        group: GroupId,
        network: NetworkId,
        (state, applied): (&State, LogIndex),
    ) -> Result<usize, ObjectError> {
        let packs = ShardView::new(state).packs(&network);
        let manifest: BTreeSet<_> = packs.map(|record| record.pack).collect();
        let mut waiting: BTreeMap<Option<PackId>, Vec<(PackId, Retired)>> = BTreeMap::new();
        for (pack, retired) in self.retiring().of(&network) {
            if !manifest.contains(&pack) && retired.after <= applied {
                let by = retired.by.filter(|by| manifest.contains(by));
                waiting.entry(by).or_default().push((pack, retired));
            }
        }
        let mut removed = 0;
        for (by, old) in waiting {
            // The replacing pack was itself replaced: the packs of the manifest have to cover the
            // old one.
            let new: Vec<_> = match by {
                Some(by) => vec![by],
                None => manifest.iter().copied().collect(),
            };
            let mut walk = KeptTips::new(self, network, state, &manifest);
            removed += self.retire_for(group, network, &old, &new, &mut walk)?;
        }
        Ok(removed)
    }

    fn retire_for(
        &self,
        group: GroupId,
        network: NetworkId,
        old: &[(PackId, Retired)],
        new: &[PackId],
        walk: &mut KeptTips<'_>,
    ) -> Result<usize, ObjectError> {
        let is_here = |of: &&(PackId, Retired)| {
            let file = |extension| self.objects().side_file(&network, &of.0, extension);
            ["pack", "idx", "idx-aside"]
                .map(file)
                .iter()
                .any(|file| file.is_file())
        };
        let (here, gone): (Vec<&(PackId, Retired)>, Vec<_>) = old.iter().partition(is_here);
        // Entries are replayed after a crash: most of the packs that they replaced were removed
        // long ago.
        for (pack, judged) in gone {
            self.retiring().remove(&network, pack, judged, || {
                self.objects().forget_dirty(&network, pack);
                Ok(())
            })?;
        }
        if here.is_empty() {
            return Ok(0);
        }
        // The old packs may be the only copy that survives a power cut.
        let synced = self.objects().sync_packs(&network, new);
        synced.map_err(end_after_failed_sync)?;
        for pack in new {
            self.objects().verify_pack(&network, pack)?;
        }
        failpoint::hit("retire.verified");
        let mut removed = 0;
        for old in here {
            let is_gone = self.retire_one(group, network, old, new, walk)?;
            removed += usize::from(is_gone);
        }
        Ok(removed)
    }

    /// Removes the files of a replaced pack if it is covered; returns whether it did. The packs in
    /// `new` were verified and are durable.
    fn retire_one(
        &self,
        group: GroupId,
        network: NetworkId,
        (pack, judged): &(PackId, Retired),
        new: &[PackId],
        walk: &mut KeptTips<'_>,
    ) -> Result<bool, ObjectError> {
        let is_aside = || {
            let aside = self.objects().side_file(&network, pack, "idx-aside");
            aside.is_file()
        };
        match self.objects().uncovered(&network, pack, new) {
            Ok(None) => {}
            // A pack without an index: its removal was interrupted, or its installation was never
            // completed.
            Err(ObjectError::MissingPack(missing)) if missing == *pack && !is_aside() => {}
            // A pack that was set aside is removed when the walk finds every reachable object
            // without it.
            Err(ObjectError::MissingPack(missing)) if missing == *pack && walk.are_whole()? => {
                self.objects().remove_commit_graph(&network)?;
            }
            Err(ObjectError::MissingPack(missing)) if missing == *pack => {
                if self.retiring().keep(&network, pack, judged) {
                    tracing::error!(%group, %network, %pack, "a damaged pack may hold objects that no other pack holds: it is kept aside");
                }
                return Ok(false);
            }
            // Only its own damage: if a covering pack is damaged, all packs stay.
            Err(ObjectError::BrokenPack { pack: broken, .. })
                if broken == *pack && walk.are_whole()? =>
            {
                tracing::warn!(%group, %network, %pack, "a replaced pack is damaged, and nothing in it is missed");
                self.objects().remove_commit_graph(&network)?;
            }
            Ok(Some(_)) if walk.may_be_short() && walk.are_whole()? => {
                // The commit-graph may name commits that were dropped.
                self.objects().remove_commit_graph(&network)?;
            }
            Ok(Some(object)) => {
                if self.retiring().keep(&network, pack, judged) {
                    tracing::error!(%group, %network, %pack, %object, "a replaced pack holds an object that no other pack holds: it is kept, tell the developers");
                }
                return Ok(false);
            }
            Err(error @ ObjectError::BrokenPack { pack: broken, .. }) if broken == *pack => {
                // A damaged pack covers no object, and blocks the intact packs.
                let aside = || self.objects().set_aside(&network, pack);
                if self.retiring().remove(&network, pack, judged, aside)? {
                    tracing::error!(%group, %network, %pack, %error, "a replaced pack cannot be compared: it is set aside");
                }
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let remove = || self.objects().remove_pack(&network, pack);
        let removed = self.retiring().remove(&network, pack, judged, remove)?;
        if removed {
            metrics::pack_retired();
            tracing::debug!(%group, %network, %pack, "replaced pack removed");
        }
        failpoint::hit("retire.removed");
        Ok(removed)
    }
}

/// Whether the packs of a network's manifest contain every object that must be kept. Computed once.
struct KeptTips<'a> {
    effects: &'a PackEffects,
    network: NetworkId,
    state: &'a State,
    manifest: &'a BTreeSet<PackId>,
    found: Option<bool>,
}

impl<'a> KeptTips<'a> {
    const fn new(
        effects: &'a PackEffects,
        network: NetworkId,
        state: &'a State,
        manifest: &'a BTreeSet<PackId>,
    ) -> Self {
        Self {
            effects,
            network,
            state,
            manifest,
            found: None,
        }
    }

    /// Whether objects were ever dropped from the network: if not, an intact pack that is not
    /// covered is a defect.
    fn may_be_short(&self) -> bool {
        let view = ShardView::new(self.state);
        view.pruned_at(&self.network).is_some()
    }

    fn are_whole(&mut self) -> Result<bool, ObjectError> {
        if let Some(found) = self.found {
            return Ok(found);
        }
        let found = self.look()?;
        self.found = Some(found);
        Ok(found)
    }

    fn look(&self) -> Result<bool, ObjectError> {
        let view = ShardView::new(self.state);
        let network = self.network;
        let repo = view.any_repo_of(&network);
        let format = repo.map(|repo| repo.object_format).unwrap_or_default();
        let objects = self.effects.objects();
        let idx = |pack| objects.side_file(&network, pack, "idx");
        let indexes: Vec<_> = self.manifest.iter().map(idx).collect();
        let stop = self.effects.stop_after(WALK_TIME_MAX);
        let failed = |error: FsckError| ObjectError::Io {
            doing: "walk",
            path: objects.objects_dir(&network),
            source: io::Error::other(error),
        };
        let now_ms = view.now_ms(self.effects.unix_ms());
        let since_ms = now_ms.saturating_sub(FORMER_TIP_MS);
        let tips = view.kept_tips(&network, since_ms);
        let walked = reach_from(&indexes, format, &tips, &stop);
        let (_, report) = walked.map_err(failed)?;
        let Some(finding) = report.findings.first() else {
            return Ok(true);
        };
        tracing::error!(%network, %finding, "what the refs reach is not whole in the packs that are named");
        Ok(false)
    }
}

impl Inner {
    /// Removes replaced packs in every network of this node where their coverage can be decided
    /// now.
    pub(crate) async fn retire_all(&self) {
        let mut current = BTreeMap::new();
        for (group, network, after) in self.effects.retiring().networks() {
            if self.effects.retiring().has_leftovers(&network)
                && !self.is_current(group, &mut current).await
            {
                continue;
            }
            if let Err(error) = self.retire_in(group, network, after).await {
                tracing::error!(%group, %network, %error, "replaced packs stay for now");
            }
        }
    }

    /// Whether this replica has applied all entries that were committed before the call. After a
    /// start it has not: an entry to be replayed may name a pack that looks like a leftover, and
    /// the covering pack may be missing.
    async fn is_current(&self, group: GroupId, known: &mut BTreeMap<GroupId, bool>) -> bool {
        if let Some(known) = known.get(&group) {
            return *known;
        }
        let barrier = self.cluster.read_barrier(group, SWEEP_BARRIER).await;
        known.insert(group, barrier.is_ok());
        barrier.is_ok()
    }

    async fn retire_in(
        &self,
        group: GroupId,
        network: NetworkId,
        after: LogIndex,
    ) -> io::Result<()> {
        let Some(at) = self.cluster.state(group) else {
            return Ok(());
        };
        // Effects run before their entry is in the state. A missing pack may be the covering one.
        if at.applied < after || self.effects.parking().is_parked(&network) {
            return Ok(());
        }
        if !ShardView::new(&at.state).network_is_live(&network) {
            return Ok(());
        }
        let effects = Arc::clone(&self.effects);
        let retired = self.work_of_replica.blocking("retire packs", move || {
            effects.retire(group, network, (&at.state, at.applied))
        });
        let retired = retired.await?;
        if let Err(error @ ObjectError::BrokenPack { pack, .. }) = &retired {
            let damaged = Missing {
                group,
                network,
                pack: *pack,
            };
            self.found_damaged(damaged, &error.to_string());
        }
        if retired.map_err(io::Error::other)? > 0 {
            // Their space is free when no process has them open.
            self.close(&network);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use henge_cluster::{Effects, StartedFrom};
    use henge_storage::objects::PackFault;
    use henge_types::ObjectId;

    use crate::from_log::tests::{GROUP, NETWORK, at, created, missing, open, pushed};

    const REPLACED: PackId = PackId::new(ObjectId::Sha1([9; 20]));

    /// The remains of a replaced pack after a power cut, with its index set aside.
    fn leave_aside(effects: &PackEffects) {
        let file = |extension| effects.objects().side_file(&NETWORK, &REPLACED, extension);
        fs::write(file("pack"), b"").unwrap();
        fs::write(file("idx-aside"), b"").unwrap();
    }

    fn is_there(effects: &PackEffects) -> bool {
        let file = |extension| effects.objects().side_file(&NETWORK, &REPLACED, extension);
        file("pack").is_file() || file("idx-aside").is_file()
    }

    fn start(effects: &PackEffects, state: &State, applied: u64) -> LogIndex {
        let applied = LogIndex::new(applied);
        let snapshot = LogIndex::new(0);
        effects.started(GROUP, state, StartedFrom { applied, snapshot });
        applied
    }

    /// A network without a prune was not walked: packs that a power cut had torn stayed for ever,
    /// and each start reported that they might hold the last copy of an object.
    #[test]
    fn what_was_set_aside_goes_without_a_prune() {
        let dir = tempfile::tempdir().unwrap();
        let effects = open(&dir);
        let state = created();
        let format = henge_types::ObjectFormat::Sha1;
        effects.objects().ensure_network(&NETWORK, format).unwrap();
        leave_aside(&effects);
        let applied = start(&effects, &state, 1);
        let removed = effects.retire(GROUP, NETWORK, (&state, applied)).unwrap();
        assert_eq!(removed, 1);
        assert!(!is_there(&effects));
        assert_eq!(effects.retiring().of(&NETWORK), []);
    }

    /// The ref of the push names a commit that no pack holds.
    #[test]
    fn what_was_set_aside_stays_while_objects_miss() {
        let dir = tempfile::tempdir().unwrap();
        let effects = open(&dir);
        let (state, push) = pushed();
        effects.apply(&at(2), &push);
        leave_aside(&effects);
        let applied = start(&effects, &state, 2);
        let removed = effects.retire(GROUP, NETWORK, (&state, applied)).unwrap();
        assert_eq!(removed, 0);
        assert!(is_there(&effects));
    }

    /// A damaged covering pack was taken for damage of the replaced pack, which was removed.
    #[test]
    fn damage_of_a_covering_pack_removes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let effects = open(&dir);
        let (state, push) = pushed();
        effects.apply(&at(2), &push);
        let covering = missing().pack;
        let file = |pack, extension| effects.objects().side_file(&NETWORK, pack, extension);
        for extension in ["pack", "idx"] {
            fs::copy(file(&covering, extension), file(&REPLACED, extension)).unwrap();
        }
        fs::write(file(&covering, "idx"), [0; 2000]).unwrap();
        let by = Some(covering);
        let after = LogIndex::new(2);
        let group = GROUP;
        let retired = Retired { group, by, after };
        effects.retiring().note(NETWORK, REPLACED, retired);
        let manifest = BTreeSet::from([covering]);
        let mut walk = KeptTips::new(&effects, NETWORK, &state, &manifest);
        // The covering pack was intact when it was verified, and is damaged when it is compared.
        walk.found = Some(true);
        let here = (REPLACED, retired);
        let removed = effects.retire_one(GROUP, NETWORK, &here, &[covering], &mut walk);
        let Err(ObjectError::BrokenPack { pack, fault }) = removed else {
            panic!("{removed:?}")
        };
        assert_eq!((pack, fault), (covering, PackFault::Index));
        assert!(file(&REPLACED, "idx").is_file());
    }
}
