//! Packs that are installed and not synced yet, and packs that are removed during a sync.

use std::collections::{BTreeMap, BTreeSet};

use henge_types::{NetworkId, PackId};

/// The packs to sync. A removed pack needs no sync; a sync in progress can query its removal.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    packs: BTreeMap<NetworkId, BTreeSet<PackId>>,
    syncs: usize,
    /// Removed while a sync is under way.
    removed: BTreeSet<(NetworkId, PackId)>,
}

impl Dirty {
    /// Marks a pack: its files are being installed, or its sync failed.
    pub(super) fn mark(&mut self, network: &NetworkId, pack: &PackId) {
        self.removed.remove(&(*network, *pack));
        self.packs.entry(*network).or_default().insert(*pack);
    }

    /// Unmarks a pack before its sync.
    pub(super) fn take(&mut self, network: &NetworkId, pack: &PackId) {
        if let Some(packs) = self.packs.get_mut(network) {
            packs.remove(pack);
            if packs.is_empty() {
                self.packs.remove(network);
            }
        }
    }

    /// The packs of a network to sync.
    pub(super) fn of(&self, network: &NetworkId) -> Vec<PackId> {
        self.packs
            .get(network)
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    /// The networks with packs to sync.
    pub(super) fn networks(&self) -> Vec<NetworkId> {
        self.packs.keys().copied().collect()
    }

    /// Unmarks all packs of a network that is being removed.
    pub(super) fn forget(&mut self, network: &NetworkId) {
        self.packs.remove(network);
    }

    /// Unmarks a pack that is being removed.
    pub(super) fn remove(&mut self, network: &NetworkId, pack: &PackId) {
        self.take(network, pack);
        if self.syncs > 0 {
            self.removed.insert((*network, *pack));
        }
    }

    /// Whether the pack was removed since the first of the syncs under way began.
    pub(super) fn is_removed(&self, network: &NetworkId, pack: &PackId) -> bool {
        self.removed.contains(&(*network, *pack))
    }

    /// Registers a sync; called before the query of the dirty packs.
    pub(super) fn begin_sync(&mut self) {
        self.syncs += 1;
    }

    /// Ends a sync.
    pub(super) fn end_sync(&mut self) {
        self.syncs -= 1;
        if self.syncs == 0 {
            self.removed.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::ObjectId;

    const NETWORK: NetworkId = NetworkId::from_bytes([1; 16]);

    fn pack(byte: u8) -> PackId {
        PackId::new(ObjectId::Sha1([byte; 20]))
    }

    #[test]
    fn a_sync_under_way_is_told_what_was_removed() {
        let mut dirty = Dirty::default();
        dirty.mark(&NETWORK, &pack(1));
        dirty.remove(&NETWORK, &pack(1));
        assert!(!dirty.is_removed(&NETWORK, &pack(1)), "nobody has to know");
        assert_eq!(dirty.of(&NETWORK), []);

        dirty.mark(&NETWORK, &pack(2));
        dirty.begin_sync();
        dirty.remove(&NETWORK, &pack(2));
        dirty.begin_sync();
        dirty.end_sync();
        assert!(dirty.is_removed(&NETWORK, &pack(2)));
        dirty.mark(&NETWORK, &pack(2));
        assert!(!dirty.is_removed(&NETWORK, &pack(2)), "it is back");
        dirty.remove(&NETWORK, &pack(2));
        dirty.end_sync();
        assert!(!dirty.is_removed(&NETWORK, &pack(2)));
    }
}
