//! A replica's part in compaction: the files of packs that were replaced go, and only when nothing goes with them.
//!
//! The pack that took their place is read through against its checksums, flushed with its folder, and its index must
//! name every object of theirs. A pack that is not covered stays for ever and an alert says so: less is never served.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use henge_runtime::failpoint;
use henge_state::{ShardView, State};
use henge_storage::objects::ObjectError;
use henge_types::{GroupId, LogIndex, NetworkId, PackId};

use crate::effects::PackEffects;
use crate::fetcher::SWEEP_BARRIER;
use crate::metrics;
use crate::repos::Inner;
use crate::retiring::Retired;
use crate::staging::end_after_failed_sync;

impl PackEffects {
    /// Notes what lies in a network's store and is not in its manifest: a crash came between an entry and the
    /// removal of what it replaced, or a fetch ended after its pack was replaced.
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
        // Asked after the listing: whatever put a file there did so for an entry that is counted by now.
        let after = self.reached(group);
        for pack in here.into_iter().filter(|pack| !manifest.contains(pack)) {
            let retired = Retired {
                group,
                by: None,
                after,
            };
            self.retiring().note(network, pack, retired);
        }
    }

    /// Removes the packs of a network that `state`, of the entry `applied`, does not name and that others cover; how
    /// many. Blocking.
    ///
    /// # Errors
    /// When the disk fails; then call it again.
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
            // Replaced more than once since: then whatever the manifest names has to cover it.
            let new: Vec<_> = match by {
                Some(by) => vec![by],
                None => manifest.iter().copied().collect(),
            };
            removed += self.retire_for(group, network, &old, &new)?;
        }
        Ok(removed)
    }

    fn retire_for(
        &self,
        group: GroupId,
        network: NetworkId,
        old: &[(PackId, Retired)],
        new: &[PackId],
    ) -> Result<usize, ObjectError> {
        let is_here = |of: &&(PackId, Retired)| {
            let file = |extension| self.objects().side_file(&network, &of.0, extension);
            file("pack").is_file() || file("idx").is_file()
        };
        let (here, gone): (Vec<&(PackId, Retired)>, Vec<_>) = old.iter().partition(is_here);
        // Entries are replayed after a crash: most of what they replaced went long ago.
        for (pack, judged) in gone {
            self.retiring().remove(&network, pack, judged, || Ok(()))?;
        }
        if here.is_empty() {
            return Ok(0);
        }
        // The old ones may be the only copy that survives a power cut.
        let synced = self.objects().sync_packs(&network, new);
        synced.map_err(end_after_failed_sync)?;
        for pack in new {
            self.objects().verify_pack(&network, pack)?;
        }
        failpoint::hit("retire.verified");
        let mut removed = 0;
        for (pack, judged) in here {
            match self.objects().uncovered(&network, pack, new) {
                // Without an index it was being removed, or never quite came.
                Ok(None) => {}
                Err(ObjectError::MissingPack(missing)) if missing == *pack => {}
                Ok(Some(object)) => {
                    if self.retiring().keep(&network, pack, judged) {
                        tracing::error!(%group, %network, %pack, %object, "a replaced pack holds an object that no other pack holds: it is kept, tell the developers");
                    }
                    continue;
                }
                Err(error @ ObjectError::BrokenPack { .. }) => {
                    if self.retiring().keep(&network, pack, judged) {
                        tracing::error!(%group, %network, %pack, %error, "a replaced pack cannot be compared: it is kept");
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
            let remove = || self.objects().remove_pack(&network, pack);
            if self.retiring().remove(&network, pack, judged, remove)? {
                removed += 1;
                metrics::pack_retired();
                tracing::debug!(%group, %network, %pack, "replaced pack removed");
            }
            failpoint::hit("retire.removed");
        }
        Ok(removed)
    }
}

impl Inner {
    /// Removes what was replaced, in every network of this node where that can be told now.
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

    /// Whether this replica has applied all that was committed before now. After a start it has not: an entry that
    /// is yet to be replayed names what looks like a leftover, and what has to cover it is not there either.
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
        // Effects come before their entry is in the state. What is missing may be what has to cover.
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
        if retired.await?.map_err(io::Error::other)? > 0 {
            // Their space is free when nobody has them open any more.
            self.close(&network);
        }
        Ok(())
    }
}
