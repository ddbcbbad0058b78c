//! The packs of a network.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use henge_types::{NetworkId, PackId};

use super::blocks::{BlockSums, SMALL_PACK_BYTES_MAX, Trailers};
use super::presence::PackLengths;
use super::{ObjectError, ObjectStore, failed, remove_file, sync_dir, verify};

/// The two files of a pack in `dir`.
pub(super) fn names(dir: &Path, pack: &PackId) -> (PathBuf, PathBuf) {
    let name = |extension| dir.join(format!("pack-{pack}.{extension}"));
    (name("pack"), name("idx"))
}

/// The pack that a file name belongs to.
pub(super) fn pack_of(path: &Path, extension: &str) -> Option<PackId> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_prefix("pack-")?.strip_suffix(extension)?;
    name.strip_suffix('.')?.parse().ok()
}

/// The packs in `dir` that have both files.
pub(super) fn list(dir: &Path) -> Result<Vec<PackId>, ObjectError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", dir)(error)),
    };
    let (mut packs, mut indexes) = (BTreeSet::new(), BTreeSet::new());
    for entry in entries {
        let path = entry.map_err(failed("list", dir))?.path();
        packs.extend(pack_of(&path, "pack"));
        indexes.extend(pack_of(&path, "idx"));
    }
    Ok(packs.intersection(&indexes).copied().collect())
}

impl ObjectStore {
    fn pack_dir(&self, network: &NetworkId) -> PathBuf {
        self.objects_dir(network).join("pack")
    }

