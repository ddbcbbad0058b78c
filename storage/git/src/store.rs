//! The objects of a repository on disk: packs, loose objects, alternates.
//!
//! A request keeps its packs open ([`packs`]): objects that it saw at its start stay readable to
//! its end.

mod decode;
mod install;
mod packs;
mod sound;

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix_object::Kind;
use henge_types::ObjectFormat;

use crate::bitmap::PackBitmap;
use crate::commit_graph::CommitGraph;
use crate::oid::{Oid, hash_kind, oid};
pub(crate) use decode::{Decoded, Decoder, PackFiles};
pub(crate) use install::install;
pub(crate) use packs::Pack;
#[cfg(test)]
pub(crate) use packs::tests::put as put_empty_pack;
pub use packs::{Objects, ObjectsPool};
pub use sound::DamagedPack;

/// The maximum number of packs checked for bitmaps, the biggest first: one bitmap serves a
/// repository.
const BITMAPS_LOOKED_FOR_MAX: usize = 4;

/// The maximum length of delta chains that are followed for optional results: no writer makes
/// longer ones.
const CHAIN_MAX: usize = 4096;

/// Reasons for an object to be unreadable.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory could not be read.
    #[error("cannot read the object store at {path}: {source}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// A pack or index could not be opened.
    #[error("cannot open {path}: {source}")]
    Pack {
        /// The file.
        path: PathBuf,
        /// The error of gix.
        #[source]
        source: gix_error::Error,
    },
    /// A pack or index differs from its contents at installation.
    #[error(transparent)]
    Damaged(#[from] DamagedPack),
    /// An object exists and cannot be decoded: the disk or the file is damaged.
    #[error("object {id} cannot be read: {source}")]
    Object {
        /// The object.
        id: Oid,
        /// The error of gix.
        #[source]
        source: gix_error::Error,
    },
    /// An object exists and is malformed or of the wrong kind.
    #[error("object {id} is malformed")]
    Malformed {
        /// The object.
        id: Oid,
    },
    /// A required object is missing.
    #[error("object {id} is missing")]
    Missing {
        /// The object.
        id: Oid,
    },
}

impl StoreError {
    /// The damaged pack or index, if damage is the reason.
    pub fn damaged_pack(&self) -> Option<&Path> {
        match self {
            Self::Damaged(damaged) => Some(&damaged.path),
            Self::Object { source, .. } | Self::Pack { source, .. } => source
                .downcast_any_ref::<DamagedPack>()
                .map(|damaged| damaged.path.as_path()),
            Self::Open { .. } | Self::Malformed { .. } | Self::Missing { .. } => None,
        }
    }
}

/// The location of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Location {
    /// Entry number `entry` (in order of ids) of the pack in slot `pack`.
    Packed { pack: u32, entry: u32 },
    /// A loose file.
    Loose { dir: u32 },
}

/// An open object store. It belongs to one request, and is not shared between threads.
pub(crate) struct ObjectStore {
    format: ObjectFormat,
    packs: Vec<Arc<Pack>>,
    loose: Vec<gix_odb::loose::Store>,
    graph: Option<Arc<CommitGraph>>,
    last_hit: Cell<usize>,
    decoder: RefCell<Decoder>,
    bitmapped: OnceCell<Option<(usize, Arc<PackBitmap>)>>,
}

impl ObjectStore {
    /// A store of these packs and of the loose objects in these directories.
    fn new(
        packs: Vec<Arc<Pack>>,
        directories: &[PathBuf],
        graph: Option<Arc<CommitGraph>>,
        format: ObjectFormat,
    ) -> Self {
        Self {
            format,
            packs,
            graph,
            loose: directories
                .iter()
                .map(|directory| gix_odb::loose::Store::at(directory.clone(), hash_kind(format)))
                .collect(),
            last_hit: Cell::new(0),
            decoder: RefCell::default(),
            bitmapped: OnceCell::new(),
        }
    }

    /// The object format: ids of another format must not be looked up.
    pub(crate) const fn format(&self) -> ObjectFormat {
        self.format
    }

    /// A store of the packs with these indexes only.
    pub(crate) fn of_packs(
        idx_files: &[PathBuf],
        format: ObjectFormat,
    ) -> Result<Self, StoreError> {
        let mut store = Self::new(Vec::new(), &[], None, format);
        for idx in idx_files {
            store.add_pack(&idx.with_extension("pack"), idx)?;
        }
        Ok(store)
    }

    /// Adds a pack from elsewhere, ahead of all other packs in lookups. Returns its slot.
    pub(crate) fn add_pack(&mut self, pack: &Path, idx: &Path) -> Result<u32, StoreError> {
        let pack = Pack::open_files(pack, idx, self.format).map_err(|source| StoreError::Pack {
            path: idx.to_owned(),
            source,
        })?;
        self.packs.insert(0, Arc::new(pack));
        self.last_hit.set(0);
        self.bitmapped = OnceCell::new();
        Ok(0)
    }

