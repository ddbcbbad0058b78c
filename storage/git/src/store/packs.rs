//! Open packs, shared between requests: [`Objects`] for one directory, [`ObjectsPool`] for a
//! server's.
//!
//! A request lists a directory at its start, and opens the packs that no earlier request has
//! opened. It keeps its packs to its end, so objects that it saw at its start stay readable, even
//! when maintenance unlinks the files meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use gix_pack::data::entry::Header;
use henge_types::ObjectFormat;

use crate::bitmap::{LazyBitmap, PackBitmap, PackOrder};
use crate::commit_graph::{CommitGraph, Stamp};
use crate::oid::{hash_kind, oid};
use crate::store::sound::{DamagedPack, PackStamp, Sound};
use crate::store::{ObjectStore, PackFiles, StoreError};

/// The maximum number of listings of one directory.
const SCANS_MAX: usize = 64;
/// The number of further listings before a store without packs is accepted.
const EMPTY_SCANS: usize = 2;
/// The maximum number of directories in a pool.
const POOLED_MAX: usize = 512;

/// One pack with its index.
pub(crate) struct Pack {
    pub(crate) format: ObjectFormat,
    pub(crate) index: gix_pack::index::File,
    pub(crate) data: gix_pack::data::File,
    boundaries: OnceLock<Box<[u64]>>,
    has_ref_deltas: OnceLock<bool>,
    order: OnceLock<PackOrder>,
    bitmap: LazyBitmap,
    /// `None` for new packs of this process.
    sound: Option<Sound>,
}

impl Pack {
    /// Opens an index, and the pack beside it.
    pub(crate) fn open(idx: &Path, format: ObjectFormat) -> gix_error::Result<Self> {
        Self::open_files(&idx.with_extension("pack"), idx, format)
    }

    pub(crate) fn open_files(
        pack: &Path,
        idx: &Path,
        format: ObjectFormat,
    ) -> gix_error::Result<Self> {
        /// Identifies packs in caches of decoded objects, for the life of the process.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let kind = hash_kind(format);
        let mut data = gix_pack::data::File::at(pack, kind)?;
        data.id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            format,
            index: gix_pack::index::File::at(idx, kind)?,
            data,
            boundaries: OnceLock::new(),
            has_ref_deltas: OnceLock::new(),
            order: OnceLock::new(),
            bitmap: LazyBitmap::default(),
            sound: None,
        })
    }

    /// Opens an index of a store, the pack beside it, and its checksums. Verifies the index, and a
    /// small pack without checksums.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when either file fails verification; [`StoreError::Pack`] when it
    /// cannot be opened.
    pub(crate) fn open_compared(idx: &Path, format: ObjectFormat) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Pack {
            path: idx.to_owned(),
            source,
        };
        // The stamp comes first: if a file is replaced meanwhile, the next request opens it again.
        let stamp = PackStamp::of(&idx.with_extension("pack"), idx);
        let stamp = stamp.map_err(|error| failed(gix_error::Error::from_error(error)))?;
        let mut pack = Self::open(idx, format).map_err(failed)?;
        let sound = Sound::open(stamp, (&pack.data, &pack.index), format);
        let sound = sound.map_err(|error| failed(gix_error::Error::from_error(error)))?;
        pack.sound = Some(sound?);
        Ok(pack)
    }

    /// Whether the files at its paths are the opened ones.
    fn is_current(&self) -> bool {
        let (pack, idx) = (self.data.path(), self.index.path());
        self.sound
            .as_ref()
            .is_none_or(|sound| sound.is_current(pack, idx))
    }

    /// Whether a part of the pack can be verified without the rest.
    pub(crate) fn has_sums(&self) -> bool {
        self.sound.as_ref().is_some_and(Sound::has_sums)
    }

    /// Verifies bytes that are sent unchanged. Bytes before `compared` have just been verified.
    pub(crate) fn check_leaving(
        &self,
        range: &std::ops::Range<u64>,
        compared: u64,
    ) -> Result<(), DamagedPack> {
        match &self.sound {
            Some(sound) => sound.check_leaving(&self.data, range, compared),
            None => Ok(()),
        }
    }

    /// Offsets of the entries in ascending order, then the end of the last one. Computed once.
    pub(crate) fn boundaries(&self) -> &[u64] {
        self.boundaries.get_or_init(|| {
            let mut offsets = self.index.sorted_offsets();
            offsets.push(self.data.pack_end() as u64);
            offsets.into()
        })
    }

    /// The end of the entry at `offset`.
    pub(crate) fn end_of(&self, offset: u64) -> Option<u64> {
        let boundaries = self.boundaries();
        let number = boundaries.binary_search(&offset).ok()?;
        boundaries.get(number + 1).copied()
    }

    /// The number of the entry at `offset`, in the order of the file.
    pub(crate) fn position(&self, offset: u64) -> Option<u32> {
        let starts = self.boundaries();
        let position = starts[..starts.len() - 1].binary_search(&offset).ok()?;
        u32::try_from(position).ok()
    }

    /// The mapping from the order of the file to that of the index. Computed once.
    pub(crate) fn order(&self) -> &PackOrder {
        self.order.get_or_init(|| PackOrder::load(self))
    }

    /// The object of the entry at `offset`.
    pub(crate) fn oid_at_offset(&self, offset: u64) -> Option<&oid> {
        let position = self.position(offset)?;
        Some(self.index.oid_at_index(self.order().entry(position)))
    }

    /// The pack's reachability bitmaps, if it has usable ones.
    pub(crate) fn bitmap(&self) -> Option<Arc<PackBitmap>> {
        let path = self.index.path().with_extension("bitmap");
        let objects = self.index.num_objects();
        self.bitmap.get(&path, &self.data.checksum(), objects)
    }

    /// The number of objects.
    pub(crate) fn objects(&self) -> u32 {
        self.index.num_objects()
    }

    /// The files that its entries are decoded from.
    pub(crate) const fn files(&self) -> PackFiles<'_> {
        PackFiles {
            index: &self.index,
            data: &self.data,
            sound: self.sound.as_ref(),
        }
    }

    /// Whether any delta names its base by id: such a base may be anywhere in the pack. Computed
    /// once.
    pub(crate) fn has_ref_deltas(&self) -> bool {
        *self.has_ref_deltas.get_or_init(|| {
            let starts = self.boundaries();
            starts[..starts.len() - 1].iter().any(|offset| {
                // An unreadable entry must not be sent unchecked: it counts as such a delta.
                self.data.entry(*offset).map_or(true, |entry| {
                    matches!(entry.header, Header::RefDelta { .. })
                })
            })
        })
    }

    /// A part of the file, without a copy; it keeps the pack open.
    pub(crate) fn shared(self: &Arc<Self>, range: std::ops::Range<u64>) -> Option<Bytes> {
        let whole = Bytes::from_owner(Whole(Arc::clone(self)));
        let start = usize::try_from(range.start).ok()?;
        let end = usize::try_from(range.end).ok()?;
        (start <= end && end <= whole.len()).then(|| whole.slice(start..end))
    }
}

