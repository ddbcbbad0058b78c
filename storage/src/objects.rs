//! The object stores of the fork networks, as bare repositories that stock git can open.
//!
//! ```text
//! networks/<2 hex>/<network id>/   HEAD, config, refs/, objects/{pack,info}
//! staged/                          acknowledged packs that no entry names yet; survives restarts
//! quarantine/<push>/               objects of a push in progress; wiped at start
//! spool/                           pushes as received; wiped at start
//! ```
//!
//! Packs are named by their content and never change. Installation writes a temporary name and
//! renames it over an existing file: after a crash a file's name is no proof of its contents.
//!
//! - [`blocks`]: checksums of blocks of packs and indexes.
//! - `packs`: installing, syncing and listing the packs of a network.
//! - `presence`: comparison of a pack with its name by lengths, heads and trailers.
//! - `staged`: packs acknowledged as durable.
//! - `verify`: a full read of a pack and its index.
//! - `covers`: whether packs hold all objects of another one; `removal`: removal of that one.
//! - `dirty`: the packs that are not synced yet.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use henge_types::{NetworkId, ObjectFormat, PackId, limits};
use rustix::io::Errno;
use thiserror::Error;

use crate::disk::{Disk, OsDisk};

pub mod blocks;
mod covers;
mod dirty;
mod packs;
mod presence;
mod removal;
mod scratch;
mod staged;
mod verify;

use dirty::Dirty;
pub use presence::{PackLengths, Presence};
pub use scratch::{Quarantine, Spool};

/// Errors of an object store.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// An operation of the file system failed. After a failed sync the process must end.
    #[error("object store: cannot {doing} {path:?}: {source}")]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The file system's error.
        #[source]
        source: io::Error,
    },
    /// The pack does not exist.
    #[error("pack {0} is not there: fetch it from another replica")]
    MissingPack(PackId),
    /// The pack, its index, or both do not match the name.
    #[error("pack {pack} is damaged ({fault}): fetch it from another replica")]
    BrokenPack {
        /// The pack's name.
        pack: PackId,
        /// The fault.
        fault: PackFault,
    },
    /// A name that cannot be a directory of its own.
    #[error("{0:?} cannot name a quarantine: use letters, digits and dashes")]
    InvalidName(String),
}

impl ObjectError {
    /// Whether the error means that a file is damaged or missing. Any other failure may be
    /// temporary and is no evidence about the files: for example too many open files, or missing
    /// permissions.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::MissingPack(_) | Self::BrokenPack { .. } => true,
            Self::InvalidName(_) => false,
            Self::Io { source, .. } => {
                let errno = Errno::from_io_error(source);
                // A directory in the place of a file, and Linux's errors for unreadable blocks and
                // for damaged structures of a file system.
                let damage = [
                    Errno::ISDIR,
                    Errno::IO,
                    Errno::UCLEAN,
                    Errno::BADMSG,
                    Errno::NODATA,
                    Errno::ILSEQ,
                ];
                errno.is_some_and(|errno| damage.contains(&errno))
            }
        }
    }
}

/// A fault of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PackFault {
    /// Not a pack file of version 2.
    #[error("no pack file")]
    NotAPack,
    /// The contents do not match the checksum in the trailer.
    #[error("its checksum is wrong")]
    Checksum,
    /// Intact, but its checksum differs from the name.
    #[error("it is another pack")]
    OtherPack,
    /// The index is not of version 2, or its contents do not match its checksum.
    #[error("its index is damaged")]
    Index,
    /// The index is intact, but belongs to another pack.
    #[error("its index is another pack's")]
    OtherIndex,
    /// The pack exists, its index does not.
    #[error("its index is not there")]
    NoIndex,
    /// A file is shorter or longer than in the manifest.
    #[error("a file has another length than it was given")]
    Length,
    /// The file system cannot read one of its files.
    #[error("a file cannot be read")]
    Unreadable,
}

/// The free space below which a node refuses large files: the larger of the two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Bytes.
    pub bytes: u64,
    /// Percent of the file system.
    pub percent: u64,
}

impl Default for Watermark {
    fn default() -> Self {
        Self {
            bytes: limits::LOW_SPACE_BYTES,
            percent: limits::LOW_SPACE_PERCENT,
        }
    }
}

/// Space of the file system that holds the data directory, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be used.
    pub free: u64,
    /// The file system's size.
    pub total: u64,
    /// Whether free space is below the watermark; large files are then refused.
    pub low: bool,
    /// Bytes that one more file may take: half of the watermark stays free for the log and for
    /// small packs.
    pub room: u64,
}

/// The object stores of a node. Clones share it. All operations block.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    watermark: Mutex<Watermark>,
    /// Packs installed since the start and not synced yet.
    dirty: Mutex<Dirty>,
    scratch: AtomicU64,
    /// Networks whose directories are known to be durable.
    durable: Mutex<BTreeSet<NetworkId>>,
}