    /// Installs a pack and its index under their names, unless files with exactly these bytes exist
    /// already. Not durable before [`ObjectStore::sync_packs`]. The contents are not verified.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn install_pack(
        &self,
        network: &NetworkId,
        pack: &PackId,
        pack_bytes: &[u8],
        idx_bytes: &[u8],
    ) -> Result<(), ObjectError> {
        self.ensure_network(network, pack.checksum().format())?;
        let dir = self.pack_dir(network);
        let (pack_path, idx_path) = names(&dir, pack);
        // Marked before the files change: a sync between the two renames must not consider them
        // synced.
        self.mark_dirty(network, pack);
        // A log replay finds most of its packs in place. Reading them costs a tenth of writing
        // them, and a durable copy is not replaced by one that is not.
        if holds(&pack_path, pack_bytes) && holds(&idx_path, idx_bytes) {
            return Ok(());
        }
        // The index comes last: git lists a pack by its index.
        let written = self
            .replace(&dir, &pack_path, pack_bytes)
            .and_then(|()| self.replace(&dir, &idx_path, idx_bytes));
        // Marked a second time: the mark may have been dropped while the files were missing. From
        // here on such a check finds them.
        self.mark_dirty(network, pack);
        // An absent pack must not stay marked: every later sync of the network would fail.
        if written.is_err() && !self.has_pack(network, pack) {
            self.dirty().take(network, pack);
        }
        written
    }

    fn replace(&self, dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), ObjectError> {
        // Git removes leftover files with such names.
        let unfinished = dir.join(format!("tmp_henge_{}", self.scratch_number()));
        let written = File::create(&unfinished).and_then(|mut file| file.write_all(bytes));
        if let Err(error) = written {
            remove_file(&unfinished)?;
            return Err(failed("write", path)(error));
        }
        fs::rename(&unfinished, path).map_err(failed("name", path))
    }

    /// Marks a pack for the next sync of the network: an earlier process may have left it unsynced.
    pub fn presume_dirty(&self, network: &NetworkId, pack: &PackId) {
        self.mark_dirty(network, pack);
    }

    /// Unmarks a pack whose files are gone, so that no later sync looks for it.
    pub fn forget_dirty(&self, network: &NetworkId, pack: &PackId) {
        self.dirty().remove(network, pack);
    }

    /// Like [`ObjectStore::forget_dirty`], but only when a file of the pack is missing or is not a
    /// regular file. A pack that is being installed stays marked.
    pub fn forget_dirty_if_gone(&self, network: &NetworkId, pack: &PackId) {
        let mut dirty = self.dirty();
        if dirty.of(network).contains(pack) {
            let (pack_path, idx_path) = names(&self.pack_dir(network), pack);
            // An error of the check is no proof of absence.
            let gone = |path: &Path| is_gone(path).unwrap_or(false);
            if gone(&pack_path) || gone(&idx_path) {
                dirty.remove(network, pack);
            }
        }
    }

    pub(super) fn mark_dirty(&self, network: &NetworkId, pack: &PackId) {
        self.dirty().mark(network, pack);
    }

    /// Syncs packs, their indexes and the directory.
    ///
    /// # Errors
    /// [`ObjectError::MissingPack`], [`ObjectError::Io`].
    pub fn sync_packs(&self, network: &NetworkId, packs: &[PackId]) -> Result<(), ObjectError> {
        if packs.is_empty() {
            return Ok(());
        }
        self.dirty().begin_sync();
        let result = self.sync_begun(network, packs);
        self.dirty().end_sync();
        result
    }

    fn sync_begun(&self, network: &NetworkId, packs: &[PackId]) -> Result<(), ObjectError> {
        // Unmarked before the sync: a pack that is installed again during it is marked again.
        let mut dirty = self.dirty();
        for pack in packs {
            dirty.take(network, pack);
        }
        drop(dirty);
        let result = self
            .sync_all(network, packs)
            .and_then(|()| self.sync_network(network));
        if result.is_err() {
            let mut dirty = self.dirty();
            for pack in packs {
                if !dirty.is_removed(network, pack) {
                    dirty.mark(network, pack);
                }
            }
        }
        result
    }

    fn sync_all(&self, network: &NetworkId, packs: &[PackId]) -> Result<(), ObjectError> {
        let dir = self.pack_dir(network);
        for pack in packs {
            match sync_pack(&dir, pack) {
                // A failed sync is always reported, whether or not the pack was removed.
                Err(error) if is_failed_sync(&error) => return Err(error),
                // The pack was removed during the sync, because other packs cover it.
                Err(_) if self.dirty().is_removed(network, pack) => {}
                other => other?,
            }
        }
        sync_dir(&dir)
    }

    /// Packs installed and not synced since this process started.
    pub fn dirty_packs(&self, network: &NetworkId) -> Vec<PackId> {
        self.dirty().of(network)
    }

    /// Syncs every dirty pack of the networks, before a snapshot of their group is named.
    ///
    /// # Errors
    /// As [`ObjectStore::sync_packs`].
    pub fn sync_dirty<'a>(
        &self,
        networks: impl IntoIterator<Item = &'a NetworkId>,
    ) -> Result<(), ObjectError> {
        for network in networks {
            // Registered before the query of the dirty packs: later removals are then recorded.
            self.dirty().begin_sync();
            let result = match self.dirty_packs(network) {
                packs if packs.is_empty() => Ok(()),
                packs => self.sync_begun(network, &packs),
            };
            self.dirty().end_sync();
            result?;
        }
        Ok(())
    }

    /// Syncs every dirty pack of the node.
    ///
    /// # Errors
    /// As [`ObjectStore::sync_packs`].
    pub fn sync_all_dirty(&self) -> Result<(), ObjectError> {
        let networks = self.dirty().networks();
        self.sync_dirty(&networks)
    }

    /// The packs of a network, by name.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn packs(&self, network: &NetworkId) -> Result<Vec<PackId>, ObjectError> {
        list(&self.pack_dir(network))
    }

    /// Opens a pack for sending.
    ///
    /// # Errors
    /// [`ObjectError::MissingPack`], [`ObjectError::Io`].
    pub fn open_pack(&self, network: &NetworkId, pack: &PackId) -> Result<File, ObjectError> {
        open(pack, &names(&self.pack_dir(network), pack).0)
    }

    /// Opens a pack's index for sending.
    ///
    /// # Errors
    /// [`ObjectError::MissingPack`], [`ObjectError::Io`].
    pub fn open_idx(&self, network: &NetworkId, pack: &PackId) -> Result<File, ObjectError> {
        open(pack, &names(&self.pack_dir(network), pack).1)
    }

    /// Reads and verifies a whole pack and its index.
    ///
    /// # Errors
    /// [`ObjectError::BrokenPack`], [`ObjectError::MissingPack`], [`ObjectError::Io`].
    pub fn verify_pack(&self, network: &NetworkId, pack: &PackId) -> Result<(), ObjectError> {
        let (pack_path, idx_path) = names(&self.pack_dir(network), pack);
        self.verify_files(pack, &pack_path, &idx_path)
    }

    /// Reads and verifies a whole pack and its index at any path.
    ///
    /// # Errors
    /// As [`ObjectStore::verify_pack`].
    pub fn verify_files(
        &self,
        pack: &PackId,
        pack_path: &Path,
        idx_path: &Path,
    ) -> Result<(), ObjectError> {
        self.verify_and_sum(pack, pack_path, idx_path).map(drop)
    }

    /// Reads and verifies a whole pack and its index at any path, and computes their block
    /// checksums.
    ///
    /// # Errors
    /// As [`ObjectStore::verify_pack`].
    pub fn verify_and_sum(
        &self,
        pack: &PackId,
        pack_path: &Path,
        idx_path: &Path,
    ) -> Result<BlockSums, ObjectError> {
        let pack_file = open(pack, pack_path)?;
        let idx_file = open(pack, idx_path)?;
        let verified = verify::verify(pack, pack_file, idx_file);
        verified
            .map_err(failed("read", pack_path))?
            .map_err(|fault| ObjectError::BrokenPack { pack: *pack, fault })
    }

    /// Whether a pack is large enough for a file of block checksums and has no valid one. It is
    /// then of an earlier release, or its file is torn or belongs to another pack.
    pub fn lacks_sums(&self, network: &NetworkId, pack: &PackId, lengths: PackLengths) -> bool {
        lengths.pack + lengths.idx > SMALL_PACK_BYTES_MAX
            && !matches!(self.block_sums(network, pack), Ok(Some(_)))
    }

    /// The checksums of a pack's blocks: stored ones for a large pack, freshly computed ones for a
    /// small pack. `None` for a large pack without a valid file.
    ///
    /// # Errors
    /// As [`ObjectStore::verify_pack`].
    pub fn block_sums(
        &self,
        network: &NetworkId,
        pack: &PackId,
    ) -> Result<Option<BlockSums>, ObjectError> {
        let (pack_path, idx_path) = names(&self.pack_dir(network), pack);
        let mut idx_file = open(pack, &idx_path)?;
        let idx_bytes = idx_file
            .metadata()
            .map_err(failed("measure", &idx_path))?
            .len();
        let pack_bytes = open(pack, &pack_path)?
            .metadata()
            .map_err(failed("measure", &pack_path))?
            .len();
        if pack_bytes + idx_bytes <= SMALL_PACK_BYTES_MAX {
            return self.verify_and_sum(pack, &pack_path, &idx_path).map(Some);
        }
        let name = pack.checksum().as_bytes().to_vec();
        let end = i64::try_from(name.len()).unwrap_or(0);
        let mut idx = vec![0; name.len()];
        let read = idx_file
            .seek(SeekFrom::End(-end))
            .and_then(|_| idx_file.read_exact(&mut idx));
        read.map_err(failed("read", &idx_path))?;
        let path = BlockSums::path_of(&pack_path);
        let trailers = Trailers { pack: name, idx };
        BlockSums::read(&path, &trailers).map_err(failed("read", &path))
    }

    /// Reads and verifies a whole pack and its index, and stores their block checksums beside them.
    ///
    /// # Errors
    /// As [`ObjectStore::verify_pack`].
    pub fn make_sums(&self, network: &NetworkId, pack: &PackId) -> Result<(), ObjectError> {
        let dir = self.pack_dir(network);
        let (pack_path, idx_path) = names(&dir, pack);
        let sums = self.verify_and_sum(pack, &pack_path, &idx_path)?;
        let path = BlockSums::path_of(&pack_path);
        let unfinished = dir.join(format!("tmp_henge_{}", self.scratch_number()));
        sums.write(&path, &unfinished)
            .map_err(failed("write", &path))
    }

    /// Reads every pack of a network, including those that lack a file, and returns the broken
    /// ones.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn verify_all(&self, network: &NetworkId) -> Result<Vec<PackId>, ObjectError> {
        let mut broken = Vec::new();
        for pack in any_file(&self.pack_dir(network))? {
            match self.verify_pack(network, &pack) {
                Ok(()) => {}
                Err(ObjectError::BrokenPack { .. } | ObjectError::MissingPack(_)) => {
                    broken.push(pack);
                }
                Err(error @ (ObjectError::Io { .. } | ObjectError::InvalidName(_))) => {
                    return Err(error);
                }
            }
        }
        Ok(broken)
    }
}