impl std::fmt::Debug for Pack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pack({})", self.data.path().display())
    }
}

struct Whole(Arc<Pack>);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        let pack = &self.0.data;
        let length = pack.data_len() as u64;
        pack.entry_slice(0..length)
            .expect("invariant: a file holds all of its own bytes")
    }
}

/// The object directory of a repository, with its open packs. Clones share them.
#[derive(Clone)]
pub struct Objects {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    format: ObjectFormat,
    /// By the path of the index.
    open: Mutex<BTreeMap<PathBuf, Arc<Pack>>>,
    /// The stamp of the commit-graph when it was opened, and the graph; `None` if it was not
    /// usable.
    graph: Mutex<Option<(Stamp, Option<Arc<CommitGraph>>)>>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Objects({})", self.shared.path.display())
    }
}

impl Objects {
    /// The object directory at `path`, with objects of this format. Opens nothing yet.
    pub fn at(path: &Path, format: ObjectFormat) -> Self {
        Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                format,
                open: Mutex::default(),
                graph: Mutex::default(),
            }),
        }
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The object format.
    pub fn format(&self) -> ObjectFormat {
        self.shared.format
    }

    /// Opens the store in its current state.
    pub(crate) fn open(&self) -> Result<ObjectStore, StoreError> {
        let mut directories = vec![self.shared.path.clone()];
        let info = self.shared.path.join("info").join("alternates");
        if info.try_exists().unwrap_or(false) {
            let more = gix_odb::alternate::resolve(self.shared.path.clone(), Path::new("/"))
                .map_err(|source| StoreError::Pack { path: info, source })?;
            directories.extend(more);
        }
        let mut packs = self.packs(&directories)?;
        // The biggest pack first: most objects of most repositories are in it.
        packs.sort_by_key(|pack| std::cmp::Reverse(pack.index.num_objects()));
        Ok(ObjectStore::new(
            packs,
            &directories,
            self.commit_graph(),
            self.shared.format,
        ))
    }

    /// The packs of the directories. During a listing new packs appear, and packs covered by others
    /// disappear; a listing need not show new files. So it is repeated until it shows nothing new.
    fn packs(&self, directories: &[PathBuf]) -> Result<Vec<Arc<Pack>>, StoreError> {
        let known = self.known().clone();
        let format = self.shared.format;
        let mut found = BTreeMap::new();
        let mut empty = 0;
        for _ in 0..SCANS_MAX {
            if list(directories, &known, format, &mut found)? == Seen::NothingNew {
                // One listing can miss both packs of a replacement: the new one appeared behind its
                // position, and the old one was gone.
                if found.is_empty() && empty < EMPTY_SCANS {
                    empty += 1;
                    continue;
                }
                let packs = found.values().cloned().collect();
                *self.known() = found;
                return Ok(packs);
            }
        }
        Err(StoreError::Open {
            path: self.shared.path.clone(),
            source: io::Error::other("its packs change faster than they can be opened: try again"),
        })
    }

    /// The current commit-graph, opened again when the file changed.
    fn commit_graph(&self) -> Option<Arc<CommitGraph>> {
        let stamp = Stamp::of(&self.shared.path)?;
        let mut known = self
            .shared
            .graph
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((of, graph)) if *of == stamp => graph.clone(),
            Some(_) | None => {
                let graph = CommitGraph::open(&self.shared.path, self.shared.format).map(Arc::new);
                *known = Some((stamp, graph.clone()));
                graph
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<Pack>>> {
        self.shared
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Only packs found before.
    NothingNew,
    /// Other packs; or packs that disappeared, whose replacement is in the next listing.
    Changes,
}

/// Lists packs and adds those not found yet. Opens those that are not known.
fn list(
    directories: &[PathBuf],
    known: &BTreeMap<PathBuf, Arc<Pack>>,
    format: ObjectFormat,
    found: &mut BTreeMap<PathBuf, Arc<Pack>>,
) -> Result<Seen, StoreError> {
    let mut seen = Seen::NothingNew;
    for directory in directories {
        let directory = directory.join("pack");
        let failed = |source| StoreError::Open {
            path: directory.clone(),
            source,
        };
        let listing = match std::fs::read_dir(&directory) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for file in listing {
            let path = file.map_err(failed)?.path();
            let is_index = path.extension().is_some_and(|extension| extension == "idx");
            if !is_index || found.contains_key(&path) {
                continue;
            }
            if let Some(pack) = known.get(&path).filter(|pack| pack.is_current()) {
                found.insert(path, Arc::clone(pack));
            } else if is_whole(&path).map_err(failed)? {
                match Pack::open_compared(&path, format) {
                    Ok(pack) => {
                        found.insert(path, Arc::new(pack));
                    }
                    Err(StoreError::Pack { source, .. }) if is_missing_file(&source) => {}
                    Err(error) => return Err(error),
                }
            } else {
                continue;
            }
            seen = Seen::Changes;
        }
    }
    Ok(seen)
}

/// Whether the pack of a listed index exists, or both have been removed since. An index alone is
/// left by a crash or by another program: the index of a new pack is renamed last, and the index of
/// a removed pack is unlinked first.
fn is_whole(idx: &Path) -> io::Result<bool> {
    Ok(idx.with_extension("pack").try_exists()? || !idx.try_exists()?)
}

fn is_missing_file(error: &gix_error::Error) -> bool {
    error
        .downcast_any_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The object directories that a server reads. Over the limit the least recently used one is
/// closed.
#[derive(Debug, Clone, Default)]
pub struct ObjectsPool {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// With the number of the last request that used it.
    directories: BTreeMap<PathBuf, (u64, Objects)>,
    uses: u64,
}

impl ObjectsPool {
    /// The directory at `path`, with objects of this format and the packs that earlier requests
    /// opened.
    pub fn get(&self, path: &Path, format: ObjectFormat) -> Objects {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.uses += 1;
        let uses = known.uses;
        // A repository that was created again at the same path may have another format.
        if let Some((used, objects)) = known.directories.get_mut(path)
            && objects.format() == format
        {
            *used = uses;
            return objects.clone();
        }
        if known.directories.len() >= POOLED_MAX {
            let oldest = known.directories.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(path, _)| path.clone()) {
                known.directories.remove(&oldest);
            }
        }
        let objects = Objects::at(path, format);
        known
            .directories
            .insert(path.to_owned(), (uses, objects.clone()));
        objects
    }

    /// Whether a directory is in the pool: it was read recently.
    pub fn has(&self, path: &Path) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.directories.contains_key(path)
    }

    /// Closes the packs of a directory that is about to be removed.
    pub fn forget(&self, path: &Path) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.directories.remove(path);
    }
}

#[cfg(test)]
pub(crate) mod tests;
