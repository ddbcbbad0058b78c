//! A disk in memory that loses power.
//!
//! It keeps two images: the reader's view and the platter. [`SimDisk::crash`] discards the first,
//! lets a random part of the unsynced changes reach the second, and continues with that one. Writes
//! survive sector by sector, the last one torn within a sector; names survive one by one.
//! Directories are durable at once; only the file names in them are not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, DiskSpace, FileId, FileOrigin, OpenMode};

/// Bytes that reach the platter atomically.
const SECTOR: usize = 512;

/// A disk in memory that loses power. Clones share it.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Number of crashes and restarts: files opened in an earlier life are dead.
    life: u64,
    powered: bool,
    operations: u64,
    cut_at: Option<u64>,
    capacity: u64,
    syncs_ignored: bool,
    sync_fails: bool,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    directories: BTreeMap<PathBuf, u64>,
    last_written: Option<u64>,
}

#[derive(Debug, Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug)]
struct NameChange {
    directory: PathBuf,
    remove: Option<PathBuf>,
    insert: Option<(PathBuf, u64)>,
}

/// Pseudo-random numbers (splitmix64): the same seed gives the same disk.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk with power and 1 TiB of space.
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                life: 0,
                powered: true,
                operations: 0,
                cut_at: None,
                capacity: 1 << 40,
                syncs_ignored: false,
                sync_fails: false,
                inodes: BTreeMap::new(),
                next_inode: 1,
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                pending_names: Vec::new(),
                directories: BTreeMap::new(),
                last_written: None,
            })),
        }
    }

    /// A shared handle, as components take it.
    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Cuts the power, lets a random part of the unsynced changes survive, and restores the power.
    /// Open files are dead.
    pub fn crash(&self, seed: u64) {
        let mut state = self.lock();
        let mut dice = Dice(seed);
        // Of ten changes, the number that survive: all, none and most find different bugs.
        let kept = [0, 1, 5, 9, 10][usize::try_from(dice.roll(5)).unwrap_or(0)];
        let last_written = state.last_written.take();
        for (number, inode) in &mut state.inodes {
            inode.lose_power(&mut dice, kept, last_written == Some(*number));
        }
        for change in std::mem::take(&mut state.pending_names) {
            if dice.roll(10) < kept {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        state.inodes.retain(|number, _| named.contains(number));
        state.life += 1;
        state.powered = true;
        state.cut_at = None;
        state.sync_fails = false;
    }

    /// Restarts the process but not the machine: written data stays, synced or not. Open files are
    /// dead. After [`SimDisk::cut_after`] this is a kill at that operation.
    pub fn restart(&self) {
        let mut state = self.lock();
        state.life += 1;
        state.powered = true;
        state.cut_at = None;
        state.sync_fails = false;
    }

    /// Cuts the power in the middle of the `operations`-th changing operation from now on (1 is the
    /// next). That operation and all later ones fail until [`SimDisk::crash`].
    pub fn cut_after(&self, operations: u64) {
        let mut state = self.lock();
        state.cut_at = Some(state.operations + operations);
    }

    /// Cancels a cut scheduled by [`SimDisk::cut_after`] that has not happened yet.
    pub fn keep_power(&self) {
        self.lock().cut_at = None;
    }

    /// Whether a cut scheduled by [`SimDisk::cut_after`] has happened.
    pub fn is_off(&self) -> bool {
        !self.lock().powered
    }

    /// Number of changing operations (writes, syncs, names) so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Limits the space of all files together, bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    /// Makes every sync return success without effect: the mutant that a power-cut test must catch.
    pub fn ignore_syncs(&self) {
        self.lock().syncs_ignored = true;
    }

    /// Makes the next sync of a file fail with an I/O error and lose the data that it covered.
    /// Linux does the same: it marks the dirty pages clean.
    pub fn fail_next_sync(&self) {
        self.lock().sync_fails = true;
    }

    /// Flips the byte at `offset` on the platter and in the reader's view: a medium error.
    ///
    /// # Panics
    /// When the file is missing or shorter.
    pub fn flip(&self, path: &Path, offset: u64) {
        let mut state = self.lock();
        let number = *state.names.get(path).expect("the file is there");
        let offset = usize::try_from(offset).expect("an offset in memory");
        let inode = state.inodes.get_mut(&number).expect("named inodes live");
        for image in [&mut inode.current, &mut inode.durable] {
            *image.get_mut(offset).expect("an offset within the file") ^= 0xff;
        }
    }

    /// Removes a directory with its contents while a process has it open, as `rm -r` does.
    pub fn remove_dir_all(&self, dir: &Path) {
        let mut state = self.lock();
        let names = state.names.keys().filter(|path| path.starts_with(dir));
        for path in names.cloned().collect::<Vec<_>>() {
            state.rename_file(NameChange {
                directory: directory(&path),
                remove: Some(path),
                insert: None,
            });
        }
        state.directories.retain(|path, _| !path.starts_with(dir));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a changing operation; `Err` when the power is off or goes off in it.
    fn change(&mut self) -> Result<(), PowerOff> {
        if !self.powered {
            return Err(PowerOff::Before);
        }
        self.operations += 1;
        if self.cut_at.is_some_and(|cut| self.operations >= cut) {
            self.powered = false;
            return Err(PowerOff::Within);
        }
        Ok(())
    }

    fn powered(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(off()) }
    }

    fn number(&self, path: &Path) -> io::Result<u64> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename_file(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

enum PowerOff {
    Before,
    Within,
}

fn off() -> io::Error {
    io::Error::other("the simulated disk has no power")
}

fn directory(path: &Path) -> PathBuf {
    path.parent().unwrap_or_else(|| Path::new("")).to_owned()
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        if let Some(path) = &self.remove {
            names.remove(path);
        }
        if let Some((path, number)) = &self.insert {
            names.insert(path.clone(), *number);
        }
    }
}

impl Inode {
    fn lose_power(&mut self, dice: &mut Dice, kept: u64, torn: bool) {
        let changes = std::mem::take(&mut self.pending);
        let last = changes.len();
        for (at, change) in changes.into_iter().enumerate() {
            match change {
                Change::Length(len) => {
                    if dice.roll(10) < kept {
                        self.durable.resize(len, 0);
                    }
                }
                Change::Write { offset, bytes } => {
                    let torn = torn && at + 1 == last;
                    self.keep_sectors(dice, kept, torn, offset, &bytes);
                }
            }
        }
        self.current = self.durable.clone();
    }

    fn keep_sectors(
        &mut self,
        dice: &mut Dice,
        kept: u64,
        torn: bool,
        offset: usize,
        bytes: &[u8],
    ) {
        let cut = if torn && kept > 0 {
            usize::try_from(dice.roll(bytes.len() as u64 + 1)).unwrap_or(0)
        } else {
            bytes.len()
        };
        let mut at = 0;
        while at < cut {
            let sector_end = ((offset + at) / SECTOR + 1) * SECTOR - offset;
            let end = sector_end.min(cut);
            if dice.roll(10) < kept {
                put(&mut self.durable, offset + at, &bytes[at..end]);
            }
            at = end;
        }
    }

    fn sync_pending(&mut self) {
        // Applying the changes is cheaper than copying the whole file on every sync.
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Length(len) => self.durable.resize(len, 0),
                Change::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
            }
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        state.powered()?;
        let found = state.names.get(path).copied();
        let number = match (mode, found) {
            (OpenMode::Read | OpenMode::Write, None) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            (OpenMode::Read | OpenMode::Write, Some(number)) => number,
            (OpenMode::Create, Some(number)) => {
                state.change().map_err(|_| off())?;
                let inode = state.inodes.entry(number).or_default();
                inode.current.clear();
                inode.pending.push(Change::Length(0));
                number
            }
            (OpenMode::Create, None) => {
                if !state.directories.contains_key(&directory(path)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                state.change().map_err(|_| off())?;
                let number = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(number, Inode::default());
                state.rename_file(NameChange {
                    directory: directory(path),
                    remove: None,
                    insert: Some((path.to_owned(), number)),
                });
                number
            }
        };
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            number,
            life: state.life,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change().map_err(|_| off())?;
        let number = state.number(from)?;
        state.rename_file(NameChange {
            directory: directory(to),
            remove: Some(from.to_owned()),
            insert: Some((to.to_owned(), number)),
        });
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change().map_err(|_| off())?;
        state.number(path)?;
        state.rename_file(NameChange {
            directory: directory(path),
            remove: Some(path.to_owned()),
            insert: None,
        });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change().map_err(|_| off())?;
        if state.syncs_ignored {
            return Ok(());
        }
        let mut kept = Vec::new();
        for change in std::mem::take(&mut state.pending_names) {
            if change.directory == dir {
                change.apply(&mut state.durable_names);
            } else {
                kept.push(change);
            }
        }
        state.pending_names = kept;
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.lock();
        state.powered()?;
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        Ok(state.names.keys().filter(inside).cloned().collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.powered()?;
        for above in dir.ancestors() {
            let number = state.next_inode;
            if !state.directories.contains_key(above) {
                state.directories.insert(above.to_owned(), number);
                state.next_inode += 1;
            }
        }
        Ok(())
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.lock();
        state.powered()?;
        let inode = state.number(path).ok().and_then(|n| state.inodes.get(&n));
        Ok(inode.map(|inode| inode.current.len() as u64))
    }

    fn id_of(&self, path: &Path) -> io::Result<Option<FileId>> {
        let state = self.lock();
        state.powered()?;
        let number = state
            .names
            .get(path)
            .or_else(|| state.directories.get(path));
        Ok(number.map(|number| FileId {
            device: 0,
            inode: *number,
        }))
    }

    fn space(&self, _path: &Path) -> io::Result<DiskSpace> {
        let state = self.lock();
        state.powered()?;
        let used: u64 = state.inodes.values().map(|i| i.current.len() as u64).sum();
        Ok(DiskSpace {
            free: state.capacity.saturating_sub(used),
            total: state.capacity,
        })
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    number: u64,
    life: u64,
}

impl SimFile {
    fn with<T>(
        &self,
        state: &mut State,
        job: impl FnOnce(&mut Inode) -> io::Result<T>,
    ) -> io::Result<T> {
        if state.life != self.life {
            return Err(off());
        }
        let inode = state.inodes.get_mut(&self.number).ok_or_else(off)?;
        job(inode)
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.lock();
        let cut = match state.change() {
            Ok(()) => false,
            Err(PowerOff::Within) => true,
            Err(PowerOff::Before) => return Err(off()),
        };
        let used: u64 = state.inodes.values().map(|i| i.current.len() as u64).sum();
        let capacity = state.capacity;
        self.with(&mut state, |inode| {
            let len = inode.current.len();
            let end = match &change {
                Change::Length(len) => *len,
                Change::Write { offset, bytes } => offset + bytes.len(),
            };
            let growth = end.saturating_sub(len) as u64;
            if growth > 0 && used + growth > capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
            match &change {
                Change::Length(len) => inode.current.resize(*len, 0),
                Change::Write { offset, bytes } => put(&mut inode.current, *offset, bytes),
            }
            inode.pending.push(change);
            Ok(())
        })?;
        state.last_written = Some(self.number);
        if cut { Err(off()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.change().map_err(|_| off())?;
        let (ignored, fails) = (state.syncs_ignored, state.sync_fails);
        state.sync_fails = false;
        self.with(&mut state, |inode| {
            if fails {
                inode.pending.clear();
                return Err(io::Error::other("the simulated disk failed to sync"));
            }
            if !ignored {
                inode.sync_pending();
            }
            Ok(())
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.lock();
        state.powered()?;
        self.with(&mut state, |inode| {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = inode.current.get(offset..).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write {
            offset: usize::try_from(offset).map_err(io::Error::other)?,
            bytes: bytes.to_vec(),
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(
            usize::try_from(len).map_err(io::Error::other)?,
        ))
    }

    fn file_len(&self) -> io::Result<u64> {
        let mut state = self.disk.lock();
        state.powered()?;
        self.with(&mut state, |inode| Ok(inode.current.len() as u64))
    }

    fn origin(&self) -> io::Result<FileOrigin> {
        self.disk.lock().powered()?;
        Ok(FileOrigin {
            inode: self.number,
            created_ns: Some(self.number),
            file_system: None,
        })
    }

    fn id(&self) -> io::Result<FileId> {
        self.disk.lock().powered()?;
        Ok(FileId {
            device: 0,
            inode: self.number,
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}
