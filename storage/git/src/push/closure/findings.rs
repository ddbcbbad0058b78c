//! What the walk of a push comes across.

use std::collections::hash_map::Entry;

use gix_hashtable::{HashMap, HashSet};
use gix_object::Kind;

use crate::oid::{ClaimedIds, Oid};
use crate::push::closure::Unconnected;
use crate::rules::NamedBlobs;

/// Parents that the commits of one push may have on the average, and more of them in all.
const PARENTS_PER_COMMIT: usize = 4;
const PARENTS_FREE: usize = 100_000;

/// What one walk has found.
#[derive(Default)]
pub(super) struct Findings {
    seen: std::collections::HashMap<Oid, Kind>,
    /// Pushed commits with their tree and parents, in the order of the walk.
    pub(super) commits: Vec<(Oid, Vec<Oid>)>,
    /// How many parents all of them have.
    parents: usize,
    /// The tree of every pushed commit and of every commit at the boundary.
    pub(super) trees: HashMap<Oid, Oid>,
    /// Commits outside the pack that pushed ones refer to, and that are reachable.
    pub(super) boundary: HashSet<Oid>,
    /// Other objects outside the pack, with the kind they must have; none where any will do. They need not be there.
    pub(super) outside: std::collections::HashMap<Oid, Option<Kind>>,
    /// One of them that is not there, or that nothing reaches.
    pub(super) missing: Option<Oid>,
    /// What the trees of parents hold beside pushed trees, as far as they were read.
    pub(super) beside: ClaimedIds,
    /// What pushed trees give a name with a meaning.
    pub(super) named: NamedBlobs,
}

impl Findings {
    /// Whether the walk comes to an object for the first time.
    ///
    /// # Errors
    /// When it was taken for an object of another kind before.
    pub(super) fn see(&mut self, id: Oid, kind: Kind) -> Result<bool, Unconnected> {
        match self.seen.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(kind);
                Ok(true)
            }
            Entry::Occupied(entry) if *entry.get() == kind => Ok(false),
            Entry::Occupied(_) => Err(Unconnected::Malformed { id }),
        }
    }

    /// Notes an object that was not sent. Whether it is there is not asked: what the walk finds must not depend on it.
    ///
    /// # Errors
    /// When it was named as another kind before.
    pub(super) fn note_outside(&mut self, id: Oid, kind: Option<Kind>) -> Result<(), Unconnected> {
        let known = self.outside.entry(id).or_insert(kind);
        match (*known, kind) {
            (Some(known), Some(kind)) if known != kind => Err(Unconnected::Malformed { id }),
            (None, Some(_)) => {
                *known = kind;
                Ok(())
            }
            (Some(_), Some(_) | None) | (None, None) => Ok(()),
        }
    }

    /// How many objects the walk came to.
    pub(super) fn objects(&self) -> u64 {
        self.seen.len() as u64
    }

    /// A commit of a few bytes, as a delta, may name a million parents.
    pub(super) fn count_parents(&mut self, parents: usize) -> Result<(), Unconnected> {
        self.parents += parents;
        let max = PARENTS_FREE + PARENTS_PER_COMMIT * (self.commits.len() + 1);
        if self.parents > max {
            return Err(Unconnected::Parents { max });
        }
        Ok(())
    }
}
