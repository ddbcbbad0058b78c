//! Parked networks: they lack a pack here. Parking gates reads of a network, never applying.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use henge_types::{GroupId, LogIndex, NetworkId, PackId};
use tokio::sync::Notify;

use crate::metrics;

/// A pack that the manifest names and this replica lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Missing {
    /// The group of the replica.
    pub group: GroupId,
    /// The network of the store.
    pub network: NetworkId,
    /// The pack.
    pub pack: PackId,
}

/// Why a pack is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Other replicas have it durably: the entry came by reference, or a snapshot named it.
    Elsewhere,
    /// Its files existed here and are damaged or gone.
    Damaged {
        /// The entry that named it, while the log may hold the last copy of its bytes.
        in_log: Option<LogIndex>,
    },
    /// Its entry contained it, and it could not be written: this replica's only copy is the log.
    NotWritten {
        /// The entry.
        named_at: LogIndex,
    },
}

impl Cause {
    /// Whether the log may hold the last copy, and must keep it.
    pub(crate) const fn is_in_log_only(self) -> bool {
        match self {
            Self::NotWritten { .. } | Self::Damaged { in_log: Some(_) } => true,
            Self::Elsewhere | Self::Damaged { in_log: None } => false,
        }
    }

    /// Whether files of the pack are known to be damaged or gone.
    pub(crate) const fn is_damage(self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Elsewhere | Self::NotWritten { .. } => false,
        }
    }

    /// The cause of a pack that is missing for `known` and is then found missing for `found`.
    fn and_found(known: Self, found: Self) -> Self {
        match (known, found) {
            // The search of the log was done, or is pending.
            (Self::Damaged { .. }, Self::Damaged { .. }) => known,
            // A replay must not turn a pack that only the log holds into one that other replicas
            // hold.
            (known, found) => known.max(found),
        }
    }
}

/// The missing packs of this node.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    missing: Mutex<BTreeMap<Missing, Cause>>,
    /// Networks that could not be read for an unknown cause.
    suspected: Mutex<BTreeSet<(GroupId, NetworkId)>>,
    /// Notified when a pack becomes missing.
    more: Notify,
    /// Notified when a pack is here again.
    less: Notify,
}

impl Parking {
    /// Parks the network until the pack is here. Returns whether the pack was not missing before.
    pub(crate) fn park(&self, missing: Missing, cause: Cause) -> bool {
        let mut all = self.lock();
        let known = all.get(&missing).copied();
        let now = known.map_or(cause, |known| Cause::and_found(known, cause));
        all.insert(missing, now);
        observe(&all);
        drop(all);
        count_found(known, now);
        self.more.notify_one();
        known.is_none()
    }

    /// The log does not hold the pack's bytes: its cause becomes `cause`, unless its files are
    /// known to be damaged.
    pub(crate) fn is_not_logged(&self, missing: &Missing, cause: Cause) {
        let mut all = self.lock();
        if let Some(known) = all.get_mut(missing)
            && known.is_in_log_only()
        {
            let before = *known;
            *known = match before.is_damage() {
                true => Cause::Damaged { in_log: None },
                false => cause,
            };
            count_found(Some(before), *known);
        }
        observe(&all);
    }

    /// A snapshot replaced the group's state: packs that it does not name are no longer missing.
    pub(crate) fn retain_named(&self, group: GroupId, is_named: impl Fn(&Missing) -> bool) {
        let mut all = self.lock();
        all.retain(|missing, _| missing.group != group || is_named(missing));
        observe(&all);
        drop(all);
        self.less.notify_waiters();
    }

    /// The pack is here. Returns whether it was missing.
    pub(crate) fn arrived(&self, missing: &Missing) -> bool {
        let cause = self.remove(missing);
        if cause.is_some() {
            tracing::info!(group = %missing.group, network = %missing.network, pack = %missing.pack, "missing pack is here");
        }
        if cause.is_some_and(Cause::is_damage) {
            metrics::pack_repaired();
        }
        cause.is_some()
    }

    /// The manifest names another pack instead.
    pub(crate) fn replaced(&self, missing: &Missing) {
        self.remove(missing);
    }

    /// Removes the pack from the missing ones if `holds`, which runs while no pack can be parked.
    /// Returns its result.
    pub(crate) fn remove_if(&self, missing: &Missing, holds: impl FnOnce() -> bool) -> bool {
        let mut all = self.lock();
        if !holds() {
            return false;
        }
        all.remove(missing);
        observe(&all);
        drop(all);
        self.less.notify_waiters();
        true
    }

