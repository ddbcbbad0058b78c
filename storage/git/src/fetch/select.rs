//! Which objects go into a pack.
//!
//! For a client that has nothing every tree is read once. For one that has some of the history, the tree of each commit
//! is compared with those of its parents at the same paths: what a parent has there, the client has or gets.

use gix_hashtable::{HashMap, HashSet};
use gix_object::Kind;

use crate::fetch::FetchError;
use crate::fetch::graph::{Graph, Node};
use crate::fetch::walk::Missing;
use crate::object::{EntryKind, SamePath, TreeEntries, parse_tag};
use crate::oid::{Oid, from_gix, to_gix};
use crate::protocol::Stop;
use crate::refs::RefStore;
use crate::store::{Location, ObjectStore, StoreError};

/// Trees of parents kept decoded, in bytes.
const TREE_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Commits of the client's that stand in for the parents of a commit without any.
const STAND_INS_MAX: usize = 4;
/// How often the deadline is looked at, in trees.
const STOP_EVERY: u64 = 256;

/// An object that lies in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packed {
    pub(super) pack: u32,
    pub(super) offset: u64,
    pub(super) entry: u32,
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
    sent: HashSet<Oid>,
}

impl Selection {
    pub(super) fn len(&self) -> usize {
        self.packed.len() + self.loose.len()
    }

    pub(super) fn contains(&self, id: &Oid) -> bool {
        self.sent.contains(id)
    }