impl ObjectStore {
    /// Opens the object stores below the data directory `root`, with the default watermark. Wipes
    /// the spool and every quarantine.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn open(root: &Path) -> Result<Self, ObjectError> {
        Self::open_with(root, Watermark::default())
    }

    /// Like [`ObjectStore::open`], with a watermark.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn open_with(root: &Path, watermark: Watermark) -> Result<Self, ObjectError> {
        for name in ["quarantine", "spool"] {
            remove_tree(&root.join(name))?;
        }
        for name in ["networks", "staged", "quarantine", "spool"] {
            make_dir(&root.join(name))?;
        }
        let store = Self {
            shared: Arc::new(Shared {
                root: root.to_owned(),
                watermark: Mutex::new(watermark),
                dirty: Mutex::default(),
                scratch: AtomicU64::new(0),
                durable: Mutex::default(),
            }),
        };
        store.clean_staged()?;
        Ok(store)
    }

    /// The bare repository of a network; it may not exist yet.
    pub fn network_dir(&self, network: &NetworkId) -> PathBuf {
        let name = network.to_string();
        let (fan, _) = name.split_at(2);
        self.shared.root.join("networks").join(fan).join(&name)
    }

    /// The `objects` directory of a network; it may not exist yet.
    pub fn objects_dir(&self, network: &NetworkId) -> PathBuf {
        self.network_dir(network).join("objects")
    }

    /// Creates a network's bare repository durably, unless it exists. Its packs have the object
    /// format `format`.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn ensure_network(
        &self,
        network: &NetworkId,
        format: ObjectFormat,
    ) -> Result<(), ObjectError> {
        let dir = self.network_dir(network);
        // HEAD is written last: it marks the repository as complete.
        if dir.join("HEAD").is_file() {
            return Ok(());
        }
        for name in ["objects/pack", "objects/info", "refs/heads", "refs/tags"] {
            make_dir(&dir.join(name))?;
        }
        let config = config(format);
        for (name, contents) in [("config", config), ("HEAD", "ref: refs/heads/main\n")] {
            let path = dir.join(name);
            let unfinished = dir.join(format!("{name}.new"));
            fs::write(&unfinished, contents).map_err(failed("write", &unfinished))?;
            sync_file(&unfinished)?;
            fs::rename(&unfinished, &path).map_err(failed("name", &path))?;
        }
        self.sync_network(network)
    }

    /// Makes the directories down to a network's packs durable, once per process: a killed process
    /// may have created them without syncing all of them.
    fn sync_network(&self, network: &NetworkId) -> Result<(), ObjectError> {
        let durable = &self.shared.durable;
        if lock(durable).contains(network) {
            return Ok(());
        }
        let objects = self.objects_dir(network);
        // In order: objects, the repository, its fan-out directory, networks.
        for dir in objects.ancestors().take(4) {
            sync_dir(dir)?;
        }
        lock(durable).insert(*network);
        Ok(())
    }

    /// Removes a network with all its objects.
    ///
    /// # Errors
    /// [`ObjectError::Io`]; the call can be repeated.
    pub fn remove_network(&self, network: &NetworkId) -> Result<(), ObjectError> {
        let dir = self.network_dir(network);
        self.dirty().forget(network);
        lock(&self.shared.durable).remove(network);
        // HEAD is removed first: a directory without HEAD is not a repository, so the remains of a
        // crash are not used.
        remove_file(&dir.join("HEAD"))?;
        remove_tree(&dir)?;
        match dir.parent().filter(|above| above.is_dir()) {
            Some(above) => sync_dir(above),
            None => Ok(()),
        }
    }

    /// Free and total space, the low flag, and the room for one more file.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn space(&self) -> Result<Space, ObjectError> {
        let root = &self.shared.root;
        let space = OsDisk.space(root).map_err(failed("measure", root))?;
        let Watermark { bytes, percent } = *lock(&self.shared.watermark);
        let least = bytes.max(space.total / 100 * percent);
        Ok(Space {
            free: space.free,
            total: space.total,
            low: space.free < least,
            room: space.free.saturating_sub(least / 2),
        })
    }

    /// Replaces the watermark.
    pub fn set_watermark(&self, watermark: Watermark) {
        *lock(&self.shared.watermark) = watermark;
    }

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        lock(&self.shared.dirty)
    }

    /// A number for a temporary file, unique within this process.
    fn scratch_number(&self) -> u64 {
        self.shared.scratch.fetch_add(1, Ordering::Relaxed)
    }
}

/// The git config of a network's bare repository.
const fn config(format: ObjectFormat) -> &'static str {
    match format {
        ObjectFormat::Sha1 => {
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
        }
        // Version 1: a git that does not support the extension refuses the repository.
        ObjectFormat::Sha256 => {
            "[core]\n\trepositoryformatversion = 1\n\tfilemode = true\n\tbare = true\n\
             [extensions]\n\tobjectformat = sha256\n"
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ObjectError + 'a {
    move |source| ObjectError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn make_dir(dir: &Path) -> Result<(), ObjectError> {
    OsDisk.create_dir_all(dir).map_err(failed("make", dir))
}

fn sync_dir(dir: &Path) -> Result<(), ObjectError> {
    OsDisk.sync_dir(dir).map_err(failed("sync", dir))
}

fn sync_file(path: &Path) -> Result<(), ObjectError> {
    let file = fs::File::open(path).map_err(failed("open", path))?;
    file.sync_all().map_err(failed("sync", path))
}

fn remove_file(path: &Path) -> Result<(), ObjectError> {
    gone(fs::remove_file(path)).map_err(failed("remove", path))
}

fn remove_tree(dir: &Path) -> Result<(), ObjectError> {
    gone(fs::remove_dir_all(dir)).map_err(failed("remove", dir))
}

/// Treats a missing file as removed.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
