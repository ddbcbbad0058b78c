//! Packs acknowledged as durable that no log entry names yet.
//!
//! Staging renames the index last; promotion to the network moves the pack first. After a crash, an
//! index without its pack is therefore an unfinished promotion, which is completed. A pack without
//! its index was never acknowledged, or was being dropped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use henge_types::{NetworkId, PackId};

use super::blocks::{BlockSums, SUMS_EXTENSION};
use super::packs::{list, names, pack_of};
use super::{ObjectError, ObjectStore, failed, remove_file, sync_dir, sync_file};
use crate::disk::{Disk, OsDisk};

impl ObjectStore {
    fn staged_dir(&self) -> PathBuf {
        self.shared.root.join("staged")
    }

    /// Moves a pack and its index to `staged/`, durably. The caller verifies them first.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn stage(
        &self,
        pack: &PackId,
        pack_path: &Path,
        idx_path: &Path,
    ) -> Result<(), ObjectError> {
        let dir = self.staged_dir();
        let (staged_pack, staged_idx) = names(&dir, pack);
        self.take_in(pack_path, &staged_pack)?;
        self.take_in(idx_path, &staged_idx)?;
        sync_dir(&dir)
    }

    /// Stores the checksums of a staged pack's blocks beside it; promotion moves them too. Not
    /// durable: they are a cache.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn stage_sums(&self, pack: &PackId, sums: &BlockSums) -> Result<(), ObjectError> {
        let path = BlockSums::path_of(&self.staged_paths(pack).0);
        let unfinished = path.with_extension(format!("tmp{}", self.scratch_number()));
        sums.write(&path, &unfinished)
            .map_err(failed("write", &path))
    }

    /// Syncs a file and moves it; copies it from another file system.
    fn take_in(&self, from: &Path, to: &Path) -> Result<(), ObjectError> {
        sync_file(from)?;
        match fs::rename(from, to) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let unfinished = to.with_extension(format!("tmp{}", self.scratch_number()));
                fs::copy(from, &unfinished).map_err(failed("copy", from))?;
                sync_file(&unfinished)?;
                fs::rename(&unfinished, to).map_err(failed("name", to))?;
                remove_file(from)
            }
            Err(error) => Err(failed("move", from)(error)),
        }
    }

    /// The packs in `staged/`.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn staged(&self) -> Result<Vec<PackId>, ObjectError> {
        list(&self.staged_dir())
    }

    /// The files of a staged pack: pack and index.
    pub fn staged_paths(&self, pack: &PackId) -> (PathBuf, PathBuf) {
        names(&self.staged_dir(), pack)
    }

    /// Moves a staged pack to its network, durably. No effect when that was done before.
    ///
    /// # Errors
    /// [`ObjectError::MissingPack`] when it is neither staged nor in the network;
    /// [`ObjectError::Io`].
    pub fn promote(&self, network: &NetworkId, pack: &PackId) -> Result<(), ObjectError> {
        self.ensure_network(network, pack.checksum().format())?;
        let dir = self.objects_dir(network).join("pack");
        let (staged_pack, staged_idx) = self.staged_paths(pack);
        let (pack_path, idx_path) = names(&dir, pack);
        let mut moved = false;
        let (staged_sums, sums) = (
            BlockSums::path_of(&staged_pack),
            BlockSums::path_of(&pack_path),
        );
        let files = [
            (&staged_pack, &pack_path),
            (&staged_sums, &sums),
            (&staged_idx, &idx_path),
        ];
        for (from, to) in files {
            match fs::rename(from, to) {
                Ok(()) => moved = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("move", from)(error)),
            }
        }
        if !self.has_pack(network, pack) {
            return Err(ObjectError::MissingPack(*pack));
        }
        // Also when nothing was moved: a killed process may have moved it without syncing.
        sync_dir(&dir)?;
        if moved {
            sync_dir(&self.staged_dir())?;
        }
        self.sync_network(network)
    }

    /// Links a staged pack into its network, durably, and keeps it staged. Both names share the
    /// same files.
    ///
    /// # Errors
    /// [`ObjectError::MissingPack`] when it is not staged; [`ObjectError::Io`].
    pub fn share_staged(&self, network: &NetworkId, pack: &PackId) -> Result<(), ObjectError> {
        self.ensure_network(network, pack.checksum().format())?;
        let dir = self.objects_dir(network).join("pack");
        let (staged_pack, staged_idx) = self.staged_paths(pack);
        let (pack_path, idx_path) = names(&dir, pack);
        let (staged_sums, sums) = (
            BlockSums::path_of(&staged_pack),
            BlockSums::path_of(&pack_path),
        );
        let files = [
            (&staged_pack, &pack_path),
            (&staged_sums, &sums),
            (&staged_idx, &idx_path),
        ];
        for (from, to) in files {
            let unfinished = dir.join(format!("tmp_henge_{}", self.scratch_number()));
            match fs::hard_link(from, &unfinished) {
                Ok(()) => {}
                // A small pack has no block checksums.
                Err(error) if error.kind() == io::ErrorKind::NotFound && from == &staged_sums => {
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(ObjectError::MissingPack(*pack));
                }
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    fs::copy(from, &unfinished).map_err(failed("copy", from))?;
                    sync_file(&unfinished)?;
                }
                Err(error) => return Err(failed("link", from)(error)),
            }
            fs::rename(&unfinished, to).map_err(failed("name", to))?;
            // A rename between two links of the same file leaves both names.
            remove_file(&unfinished)?;
        }
        sync_dir(&dir)?;
        self.sync_network(network)
    }

    /// Whether a pack is staged with files of exactly these lengths.
    pub fn is_staged(&self, pack: &PackId, pack_bytes: u64, idx_bytes: u64) -> bool {
        let (pack_path, idx_path) = self.staged_paths(pack);
        let has = |path: &Path, bytes| fs::metadata(path).is_ok_and(|file| file.len() == bytes);
        has(&pack_path, pack_bytes) && has(&idx_path, idx_bytes)
    }

    /// Removes a staged pack.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn drop_staged(&self, pack: &PackId) -> Result<(), ObjectError> {
        let (pack_path, idx_path) = self.staged_paths(pack);
        remove_file(&idx_path)?;
        remove_file(&BlockSums::path_of(&pack_path))?;
        remove_file(&pack_path)?;
        sync_dir(&self.staged_dir())
    }

    /// Removes the remains of a crash from `staged/` that were never acknowledged.
    pub(super) fn clean_staged(&self) -> Result<(), ObjectError> {
        let dir = self.staged_dir();
        let whole = self.staged()?;
        for path in OsDisk.list(&dir).map_err(failed("list", &dir))? {
            let with_index = pack_of(&path, "pack").or_else(|| pack_of(&path, SUMS_EXTENSION));
            let alone = with_index.is_some_and(|pack| !whole.contains(&pack));
            let known = with_index.is_some() || pack_of(&path, "idx").is_some();
            if alone || !known {
                remove_file(&path)?;
            }
        }
        // A pack that is listed from now on may be acknowledged again: its name must be durable.
        sync_dir(&dir)
    }
}
