//! Selects the objects of a pack.
//!
//! The tree of each commit is compared with other trees at the same paths, and only differences are
//! read. The other trees are those of its parents, which the client has or gets. For a client that
//! has nothing, the other tree is the one sent before.

use std::sync::Arc;

use gix_hashtable::{HashMap, HashSet};
use gix_object::Kind;

use crate::bitmap::Counted;
use crate::fetch::FetchError;
use crate::fetch::answer::Tick;
use crate::fetch::filtered::Sieve;
use crate::fetch::graph::{Graph, Node};
use crate::fetch::tips::{AnnotatedTag, TipIndex};
use crate::fetch::walk::Missing;
use crate::fetch::warm::{self, DIFFERENCES_MAX, Difference};
use crate::object::{EntryKind, SamePath, TreeEntries, parse_tag};
use crate::oid::{ClaimedIds, Oid, from_gix, to_gix};
use crate::refs::RefStore;
use crate::store::{Location, ObjectStore, StoreError};
use crate::trees::{BASES_BYTES_MAX, BASES_MAX, TreeCache};

/// Maximum number of the client's commits that stand in for the parents of a commit that has none.
const STAND_INS_MAX: usize = 4;
/// Maximum number of remembered ids, of trees and of their bases, about 40 bytes each.
const BESIDE_IDS_MAX: usize = 2_000_000;
/// Ids counted for one tree, besides those of its bases.
const BESIDE_ENTRY_IDS: usize = 3;
/// Interval of ticks, in trees.
const TICK_EVERY: u64 = 256;
/// Interval of ticks, in tags.
const TAGS_TICK_EVERY: usize = 256;

/// The location of an object in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packed {
    pub(super) pack: u32,
    pub(super) offset: u64,
    pub(super) entry: u32,
}

impl From<(u32, u64, u32)> for Packed {
    /// From the slot of a pack, an offset in its file and an entry of its index.
    fn from((pack, offset, entry): (u32, u64, u32)) -> Self {
        Self {
            pack,
            offset,
            entry,
        }
    }
}

/// The objects of the pack to be sent.
#[derive(Default)]
pub(super) struct Selection {
    /// Objects in packs, not sorted yet.
    pub(super) packed: Vec<Packed>,
    /// Loose objects.
    pub(super) loose: Vec<(Oid, u32)>,
    /// Older versions of sent objects. The client has those that are not sent as well, and deltas
    /// may have them as bases.
    pub(super) at_client: HashSet<Oid>,
    /// The previous object at the path of a sent tree or blob, for clients that have some of the
    /// history.
    pub(super) older: HashMap<Oid, Oid>,
    sent: HashSet<Oid>,
    /// The objects that bitmaps added to `packed`.
    counted: Option<Counted>,
}

impl Selection {
    pub(super) fn len(&self) -> usize {
        self.packed.len() + self.loose.len()
    }

    pub(super) fn contains(&self, id: &Oid) -> bool {
        self.sent.contains(id) || self.is_counted(id)
    }

    /// Whether bitmaps selected objects. Bitmaps hold no paths.
    pub(super) const fn has_counted(&self) -> bool {
        self.counted.is_some()
    }

    fn is_counted(&self, id: &Oid) -> bool {
        let counted = self.counted.as_ref();
        counted.is_some_and(|counted| counted.contains(id))
    }

    /// Whether the entry at this offset of a pack is known to be an object that the client has.
    pub(super) fn is_at_client(&self, pack: u32, offset: u64) -> bool {
        let counted = self.counted.as_ref();
        counted.is_some_and(|counted| counted.is_at_client(pack, offset))
    }

    /// Adds the objects that were counted by bitmaps. The selection must be empty.
    fn add_counted(&mut self, store: &ObjectStore, counted: Counted) -> Result<(), StoreError> {
        self.packed = counted.packed().map(Packed::from).collect();
        for id in counted.others() {
            self.add(store, *id)?;
        }
        self.counted = Some(counted);
        Ok(())
    }

    /// Records the objects at the same path in earlier commits.
    pub(super) fn add_older(&mut self, id: Oid, older: &[Oid]) {
        self.at_client.extend(older);
        if let Some(first) = older.first() {
            self.older.insert(id, *first);
        }
    }

