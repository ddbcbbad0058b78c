//! Decoded trees, cached: a walk of a history reads most of them repeatedly.

use std::sync::Arc;

use gix_object::Kind;

use crate::generations::Generations;
use crate::object::{EntryKind, SamePath, TreeEntries};
use crate::oid::{Oid, oid};
use crate::protocol::Stop;
use crate::reach::ReachError;
use crate::store::{ObjectStore, StoreError};

/// The size of the cache in bytes.
const TREE_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Number of trees between two checks of the deadline.
const STOP_EVERY: u64 = 256;

/// The maximum number of trees that one tree is compared with: further parents of a commit are
/// ignored.
pub(crate) const BASES_MAX: usize = 64;
/// The maximum of their bytes together: at this size no further one is read.
pub(crate) const BASES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A reader of trees.
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

    /// A tree that must exist.
    pub(crate) fn get(&mut self, tree: &Oid) -> Result<Arc<Vec<u8>>, ReachError> {
        // Cached trees count too: a few trees can be reachable on astronomically many paths.
        self.read += 1;
        if self.read.is_multiple_of(STOP_EVERY) && self.stop.is_set() {
            return Err(ReachError::Stopped);
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

    /// Trees to compare one with, up to the limits on number and bytes.
    fn bases(&mut self, bases: &[Oid]) -> Result<Vec<Arc<Vec<u8>>>, ReachError> {
        let mut decoded = Vec::with_capacity(bases.len().min(BASES_MAX));
        let mut bytes = 0;
        for base in bases.iter().take(BASES_MAX) {
            let data = self.get(base)?;
            bytes += data.len();
            decoded.push(data);
            if bytes > BASES_BYTES_MAX {
                break;
            }
        }
        Ok(decoded)
    }

    /// Passes a tree and everything below it to `visit`, except entries that one of `bases` has at
    /// the same path. `visit` returns whether to descend.
    ///
    /// Skipped entries are left to the walk of the bases. A caller may keep one set of visited
    /// objects over several calls, and not descend into them. Then it must have walked all of a
    /// base before. Otherwise objects may be missed. Example: a change was reverted, so a tree and
    /// its base have reversed roles further back, and each would leave the common entries to the
    /// other. Of very many or very large bases only some are compared: then more is visited.
    pub(crate) fn differences(
        &mut self,
        tree: Oid,
        bases: Vec<Oid>,
        visit: &mut dyn FnMut(&oid) -> bool,
    ) -> Result<(), ReachError> {
        let mut pending = Vec::new();
        if !bases.contains(&tree) && visit(&tree) {
            pending.push((tree, bases));
        }
        while let Some((tree, bases)) = pending.pop() {
            let data = self.get(&tree)?;
            let decoded = self.bases(&bases)?;
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
                // Visited before it is queued: a tree of millions of entries may repeat one object
                // in all of them.
                if visit(entry.id) && entry.kind == EntryKind::Tree {
                    pending.push((entry.id.to_owned(), below));
                }
            }
        }
        Ok(())
    }
}

/// A cache of decoded trees in two generations; see [`Generations`].
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
