//! Open packs, shared between requests: [`Objects`] for one directory, [`ObjectsPool`] for a server's.
//!
//! A directory is listed when a request begins; a pack is opened once, by whoever sees it first. A request keeps the packs
//! it began with, so what it saw stays readable to its end, also when maintenance unlinks the files meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use gix_pack::data::entry::Header;

use crate::oid::KIND;
use crate::store::{ObjectStore, StoreError};

/// How often a listing that changed underneath is taken again.
const SCANS_MAX: u32 = 8;
/// Directories whose packs a pool keeps open.
const POOLED_MAX: usize = 512;

/// One pack with its index.
pub(crate) struct Pack {
    pub(crate) index: gix_pack::index::File,
    pub(crate) data: gix_pack::data::File,
    boundaries: OnceLock<Box<[u64]>>,
    has_ref_deltas: OnceLock<bool>,
}

impl Pack {
    pub(crate) fn open(idx: &Path) -> gix_error::Result<Self> {
        /// Tells packs apart in caches of decoded objects, for the life of the process.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut data = gix_pack::data::File::at(idx.with_extension("pack"), KIND)?;
        data.id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            index: gix_pack::index::File::at(idx, KIND)?,
            data,
            boundaries: OnceLock::new(),
            has_ref_deltas: OnceLock::new(),
        })
    }

    /// Where entries begin, ascending, and behind them where the last one ends. Made once.
    pub(crate) fn boundaries(&self) -> &[u64] {
        self.boundaries.get_or_init(|| {
            let mut offsets = self.index.sorted_offsets();
            offsets.push(self.data.pack_end() as u64);
            offsets.into()
        })
    }

    /// Where the entry that begins at `offset` ends.
    pub(crate) fn end_of(&self, offset: u64) -> Option<u64> {
        let boundaries = self.boundaries();
        let number = boundaries.binary_search(&offset).ok()?;
        boundaries.get(number + 1).copied()
    }

    /// Whether any delta names its base by id: such a base may lie anywhere in the pack. Looked up once.
    pub(crate) fn has_ref_deltas(&self) -> bool {
        *self.has_ref_deltas.get_or_init(|| {
            let starts = self.boundaries();
            starts[..starts.len() - 1].iter().any(|offset| {
                // What cannot be read must not be sent unseen either.
                self.data.entry(*offset).map_or(true, |entry| {
                    matches!(entry.header, Header::RefDelta { .. })
                })
            })
        })
    }

    /// A part of the file, not copied; it keeps the pack open.
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

/// The object directory of a repository, its packs open. Clones share them.
#[derive(Clone)]
pub struct Objects {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// By the path of the index.
    open: Mutex<BTreeMap<PathBuf, Arc<Pack>>>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Objects({})", self.shared.path.display())
    }
}

impl Objects {
    /// The object directory at `path`. Nothing is opened yet.
    pub fn at(path: &Path) -> Self {
        Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                open: Mutex::default(),
            }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The store as it is now.
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
        Ok(ObjectStore::new(packs, &directories))
    }

    /// The packs of the directories. Maintenance puts a pack in the place of others: a listing that is taken meanwhile
    /// may miss both, so it is taken again until nothing went away.
    fn packs(&self, directories: &[PathBuf]) -> Result<Vec<Arc<Pack>>, StoreError> {
        let mut before = self.known().clone();
        // What was never listed may be changing as well.
        let mut was_listed = !before.is_empty();
        for scan in 1..=SCANS_MAX {
            let found = match list(directories, &before) {
                Err(StoreError::Pack { source, .. })
                    if scan < SCANS_MAX && is_missing_file(&source) =>
                {
                    continue;
                }
                outcome => outcome?,
            };
            let nothing_went = before.keys().all(|path| found.contains_key(path));
            before = found;
            if was_listed && nothing_went {
                break;
            }
            was_listed = true;
        }
        self.known().clone_from(&before);
        Ok(before.into_values().collect())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<Pack>>> {
        self.shared
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lists packs, opening those that are not known.
fn list(
    directories: &[PathBuf],
    known: &BTreeMap<PathBuf, Arc<Pack>>,
) -> Result<BTreeMap<PathBuf, Arc<Pack>>, StoreError> {
    let mut found = BTreeMap::new();
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
            if path.extension().is_none_or(|extension| extension != "idx") {
                continue;
            }
            if let Some(pack) = known.get(&path) {
                found.insert(path, Arc::clone(pack));
            // An index without its pack is on its way in or out: the pack is renamed into place first and
            // unlinked last, so it holds nothing that is still or already needed from here.
            } else if path.with_extension("pack").try_exists().map_err(failed)? {
                let pack = Pack::open(&path).map_err(|source| StoreError::Pack {
                    path: path.clone(),
                    source,
                })?;
                found.insert(path, Arc::new(pack));
            }
        }
    }
    Ok(found)
}

fn is_missing_file(error: &gix_error::Error) -> bool {
    error
        .downcast_any_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The object directories that a server reads, the least recently used ones closed when there are many.
#[derive(Debug, Clone, Default)]
pub struct ObjectsPool {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// With the number of the request that used it last.
    directories: BTreeMap<PathBuf, (u64, Objects)>,
    uses: u64,
}

impl ObjectsPool {
    /// The directory at `path`, with the packs that earlier requests opened.
    pub fn get(&self, path: &Path) -> Objects {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.uses += 1;
        let uses = known.uses;
        if let Some((used, objects)) = known.directories.get_mut(path) {
            *used = uses;
            return objects.clone();
        }
        if known.directories.len() >= POOLED_MAX {
            let oldest = known.directories.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(path, _)| path.clone()) {
                known.directories.remove(&oldest);
            }
        }
        let objects = Objects::at(path);
        known
            .directories
            .insert(path.to_owned(), (uses, objects.clone()));
        objects
    }

    /// Closes the packs of a directory that is going away.
    pub fn forget(&self, path: &Path) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.directories.remove(path);
    }
}
