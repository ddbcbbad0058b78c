//! Packs that no manifest names any more. Their files go when others, whole and durable, cover them; until then
//! they stay, and readers find what they hold in either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use henge_storage::objects::ObjectError;
use henge_types::{GroupId, LogIndex, NetworkId, PackId};

use crate::metrics;

/// What is known of a pack that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retired {
    /// Whose network it is.
    pub group: GroupId,
    /// The pack that took its place, where that is known.
    pub by: Option<PackId>,
    /// The state says whether it is still named from this entry on.
    pub after: LogIndex,
}

/// The packs to go, and those among them that must stay.
#[derive(Debug, Default)]
pub(crate) struct Retiring {
    packs: Mutex<BTreeMap<(NetworkId, PackId), Retired>>,
    /// Not covered: they hold what nothing else holds.
    kept: Mutex<BTreeSet<(NetworkId, PackId)>>,
}

impl Retiring {
    /// The pack may go, once the entry `after` is in the state.
    pub(crate) fn note(&self, network: NetworkId, pack: PackId, retired: Retired) {
        self.lock().insert((network, pack), retired);
    }

    /// An entry names the pack again: call it before its files are put in place.
    pub(crate) fn named(&self, network: &NetworkId, pack: &PackId) {
        self.lock().remove(&(*network, *pack));
        self.keep_no_more(|known| *known == (*network, *pack));
    }

    /// The network is gone.
    pub(crate) fn forget(&self, network: &NetworkId) {
        self.lock().retain(|(of, _), _| of != network);
        self.keep_no_more(|(of, _)| of == network);
    }

    /// The networks with packs to go, and the entry that the state must have for all of them.
    pub(crate) fn networks(&self) -> Vec<(GroupId, NetworkId, LogIndex)> {
        let mut networks = BTreeMap::new();
        for ((network, _), retired) in &*self.lock() {
            let after = networks
                .entry((retired.group, *network))
                .or_insert(retired.after);
            *after = retired.after.max(*after);
        }
        networks
            .into_iter()
            .map(|((group, network), after)| (group, network, after))
            .collect()
    }

    /// The packs of a network that are to go.
    pub(crate) fn of(&self, network: &NetworkId) -> Vec<(PackId, Retired)> {
        let packs = self.lock();
        let of_network = packs.iter().filter(|((of, _), _)| of == network);
        of_network
            .map(|((_, pack), retired)| (*pack, *retired))
            .collect()
    }

    /// Removes a pack's files with `remove`, unless an entry named it meanwhile. The files of one that is named
    /// from here on are written after that.
    ///
    /// # Errors
    /// What `remove` fails with; the pack is then still to go.
    pub(crate) fn remove(
        &self,
        network: &NetworkId,
        pack: &PackId,
        remove: impl FnOnce() -> Result<(), ObjectError>,
    ) -> Result<bool, ObjectError> {
        let mut packs = self.lock();
        if !packs.contains_key(&(*network, *pack)) {
            return Ok(false);
        }
        remove()?;
        packs.remove(&(*network, *pack));
        Ok(true)
    }

    /// The pack is not covered: it stays, and the operator is told.
    pub(crate) fn keep(&self, network: &NetworkId, pack: &PackId) {
        self.lock().remove(&(*network, *pack));
        let mut kept = self.lock_kept();
        kept.insert((*network, *pack));
        metrics::uncovered_packs(kept.len());
    }

    fn keep_no_more(&self, is_over: impl Fn(&(NetworkId, PackId)) -> bool) {
        let mut kept = self.lock_kept();
        kept.retain(|known| !is_over(known));
        metrics::uncovered_packs(kept.len());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(NetworkId, PackId), Retired>> {
        self.packs
            .lock()
            .expect("invariant: nothing panics while the list is held")
    }

    fn lock_kept(&self) -> MutexGuard<'_, BTreeSet<(NetworkId, PackId)>> {
        self.kept
            .lock()
            .expect("invariant: nothing panics while the list is held")
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

    fn retired(after: u64) -> Retired {
        Retired {
            group: GroupId::new(1),
            by: Some(pack(9)),
            after: LogIndex::new(after),
        }
    }

    #[test]
    fn a_pack_that_is_named_again_keeps_its_files() {
        let retiring = Retiring::default();
        retiring.note(NETWORK, pack(1), retired(5));
        retiring.note(NETWORK, pack(2), retired(7));
        let all = (GroupId::new(1), NETWORK, LogIndex::new(7));
        assert_eq!(retiring.networks(), [all]);
        retiring.named(&NETWORK, &pack(1));
        let never = || panic!("its files are wanted");
        assert!(!retiring.remove(&NETWORK, &pack(1), never).unwrap());
        assert!(retiring.remove(&NETWORK, &pack(2), || Ok(())).unwrap());
        assert_eq!(retiring.networks(), []);
    }

    #[test]
    fn a_failed_removal_is_tried_again() {
        let retiring = Retiring::default();
        retiring.note(NETWORK, pack(1), retired(5));
        let failed = || Err(ObjectError::MissingPack(pack(1)));
        assert!(retiring.remove(&NETWORK, &pack(1), failed).is_err());
        assert_eq!(retiring.of(&NETWORK), [(pack(1), retired(5))]);
        retiring.keep(&NETWORK, &pack(1));
        assert_eq!(retiring.of(&NETWORK), []);
    }
}
