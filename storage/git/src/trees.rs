//! Trees, decoded: a history asks for most of them again.

use std::sync::Arc;

use gix_object::Kind;

use crate::generations::Generations;
use crate::object::{EntryKind, SamePath, TreeEntries};
use crate::oid::{Oid, oid};
use crate::protocol::Stop;
use crate::reach::ReachError;
use crate::store::{ObjectStore, StoreError};

/// Trees kept decoded, in bytes.
const TREE_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// How often the deadline is looked at, in trees.
const STOP_EVERY: u64 = 256;

/// Reads trees.
pub(crate) struct Trees<'a> {
    store: &'a ObjectStore,
    stop: &'a Stop,
    read: u64,
    cache: TreeCache,
}

impl<'a> Trees<'a> {
    pub(crate) fn new(store: &'a ObjectStore, stop: &'a Stop) -> Self {
        Self {
            store,
            stop,
            read: 0,
            cache: TreeCache::default(),
        }
    }

    /// A tree that must be there.
    pub(crate) fn get(&mut self, tree: &Oid) -> Result<Arc<Vec<u8>>, ReachError> {
        if let Some(data) = self.cache.get(tree) {
            return Ok(data);
        }
        self.read += 1;
        if self.read.is_multiple_of(STOP_EVERY) && self.stop.is_set() {
            return Err(ReachError::Stopped);
        }
        let object = self.store.get_shared(tree)?;
        if object.kind != Kind::Tree {
            return Err(StoreError::Malformed { id: *tree }.into());
        }
        self.cache.put(*tree, Arc::clone(&object.data));
        Ok(object.data)
    }

    /// Shows `visit` a tree and everything below it, but for what one of `bases` has at the same path. It says whether to
    /// go on below what it was shown.
    ///
    /// What is passed over is left to the bases. So whoever keeps one set over several calls, and does not go on below
    /// what is in it, must have been through all of a base before: a change that is reverted makes a tree and its base
    /// stand the other way round further back, and each would leave what they share to the other.
    pub(crate) fn differences(
        &mut self,
        tree: Oid,
        bases: Vec<Oid>,
        visit: &mut dyn FnMut(&oid) -> bool,
    ) -> Result<(), ReachError> {
        let mut pending = vec![(tree, bases)];
        while let Some((tree, bases)) = pending.pop() {
            if bases.contains(&tree) || !visit(&tree) {
                continue;
            }
            let data = self.get(&tree)?;
            let mut decoded = Vec::with_capacity(bases.len());
            for base in &bases {
                decoded.push(self.get(base)?);
            }
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
                let entry = entry.map_err(|_| StoreError::Malformed { id: tree })?;
                if entry.kind == EntryKind::Submodule {
                    continue;
                }
                let below: Vec<_> = beside
                    .iter_mut()
                    .filter_map(|base| base.find(&entry))
                    .map(|other| other.id.to_owned())
                    .collect();
                if below.iter().any(|other| *other == entry.id) {
                    continue;
                }
                if entry.kind == EntryKind::Tree {
                    pending.push((entry.id.to_owned(), below));
                } else {
                    visit(entry.id);
                }
            }
        }
        Ok(())
    }
}

/// Decoded trees, in two generations: what the older one alone holds is dropped when the younger one is full.
pub(crate) struct TreeCache(Generations<Oid, Arc<Vec<u8>>, gix_hashtable::hash::Builder>);

impl Default for TreeCache {
    fn default() -> Self {
        Self(Generations::new(TREE_CACHE_BYTES))
    }
}

impl TreeCache {
    pub(crate) fn get(&mut self, tree: &Oid) -> Option<Arc<Vec<u8>>> {
        self.0.get(tree, |data| data.len())
    }

    pub(crate) fn put(&mut self, tree: Oid, data: Arc<Vec<u8>>) {
        let bytes = data.len();
        self.0.put(tree, data, bytes);
    }
}