    fn remove(&self, missing: &Missing) -> Option<Cause> {
        let mut all = self.lock();
        let cause = all.remove(missing);
        observe(&all);
        drop(all);
        if cause.is_some() {
            self.less.notify_waiters();
        }
        cause
    }

    /// The network was removed: none of its packs is missing.
    pub(crate) fn forget(&self, network: &NetworkId) {
        let mut all = self.lock();
        all.retain(|missing, _| missing.network != *network);
        observe(&all);
    }

    /// Parks the network until the cause of a failed read is known. Returns whether it was not
    /// suspected before.
    pub(crate) fn suspect(&self, group: GroupId, network: NetworkId) -> bool {
        self.lock_suspected().insert((group, network))
    }

    /// The cause of the failed read is known.
    pub(crate) fn cleared(&self, group: GroupId, network: NetworkId) {
        self.lock_suspected().remove(&(group, network));
        self.less.notify_waiters();
    }

    fn lock_suspected(&self) -> MutexGuard<'_, BTreeSet<(GroupId, NetworkId)>> {
        self.suspected
            .lock()
            .expect("invariant: noting does not panic")
    }

    /// Whether a pack of the network is missing, or may be.
    pub(crate) fn is_parked(&self, network: &NetworkId) -> bool {
        let is_missing = self
            .lock()
            .keys()
            .any(|missing| missing.network == *network);
        let suspected = self.lock_suspected();
        is_missing || suspected.iter().any(|(_, suspected)| suspected == network)
    }

    /// Whether the log is the only local copy of a pack of the network because it could not be
    /// written.
    pub(crate) fn is_unwritten(&self, network: &NetworkId) -> bool {
        let all = self.lock();
        let mut of_network = all
            .iter()
            .filter(|(missing, _)| missing.network == *network);
        of_network.any(|(_, cause)| matches!(cause, Cause::NotWritten { .. }))
    }

    /// Whether this pack is missing.
    pub(crate) fn contains(&self, missing: &Missing) -> bool {
        self.lock().contains_key(missing)
    }

    /// Why this pack is missing; `None` when it is not.
    pub(crate) fn cause(&self, missing: &Missing) -> Option<Cause> {
        self.lock().get(missing).copied()
    }

    /// Whether this pack is missing because its files here are damaged or gone.
    pub(crate) fn is_damaged(&self, missing: &Missing) -> bool {
        self.cause(missing).is_some_and(Cause::is_damage)
    }

    /// Waits until the network is not parked.
    pub(crate) async fn wait_until_served(&self, network: &NetworkId) {
        loop {
            let changed = self.less.notified();
            tokio::pin!(changed);
            // Registered before the test: an arrival in between is not missed.
            changed.as_mut().enable();
            if !self.is_parked(network) {
                return;
            }
            changed.await;
        }
    }

    /// Wakes the fetcher although no pack became missing.
    pub(crate) fn look_again(&self) {
        self.more.notify_one();
    }

    /// Waits until a pack becomes missing.
    pub(crate) async fn wait_for_more(&self) {
        self.more.notified().await;
    }

    /// Networks of the group that lack a pack, or may lack one.
    pub(crate) fn networks(&self, group: GroupId) -> BTreeSet<NetworkId> {
        let all = self.lock();
        let of_group = all.keys().filter(|missing| missing.group == group);
        let mut networks: BTreeSet<_> = of_group.map(|missing| missing.network).collect();
        drop(all);
        let suspected = self.lock_suspected();
        let suspected = suspected.iter().filter(|(of, _)| *of == group);
        networks.extend(suspected.map(|(_, network)| *network));
        networks
    }

    /// The number of the group's missing packs that may be in the log only.
    pub(crate) fn not_written(&self, group: GroupId) -> usize {
        let all = self.lock();
        let of_group = all.iter().filter(|(missing, _)| missing.group == group);
        of_group.filter(|(_, cause)| cause.is_in_log_only()).count()
    }

    /// The number of missing packs of each group that may be in the log only.
    pub(crate) fn unwritten(&self) -> BTreeMap<GroupId, usize> {
        let mut groups = BTreeMap::new();
        for (missing, cause) in &*self.lock() {
            if cause.is_in_log_only() {
                *groups.entry(missing.group).or_default() += 1;
            }
        }
        groups
    }

    /// The number of missing packs of all groups that may be in the log only.
    pub(crate) fn all_not_written(&self) -> usize {
        let all = self.lock();
        all.values().filter(|cause| cause.is_in_log_only()).count()
    }

    /// The missing packs that hold the log.
    pub(crate) fn in_log_only(&self) -> Vec<Missing> {
        let all = self.lock();
        let logged = all.iter().filter(|(_, cause)| cause.is_in_log_only());
        logged.map(|(missing, _)| *missing).collect()
    }

    /// The missing packs that do not hold the log: other replicas have them, as far as is known.
    pub(crate) fn not_in_log_only(&self) -> Vec<Missing> {
        let all = self.lock();
        let elsewhere = all.iter().filter(|(_, cause)| !cause.is_in_log_only());
        elsewhere.map(|(missing, _)| *missing).collect()
    }

    /// All missing packs.
    pub(crate) fn all(&self) -> Vec<Missing> {
        self.lock().keys().copied().collect()
    }

    /// The packs that are missing because their files here are damaged or gone.
    pub(crate) fn damaged(&self) -> Vec<Missing> {
        let all = self.lock();
        let damaged = all.iter().filter(|(_, cause)| cause.is_damage());
        damaged.map(|(missing, _)| *missing).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Missing, Cause>> {
        self.missing
            .lock()
            .expect("invariant: nothing panics while the list is held")
    }
}

