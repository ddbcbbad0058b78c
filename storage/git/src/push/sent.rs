//! Finds bases that the server added to a thin pack, and that the push contains as well.
//!
//! Some clients send every delta with the id of its base, even if the base is in the same pack. The
//! server adds such a base if it exists in the store, reachable or not. Then the sent copy counts
//! as the base, unless it is itself a delta on an object that the client may not see.

use std::collections::BTreeSet;

use gix_hashtable::HashSet;

use crate::oid::Oid;
use crate::push::closure::Pushed;
use crate::store::{ObjectStore, Pack};

/// The objects of `unproven` that the client sent in a form that needs no unproven base.
pub(crate) fn sent_as_well(
    store: &ObjectStore,
    pushed: &Pushed,
    unproven: &HashSet<Oid>,
) -> HashSet<Oid> {
    let pack = store.pack(pushed.slot);
    let mut sent = HashSet::default();
    let mut suspects = Vec::new();
    let mut added = BTreeSet::new();
    for id in unproven.iter().filter(|id| pushed.external.contains(*id)) {
        let copies = copies(pack, id);
        let full: Vec<_> = copies
            .iter()
            .copied()
            .filter(|offset| is_full(pack, *offset))
            .collect();
        // The added copy is always a whole object, and there is exactly one.
        if full.len() > 1 {
            sent.insert(*id);
        } else {
            added.extend(full);
            suspects.push((*id, copies));
        }
    }
    for (id, copies) in suspects {
        if copies
            .into_iter()
            .any(|offset| !is_built_on(pack, offset, &added))
        {
            sent.insert(id);
        }
    }
    sent
}

/// The offsets of every copy of an object in a pack.
fn copies(pack: &Pack, id: &Oid) -> Vec<u64> {
    let Some(found) = pack.index.lookup(id) else {
        return Vec::new();
    };
    let is_same = |entry: &u32| pack.index.oid_at_index(*entry) == id.as_ref();
    let before = (0..found).rev().take_while(is_same);
    let behind = (found..pack.index.num_objects()).take_while(is_same);
    before
        .chain(behind)
        .map(|entry| pack.index.pack_offset_at_index(entry))
        .collect()
}

fn is_full(pack: &Pack, offset: u64) -> bool {
    pack.data
        .entry(offset)
        .is_ok_and(|entry| entry.header.as_kind().is_some())
}

/// Whether the delta chain at `offset` ends in one of the entries `added`, or cannot be followed.
fn is_built_on(pack: &Pack, mut offset: u64, added: &BTreeSet<u64>) -> bool {
    for _ in 0..=pack.data.num_objects() {
        if added.contains(&offset) {
            return true;
        }
        let Ok(entry) = pack.data.entry(offset) else {
            return true;
        };
        if entry.header.as_kind().is_some() {
            return false;
        }
        let Some(base) = pack.files().base_offset(&entry) else {
            return true;
        };
        offset = base;
    }
    true
}
