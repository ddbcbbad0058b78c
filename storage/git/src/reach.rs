//! Proves that objects are reachable from a repository's own refs.
//!
//! Presence in the store is no proof: the store may be shared with repositories hidden from the
//! caller, and may hold unreachable objects.

use std::collections::BinaryHeap;

use gix_hashtable::HashSet;
use gix_object::Kind;

use crate::bitmap::Coverage;
use crate::object::{EntryKind, TreeEntries, parse_tag};
use crate::oid::{Oid, oid, to_gix};
use crate::protocol::Stop;
use crate::refs::RefStore;
use crate::store::{ObjectStore, StoreError};

/// The number of commits whose trees are searched before the history is walked.
const LIKELY_MAX: usize = 8;

/// Reasons for a proof to end without a result.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The deadline passed, or the caller set the stop signal.
    #[error("the walk of the history was given up at its deadline")]
    Stopped,
}

/// A walk from all refs, newest commits first, that goes only as far as the lookups need.
pub(crate) struct Reach<'a> {
    refs: &'a dyn RefStore,
    store: &'a ObjectStore,
    stop: &'a Stop,
    /// Values of refs that the caller has looked up already: most lookups end here.
    known_tips: HashSet<Oid>,
    tips: Option<HashSet<Oid>>,
    walk: Option<Walk>,
    seen_objects: HashSet<Oid>,
    /// Reachable trees that are not searched yet, because the last lookup ended before.
    pending: Vec<Oid>,
    /// Objects read so far.
    pub(crate) objects_read: u64,
}

#[derive(Default)]
struct Walk {
    /// By date, then id: the order must not depend on the hash table.
    queue: BinaryHeap<(i64, Oid, Oid)>,
    queued: HashSet<Oid>,
    /// Trees of the commits, in the order of the walk.
    trees: Vec<Oid>,
    /// The number of `trees` that have been searched.
    trees_walked: usize,
    /// Tips that are trees or peel to trees: they are searched too.
    others: Vec<Oid>,
    /// Objects reachable according to bitmaps, where there are any: they need no walk.
    coverage: Option<Coverage>,
    /// Whether `coverage` grew since the last check.
    has_grown: bool,
}

impl<'a> Reach<'a> {
    pub(crate) fn new(
        refs: &'a dyn RefStore,
        store: &'a ObjectStore,
        known_tips: HashSet<Oid>,
        stop: &'a Stop,
    ) -> Self {
        Self {
            refs,
            store,
            stop,
            known_tips,
            tips: None,
            walk: None,
            seen_objects: HashSet::default(),
            pending: Vec::new(),
            objects_read: 0,
        }
    }

    fn tips(&mut self) -> &HashSet<Oid> {
        let format = self.store.format();
        self.tips.get_or_insert_with(|| {
            let mut tips = HashSet::default();
            self.refs.for_each_name("", &mut |_, id| {
                tips.extend(to_gix(id, format));
            });
            tips
        })
    }

    /// Whether an object is reachable. A missing object is not.
    pub(crate) fn proves(&mut self, id: &oid) -> Result<bool, ReachError> {
        let mut wanted = HashSet::default();
        wanted.insert(id.to_owned());
        match self.store.kind(id)? {
            None => return Ok(false),
            Some(Kind::Commit) => self.prove_commits(&mut wanted)?,
            Some(Kind::Tree | Kind::Blob | Kind::Tag) => {
                // Objects covered by bitmaps need no walk. Most others are in the commits that the
                // push builds on.
                self.start_walk()?;
                let likely = self.known_trees()?;
                self.prove_objects(&mut wanted, &likely)?;
            }
        }
        Ok(wanted.is_empty())
    }

    /// Trees of the commits among the known tips.
    fn known_trees(&self) -> Result<Vec<Oid>, ReachError> {
        let mut known: Vec<_> = self.known_tips.iter().copied().collect();
        known.sort_unstable();
        known.truncate(LIKELY_MAX);
        let mut buffer = Vec::new();
        let mut trees = Vec::new();
        for id in known {
            if self.store.kind(&id)? == Some(Kind::Commit) {
                trees.push(self.store.commit(&id, &mut buffer)?.tree);
            }
        }
        Ok(trees)
    }