    pub(crate) fn pack(&self, slot: u32) -> &Arc<Pack> {
        &self.packs[slot as usize]
    }

    pub(crate) fn packs(&self) -> &[Arc<Pack>] {
        &self.packs
    }

    /// The pack with reachability bitmaps, and these bitmaps.
    pub(crate) fn bitmapped(&self) -> Option<(u32, Arc<PackBitmap>)> {
        let found = self.bitmapped.get_or_init(|| {
            let packs = self.packs.iter().enumerate().take(BITMAPS_LOOKED_FOR_MAX);
            packs
                .filter_map(|(slot, pack)| Some((slot, pack.bitmap()?)))
                .next()
        });
        let (slot, bitmap) = found.as_ref()?;
        Some((u32::try_from(*slot).ok()?, Arc::clone(bitmap)))
    }

    /// Locates an object without reading it.
    pub(crate) fn locate(&self, id: &oid) -> Option<Location> {
        let last = self.last_hit.get();
        let hit = |slot: usize| {
            let entry = self.packs.get(slot)?.index.lookup(id)?;
            self.last_hit.set(slot);
            Some(Location::Packed {
                pack: u32::try_from(slot).ok()?,
                entry,
            })
        };
        hit(last)
            .or_else(|| {
                (0..self.packs.len())
                    .filter(|slot| *slot != last)
                    .find_map(hit)
            })
            .or_else(|| {
                let dir = self.loose.iter().position(|loose| loose.contains(id))?;
                Some(Location::Loose {
                    dir: u32::try_from(dir).ok()?,
                })
            })
    }

    pub(crate) fn contains(&self, id: &oid) -> bool {
        self.locate(id).is_some()
    }

    /// Reads an object into `buffer`; `None` when it is missing.
    pub(crate) fn find(&self, id: &oid, buffer: &mut Vec<u8>) -> Result<Option<Kind>, StoreError> {
        match self.locate(id) {
            Some(location) => self.read(id, location, buffer).map(Some),
            None => Ok(None),
        }
    }

    /// Reads an object that must exist.
    pub(crate) fn get(&self, id: &oid, buffer: &mut Vec<u8>) -> Result<Kind, StoreError> {
        self.find(id, buffer)?
            .ok_or_else(|| StoreError::Missing { id: id.to_owned() })
    }

    /// Reads a located object into `buffer`.
    pub(crate) fn read(
        &self,
        id: &oid,
        location: Location,
        buffer: &mut Vec<u8>,
    ) -> Result<Kind, StoreError> {
        let failed = |source| StoreError::Object {
            id: id.to_owned(),
            source,
        };
        match location {
            Location::Packed { pack, entry } => self.decode(pack, entry, buffer).map_err(failed),
            Location::Loose { dir } => {
                let found = self.loose[dir as usize]
                    .try_find(id, buffer)
                    .map_err(failed)?;
                let kind = found.map(|data| data.kind);
                kind.ok_or_else(|| StoreError::Missing { id: id.to_owned() })
            }
        }
    }

    fn decode(&self, slot: u32, entry: u32, buffer: &mut Vec<u8>) -> gix_error::Result<Kind> {
        let pack = self.pack(slot);
        let offset = pack.index.pack_offset_at_index(entry);
        let mut decoder = self.decoder.borrow_mut();
        decoder.read(pack.files(), offset, buffer)
    }

    /// A located object, possibly shared with the decoder's cache.
    pub(crate) fn read_shared(&self, id: &oid, location: Location) -> Result<Decoded, StoreError> {
        if let Location::Packed { pack: slot, entry } = location {
            let pack = self.pack(slot);
            let offset = pack.index.pack_offset_at_index(entry);
            let decoded = self.decoder.borrow_mut().decode(pack.files(), offset);
            return decoded.map_err(|source| StoreError::Object {
                id: id.to_owned(),
                source,
            });
        }
        let mut data = Vec::new();
        let kind = self.read(id, location, &mut data)?;
        Ok(Decoded {
            kind,
            data: Arc::new(data),
        })
    }

    /// An object that must exist, possibly shared with the decoder's cache.
    pub(crate) fn get_shared(&self, id: &oid) -> Result<Decoded, StoreError> {
        let location = self.locate(id);
        let location = location.ok_or_else(|| StoreError::Missing { id: id.to_owned() })?;
        self.read_shared(id, location)
    }

    /// The kind of an object; `None` when it is missing. Cheap: only the head of a loose object is
    /// inflated.
    pub(crate) fn kind(&self, id: &oid) -> Result<Option<Kind>, StoreError> {
        let failed = |source| StoreError::Object {
            id: id.to_owned(),
            source,
        };
        match self.locate(id) {
            None => Ok(None),
            Some(Location::Loose { dir }) => Ok(self.loose[dir as usize]
                .try_header(id)
                .map_err(failed)?
                .map(|(_, kind)| kind)),
            Some(Location::Packed { pack, entry }) => {
                let offset = self.pack(pack).index.pack_offset_at_index(entry);
                self.packed_kind(pack, offset).map(Some).map_err(failed)
            }
        }
    }

