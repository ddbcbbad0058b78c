//! Creation of spare segments, and the classification of its failures.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::segments::SegmentFile;
use crate::disk::{Disk, DiskFile, OpenMode};

/// Bytes per write when a segment is filled with zeros.
const FILL_BYTES: usize = 1024 * 1024;

/// Errors of making or removing a spare segment. A spare contains no acknowledged data.
#[derive(Debug)]
pub(super) enum SpareError {
    /// The disk refused the operation. It can be retried; the log continues with its existing
    /// segments.
    Refused(io::Error),
    /// A sync failed, or the directory was replaced: the contents of the disk are unknown.
    Fatal(io::Error),
}

impl SpareError {
    /// The error of syncing an unused file. Lack of space is not fatal: the file is removed.
    fn of_sync(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Refused(error),
            _ if error.kind() == io::ErrorKind::StorageFull => Self::Refused(error),
            _ => Self::Fatal(error),
        }
    }

    /// The error of syncing a directory, which includes opening it. When the opening fails, nothing
    /// was synced.
    pub(super) fn of_sync_dir(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::ACCESS | Errno::PERM) => {
                Self::Refused(error)
            }
            _ => Self::of_sync(error),
        }
    }
}

impl From<SpareError> for io::Error {
    fn from(error: SpareError) -> Self {
        match error {
            SpareError::Refused(error) | SpareError::Fatal(error) => error,
        }
    }
}

/// Creates a segment of written zeros, durable with its name.
pub(super) fn fill(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    bytes: u64,
) -> Result<SegmentFile, SpareError> {
    let unfinished = dir.join(format!("{number:016}.new"));
    let path = dir.join(format!("{number:016}.seg"));
    let remove = |path: &Path| {
        if let Err(error) = disk.unlink(path) {
            tracing::debug!(%error, ?path, "an unfinished segment stays until the next start");
        }
    };
    let named = || {
        let file = disk.open(&unfinished, OpenMode::Create);
        let file = file.map_err(SpareError::Refused)?;
        fill_file(file.as_ref(), bytes)?;
        let segment = SegmentFile::new(path.clone(), file).map_err(SpareError::Refused)?;
        let renamed = disk.rename(&unfinished, &path);
        renamed.map_err(SpareError::Refused)?;
        Ok(segment)
    };
    let segment = named().inspect_err(|_| remove(&unfinished))?;
    let synced = disk.sync_dir(dir).map_err(SpareError::of_sync_dir);
    synced.inspect_err(|_| remove(&path))?;
    Ok(segment)
}

fn fill_file(file: &dyn DiskFile, bytes: u64) -> Result<(), SpareError> {
    let zeros = vec![0; FILL_BYTES];
    let mut at = 0;
    while at < bytes {
        let rest = usize::try_from(bytes - at).unwrap_or(FILL_BYTES);
        let piece = zeros.get(..rest.min(FILL_BYTES)).unwrap_or(&zeros);
        file.write_at(piece, at).map_err(SpareError::Refused)?;
        at += piece.len() as u64;
    }
    file.sync_all().map_err(SpareError::of_sync)
}