    /// Removes the reachable commits from `wanted`.
    pub(crate) fn prove_commits(&mut self, wanted: &mut HashSet<Oid>) -> Result<(), ReachError> {
        wanted.retain(|id| !self.known_tips.contains(id));
        if wanted.is_empty() {
            return Ok(());
        }
        let tips = self.tips();
        wanted.retain(|id| !tips.contains(id));
        // A missing object is refused without a walk.
        if wanted.iter().any(|id| !self.store.contains(id)) {
            return Ok(());
        }
        if let Some(walk) = &self.walk {
            wanted.retain(|id| !walk.queued.contains(id) && !walk.covers(id));
        }
        while !wanted.is_empty() {
            let Some(reached) = self.step()? else {
                return Ok(());
            };
            for id in reached {
                wanted.remove(&id);
            }
            self.remove_covered(wanted);
        }
        Ok(())
    }

    /// Removes the reachable objects from `wanted`. Searches the trees `likely`, which are known to
    /// be reachable, first.
    pub(crate) fn prove_objects(
        &mut self,
        wanted: &mut HashSet<Oid>,
        likely: &[Oid],
    ) -> Result<(), ReachError> {
        wanted.retain(|id| !self.known_tips.contains(id) && !self.is_reached(id));
        if wanted.iter().any(|id| !self.store.contains(id)) {
            return Ok(());
        }
        for tree in likely {
            if wanted.is_empty() {
                return Ok(());
            }
            self.walk_tree(*tree, wanted)?;
        }
        if !wanted.is_empty() {
            let tips = self.tips();
            wanted.retain(|id| !tips.contains(id));
        }
        while !wanted.is_empty() {
            self.start_walk()?;
            wanted.retain(|id| !self.is_reached(id));
            self.walk_pending(0, wanted)?;
            while !wanted.is_empty() {
                let Some(tree) = self.next_tree() else {
                    break;
                };
                self.walk_tree(tree, wanted)?;
            }
            if wanted.is_empty() || self.step()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Whether an object was visited, or is reachable according to a bitmap.
    fn is_reached(&self, id: &Oid) -> bool {
        self.seen_objects.contains(id) || self.covers(id)
    }

    fn covers(&self, id: &oid) -> bool {
        self.walk.as_ref().is_some_and(|walk| walk.covers(id))
    }

    /// Removes the objects that became covered by bitmaps since the last call.
    fn remove_covered(&mut self, wanted: &mut HashSet<Oid>) {
        if let Some(walk) = &mut self.walk
            && std::mem::take(&mut walk.has_grown)
        {
            wanted.retain(|id| !walk.covers(id));
        }
    }

    fn next_tree(&mut self) -> Option<Oid> {
        let walk = self.walk.as_mut()?;
        if let Some(other) = walk.others.pop() {
            return Some(other);
        }
        let tree = walk.trees.get(walk.trees_walked).copied()?;
        walk.trees_walked += 1;
        Some(tree)
    }

    fn start_walk(&mut self) -> Result<(), ReachError> {
        if self.walk.is_some() {
            return Ok(());
        }
        let mut tips: Vec<_> = self.tips().iter().copied().collect();
        tips.sort_unstable();
        let mut walk = Walk {
            coverage: Coverage::new(self.store),
            ..Walk::default()
        };
        let mut buffer = Vec::new();
        for mut id in tips {
            loop {
                self.check_stop()?;
                match self.store.kind(&id)? {
                    Some(Kind::Tag) => {
                        self.store.get(&id, &mut buffer)?;
                        self.objects_read += 1;
                        self.seen_objects.insert(id);
                        let target = parse_tag(&buffer, self.store.format());
                        (id, _) = target.ok_or(StoreError::Malformed { id })?;
                    }
                    Some(Kind::Commit) => {
                        walk.enqueue(self.store, id, &mut buffer)?;
                        break;
                    }
                    Some(Kind::Tree) => {
                        walk.others.push(id);
                        break;
                    }
                    Some(Kind::Blob) => {
                        self.seen_objects.insert(id);
                        break;
                    }
                    // A tip pushed a moment ago, after the store was opened: it proves nothing
                    // here.
                    None => break,
                }
            }
        }
        self.walk = Some(walk);
        Ok(())
    }

    /// Takes the newest commit of the walk and queues its parents. Returns the commits that this
    /// step reached first; `None` at the end of the history.
    fn step(&mut self) -> Result<Option<Vec<Oid>>, ReachError> {
        self.check_stop()?;
        let first = self.walk.is_none();
        self.start_walk()?;
        let Some(walk) = &mut self.walk else {
            return Ok(None);
        };
        if first {
            return Ok(Some(walk.queue.iter().map(|(_, id, _)| *id).collect()));
        }
        let Some((_, id, tree)) = walk.queue.pop() else {
            return Ok(None);
        };
        walk.trees.push(tree);
        let mut buffer = Vec::new();
        let commit = self.store.commit(&id, &mut buffer)?;
        self.objects_read += 1;
        let mut reached = Vec::with_capacity(commit.parents.len());
        for parent in commit.parents {
            if walk.enqueue(self.store, parent, &mut buffer)? {
                reached.push(parent);
            }
        }
        Ok(Some(reached))
    }

    /// Visits the unvisited objects below `tree` until all wanted objects are found.
    fn walk_tree(&mut self, tree: Oid, wanted: &mut HashSet<Oid>) -> Result<(), ReachError> {
        let before = self.pending.len();
        // Objects covered by bitmaps are no longer in `wanted`.
        if !self.covers(&tree) && self.seen_objects.insert(tree) {
            wanted.remove(&tree);
            self.pending.push(tree);
        }
        self.walk_pending(before, wanted)
    }

    /// Searches reachable trees until all wanted objects are found or only the first `left` trees
    /// remain.
    fn walk_pending(&mut self, left: usize, wanted: &mut HashSet<Oid>) -> Result<(), ReachError> {
        let mut buffer = Vec::new();
        while !wanted.is_empty() && self.pending.len() > left {
            let Some(tree) = self.pending.pop() else {
                break;
            };
            self.check_stop()?;
            self.store.get(&tree, &mut buffer)?;
            self.objects_read += 1;
            for entry in TreeEntries::new(&buffer, self.store.format()) {
                let entry = entry.map_err(|_| StoreError::Malformed { id: tree })?;
                if entry.kind == EntryKind::Submodule
                    || !self.seen_objects.insert(entry.id.to_owned())
                {
                    continue;
                }
                wanted.remove(entry.id);
                // Nor are the objects below a tree that bitmaps cover.
                if entry.kind == EntryKind::Tree && !self.covers(entry.id) {
                    self.pending.push(entry.id.to_owned());
                }
            }
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), ReachError> {
        if self.stop.is_set() {
            return Err(ReachError::Stopped);
        }
        Ok(())
    }
}

impl Walk {
    fn covers(&self, id: &oid) -> bool {
        let coverage = self.coverage.as_ref();
        coverage.is_some_and(|coverage| coverage.contains(id))
    }

    /// Whether bitmaps cover a commit. Adds the commit's own bitmap to the coverage if it has one.
    fn take_bitmap(&mut self, id: &Oid) -> bool {
        let Some(coverage) = &mut self.coverage else {
            return false;
        };
        let Some(at) = coverage.find(id) else {
            return false;
        };
        if coverage.bits.contains(at.position) {
            return true;
        }
        let is_taken = coverage.absorb(at);
        self.has_grown |= is_taken;
        is_taken
    }

    /// Queues a commit once. Returns whether it was new.
    fn enqueue(
        &mut self,
        store: &ObjectStore,
        id: Oid,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, StoreError> {
        if !self.queued.insert(id) {
            return Ok(false);
        }
        if self.take_bitmap(&id) {
            return Ok(true);
        }
        let commit = store.commit(&id, buffer)?;
        self.queue.push((commit.time, id, commit.tree));
        Ok(true)
    }
}
