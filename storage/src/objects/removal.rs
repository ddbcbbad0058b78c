//! Removal of a pack that others cover.
//!
//! The index is removed first and the pack last: an index never exists without its pack, and
//! readers ignore a pack without its index. Processes that have the files open can continue to read
//! them.

use std::fs;
use std::io;
use std::path::PathBuf;

use henge_types::{NetworkId, PackId};

use super::blocks::SUMS_EXTENSION;
use super::packs::{names, pack_of};
use super::{ObjectError, ObjectStore, failed, gone, remove_file};

/// Files of a pack besides its index that are useless without it.
const SIDE_FILES: [&str; 4] = ["bitmap", "rev", SUMS_EXTENSION, ASIDE_EXTENSION];
/// Extension of the index of a pack that was set aside.
const ASIDE_EXTENSION: &str = "idx-aside";

impl ObjectStore {
    /// Removes a pack with its index and side files; a missing pack is no error. Not durable: after
    /// a power cut the pack may exist again.
    ///
    /// # Errors
    /// [`ObjectError::Io`]; the call can be repeated.
    pub fn remove_pack(&self, network: &NetworkId, pack: &PackId) -> Result<(), ObjectError> {
        let (pack_path, idx_path) = names(&self.objects_dir(network).join("pack"), pack);
        // Unmarked first: a sync must not look for files that are being removed.
        self.dirty().remove(network, pack);
        remove_file(&idx_path)?;
        for extension in SIDE_FILES {
            remove_file(&pack_path.with_extension(extension))?;
        }
        remove_file(&pack_path)
    }

    /// Hides a pack from the readers of its store. Its files are kept, the index under another
    /// name.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn set_aside(&self, network: &NetworkId, pack: &PackId) -> Result<(), ObjectError> {
        // Unmarked first: a sync that looks for the index would fail, and every later snapshot with
        // it.
        self.dirty().remove(network, pack);
        let (_, idx_path) = names(&self.objects_dir(network).join("pack"), pack);
        let aside = idx_path.with_extension(ASIDE_EXTENSION);
        gone(fs::rename(&idx_path, aside)).map_err(failed("set aside", &idx_path))
    }

    /// The packs of a network that were set aside, including those of earlier processes.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn packs_set_aside(&self, network: &NetworkId) -> Result<Vec<PackId>, ObjectError> {
        let dir = self.objects_dir(network).join("pack");
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &dir)(error)),
        };
        let mut packs = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed("list", &dir))?.path();
            packs.extend(pack_of(&path, ASIDE_EXTENSION));
        }
        Ok(packs)
    }

    /// Removes the index that a pack had when it was set aside, after a new one was installed.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn forget_set_aside(&self, network: &NetworkId, pack: &PackId) -> Result<(), ObjectError> {
        remove_file(&self.side_file(network, pack, ASIDE_EXTENSION))
    }

    /// Removes a network's commit-graph, if it has one; it is a cache.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn remove_commit_graph(&self, network: &NetworkId) -> Result<(), ObjectError> {
        remove_file(&self.objects_dir(network).join("info/commit-graph"))
    }

    /// The path of a pack's side file with this extension, for example `bitmap`. The file may not
    /// exist.
    pub fn side_file(&self, network: &NetworkId, pack: &PackId, extension: &str) -> PathBuf {
        let (pack_path, _) = names(&self.objects_dir(network).join("pack"), pack);
        pack_path.with_extension(extension)
    }
}