    /// Adds an object; returns whether it is new.
    pub(super) fn add(&mut self, store: &ObjectStore, id: Oid) -> Result<bool, StoreError> {
        if self.is_counted(&id) || !self.sent.insert(id) {
            return Ok(false);
        }
        match store.locate(&id) {
            None => return Err(StoreError::Missing { id }),
            Some(Location::Loose { dir }) => self.loose.push((id, dir)),
            Some(Location::Packed { pack, entry }) => self.packed.push(Packed {
                pack,
                offset: store.pack(pack).index.pack_offset_at_index(entry),
                entry,
            }),
        }
        Ok(true)
    }
}

/// Collects a [`Selection`].
pub(super) struct Selector<'a> {
    pub(super) store: &'a ObjectStore,
    tick: &'a dyn Tick,
    pub(super) sieve: &'a mut Sieve,
    /// Objects that the client wants by id, and the targets of its tags: no filter applies to them.
    given: HashSet<Oid>,
    pub(super) selection: Selection,
    pub(super) walked: Walked,
    trees_read: u64,
    cache: TreeCache,
}

/// The trees that were traversed.
///
/// Objects below a sent tree may be missing from the selection: objects that the tree shares with a
/// base are left to the commit of that base. If that commit finds the same tree in its own parent,
/// as after a revert, each commit would leave the objects to the other. Therefore a tree is skipped
/// only if it was traversed without bases, or with exactly the same bases.
///
/// A few trees can have more combinations of bases than can be remembered. At the limit, new
/// combinations are traversed without bases: each tree once, for all bases.
#[derive(Default)]
pub(super) struct Walked {
    whole: HashSet<Oid>,
    beside: std::collections::HashSet<(Oid, Vec<Oid>, u64)>,
    /// Number of ids in `beside`.
    ids: usize,
}

impl Walked {
    /// Whether the limit is reached: new combinations are then traversed without bases.
    pub(super) const fn is_full(&self) -> bool {
        self.ids > BESIDE_IDS_MAX
    }

    /// Whether a tree has to be traversed. The `depth` of its entries counts, since their treatment
    /// may depend on it.
    pub(super) fn enter(&mut self, tree: Oid, bases: &[Oid], depth: u64) -> bool {
        if bases.is_empty() {
            return self.whole.insert(tree);
        }
        let is_new =
            !self.whole.contains(&tree) && self.beside.insert((tree, bases.to_vec(), depth));
        self.ids += usize::from(is_new) * (BESIDE_ENTRY_IDS + bases.len());
        is_new
    }
}

impl<'a> Selector<'a> {
    pub(super) fn new(store: &'a ObjectStore, tick: &'a dyn Tick, sieve: &'a mut Sieve) -> Self {
        Self {
            store,
            tick,
            sieve,
            given: HashSet::default(),
            selection: Selection::default(),
            walked: Walked::default(),
            trees_read: 0,
            cache: TreeCache::default(),
        }
    }

    /// Starts with the objects that were counted by bitmaps.
    pub(super) fn add_counted(&mut self, counted: Counted) -> Result<(), FetchError> {
        Ok(self.selection.add_counted(self.store, counted)?)
    }

