//! Taking a pack away that others cover.
//!
//! The index goes first and the pack last: an index is never there without its pack, and a pack without its index
//! is seen by nobody. Whoever has the files open reads on.

use std::fs;
use std::io;
use std::path::PathBuf;

use henge_types::{NetworkId, PackId};

use super::blocks::SUMS_EXTENSION;
use super::packs::{names, pack_of};
use super::{ObjectError, ObjectStore, failed, gone, remove_file};

/// What belongs to a pack besides its index and is worth nothing without it.
const SIDE_FILES: [&str; 4] = ["bitmap", "rev", SUMS_EXTENSION, ASIDE_EXTENSION];
/// Of the index of a pack that was taken out of its store.
const ASIDE_EXTENSION: &str = "idx-aside";

impl ObjectStore {
    /// Removes a pack with its index and side files; one that is not there is no error. Not durable: after a
    /// power cut it may be there again.
    ///
    /// # Errors
    /// [`ObjectError::Io`]; then call it again.
    pub fn remove_pack(&self, network: &NetworkId, pack: &PackId) -> Result<(), ObjectError> {
        let (pack_path, idx_path) = names(&self.objects_dir(network).join("pack"), pack);
        // First: a sync must not look for what is just going.
        self.dirty().remove(network, pack);
        remove_file(&idx_path)?;
        for extension in SIDE_FILES {
            remove_file(&pack_path.with_extension(extension))?;
        }
        remove_file(&pack_path)
    }

    /// Takes a pack out of its store, whose readers no longer see it; its files are kept, the index under another name.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn set_aside(&self, network: &NetworkId, pack: &PackId) -> Result<(), ObjectError> {
        // First: a sync that looks for its index would fail, and no snapshot be taken any more.
        self.dirty().remove(network, pack);
        let (_, idx_path) = names(&self.objects_dir(network).join("pack"), pack);
        let aside = idx_path.with_extension(ASIDE_EXTENSION);
        gone(fs::rename(&idx_path, aside)).map_err(failed("set aside", &idx_path))
    }

    /// The packs of a network that were set aside, also by earlier processes.
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

    /// Removes the index that a pack had when it was set aside: another one came for it since.
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

    /// Where a pack's side file with this extension lies, such as `bitmap`; it need not be there.
    pub fn side_file(&self, network: &NetworkId, pack: &PackId, extension: &str) -> PathBuf {
        let (pack_path, _) = names(&self.objects_dir(network).join("pack"), pack);
        pack_path.with_extension(extension)
    }
}
