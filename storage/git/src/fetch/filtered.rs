//! Selects the objects of a pack with a filter (partial clones).
//!
//! An object is sent if the filter accepts it at one of its paths at least, or if the client wants
//! it by id.

use gix_hashtable::HashMap;
use gix_object::Kind;

use crate::fetch::FetchError;
use crate::fetch::filter::Filter;
use crate::fetch::select::Selector;
use crate::fetch::sparse::{At, Patterns};
use crate::object::{EntryKind, SamePath, TreeEntries, TreeEntry};
use crate::oid::Oid;
use crate::protocol::Stop;
use crate::store::{ObjectStore, StoreError};

/// Maximum bytes of a path that is compared with patterns: git itself accepts no longer paths.
const PATH_BYTES_MAX: usize = 4096;

/// Maximum number of queued trees, each with its path where patterns need it.
const PENDING_MAX: usize = 500_000;

/// A filter and its state during one fetch.
pub(super) struct Sieve {
    filter: Filter,
    is_open: bool,
    sparse: Vec<Patterns>,
    stop: Stop,
    /// The smallest depth at which the entries of a tree were read. At a smaller one they are read
    /// again.
    seen: HashMap<Oid, u64>,
}

impl Sieve {
    /// `sparse` are the patterns of the filter. The comparison with them ends at `stop`.
    pub(super) fn new(filter: Filter, sparse: Vec<Patterns>, stop: Stop) -> Self {
        Self {
            is_open: filter.is_open(),
            filter,
            sparse,
            stop,
            seen: HashMap::default(),
        }
    }

    /// Whether the filter leaves nothing out.
    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// The kinds of objects that are sent, if the filter decides by the kind alone.
    pub(super) fn kinds(&self) -> Option<Vec<Kind>> {
        let decides = self.sparse.is_empty()
            && matches!(self.filter.blob_bytes, None | Some(0))
            && matches!(self.filter.tree_depth, None | Some(0));
        decides.then(|| {
            let is_taken = |kind: &Kind| match kind {
                Kind::Commit | Kind::Tag => self.takes(*kind),
                Kind::Tree => self.takes(*kind) && self.takes_depth(0),
                Kind::Blob => self.takes_blobs() && self.takes_depth(0),
            };
            let kinds = [Kind::Commit, Kind::Tree, Kind::Blob, Kind::Tag];
            kinds.into_iter().filter(is_taken).collect()
        })
    }

    /// Whether objects of this kind may be sent without being wanted by id.
    pub(super) const fn takes(&self, kind: Kind) -> bool {
        self.filter.kinds.has(kind)
    }

    /// Whether any object at this depth may be sent.
    fn takes_depth(&self, depth: u64) -> bool {
        self.filter.tree_depth.is_none_or(|max| depth < max)
            && (self.takes(Kind::Tree) || self.takes_blobs())
    }

    fn takes_blobs(&self) -> bool {
        self.takes(Kind::Blob) && self.filter.blob_bytes != Some(0)
    }

    /// Whether the trees of commits are read at all.
    pub(super) fn looks_into_commits(&self) -> bool {
        self.takes_depth(0)
    }

    /// Whether the entries of a tree are to be read: they were not read yet, or only at a greater
    /// depth.
    fn enters(&mut self, tree: Oid, inner: u64) -> bool {
        if !self.takes_depth(inner) {
            return false;
        }
        // Patterns decide for each path separately.
        if !self.sparse.is_empty() {
            return true;
        }
        let inner = if self.filter.tree_depth.is_some() {
            inner
        } else {
            0
        };
        match self.seen.get_mut(&tree) {
            Some(before) if *before <= inner => false,
            Some(before) => {
                *before = inner;
                true
            }
            None => {
                self.seen.insert(tree, inner);
                true
            }
        }
    }

    fn takes_blob(
        &self,
        store: &ObjectStore,
        blob: &Oid,
        name: &[u8],
        place: &Place,
    ) -> Result<bool, FetchError> {
        if !self.takes_blobs() {
            return Ok(false);
        }
        if !self.sparse.is_empty() {
            let path = place.path_of(name)?;
            let mut lists = self.sparse.iter().zip(&place.matched);
            for (list, default) in &mut lists {
                let decided = list.decide(&path, At::File, &self.stop)?;
                if !decided.unwrap_or(*default) {
                    return Ok(false);
                }
            }
        }
        match self.filter.blob_bytes {
            None => Ok(true),
            Some(max) => {
                let header = store.header(blob)?;
                let (_, size) = header.ok_or(StoreError::Missing { id: *blob })?;
                Ok(size < max)
            }
        }
    }
}

/// The location of a tree.
#[derive(Clone)]
struct Place {
    /// The depth of its entries.
    inner: u64,
    /// Without a trailing slash; only set where patterns need it.
    path: Vec<u8>,
    /// The decision of each list of patterns for entries that it does not match.
    matched: Vec<bool>,
}

impl Place {
    /// The tree of a commit, or a tree that the client wants by id. The entries of the latter are
    /// at depth 0, as in git.
    fn top(sieve: &Sieve, inner: u64) -> Result<Self, FetchError> {
        let matched = sieve.sparse.iter().map(|list| match inner {
            0 => Ok(false),
            _ => Ok(list
                .decide(b"", At::Directory, &sieve.stop)?
                .unwrap_or(false)),
        });
        Ok(Self {
            inner,
            path: Vec::new(),
            matched: matched.collect::<Result<_, FetchError>>()?,
        })
    }

