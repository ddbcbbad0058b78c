//! Packs that entries name while the log of a group is replayed at a start.
//!
//! Later entries of the same log replaced most of them. So no pack is installed before the end of
//! the replay: then the packs that are still named are known, and only these are checked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use henge_types::{GroupId, LogIndex};

use crate::parking::Missing;

/// The groups whose log is being replayed, each with the packs named so far and the last entry that
/// named them.
#[derive(Debug, Default)]
pub(crate) struct Replaying {
    groups: Mutex<BTreeMap<GroupId, BTreeMap<Missing, LogIndex>>>,
}

impl Replaying {
    /// The replay of a group begins, perhaps again.
    pub(crate) fn begin(&self, group: GroupId) {
        self.lock().insert(group, BTreeMap::new());
    }

    /// Whether the group is being replayed.
    pub(crate) fn has(&self, group: GroupId) -> bool {
        self.lock().contains_key(&group)
    }

    /// Records that an entry names a pack. `false` when the group is not being replayed: the caller
    /// then installs the pack.
    pub(crate) fn named(&self, pack: Missing, by: LogIndex) -> bool {
        let mut groups = self.lock();
        let packs = groups.get_mut(&pack.group);
        packs.is_some_and(|packs| {
            packs.insert(pack, by);
            true
        })
    }

    /// Records that an entry replaces this pack.
    pub(crate) fn replaced(&self, pack: &Missing) {
        if let Some(packs) = self.lock().get_mut(&pack.group) {
            packs.remove(pack);
        }
    }

    /// The packs named so far and not replaced, in the order of their entries. The replay may go
    /// on.
    pub(crate) fn take(&self, group: GroupId) -> Vec<(Missing, LogIndex)> {
        let packs = self.lock().get_mut(&group).map(std::mem::take);
        let mut packs: Vec<_> = packs.unwrap_or_default().into_iter().collect();
        packs.sort_unstable_by_key(|(_, by)| *by);
        packs
    }

    /// The replay is over: callers install packs that are named from now on.
    pub(crate) fn end(&self, group: GroupId) {
        self.lock().remove(&group);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, BTreeMap<Missing, LogIndex>>> {
        self.groups
            .lock()
            .expect("invariant: nothing panics while the list is held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::{NetworkId, ObjectId, PackId};

    const GROUP: GroupId = GroupId::new(1);

    fn pack(byte: u8) -> Missing {
        Missing {
            group: GROUP,
            network: NetworkId::from_bytes([1; 16]),
            pack: PackId::new(ObjectId::Sha1([byte; 20])),
        }
    }

    #[test]
    fn only_what_is_still_named_is_left_of_a_replay() {
        let replaying = Replaying::default();
        assert!(
            !replaying.named(pack(1), LogIndex::new(1)),
            "nothing is replayed"
        );
        replaying.begin(GROUP);
        for (byte, by) in [(9, 2), (1, 3), (2, 4)] {
            assert!(replaying.named(pack(byte), LogIndex::new(by)));
        }
        replaying.replaced(&pack(1));
        let left = [(pack(9), LogIndex::new(2)), (pack(2), LogIndex::new(4))];
        assert_eq!(replaying.take(GROUP), left);
        assert!(replaying.has(GROUP));
        assert!(
            replaying.named(pack(3), LogIndex::new(5)),
            "the replay goes on"
        );
        replaying.end(GROUP);
        assert!(!replaying.named(pack(4), LogIndex::new(6)));
        assert_eq!(replaying.take(GROUP), []);
    }
}
