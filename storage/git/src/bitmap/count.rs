//! Counts reachable objects: by bitmaps where they exist, by walking elsewhere.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use gix_hashtable::{HashMap, HashSet};
use gix_object::Kind;

use crate::ancestry::parents_first;
use crate::bitmap::coverage::find;
use crate::bitmap::{Bits, Coverage, PackBitmap};
use crate::object::{Commit, parse_tag};
use crate::oid::{Oid, oid};
use crate::protocol::Stop;
use crate::reach::ReachError;
use crate::store::{ObjectStore, Pack, StoreError};
use crate::trees::Trees;

/// Interval of deadline checks, in commits.
const STOP_EVERY: usize = 256;

/// Reached objects, inside the pack that has bitmaps and outside it.
struct Reached {
    coverage: Coverage,
    others: HashSet<Oid>,
}

impl Reached {
    fn contains(&self, id: &oid) -> bool {
        match self.coverage.find(id) {
            Some(at) => self.coverage.bits.contains(at.position),
            None => self.others.contains(id),
        }
    }

    /// Adds one object; returns whether it is new.
    fn insert(&mut self, id: &oid) -> bool {
        match self.coverage.find(id) {
            Some(at) => self.coverage.bits.insert(at.position),
            None => self.others.insert(id.to_owned()),
        }
    }

    /// Whether a commit is reached with all objects that it needs. Adds its bitmap if necessary.
    fn takes(&mut self, commit: &oid) -> bool {
        match self.coverage.find(commit) {
            Some(at) => self.coverage.bits.contains(at.position) || self.coverage.absorb(at),
            None => self.others.contains(commit),
        }
    }
}

/// A count of reachable objects.
struct Count<'a> {
    store: &'a ObjectStore,
    stop: &'a Stop,
    reached: Reached,
    trees: Trees<'a>,
    buffer: Vec<u8>,
    /// Number of commits that may still be walked.
    walks_left: usize,
}

/// The reason for giving up a count.
enum Failure {
    /// The walk would exceed its limit of commits.
    TooFar,
    Reach(ReachError),
}

impl From<ReachError> for Failure {
    fn from(error: ReachError) -> Self {
        Self::Reach(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Reach(error.into())
    }
}

/// The commits that one walk found beyond the bitmaps.
#[derive(Default)]
struct Walk {
    /// By date; the number is the commit's index in `commits`.
    queue: BinaryHeap<(i64, Reverse<u32>)>,
    commits: Vec<Commit>,
    /// Index in `commits` by id.
    numbers: HashMap<Oid, u32>,
}

impl Count<'_> {
    /// Adds everything that `starts` reach. The cost is lowest with the newest commits first.
    fn add(&mut self, starts: &[Oid]) -> Result<(), Failure> {
        let mut walk = Walk::default();
        for start in starts {
            self.add_start(*start, &mut walk)?;
        }
        while let Some((_, Reverse(number))) = walk.queue.pop() {
            let parents = walk.commits[number as usize].parents.clone();
            for parent in parents {
                self.enqueue(parent, &mut walk)?;
            }
        }
        // Parents first: a tree that is already reached was then traversed, and so were all trees
        // that it was compared with.
        let parents: Vec<Vec<u32>> = walk
            .commits
            .iter()
            .map(|commit| {
                let parents = commit.parents.iter();
                parents
                    .filter_map(|parent| walk.numbers.get(parent).copied())
                    .collect()
            })
            .collect();
        let links: Vec<(&[u32], i64)> = parents
            .iter()
            .zip(&walk.commits)
            .map(|(parents, commit)| (&parents[..], commit.time))
            .collect();
        for number in parents_first(&links) {
            self.add_tree(&walk.commits[number as usize], &walk)?;
        }
        Ok(())
    }

    fn add_start(&mut self, start: Oid, walk: &mut Walk) -> Result<(), Failure> {
        let mut id = start;
        loop {
            if self.reached.contains(&id) {
                return Ok(());
            }
            match self.store.kind(&id)?.ok_or(StoreError::Missing { id })? {
                Kind::Commit => return self.enqueue(id, walk),
                Kind::Tree => {
                    let Self { trees, reached, .. } = self;
                    trees.differences(id, Vec::new(), &mut |id| reached.insert(id))?;
                    return Ok(());
                }
                Kind::Blob => {
                    self.reached.insert(&id);
                    return Ok(());
                }
                Kind::Tag => {
                    self.reached.insert(&id);
                    self.store.get(&id, &mut self.buffer)?;
                    (id, _) = parse_tag(&self.buffer, self.store.format())
                        .ok_or(StoreError::Malformed { id })?;
                }
            }
        }
    }

    /// The objects that `wants` reach and `haves` do not.
    fn difference(mut self, wants: &[Oid], haves: &[Oid]) -> Result<Counted, Failure> {
        self.add(haves)?;
        let at_client = self.reached.coverage.bits.clone();
        let others_at_client = self.reached.others.clone();
        self.add(wants)?;
        let Reached { coverage, others } = self.reached;
        let Coverage {
            slot,
            pack,
            bitmap,
            mut bits,
        } = coverage;
        bits.and_not(&at_client);
        let mut others: Vec<_> = others.difference(&others_at_client).copied().collect();
        others.sort_unstable();
        Ok(Counted {
            slot,
            pack,
            bitmap,
            bits,
            at_client,
            others,
        })
    }

