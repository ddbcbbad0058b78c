//! Objects of one read, with its limits and its deadline.

use std::cell::RefCell;
use std::sync::Arc;

use gix_object::{Kind, TreeRefIter};
use henge_types::{ObjectFormat, ObjectId};

use crate::object::Commit;
use crate::oid::{Oid, from_gix, hash_kind, oid, to_gix};
use crate::protocol::Stop;
use crate::read::{PathKind, ReadError, ReadLimits};
use crate::store::{ObjectStore, StoreError};
use crate::trees::Trees;

/// An entry of a tree, without its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: PathKind,
    pub(super) id: Oid,
}

/// The store of one read. Trees are cached for the time of the read.
pub(super) struct Source<'a> {
    store: &'a ObjectStore,
    limits: &'a ReadLimits,
    stop: &'a Stop,
    trees: RefCell<Trees<'a>>,
    buffer: RefCell<Vec<u8>>,
    /// The error behind one that gix returned: gix's own names no object.
    failure: RefCell<Option<ReadError>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(store: &'a ObjectStore, limits: &'a ReadLimits, stop: &'a Stop) -> Self {
        Self {
            store,
            limits,
            stop,
            trees: RefCell::new(Trees::new(store, stop)),
            buffer: RefCell::default(),
            failure: RefCell::default(),
        }
    }

    pub(super) const fn limits(&self) -> &'a ReadLimits {
        self.limits
    }

    pub(super) const fn format(&self) -> ObjectFormat {
        self.store.format()
    }

    /// Fails at the deadline.
    pub(super) fn check(&self) -> Result<(), ReadError> {
        if self.stop.is_set() {
            Err(ReadError::Stopped)
        } else {
            Ok(())
        }
    }

    pub(super) fn id(&self, id: ObjectId) -> Result<Oid, ReadError> {
        to_gix(id, self.format()).ok_or(ReadError::Format { id })
    }

    /// A commit that the caller named.
    pub(super) fn start(&self, id: ObjectId) -> Result<(Oid, Commit), ReadError> {
        let commit = self.id(id)?;
        match self.store.kind(&commit)? {
            Some(Kind::Commit) => Ok((commit, self.commit(&commit)?)),
            Some(kind @ (Kind::Tree | Kind::Blob | Kind::Tag)) => Err(ReadError::Kind {
                id,
                found: object_word(kind),
                wanted: object_word(Kind::Commit),
            }),
            None => Err(StoreError::Missing { id: commit }.into()),
        }
    }

    /// A commit that must be there.
    pub(super) fn commit(&self, id: &oid) -> Result<Commit, ReadError> {
        self.check()?;
        let mut buffer = self.buffer.borrow_mut();
        Ok(self.store.commit(id, &mut buffer)?)
    }

    /// The content of a commit that must be there.
    pub(super) fn commit_data(&self, id: &oid) -> Result<Arc<Vec<u8>>, ReadError> {
        self.check()?;
        let object = self.store.get_shared(id)?;
        match object.kind {
            Kind::Commit => Ok(object.data),
            Kind::Tree | Kind::Blob | Kind::Tag => Err(malformed(id)),
        }
    }

    /// A tree that must be there.
    pub(super) fn tree(&self, id: &Oid) -> Result<Arc<Vec<u8>>, ReadError> {
        self.check()?;
        Ok(self.trees.borrow_mut().get(id)?)
    }

    /// A tree whose entries are all well-formed.
    pub(super) fn checked_tree(&self, id: &Oid) -> Result<Arc<Vec<u8>>, ReadError> {
        let data = self.tree(id)?;
        for entry in entries(&data, self.format()) {
            let is_known = entry.is_ok_and(|entry| PathKind::of(entry.mode).is_some());
            if !is_known {
                return Err(malformed(id));
            }
        }
        Ok(data)
    }

    /// The entry at the end of `names`, from a root tree down; `None` when there is none.
    pub(super) fn lookup(&self, root: Oid, names: &[&[u8]]) -> Result<Option<Found>, ReadError> {
        let mut at = Found {
            kind: PathKind::Directory,
            id: root,
        };
        for name in names {
            if at.kind != PathKind::Directory {
                return Ok(None);
            }
            match self.entry_of(&at.id, name)? {
                Some(found) => at = found,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn entry_of(&self, tree: &Oid, name: &[u8]) -> Result<Option<Found>, ReadError> {
        let data = self.tree(tree)?;
        for entry in entries(&data, self.format()) {
            let entry = entry.map_err(|_| malformed(tree))?;
            let kind = PathKind::of(entry.mode).ok_or_else(|| malformed(tree))?;
            if &**entry.filename == name {
                let id = entry.oid.to_owned();
                return Ok(Some(Found { kind, id }));
            }
        }
        Ok(None)
    }

    /// The names of a path, from the root down.
    pub(super) fn names<'p>(&self, path: &'p [u8]) -> Result<Vec<&'p [u8]>, ReadError> {
        let bytes_max = self.limits.path_bytes_max;
        if path.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<_> = path.split(|byte| *byte == b'/').collect();
        if path.len() > bytes_max || names.iter().any(|name| name.is_empty()) {
            return Err(ReadError::Path { bytes_max });
        }
        Ok(names)
    }

    /// The size of a blob that must be there, in bytes.
    pub(super) fn blob_bytes(&self, id: &Oid) -> Result<u64, ReadError> {
        self.check()?;
        match self.store.header(id)? {
            Some((Kind::Blob, bytes)) => Ok(bytes),
            Some((Kind::Commit | Kind::Tree | Kind::Tag, _)) => Err(malformed(id)),
            None => Err(StoreError::Missing { id: *id }.into()),
        }
    }

    /// A blob that must be there, of at most `bytes_max` bytes.
    pub(super) fn blob(&self, id: &Oid, bytes_max: u64) -> Result<Arc<Vec<u8>>, ReadError> {
        let bytes = self.blob_bytes(id)?;
        if bytes > bytes_max {
            return Err(ReadError::TooLarge {
                id: from_gix(id),
                bytes,
                bytes_max,
            });
        }
        let object = self.store.get_shared(id)?;
        match object.kind {
            Kind::Blob => Ok(object.data),
            Kind::Commit | Kind::Tree | Kind::Tag => Err(malformed(id)),
        }
    }

    /// The error that gix's error stands for; a tree below `root` when it is not known.
    pub(super) fn failure(&self, root: &Oid) -> ReadError {
        let known = self.failure.borrow_mut().take();
        known.unwrap_or_else(|| malformed(root))
    }
}

/// Trees for gix's comparison. Every tree is checked here: gix's errors do not name it.
impl gix_object::Find for Source<'_> {
    fn try_find<'b>(
        &self,
        id: &oid,
        buffer: &'b mut Vec<u8>,
    ) -> gix_error::Result<Option<gix_object::Data<'b>>> {
        match self.checked_tree(&id.to_owned()) {
            Ok(data) => {
                buffer.clear();
                buffer.extend_from_slice(&data);
                Ok(Some(gix_object::Data {
                    kind: Kind::Tree,
                    object_hash: hash_kind(self.format()),
                    data: buffer,
                }))
            }
            Err(error) => {
                *self.failure.borrow_mut() = Some(error);
                Err(gix_error::corruption("a tree cannot be read").into())
            }
        }
    }
}

/// The entries of a tree.
pub(super) fn entries(data: &[u8], format: ObjectFormat) -> TreeRefIter<'_> {
    TreeRefIter::from_bytes(data, hash_kind(format))
}

pub(super) fn malformed(id: &oid) -> ReadError {
    StoreError::Malformed { id: id.to_owned() }.into()
}

const fn object_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Commit => "commit",
        Kind::Tree => "tree",
        Kind::Blob => "blob",
        Kind::Tag => "tag",
    }
}
