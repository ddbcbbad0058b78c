//! Which objects go into a pack.
//!
//! The tree of each commit is compared with others at the same paths: with those of its parents, which the client has or
//! gets, or for a client that has nothing with the one sent before. Only what differs is looked at.

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

/// Commits of the client's that stand in for the parents of a commit without any.
const STAND_INS_MAX: usize = 4;
/// Ids of trees and of what they were compared with that are remembered, about 40 bytes each.
const BESIDE_IDS_MAX: usize = 2_000_000;
/// What one tree takes of that, besides the ids of what it was compared with.
const BESIDE_ENTRY_IDS: usize = 3;
/// How often the tick comes, in trees.
const TICK_EVERY: u64 = 256;
/// The same in tags.
const TAGS_TICK_EVERY: usize = 256;

/// An object that lies in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packed {
    pub(super) pack: u32,
    pub(super) offset: u64,
    pub(super) entry: u32,
}

impl From<(u32, u64, u32)> for Packed {
    /// Of a pack's slot, the place in its file and the entry of its index.
    fn from((pack, offset, entry): (u32, u64, u32)) -> Self {
        Self {
            pack,
            offset,
            entry,
        }
    }
}

/// The objects of a pack to be.
#[derive(Default)]
pub(super) struct Selection {
    /// Objects in packs, in no order yet.
    pub(super) packed: Vec<Packed>,
    /// Loose objects.
    pub(super) loose: Vec<(Oid, u32)>,
    /// Objects that the client has and that older versions of sent ones may be deltas on.
    pub(super) at_client: HashSet<Oid>,
    /// What stood at the path of a sent tree or blob before, for clients that have some of the history.
    pub(super) older: HashMap<Oid, Oid>,
    sent: HashSet<Oid>,
    /// What bitmaps added to `packed`.
    counted: Option<Counted>,
}

impl Selection {
    pub(super) fn len(&self) -> usize {
        self.packed.len() + self.loose.len()
    }

    pub(super) fn contains(&self, id: &Oid) -> bool {
        self.sent.contains(id) || self.is_counted(id)
    }

    /// Whether bitmaps chose, which know no paths.
    pub(super) const fn has_counted(&self) -> bool {
        self.counted.is_some()
    }

    fn is_counted(&self, id: &Oid) -> bool {
        let counted = self.counted.as_ref();
        counted.is_some_and(|counted| counted.contains(id))
    }

    /// Whether the entry at this place of a pack is known to be an object that the client has.
    pub(super) fn is_at_client(&self, pack: u32, offset: u64) -> bool {
        let counted = self.counted.as_ref();
        counted.is_some_and(|counted| counted.is_at_client(pack, offset))
    }

    /// Adds what was counted by bitmaps. The selection must be empty.
    fn add_counted(&mut self, store: &ObjectStore, counted: Counted) -> Result<(), StoreError> {
        self.packed = counted.packed().map(Packed::from).collect();
        for id in counted.others() {
            self.add(store, *id)?;
        }
        self.counted = Some(counted);
        Ok(())
    }

    /// Notes what stood at the same path in the commits before.
    pub(super) fn add_older(&mut self, id: Oid, older: &[Oid]) {
        self.at_client.extend(older);
        if let Some(first) = older.first() {
            self.older.insert(id, *first);
        }
    }

    /// Adds an object; whether it is new.
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
    /// Objects that the client asked for by name, and what its tags lead to: no filter applies to them.
    given: HashSet<Oid>,
    pub(super) selection: Selection,
    pub(super) walked: Walked,
    trees_read: u64,
    cache: TreeCache,
}

/// Trees that were looked into.
///
/// That a tree is sent does not mean that all below it is: what it had in common with a base was left to the commit
/// which that base belongs to. Were that commit to find the same tree in its own parent, as it does where a change was
/// reverted, each would leave it to the other. So a tree is passed over only where it was looked into without any base,
/// or beside the very same ones.
///
/// A few trees can stand beside each other in more ways than can be remembered. Once that shows, what is new is looked
/// into without bases: each tree once, whatever it is compared with.
#[derive(Default)]
pub(super) struct Walked {
    whole: HashSet<Oid>,
    beside: std::collections::HashSet<(Oid, Vec<Oid>, u64)>,
    /// Ids in `beside`.
    ids: usize,
}

impl Walked {
    /// Whether no more can be remembered: what is new is to be looked into without bases.
    pub(super) const fn is_full(&self) -> bool {
        self.ids > BESIDE_IDS_MAX
    }

    /// Whether a tree has to be looked into; what is done with it may depend on the `depth` of its entries.
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

    /// Starts with what was counted by bitmaps.
    pub(super) fn add_counted(&mut self, counted: Counted) -> Result<(), FetchError> {
        Ok(self.selection.add_counted(self.store, counted)?)
    }

    /// Adds commits that were asked for by name, whatever a filter says of them.
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

    /// Adds a wanted object that is no commit, with all it needs but commits; the commit that a tag leads to.
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

    /// Adds commits with everything that neither the selection nor the client has. `common` is what the client said it
    /// has; it has nothing at all when that is empty.
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
        // Newest first, as packs are laid out: the base of a delta is then decoded just before it is needed.
        for commit in missing {
            let tree = graph.tree(commit.node);
            let bases = if is_fresh {
                // Any tree that is sent as a whole will do, and the one just sent is still at hand.
                before.replace(tree).into_iter().collect()
            } else if commit.parents.is_empty() {
                // Where history ends, anything that the client has is better than nothing to compare with.
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

    /// Adds a tree with everything below it, but for what one of `bases` has at the same path.
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

    /// Adds a tree, to be looked into if it was not before. Asked before it waits: a tree of millions of entries may
    /// have the same one in all of them.
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

    /// Shows `visit` the entries of a tree that none of some others has at the same path. Submodules are left out. A few
    /// are kept for the next fetch, but for those of clones: there are many, and whoever clones next asks the very same.
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

    /// A tree, decoded. The next commit asks for most of its trees again.
    pub(super) fn read_tree(&mut self, tree: &Oid) -> Result<Arc<Vec<u8>>, FetchError> {
        // Also for those at hand: a few trees can be reached on more paths than anybody can count.
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

    /// Trees to compare one with, but for those that are too much to have in memory at once: what only they have is sent
    /// once more.
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

    /// Adds those of the tags whose objects are in the selection.
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
                // What it leads to came with it.
                return Ok(());
            }
            self.store.get(&id, &mut buffer)?;
            let target = parse_tag(&buffer, self.store.format());
            (id, _) = target.ok_or(StoreError::Malformed { id })?;
        }
        Ok(())
    }
}

/// Those of `wants` that are no visible tips and were none recently.
pub(super) fn not_tips(refs: &dyn RefStore, index: &TipIndex, wants: &[Oid]) -> Vec<Oid> {
    let mut left: ClaimedIds = wants.iter().copied().collect();
    // What most ask for is known without looking through all refs.
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