    /// Adds the bitmap of a commit, or queues the commit to be walked.
    fn enqueue(&mut self, id: Oid, walk: &mut Walk) -> Result<(), Failure> {
        if self.reached.takes(&id) {
            return Ok(());
        }
        if walk.commits.len().is_multiple_of(STOP_EVERY) && self.stop.is_set() {
            return Err(ReachError::Stopped.into());
        }
        let left = self.walks_left.checked_sub(1);
        self.walks_left = left.ok_or(Failure::TooFar)?;
        let number = u32::try_from(walk.commits.len()).map_err(|_| Failure::TooFar)?;
        let commit = self.store.commit(&id, &mut self.buffer)?;
        self.reached.insert(&id);
        walk.numbers.insert(id, number);
        walk.queue.push((commit.time, Reverse(number)));
        walk.commits.push(commit);
        Ok(())
    }

    /// Adds the tree of a walked commit. The trees of its parents were added before, so equal
    /// subtrees are skipped.
    fn add_tree(&mut self, commit: &Commit, walk: &Walk) -> Result<(), ReachError> {
        if self.reached.contains(&commit.tree) {
            return Ok(());
        }
        let mut bases = Vec::with_capacity(commit.parents.len());
        for parent in &commit.parents {
            bases.push(match walk.numbers.get(parent) {
                Some(number) => walk.commits[*number as usize].tree,
                None => self.store.commit(parent, &mut self.buffer)?.tree,
            });
        }
        let reached = &mut self.reached;
        self.trees
            .differences(commit.tree, bases, &mut |id| reached.insert(id))
    }
}

/// The objects that a client lacks, given its wants and its haves.
pub(crate) struct Counted {
    slot: u32,
    pack: Arc<Pack>,
    bitmap: Arc<PackBitmap>,
    /// Needed objects in the pack that has bitmaps.
    bits: Bits,
    /// Objects of that pack that the client has, as far as known.
    at_client: Bits,
    /// Needed objects outside that pack, by id.
    others: Vec<Oid>,
}

/// Counts the objects that `wants` reach and `haves` do not. Both lists are newest first. `None`
/// when no pack has bitmaps, or when more than `walked_max` commits without a bitmap would have to
/// be walked.
///
/// Wants may be objects of any kind. Everything that a have needs must be in the store.
pub(crate) fn count(
    store: &ObjectStore,
    stop: &Stop,
    wants: &[Oid],
    haves: &[Oid],
    walked_max: usize,
) -> Result<Option<Counted>, ReachError> {
    let Some(coverage) = Coverage::new(store) else {
        return Ok(None);
    };
    let count = Count {
        store,
        stop,
        reached: Reached {
            coverage,
            others: HashSet::default(),
        },
        trees: Trees::new(store, stop),
        buffer: Vec::new(),
        walks_left: walked_max,
    };
    match count.difference(wants, haves) {
        Ok(counted) => Ok(Some(counted)),
        Err(Failure::TooFar) => Ok(None),
        Err(Failure::Reach(error)) => Err(error),
    }
}

impl Counted {
    /// Slot, file offset and index entry of the needed objects in the pack, in the order of the
    /// file.
    pub(crate) fn packed(&self) -> impl Iterator<Item = (u32, u64, u32)> {
        let (offsets, order) = (self.pack.boundaries(), self.pack.order());
        let at = |position: u32| {
            let offset = offsets[position as usize];
            (self.slot, offset, order.entry(position))
        };
        self.bits.iter().map(at)
    }

    /// The needed objects outside the pack, by id.
    pub(crate) fn others(&self) -> &[Oid] {
        &self.others
    }

    /// Whether an object is needed.
    pub(crate) fn contains(&self, id: &oid) -> bool {
        match find(&self.pack, id) {
            Some(at) => self.bits.contains(at.position),
            None => self
                .others
                .binary_search_by(|other| other.as_ref().cmp(id))
                .is_ok(),
        }
    }

    /// Whether the entry at an offset of a pack is known to be an object that the client has.
    pub(crate) fn is_at_client(&self, slot: u32, offset: u64) -> bool {
        slot == self.slot
            && self
                .pack
                .position(offset)
                .is_some_and(|position| self.at_client.contains(position))
    }

    /// Removes all objects that are not of one of these kinds. Returns false if the bitmap file is
    /// broken.
    ///
    /// # Errors
    /// When an object outside the pack cannot be read.
    pub(crate) fn filter_types(
        &mut self,
        store: &ObjectStore,
        kinds: &[Kind],
    ) -> Result<bool, StoreError> {
        let mut kept = Bits::new(self.pack.index.num_objects());
        for kind in kinds {
            match self.bitmap.of_kind(*kind) {
                Ok(bits) => kept.or(&bits),
                Err(error) => {
                    let path = self.pack.index.path().with_extension("bitmap");
                    tracing::warn!(path = %path.display(), %error, "a bitmap cannot be used");
                    return Ok(false);
                }
            }
        }
        self.bits.and(&kept);
        let mut others = Vec::with_capacity(self.others.len());
        for id in &self.others {
            if store.kind(id)?.is_some_and(|kind| kinds.contains(&kind)) {
                others.push(*id);
            }
        }
        self.others = others;
        Ok(true)
    }
}