    /// Adds an object; whether it is new.
    fn add(&mut self, store: &ObjectStore, id: Oid) -> Result<bool, StoreError> {
        if !self.sent.insert(id) {
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
    store: &'a ObjectStore,
    stop: &'a Stop,
    selection: Selection,
    trees_read: u64,
    cache: TreeCache,
}

#[derive(Default)]
struct TreeCache {
    trees: HashMap<Oid, std::rc::Rc<[u8]>>,
    bytes: usize,
}

impl<'a> Selector<'a> {
    pub(super) fn new(store: &'a ObjectStore, stop: &'a Stop) -> Self {
        Self {
            store,
            stop,
            selection: Selection::default(),
            trees_read: 0,
            cache: TreeCache::default(),
        }
    }

    pub(super) fn finish(self) -> Selection {
        self.selection
    }

    /// Adds a wanted object that is no commit, with all it needs but commits; the commit that a tag leads to.
    pub(super) fn add_other(&mut self, want: Oid) -> Result<Option<Oid>, FetchError> {
        let mut buffer = Vec::new();
        let mut id = want;
        loop {
            match self.store.kind(&id)?.ok_or(StoreError::Missing { id })? {
                Kind::Commit => return Ok(Some(id)),
                Kind::Tree => {
                    self.add_whole_tree(id)?;
                    return Ok(None);
                }
                Kind::Blob => {
                    self.selection.add(self.store, id)?;
                    return Ok(None);
                }
                Kind::Tag => {
                    self.selection.add(self.store, id)?;
                    self.store.get(&id, &mut buffer)?;
                    (id, _) = parse_tag(&buffer).ok_or(StoreError::Malformed { id })?;
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
    ) -> Result<(), FetchError> {
        for commit in missing {
            self.selection.add(self.store, graph.id(commit.node))?;
        }
        if common.is_empty() {
            for commit in missing {
                self.add_whole_tree(graph.tree(commit.node))?;
            }
            return Ok(());
        }
        // Oldest first: what a commit adds is then found in the trees of its children's parents.
        for commit in missing.iter().rev() {
            // Where history ends, anything that the client has is better than nothing to compare with.
            let beside = if commit.parents.is_empty() {
                &common[..common.len().min(STAND_INS_MAX)]
            } else {
                &commit.parents
            };
            let bases = beside.iter().map(|parent| graph.tree(*parent)).collect();
            self.add_changed_tree(graph.tree(commit.node), bases)?;
        }
        Ok(())
    }

    fn add_whole_tree(&mut self, tree: Oid) -> Result<(), FetchError> {
        let mut pending = vec![tree];
        let mut buffer = Vec::new();
        while let Some(tree) = pending.pop() {
            if !self.selection.add(self.store, tree)? {
                continue;
            }
            self.read_tree(&tree, &mut buffer)?;
            for entry in TreeEntries::new(&buffer) {
                let entry = entry.map_err(|_| StoreError::Malformed { id: tree })?;
                match entry.kind {
                    EntryKind::Tree => {
                        if !self.selection.sent.contains(entry.id) {
                            pending.push(entry.id.to_owned());
                        }
                    }
                    EntryKind::Blob => {
                        self.selection.add(self.store, entry.id.to_owned())?;
                    }
                    EntryKind::Submodule => {}
                }
            }
        }
        Ok(())
    }

    fn add_changed_tree(&mut self, tree: Oid, bases: Vec<Oid>) -> Result<(), FetchError> {
        let mut pending = vec![(tree, bases)];
        let mut buffer = Vec::new();
        while let Some((tree, bases)) = pending.pop() {
            if bases.contains(&tree) || !self.selection.add(self.store, tree)? {
                continue;
            }
            self.read_tree(&tree, &mut buffer)?;
            let mut decoded = Vec::with_capacity(bases.len());
            for base in &bases {
                self.selection.at_client.insert(*base);
                decoded.push(self.read_base(base)?);
            }
            let mut beside: Vec<_> = decoded.iter().map(|base| SamePath::new(base)).collect();
            for entry in TreeEntries::new(&buffer) {
                let entry = entry.map_err(|_| StoreError::Malformed { id: tree })?;
                if entry.kind == EntryKind::Submodule {
                    continue;
                }
                let below: Vec<_> = beside
                    .iter_mut()
                    .filter_map(|base| base.find(&entry))
                    .map(|other| other.id.to_owned())
                    .collect();
                let id = entry.id.to_owned();
                if below.contains(&id) {
                    continue;
                }
                if entry.kind == EntryKind::Tree {
                    pending.push((id, below));
                } else if self.selection.add(self.store, id)? {
                    self.selection.at_client.extend(below);
                }
            }
        }
        Ok(())
    }

    fn read_tree(&mut self, tree: &Oid, buffer: &mut Vec<u8>) -> Result<(), FetchError> {
        self.trees_read += 1;
        if self.trees_read.is_multiple_of(STOP_EVERY) && self.stop.is_set() {
            return Err(FetchError::Stopped);
        }
        match self.store.get(tree, buffer)? {
            Kind::Tree => Ok(()),
            Kind::Blob | Kind::Commit | Kind::Tag => {
                Err(StoreError::Malformed { id: *tree }.into())
            }
        }
    }

    /// A parent's tree; the next commit of a branch asks for the same ones again.
    fn read_base(&mut self, tree: &Oid) -> Result<std::rc::Rc<[u8]>, FetchError> {
        if let Some(data) = self.cache.trees.get(tree) {
            return Ok(std::rc::Rc::clone(data));
        }
        let mut buffer = Vec::new();
        self.read_tree(tree, &mut buffer)?;
        if self.cache.bytes + buffer.len() > TREE_CACHE_BYTES {
            self.cache = TreeCache::default();
        }
        self.cache.bytes += buffer.len();
        let data: std::rc::Rc<[u8]> = buffer.into();
        self.cache.trees.insert(*tree, std::rc::Rc::clone(&data));
        Ok(data)
    }

    /// Adds the annotated tags whose objects are in the selection.
    pub(super) fn add_tags(&mut self, refs: &dyn RefStore) -> Result<(), FetchError> {
        let mut tags = Vec::new();
        refs.for_each("refs/tags/", &mut |_, id| tags.extend(to_gix(id)));
        let mut buffer = Vec::new();
        for tag in tags {
            if self.store.kind(&tag)? != Some(Kind::Tag) {
                continue;
            }
            let target = self.store.peel(&tag, &mut buffer)?;
            if target.is_some_and(|target| self.selection.contains(&target)) {
                self.add_other(tag)?;
            }
        }
        Ok(())
    }
}

/// Whether every object of a list is a visible tip or was one recently; the others.
pub(super) fn not_tips(refs: &dyn RefStore, wants: &[Oid]) -> Vec<Oid> {
    let mut left: HashSet<Oid> = wants.iter().copied().collect();
    refs.for_each("", &mut |_, id| {
        if let Some(id) = to_gix(id) {
            left.remove(&id);
        }
    });
    let mut left: Vec<_> = left
        .into_iter()
        .filter(|id| !refs.was_tip_recently(from_gix(id)))
        .collect();
    left.sort_unstable();
    left
}
