//! The simulated disk during one life of a node: its syncs may be slow, and it fails after that
//! life.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use henge_storage::disk::sim::SimDisk;
use henge_storage::disk::{Disk, DiskFile, DiskSpace, FileId, FileOrigin, OpenMode};

/// The duration of syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncPace {
    /// No time.
    Fast,
    /// This long each.
    Slow(Duration),
    /// Until the pace changes.
    Held,
}

/// A disk for one life of a node; clones share it. For a thread that runs on after the end of that
/// life every operation fails, so it cannot write into the next life.
#[derive(Debug, Clone)]
pub(crate) struct Mount(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    disk: SimDisk,
    /// Locked for reading during an operation: the end waits for the running operations.
    is_mounted: RwLock<bool>,
    pace: Mutex<Pace>,
    changed: Condvar,
}

#[derive(Debug)]
struct Pace {
    syncs: SyncPace,
    is_over: bool,
}

impl Mount {
    /// A new life of a node on this disk.
    pub(crate) fn new(disk: &SimDisk) -> Self {
        Self(Arc::new(Shared {
            disk: disk.clone(),
            is_mounted: RwLock::new(true),
            pace: Mutex::new(Pace {
                syncs: SyncPace::Fast,
                is_over: false,
            }),
            changed: Condvar::new(),
        }))
    }

    /// Sets the duration of syncs from now on.
    pub(crate) fn set_pace(&self, syncs: SyncPace) {
        self.pace().syncs = syncs;
        self.0.changed.notify_all();
    }

    /// Ends the life: from now on every operation fails.
    pub(crate) fn end(&self) {
        let mounted = self.0.is_mounted.write();
        *mounted.unwrap_or_else(PoisonError::into_inner) = false;
        self.pace().is_over = true;
        self.0.changed.notify_all();
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.0.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held during an operation.
    fn mounted(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let mounted = self.0.is_mounted.read();
        let mounted = mounted.unwrap_or_else(PoisonError::into_inner);
        if *mounted {
            Ok(mounted)
        } else {
            Err(io::Error::other("the node has no disk any more"))
        }
    }

    /// Waits for the duration of a sync.
    fn wait(&self) {
        let pace = self.pace();
        let syncs = pace.syncs;
        match syncs {
            SyncPace::Fast => {}
            SyncPace::Slow(time) => {
                let waits = |pace: &mut Pace| !pace.is_over;
                let waited = self.0.changed.wait_timeout_while(pace, time, waits);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
            SyncPace::Held => {
                let waits = |pace: &mut Pace| !pace.is_over && pace.syncs == SyncPace::Held;
                let waited = self.0.changed.wait_while(pace, waits);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
}

impl Disk for Mount {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let _mounted = self.mounted()?;
        let file = self.0.disk.open(path, mode)?;
        let mount = self.clone();
        Ok(Arc::new(MountedFile { mount, file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _mounted = self.mounted()?;
        self.0.disk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let _mounted = self.mounted()?;
        self.0.disk.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.wait();
        let _mounted = self.mounted()?;
        self.0.disk.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let _mounted = self.mounted()?;
        self.0.disk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let _mounted = self.mounted()?;
        self.0.disk.create_dir_all(dir)
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        let _mounted = self.mounted()?;
        self.0.disk.file_len(path)
    }

    fn id_of(&self, path: &Path) -> io::Result<Option<FileId>> {
        let _mounted = self.mounted()?;
        self.0.disk.id_of(path)
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        let _mounted = self.mounted()?;
        self.0.disk.space(path)
    }
}

#[derive(Debug)]
struct MountedFile {
    mount: Mount,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for MountedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let _mounted = self.mount.mounted()?;
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _mounted = self.mount.mounted()?;
        self.file.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let _mounted = self.mount.mounted()?;
        self.file.set_len(len)
    }

    fn file_len(&self) -> io::Result<u64> {
        let _mounted = self.mount.mounted()?;
        self.file.file_len()
    }

    fn origin(&self) -> io::Result<FileOrigin> {
        let _mounted = self.mount.mounted()?;
        self.file.origin()
    }

    fn id(&self) -> io::Result<FileId> {
        let _mounted = self.mount.mounted()?;
        self.file.id()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.mount.wait();
        let _mounted = self.mount.mounted()?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.mount.wait();
        let _mounted = self.mount.mounted()?;
        self.file.sync_all()
    }
}
