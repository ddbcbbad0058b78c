//! Findings of the walk of a push.

use std::collections::hash_map::Entry;

use gix_hashtable::{HashMap, HashSet};
use gix_object::Kind;

use crate::oid::{ClaimedIds, Oid};
use crate::push::closure::Unconnected;
use crate::rules::NamedBlobs;

/// Limit on the parents of all commits of a push: so many for each commit, plus a constant.
const PARENTS_PER_COMMIT: usize = 4;
const PARENTS_FREE: usize = 100_000;

/// The findings of one walk.
#[derive(Default)]
pub(super) struct Findings {
    seen: std::collections::HashMap<Oid, Kind>,
    /// Tree and parents of the pushed commits, in the order of the walk.
    pub(super) commits: Vec<(Oid, Vec<Oid>)>,
    /// The number of parents of all of them.
    parents: usize,
    /// The tree of every pushed commit and of every commit at the boundary.
    pub(super) trees: HashMap<Oid, Oid>,
    /// Boundary commits: reachable commits outside the pack that pushed commits refer to.
    pub(super) boundary: HashSet<Oid>,
    /// Other objects outside the pack, with their required kind; `None` where any kind will do.
    /// They may be missing.
    pub(super) outside: std::collections::HashMap<Oid, Option<Kind>>,
    /// One of the objects outside that is missing or unreachable.
    pub(super) missing: Option<Oid>,
    /// Trees of parents beside pushed trees, and the objects in them, as far as these trees were
    /// read.
    pub(super) beside: ClaimedIds,
    /// Blobs that pushed trees give a name with a special meaning.
    pub(super) named: NamedBlobs,
}

impl Findings {
    /// Records an object that the walk reached. Returns whether it is the first time.
    ///
    /// # Errors
    /// When the object was recorded with another kind before.
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

    /// Records an object that was not sent. Its presence is not checked: the findings must not
    /// depend on it.
    ///
    /// # Errors
    /// When the object was recorded with another kind before.
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

    /// The number of objects that the walk reached.
    pub(super) fn objects(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Counts the parents of a commit against the limit: a commit of a few bytes, as a delta, may
    /// name a million parents.
    pub(super) fn count_parents(&mut self, parents: usize) -> Result<(), Unconnected> {
        self.parents += parents;
        let max = PARENTS_FREE + PARENTS_PER_COMMIT * (self.commits.len() + 1);
        if self.parents > max {
            return Err(Unconnected::Parents { max });
        }
        Ok(())
    }
}