/// Whether the file exists with exactly these bytes.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    let compare = || -> io::Result<bool> {
        let mut file = File::open(path)?;
        // Read from the disk: after a failed flush, the page cache holds bytes that the disk does
        // not.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        let mut found = Vec::new();
        Ok(usize::try_from(file.metadata()?.len()) == Ok(bytes.len())
            && file.read_to_end(&mut found)? == bytes.len()
            && found == bytes)
    };
    // An unreadable file is written again.
    compare().unwrap_or(false)
}

/// The packs with at least one file.
fn any_file(dir: &Path) -> Result<BTreeSet<PackId>, ObjectError> {
    let mut packs = BTreeSet::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(packs),
        Err(error) => return Err(failed("list", dir)(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed("list", dir))?.path();
        packs.extend(pack_of(&path, "pack"));
        packs.extend(pack_of(&path, "idx"));
    }
    Ok(packs)
}

fn sync_pack(dir: &Path, pack: &PackId) -> Result<(), ObjectError> {
    let (pack_path, idx_path) = names(dir, pack);
    for path in [&pack_path, &idx_path] {
        if is_gone(path).map_err(failed("look at", path))? {
            return Err(ObjectError::MissingPack(*pack));
        }
    }
    for path in [&pack_path, &idx_path] {
        let synced = open(pack, path)?.sync_all();
        synced.map_err(failed("sync", path))?;
    }
    Ok(())
}

/// Whether the name does not exist or is not a regular file.
fn is_gone(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(!found.is_file()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn is_failed_sync(error: &ObjectError) -> bool {
    matches!(error, ObjectError::Io { doing: "sync", .. })
}

pub(super) fn open(pack: &PackId, path: &Path) -> Result<File, ObjectError> {
    match File::open(path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ObjectError::MissingPack(*pack))
        }
        Err(error) => Err(failed("open", path)(error)),
    }
}