fn observe(all: &BTreeMap<Missing, Cause>) {
    metrics::parked_packs(all.len());
    let damaged = all.values().filter(|cause| cause.is_damage());
    metrics::damaged_packs(damaged.count());
}

/// Counts a pack whose files were not known to be damaged before.
fn count_found(before: Option<Cause>, now: Cause) {
    if now.is_damage() && !before.is_some_and(Cause::is_damage) {
        metrics::pack_found_damaged();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::ObjectId;

    const DAMAGED: Cause = Cause::Damaged { in_log: None };

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
        let named_at = LogIndex::new(7);
        parking.park(missing(1, 1, 1), Cause::NotWritten { named_at });
        parking.park(missing(1, 1, 1), Cause::Elsewhere);
        assert_eq!(parking.not_written(GroupId::new(1)), 1);
        assert_eq!(parking.all_not_written(), 1);
        parking.forget(&NetworkId::from_bytes([1; 16]));
        assert_eq!(parking.not_written(GroupId::new(1)), 0);
    }

    #[tokio::test]
    async fn a_suspected_network_is_parked_until_it_is_cleared() {
        let parking = Parking::default();
        let (group, network) = (GroupId::new(1), NetworkId::from_bytes([1; 16]));
        assert!(parking.suspect(group, network), "the first to say so");
        assert!(!parking.suspect(group, network));
        assert!(parking.is_parked(&network));
        assert_eq!(parking.networks(group).len(), 1);
        tokio::join!(parking.wait_until_served(&network), async {
            parking.cleared(group, network);
        });
    }

    #[test]
    fn a_damaged_pack_is_counted_until_it_is_here() {
        let parking = Parking::default();
        let one = missing(1, 1, 1);
        assert!(parking.park(one, Cause::Elsewhere), "was served");
        assert!(!parking.park(one, DAMAGED), "was parked");
        assert_eq!(parking.cause(&one), Some(DAMAGED));
        assert!(parking.arrived(&one));
        assert_eq!(parking.cause(&one), None);
    }

    /// Every read finds a pack that is lost on every replica damaged again: this must not hold the
    /// log for ever.
    #[test]
    fn a_damaged_pack_holds_the_log_until_that_was_asked() {
        let parking = Parking::default();
        let (one, group) = (missing(1, 1, 1), GroupId::new(1));
        let in_log = Some(LogIndex::new(7));
        parking.park(one, Cause::Damaged { in_log });
        assert_eq!(parking.not_written(group), 1);
        parking.is_not_logged(&one, Cause::Elsewhere);
        assert_eq!(parking.cause(&one), Some(DAMAGED));
        parking.park(one, Cause::Damaged { in_log });
        assert_eq!(parking.not_written(group), 0);
        let named_at = LogIndex::new(9);
        parking.park(one, Cause::NotWritten { named_at });
        assert_eq!(parking.not_written(group), 1);
        assert!(parking.is_unwritten(&one.network));
    }

    /// A round over packs read a state that named a pack, and parked it after the entry that
    /// replaced it: the repository stayed parked until the node started again.
    #[test]
    fn a_pack_that_is_not_named_any_more_is_dropped() {
        let parking = Parking::default();
        let one = missing(1, 1, 1);
        parking.park(one, DAMAGED);
        assert!(!parking.remove_if(&one, || false));
        assert!(parking.is_parked(&one.network));
        assert!(parking.remove_if(&one, || true));
        assert!(!parking.is_parked(&one.network));
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