    /// Adds commits that the client wants by id, regardless of any filter.
    pub(super) fn add_given(
        &mut self,
        graph: &Graph<'_>,
        nodes: &[Node],
    ) -> Result<(), FetchError> {
        for node in nodes {
            self.selection.add(self.store, graph.id(*node))?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Selection {
        self.selection
    }

    /// Adds a wanted object that is no commit, with all it needs except commits. Returns the commit
    /// that a tag leads to.
    pub(super) fn add_other(&mut self, want: Oid) -> Result<Option<Oid>, FetchError> {
        let mut buffer = Vec::new();
        let mut id = want;
        loop {
            self.given.insert(id);
            match self.store.kind(&id)?.ok_or(StoreError::Missing { id })? {
                Kind::Commit => return Ok(Some(id)),
                Kind::Tree => {
                    if self.sieve.is_open() {
                        self.add_tree(id, Vec::new(), true)?;
                    } else {
                        self.add_given_tree(id)?;
                    }
                    return Ok(None);
                }
                Kind::Blob => {
                    self.selection.add(self.store, id)?;
                    return Ok(None);
                }
                Kind::Tag => {
                    self.selection.add(self.store, id)?;
                    self.store.get(&id, &mut buffer)?;
                    let target = parse_tag(&buffer, self.store.format());
                    (id, _) = target.ok_or(StoreError::Malformed { id })?;
                }
            }
        }
    }

    /// Adds commits with all objects that neither the selection nor the client has. `common` are
    /// the client's common commits. If there are none, the client has nothing.
    pub(super) fn add_commits(
        &mut self,
        graph: &Graph<'_>,
        missing: &[Missing],
        common: &[Node],
        wanted: &[Node],
    ) -> Result<(), FetchError> {
        self.given.extend(wanted.iter().map(|node| graph.id(*node)));
        for commit in missing {
            let id = graph.id(commit.node);
            if self.sieve.takes(Kind::Commit) || self.given.contains(&id) {
                self.selection.add(self.store, id)?;
            }
        }
        if !self.sieve.looks_into_commits() {
            return Ok(());
        }
        let is_fresh = common.is_empty();
        let mut before = None;
        // Newest first, as in packs: the base of a delta is then decoded just before it is needed.
        for commit in missing {
            let tree = graph.tree(commit.node);
            let bases = if is_fresh {
                // Any tree that is sent as a whole is a base, and the last one is still in the
                // cache.
                before.replace(tree).into_iter().collect()
            } else if commit.parents.is_empty() {
                // At the end of history, the client's commits are better bases than none.
                let stand_ins = common.iter().take(STAND_INS_MAX);
                stand_ins.map(|node| graph.tree(*node)).collect()
            } else {
                let parents = commit.parents.iter().take(BASES_MAX);
                parents.map(|parent| graph.tree(*parent)).collect()
            };
            if self.sieve.is_open() {
                self.add_tree(tree, bases, is_fresh)?;
            } else {
                self.add_filtered(tree, bases, is_fresh)?;
            }
        }
        Ok(())
    }

    /// Adds a tree with everything below it, except objects that one of `bases` has at the same
    /// path.
    fn add_tree(&mut self, tree: Oid, bases: Vec<Oid>, is_fresh: bool) -> Result<(), FetchError> {
        let mut pending = Vec::new();
        self.note_tree(tree, bases, is_fresh, &mut pending)?;
        while let Some(of) = pending.pop() {
            if !is_fresh {
                self.selection.add_older(of.0, &of.1);
            }
            self.each_difference(&of, is_fresh, &mut |selector, difference| {
                let Difference { is_tree, id, below } = difference;
                if *is_tree {
                    return selector.note_tree(*id, below.clone(), is_fresh, &mut pending);
                }
                if selector.selection.add(selector.store, *id)? && !is_fresh {
                    selector.selection.add_older(*id, below);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Adds a tree, and queues it unless it was traversed before. The check precedes the queue,
    /// since a tree of millions of entries may have the same tree in all of them.
    fn note_tree(
        &mut self,
        tree: Oid,
        mut bases: Vec<Oid>,
        is_fresh: bool,
        pending: &mut Vec<(Oid, Vec<Oid>)>,
    ) -> Result<(), FetchError> {
        if bases.contains(&tree) {
            return Ok(());
        }
        let is_new = self.selection.add(self.store, tree)?;
        let enters = if is_fresh {
            is_new
        } else {
            if self.walked.is_full() {
                bases.clear();
            }
            self.walked.enter(tree, &bases, 0)
        };
        if enters {
            pending.push((tree, bases));
        }
        Ok(())
    }

    /// Calls `visit` with the entries of a tree that none of its bases has at the same path.
    /// Submodules are left out. Up to [`DIFFERENCES_MAX`] entries are cached for the next fetch.
    /// Those of clones are not: there are many, and the next clone sends the same request.
    pub(super) fn each_difference(
        &mut self,
        of: &(Oid, Vec<Oid>),
        is_fresh: bool,
        visit: &mut dyn FnMut(&mut Self, &Difference) -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        if !is_fresh && let Some(known) = warm::differences(of) {
            return known.iter().try_for_each(|known| visit(self, known));
        }
        let (tree, bases) = of;
        let data = self.read_tree(tree)?;
        let decoded = self.read_bases(bases)?;
        let mut found = (!is_fresh).then(Vec::new);
        let format = self.store.format();
        let mut entries = TreeEntries::new(&data, format);
        let mut beside: Vec<_> = decoded
            .iter()
            .map(|base| SamePath::new(base, format))
            .collect();
        loop {
            if let Some(first) = beside.first_mut() {
                first.skip_common(&mut entries);
            }
            let Some(entry) = entries.next() else {
                break;
            };
            let entry = entry.map_err(|_| StoreError::Malformed { id: *tree })?;
            if entry.kind == EntryKind::Submodule {
                continue;
            }
            let others = beside.iter_mut().filter_map(|base| base.find(&entry));
            let below: Vec<_> = others.map(|other| other.id.to_owned()).collect();
            let id = entry.id.to_owned();
            if below.contains(&id) {
                continue;
            }
            let is_tree = entry.kind == EntryKind::Tree;
            let difference = Difference { is_tree, id, below };
            visit(self, &difference)?;
            found = found.filter(|found| found.len() < DIFFERENCES_MAX);
            if let Some(found) = &mut found {
                found.push(difference);
            }
        }
        if let Some(found) = found {
            warm::keep_differences(of.clone(), &found.into());
        }
        Ok(())
    }

    /// A decoded tree. It is cached, since the next commit needs most of its trees again.
    pub(super) fn read_tree(&mut self, tree: &Oid) -> Result<Arc<Vec<u8>>, FetchError> {
        // Cached trees count, too: a few trees can be reached on a vast number of paths.
        self.trees_read += 1;
        if self.trees_read.is_multiple_of(TICK_EVERY) {
            self.tick.tick(self.selection.len())?;
        }
        if let Some(data) = self.cache.get(tree) {
            return Ok(data);
        }
        let object = self.store.get_shared(tree)?;
        if object.kind != Kind::Tree {
            return Err(StoreError::Malformed { id: *tree }.into());
        }
        self.cache.put(*tree, Arc::clone(&object.data));
        Ok(object.data)
    }

    /// The trees to compare one with, up to a limit of memory. Objects that only the rest has are
    /// sent again.
    pub(super) fn read_bases(&mut self, bases: &[Oid]) -> Result<Vec<Arc<Vec<u8>>>, FetchError> {
        let mut decoded = Vec::with_capacity(bases.len());
        let mut bytes = 0;
        for base in bases {
            let data = self.read_tree(base)?;
            bytes += data.len();
            decoded.push(data);
            if bytes > BASES_BYTES_MAX {
                break;
            }
        }
        Ok(decoded)
    }

    /// Adds those of the tags whose targets are in the selection.
    pub(super) fn add_tags(&mut self, tags: &[AnnotatedTag]) -> Result<(), FetchError> {
        for (number, tag) in tags.iter().enumerate() {
            if number.is_multiple_of(TAGS_TICK_EVERY) {
                self.tick.tick(self.selection.len())?;
            }
            if self.selection.contains(&tag.target) {
                self.add_tag_chain(tag.id)?;
            }
        }
        Ok(())
    }

    /// Adds a tag and the tags that it leads to.
    fn add_tag_chain(&mut self, tag: Oid) -> Result<(), FetchError> {
        let mut id = tag;
        let mut buffer = Vec::new();
        while self.store.kind(&id)? == Some(Kind::Tag) {
            if !self.selection.add(self.store, id)? {
                // Its targets were added with it.
                return Ok(());
            }
            self.store.get(&id, &mut buffer)?;
            let target = parse_tag(&buffer, self.store.format());
            (id, _) = target.ok_or(StoreError::Malformed { id })?;
        }
        Ok(())
    }
}

/// The objects of `wants` that are no visible tips and were none recently.
pub(super) fn not_tips(refs: &dyn RefStore, index: &TipIndex, wants: &[Oid]) -> Vec<Oid> {
    let mut left: ClaimedIds = wants.iter().copied().collect();
    // HEAD, the most frequent want, is checked without a look at all refs.
    if let Some(head) = refs.get(&refs.head())
        && let Some(head) = to_gix(head, head.format())
    {
        left.remove(&head);
    }
    if !left.is_empty() {
        let tips = index.tips(refs);
        left.retain(|id| !tips.contains(id));
    }
    let mut left: Vec<_> = left
        .into_iter()
        .filter(|id| !refs.was_tip_recently(from_gix(id)))
        .collect();
    left.sort_unstable();
    left
}
