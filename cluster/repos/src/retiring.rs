//! Packs that no manifest names any more. Their files are removed when other packs, intact and
//! durable, cover them. Until then readers find their objects in either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use henge_storage::objects::ObjectError;
use henge_types::{GroupId, LogIndex, NetworkId, PackId};

use crate::metrics;

/// The record of a replaced pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retired {
    /// The group of its network.
    pub group: GroupId,
    /// The pack that replaced it, if known. If unknown, the manifest has to cover it; this can be
    /// decided only in a state that has all committed entries.
    pub by: Option<PackId>,
    /// The state shows whether the pack is still named once it includes this entry.
    pub after: LogIndex,
}

/// The packs to remove, and those that must be kept.
#[derive(Debug, Default)]
pub(crate) struct Retiring {
    packs: Mutex<BTreeMap<(NetworkId, PackId), Retired>>,
    /// Not covered: they hold the last copy of an object.
    kept: Mutex<BTreeSet<(NetworkId, PackId)>>,
}

impl Retiring {
    /// Records a pack that may be removed once the entry `after` is in the state.
    pub(crate) fn note(&self, network: NetworkId, pack: PackId, retired: Retired) {
        self.lock().insert((network, pack), retired);
    }

    /// Records that an entry names the pack again. Must be called before its files are put in
    /// place.
    pub(crate) fn named(&self, network: &NetworkId, pack: &PackId) {
        let mut packs = self.lock();
        packs.remove(&(*network, *pack));
        self.keep_no_more(|known| *known == (*network, *pack));
    }

    /// Drops the records of a network that was removed.
    pub(crate) fn forget(&self, network: &NetworkId) {
        self.lock().retain(|(of, _), _| of != network);
        self.keep_no_more(|(of, _)| of == network);
    }

    /// The networks with packs to remove, and for each the entry that the state must include for
    /// all of them.
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

    /// The packs of a network that are to be removed.
    pub(crate) fn of(&self, network: &NetworkId) -> Vec<(PackId, Retired)> {
        let packs = self.lock();
        let of_network = packs.iter().filter(|((of, _), _)| of == network);
        of_network
            .map(|((_, pack), retired)| (*pack, *retired))
            .collect()
    }

    /// Whether the replacing pack of one of the network's packs to remove is unknown.
    pub(crate) fn has_leftovers(&self, network: &NetworkId) -> bool {
        let packs = self.lock();
        let mut of_network = packs.iter().filter(|((of, _), _)| of == network);
        of_network.any(|(_, retired)| retired.by.is_none())
    }

    /// Removes a pack's files with `remove`, unless an entry has named it since it was `judged`. An
    /// entry that names it from now on writes its files after that.
    ///
    /// # Errors
    /// The error of `remove`; the pack is then still to be removed.
    pub(crate) fn remove(
        &self,
        network: &NetworkId,
        pack: &PackId,
        judged: &Retired,
        remove: impl FnOnce() -> Result<(), ObjectError>,
    ) -> Result<bool, ObjectError> {
        let mut packs = self.lock();
        if packs.get(&(*network, *pack)) != Some(judged) {
            return Ok(false);
        }
        remove()?;
        packs.remove(&(*network, *pack));
        Ok(true)
    }

    /// Runs `aside` to set a damaged pack's files aside, if no manifest names the pack: it is to be
    /// removed, or kept because no other pack covers it. `applied` is the index of a state that
    /// does not name it. `None` for any other pack: an entry after that state may name it. An entry
    /// that names it from now on puts its files in place after `aside`.
    pub(crate) fn set_aside<T>(
        &self,
        network: &NetworkId,
        pack: &PackId,
        applied: LogIndex,
        aside: impl FnOnce() -> T,
    ) -> Option<T> {
        let packs = self.lock();
        let kept = self.lock_kept();
        let key = (*network, *pack);
        let retired = packs.get(&key);
        let is_to_go = retired.is_some_and(|retired| retired.after <= applied);
        (is_to_go || kept.contains(&key)).then(aside)
    }

    /// Records that the pack is not covered: it is kept, and counted in a metric. `false` when an
    /// entry has named it since it was `judged`: the judgement is then stale.
    pub(crate) fn keep(&self, network: &NetworkId, pack: &PackId, judged: &Retired) -> bool {
        let mut packs = self.lock();
        if packs.get(&(*network, *pack)) != Some(judged) {
            return false;
        }
        packs.remove(&(*network, *pack));
        // Under both locks: an entry that names the pack takes it out of both lists, in the same
        // order.
        let mut kept = self.lock_kept();
        kept.insert((*network, *pack));
        metrics::uncovered_packs(kept.len());
        true
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
        let remove = |byte, after, remove: fn() -> Result<(), ObjectError>| {
            retiring.remove(&NETWORK, &pack(byte), &retired(after), remove)
        };
        assert!(!remove(1, 5, never).unwrap());
        assert!(remove(2, 7, || Ok(())).unwrap());
        assert_eq!(retiring.networks(), []);
    }

    #[test]
    fn a_pack_that_was_named_and_replaced_again_is_judged_again() {
        let retiring = Retiring::default();
        retiring.note(NETWORK, pack(1), retired(5));
        let judged = retiring.of(&NETWORK)[0].1;
        // During the search for its objects:
        retiring.named(&NETWORK, &pack(1));
        assert!(!retiring.keep(&NETWORK, &pack(1), &judged));
        retiring.note(NETWORK, pack(1), retired(9));
        assert!(!retiring.keep(&NETWORK, &pack(1), &judged));
        let never = || panic!("judged by a state before it was named");
        assert!(!retiring.remove(&NETWORK, &pack(1), &judged, never).unwrap());
        assert_eq!(retiring.of(&NETWORK), [(pack(1), retired(9))]);
    }

    /// A read failed on a pack whose entry was being applied: the state did not name it yet, and
    /// its files were set aside.
    #[test]
    fn what_may_be_named_is_not_set_aside() {
        let retiring = Retiring::default();
        let aside = |applied| {
            let applied = LogIndex::new(applied);
            retiring.set_aside(&NETWORK, &pack(1), applied, || ())
        };
        assert_eq!(aside(9), None, "not known here");
        retiring.note(NETWORK, pack(1), retired(5));
        assert_eq!(aside(4), None, "the state is older");
        assert_eq!(aside(5), Some(()));
        assert!(retiring.keep(&NETWORK, &pack(1), &retired(5)));
        assert_eq!(aside(5), Some(()), "no other covers it");
        retiring.named(&NETWORK, &pack(1));
        assert_eq!(aside(9), None, "its entry is being applied");
    }

    #[test]
    fn a_failed_removal_is_tried_again() {
        let retiring = Retiring::default();
        retiring.note(NETWORK, pack(1), retired(5));
        let failed = || Err(ObjectError::MissingPack(pack(1)));
        assert!(
            retiring
                .remove(&NETWORK, &pack(1), &retired(5), failed)
                .is_err()
        );
        assert_eq!(retiring.of(&NETWORK), [(pack(1), retired(5))]);
        assert!(retiring.keep(&NETWORK, &pack(1), &retired(5)));
        assert_eq!(retiring.of(&NETWORK), []);
    }
}