    fn path_of(&self, name: &[u8]) -> Result<Vec<u8>, FetchError> {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if path.len() > PATH_BYTES_MAX {
            return Err(FetchError::Filter {
                message: "a path is too long for a sparse filter".to_owned(),
            });
        }
        Ok(path)
    }

    fn below(&self, sieve: &Sieve, name: &[u8]) -> Result<Self, FetchError> {
        let inner = self.inner + 1;
        if sieve.sparse.is_empty() {
            return Ok(Self {
                inner,
                path: Vec::new(),
                matched: Vec::new(),
            });
        }
        let path = self.path_of(name)?;
        let lists = sieve.sparse.iter().zip(&self.matched);
        let matched = lists
            .map(|(list, default)| {
                let decided = list.decide(&path, At::Directory, &sieve.stop)?;
                Ok(decided.unwrap_or(*default))
            })
            .collect::<Result<_, FetchError>>()?;
        Ok(Self {
            inner,
            path,
            matched,
        })
    }
}

/// A tree to read, and trees at the same path that the client has or gets.
struct Pending {
    tree: Oid,
    bases: Vec<Oid>,
    place: Place,
}

impl Selector<'_> {
    /// Adds a tree that the client wants by id, and the objects below it that the filter accepts.
    pub(super) fn add_given_tree(&mut self, tree: Oid) -> Result<(), FetchError> {
        self.selection.add(self.store, tree)?;
        let place = Place::top(self.sieve, 0)?;
        self.add_entries(tree, Vec::new(), place, true)
    }

    /// Adds the objects of a commit's tree that the filter accepts, except objects that one of
    /// `bases` has at the same path.
    pub(super) fn add_filtered(
        &mut self,
        tree: Oid,
        bases: Vec<Oid>,
        is_fresh: bool,
    ) -> Result<(), FetchError> {
        if bases.contains(&tree) {
            return Ok(());
        }
        if self.sieve.takes(Kind::Tree) {
            self.selection.add(self.store, tree)?;
        }
        let place = Place::top(self.sieve, 1)?;
        self.add_entries(tree, bases, place, is_fresh)
    }

    fn add_entries(
        &mut self,
        tree: Oid,
        bases: Vec<Oid>,
        place: Place,
        is_fresh: bool,
    ) -> Result<(), FetchError> {
        let mut pending = Vec::new();
        self.note_pending(Pending { tree, bases, place }, is_fresh, &mut pending)?;
        while let Some(Pending { tree, bases, place }) = pending.pop() {
            let data = self.read_tree(&tree)?;
            let decoded = self.read_bases(&bases)?;
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
                let below: Vec<_> = beside
                    .iter_mut()
                    .filter_map(|base| base.find(&entry))
                    .map(|other| other.id.to_owned())
                    .collect();
                if !below.iter().any(|other| **other == *entry.id)
                    && let Some(next) = self.add_entry(&entry, below, &place, is_fresh)?
                {
                    self.note_pending(next, is_fresh, &mut pending)?;
                }
            }
        }
        Ok(())
    }

    /// Queues a tree if its entries are to be read. The check precedes the queue, since a tree of
    /// millions of entries may have the same tree in all of them.
    fn note_pending(
        &mut self,
        mut next: Pending,
        is_fresh: bool,
        pending: &mut Vec<Pending>,
    ) -> Result<(), FetchError> {
        if self.walked.is_full() {
            next.bases.clear();
        }
        let inner = next.place.inner;
        let enters = if is_fresh || next.bases.is_empty() {
            self.sieve.enters(next.tree, inner)
        } else {
            // As in [`Walked`]: a comparison with bases does not cover the whole tree.
            self.sieve.takes_depth(inner) && self.enters_beside(next.tree, &next.bases, &next.place)
        };
        if enters && pending.len() == PENDING_MAX {
            return Err(FetchError::Filter {
                message: "there are too many directories for a filter".to_owned(),
            });
        }
        if enters {
            pending.push(next);
        }
        Ok(())
    }

    fn enters_beside(&mut self, tree: Oid, bases: &[Oid], place: &Place) -> bool {
        let depth = match self.sieve.filter.tree_depth {
            Some(_) => place.inner,
            None => 0,
        };
        // Patterns decide for each path separately.
        !self.sieve.sparse.is_empty() || self.walked.enter(tree, bases, depth)
    }

    /// Adds one entry if the filter accepts it there. Returns the tree to read next.
    fn add_entry(
        &mut self,
        entry: &TreeEntry<'_>,
        bases: Vec<Oid>,
        place: &Place,
        is_fresh: bool,
    ) -> Result<Option<Pending>, FetchError> {
        let id = entry.id.to_owned();
        match entry.kind {
            EntryKind::Submodule => Ok(None),
            EntryKind::Blob => {
                if self.sieve.takes_blob(self.store, &id, entry.name, place)? {
                    self.selection.add(self.store, id)?;
                }
                Ok(None)
            }
            EntryKind::Tree => {
                if self.sieve.takes(Kind::Tree) {
                    self.selection.add(self.store, id)?;
                    // Blobs of older versions may have been left out, too, and are no delta bases.
                    if !is_fresh && self.sieve.filter.tree_depth.is_none() {
                        self.selection.at_client.extend(bases.iter().copied());
                    }
                }
                Ok(Some(Pending {
                    tree: id,
                    bases,
                    place: place.below(self.sieve, entry.name)?,
                }))
            }
        }
    }
}
