//! Networks that lack a pack here: a gate on serving them, never on applying.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use henge_types::{GroupId, NetworkId, PackId};
use tokio::sync::Notify;

use crate::metrics;

/// A pack that the manifest names and this replica lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Missing {
    /// Whose replica lacks it.
    pub group: GroupId,
    /// Whose store.
    pub network: NetworkId,
    /// The pack.
    pub pack: PackId,
}

/// Why a pack is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Others have it durably: the entry came by reference, or a snapshot named it.
    Elsewhere,
    /// It came in an entry and could not be written: until it is here again, this replica's only copy is
    /// the log.
    NotWritten,
}

/// What is missing on this node.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    missing: Mutex<BTreeMap<Missing, Cause>>,
    /// Told when something became missing.
    more: Notify,
    /// Told when something is here again.
    less: Notify,
}

impl Parking {
    /// Closes the gate until the pack is here.
    pub(crate) fn park(&self, missing: Missing, cause: Cause) {
        let mut all = self.lock();
        // A replay must not make a pack that only the log holds look like one that others hold.
        all.entry(missing)
            .and_modify(|known| *known = (*known).max(cause))
            .or_insert(cause);
        metrics::parked_packs(all.len());
        drop(all);
        self.more.notify_one();
    }

    /// The pack is here, durably. Whether it was missing.
    pub(crate) fn arrived(&self, missing: &Missing) -> bool {
        let was_missing = self.remove(missing);
        if was_missing {
            tracing::info!(group = %missing.group, network = %missing.network, pack = %missing.pack, "missing pack is here");
        }
        was_missing
    }

    /// The manifest names another pack instead.
    pub(crate) fn replaced(&self, missing: &Missing) {
        self.remove(missing);
    }

    fn remove(&self, missing: &Missing) -> bool {
        let mut all = self.lock();
        let was_missing = all.remove(missing).is_some();
        metrics::parked_packs(all.len());
        drop(all);
        if was_missing {
            self.less.notify_waiters();
        }
        was_missing
    }

    /// Nobody needs the network's packs any more.
    pub(crate) fn forget(&self, network: &NetworkId) {
        let mut all = self.lock();
        all.retain(|missing, _| missing.network != *network);
        metrics::parked_packs(all.len());
    }

    /// Whether a pack of the network is missing.
    pub(crate) fn is_parked(&self, network: &NetworkId) -> bool {
        self.lock()
            .keys()
            .any(|missing| missing.network == *network)
    }

    /// Whether this very pack is missing.
    pub(crate) fn contains(&self, missing: &Missing) -> bool {
        self.lock().contains_key(missing)
    }

    /// Waits until nothing of the network is missing.
    pub(crate) async fn wait_until_served(&self, network: &NetworkId) {
        loop {
            let changed = self.less.notified();
            tokio::pin!(changed);
            // Registered before looking: what arrives in between is not missed.
            changed.as_mut().enable();
            if !self.is_parked(network) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until something becomes missing.
    pub(crate) async fn wait_for_more(&self) {
        self.more.notified().await;
    }

    /// Networks of the group that lack a pack.
    pub(crate) fn networks(&self, group: GroupId) -> BTreeSet<NetworkId> {
        let all = self.lock();
        let of_group = all.keys().filter(|missing| missing.group == group);
        of_group.map(|missing| missing.network).collect()
    }

    /// Packs of the group that could not be written here and are in the log only.
    pub(crate) fn not_written(&self, group: GroupId) -> usize {
        let all = self.lock();
        let of_group = all.iter().filter(|(missing, _)| missing.group == group);
        of_group
            .filter(|(_, cause)| **cause == Cause::NotWritten)
            .count()
    }

    /// Everything that is missing.
    pub(crate) fn all(&self) -> Vec<Missing> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Missing, Cause>> {
        self.missing
            .lock()
            .expect("invariant: nothing panics while the list is held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::ObjectId;

    fn missing(group: u32, network: u8, pack: u8) -> Missing {
        Missing {
            group: GroupId::new(group),
            network: NetworkId::from_bytes([network; 16]),
            pack: PackId::new(ObjectId::Sha1([pack; 20])),
        }
    }

    #[test]
    fn a_network_is_parked_until_its_last_pack_is_here() {
        let parking = Parking::default();
        let (one, two) = (missing(1, 1, 1), missing(1, 1, 2));
        parking.park(one, Cause::Elsewhere);
        parking.park(two, Cause::Elsewhere);
        parking.arrived(&one);
        assert!(parking.is_parked(&one.network));
        assert_eq!(parking.networks(GroupId::new(1)).len(), 1);
        assert_eq!(parking.networks(GroupId::new(2)).len(), 0);
        parking.arrived(&two);
        assert!(!parking.is_parked(&one.network));
    }

    #[test]
    fn a_pack_that_only_the_log_holds_stays_one() {
        let parking = Parking::default();
        parking.park(missing(1, 1, 1), Cause::NotWritten);
        parking.park(missing(1, 1, 1), Cause::Elsewhere);
        assert_eq!(parking.not_written(GroupId::new(1)), 1);
        parking.forget(&NetworkId::from_bytes([1; 16]));
        assert_eq!(parking.not_written(GroupId::new(1)), 0);
    }

    #[tokio::test]
    async fn whoever_waits_for_the_gate_is_woken() {
        let parking = Parking::default();
        let one = missing(1, 1, 1);
        parking.park(one, Cause::Elsewhere);
        tokio::join!(parking.wait_until_served(&one.network), async {
            parking.arrived(&one);
        });
        parking.wait_for_more().await;
    }
}