    /// The kind and size of an object; `None` when it is missing. Only the head of a delta is
    /// inflated.
    pub(crate) fn header(&self, id: &oid) -> Result<Option<(Kind, u64)>, StoreError> {
        let failed = |source| StoreError::Object {
            id: id.to_owned(),
            source,
        };
        let (slot, entry) = match self.locate(id) {
            None => return Ok(None),
            Some(Location::Loose { dir }) => {
                let found = self.loose[dir as usize].try_header(id).map_err(failed)?;
                return Ok(found.map(|(size, kind)| (kind, size)));
            }
            Some(Location::Packed { pack, entry }) => (pack, entry),
        };
        let pack = self.pack(slot);
        let offset = pack.index.pack_offset_at_index(entry);
        let mut decoder = self.decoder.borrow_mut();
        let header = pack.files().header(offset, decoder.inflate());
        header.map(Some).map_err(failed)
    }

    fn packed_kind(&self, slot: u32, offset: u64) -> gix_error::Result<Kind> {
        let pack = self.pack(slot);
        let mut offset = offset;
        // A chain is shorter than its pack: the bound only ends a cycle in a damaged file.
        for _ in 0..=pack.data.num_objects() {
            let entry = pack.files().entry(offset)?;
            if let Some(kind) = entry.header.as_kind() {
                return Ok(kind);
            }
            offset = pack
                .files()
                .base_offset(&entry)
                .ok_or_else(|| gix_error::corruption("the base of a delta is missing"))?;
        }
        Err(gix_error::corruption("a chain of deltas does not end").into())
    }

    /// Pack and offset of the whole object at the end of a delta chain; `None` for loose objects
    /// and broken chains.
    pub(crate) fn chain_root(&self, location: Location) -> Option<(u32, u64)> {
        let Location::Packed { pack: slot, entry } = location else {
            return None;
        };
        let pack = self.pack(slot);
        let mut offset = pack.index.pack_offset_at_index(entry);
        for _ in 0..CHAIN_MAX {
            let entry = pack.files().entry(offset).ok()?;
            match pack.files().base_offset(&entry) {
                Some(base) => offset = base,
                None => return Some((slot, offset)),
            }
        }
        None
    }

    /// The commit or other object at the end of a chain of tags; `None` when an object is missing.
    pub(crate) fn peel(&self, id: &oid, buffer: &mut Vec<u8>) -> Result<Option<Oid>, StoreError> {
        let mut id = id.to_owned();
        loop {
            match self.kind(&id)? {
                None => return Ok(None),
                Some(Kind::Tag) => {
                    self.get(&id, buffer)?;
                    let target = crate::object::parse_tag(buffer, self.format);
                    let (target, _) = target.ok_or(StoreError::Malformed { id })?;
                    id = target;
                }
                Some(Kind::Commit | Kind::Tree | Kind::Blob) => return Ok(Some(id)),
            }
        }
    }

    /// The parsed form of a commit that must exist. It comes from the commit-graph where that has
    /// the commit.
    pub(crate) fn commit(
        &self,
        id: &oid,
        buffer: &mut Vec<u8>,
    ) -> Result<crate::object::Commit, StoreError> {
        if let Some(known) = self.graph.as_ref().and_then(|graph| graph.get(id)) {
            return Ok(known);
        }
        let malformed = || StoreError::Malformed { id: id.to_owned() };
        match self.get(id, buffer)? {
            Kind::Commit => crate::object::parse_commit(buffer, self.format).ok_or_else(malformed),
            Kind::Tree | Kind::Blob | Kind::Tag => Err(malformed()),
        }
    }
}

/// The indexes in a directory of packs, sorted, except those without a pack. Empty without a
/// directory.
pub(crate) fn idx_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let listing = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing?,
    };
    let mut files = Vec::new();
    for file in listing {
        let path = file?.path();
        let is_index = path.extension().is_some_and(|extension| extension == "idx");
        if is_index && path.with_extension("pack").try_exists()? {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The lookup of bases for thin packs.
impl gix_object::Find for ObjectStore {
    fn try_find<'a>(
        &self,
        id: &oid,
        buffer: &'a mut Vec<u8>,
    ) -> gix_error::Result<Option<gix_object::Data<'a>>> {
        let Some(location) = self.locate(id) else {
            return Ok(None);
        };
        let kind = self
            .read(id, location, buffer)
            .map_err(gix_error::Error::from_error)?;
        Ok(Some(gix_object::Data {
            kind,
            object_hash: hash_kind(self.format),
            data: buffer,
        }))
    }
}
