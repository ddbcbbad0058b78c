//! Verification of snapshots on disk. A file that was written intact may be damaged later, and the
//! log behind a snapshot is purged: damage must be found while the state is still in memory.

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use henge_types::GroupId;
use rustix::fs::Advice;

use super::{SnapshotError, SnapshotFile, SnapshotStore, format, io};

impl SnapshotStore {
    /// Reads the group's latest snapshot from the disk, compares it with its checksum, and returns
    /// the number of bytes read. Returns 0 when the group has no snapshot, or none that was read or
    /// named in this run; such a file is verified on first use. A damaged file is reported by
    /// [`SnapshotStore::damaged`] from then on, and the next named snapshot replaces it, even one
    /// that covers less. Blocking.
    ///
    /// # Errors
    /// When the file cannot be opened or read for a reason that is no evidence about its bytes.
    pub fn check(&self, group: GroupId) -> Result<u64, SnapshotError> {
        let latest = |store: &Self| {
            let state = store.shared.lock();
            state.latest.get(&group).map(|(_, file)| file.clone())
        };
        let Some(file) = latest(self) else {
            return Ok(0);
        };
        let found = from_disk(&file.path).map_err(io("check one"))?;
        if !is_that(found.as_ref(), &file) {
            let _turn = self.shared.lock_naming();
            // Otherwise the file was replaced and removed during the check.
            if latest(self).is_some_and(|now| now.path == file.path) {
                tracing::error!(%group, path = ?file.path, "snapshot is damaged at rest: its bytes do not match their checksum");
                self.shared.lock().damaged.insert(group, file.path);
            }
        }
        Ok(file.body_bytes)
    }

    /// The file of a group that was found damaged, at the start or by a check, and is not replaced
    /// yet.
    pub fn damaged(&self, group: GroupId) -> Option<PathBuf> {
        self.shared.lock().damaged.get(&group).cloned()
    }

    pub(super) fn is_damaged(&self, group: GroupId, file: &SnapshotFile) -> bool {
        self.damaged(group).is_some_and(|path| path == file.path)
    }
}

/// Compares a file that was just synced with the written snapshot.
///
/// # Errors
/// [`SnapshotError::Damaged`]; errors of the file system.
pub(super) fn read_back(file: &SnapshotFile) -> Result<(), SnapshotError> {
    let found = from_disk(&file.path).map_err(io("read one back"))?;
    if is_that(found.as_ref(), file) {
        return Ok(());
    }
    Err(SnapshotError::Damaged {
        path: file.path.clone(),
    })
}

fn is_that(found: Option<&(Bytes, u64)>, file: &SnapshotFile) -> bool {
    found.is_some_and(|(meta, body_bytes)| (meta, *body_bytes) == (&file.meta, file.body_bytes))
}

/// Like [`format::verify`], with bytes from the disk instead of the page cache, as far as the file
/// system follows the advice.
fn from_disk(path: &Path) -> io::Result<Option<(Bytes, u64)>> {
    match File::open(path) {
        Ok(file) => {
            if let Err(error) = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed) {
                tracing::debug!(%error, "a snapshot may be compared as it is in memory");
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    format::verify(path)
}
