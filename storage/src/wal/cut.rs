//! Truncation of a copied log that lost records in its middle, so that the data before the loss can
//! be read.

use std::path::Path;

use super::WalError;
use super::frame::{HEADER_BYTES, Header};
use crate::disk::{Disk, OpenMode};

/// Zeros per write.
const PIECE_BYTES: usize = 1024 * 1024;

/// Ends the log in `dir` at `offset` of the segment of this generation, both as named by
/// [`WalError::LostAcknowledged`]. The rest of the segment is overwritten with zeros, and later
/// segments are unlinked. Returns `false`, without any change, when there is no such offset. Only
/// for a copy that is read: a node that votes with a truncated log loses acknowledged entries.
///
/// # Errors
/// When a segment cannot be read or written.
pub fn cut(disk: &dyn Disk, dir: &Path, generation: u64, offset: u64) -> Result<bool, WalError> {
    let failed = |source| WalError::Io {
        doing: "end a damaged log",
        source,
    };
    let mut later = Vec::new();
    let mut damaged = None;
    for path in disk.list(dir).map_err(failed)? {
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let file = disk.open(&path, OpenMode::Write).map_err(failed)?;
        let mut page = vec![0; HEADER_BYTES];
        let len = file.read_at(&mut page, 0).map_err(failed)?;
        page.truncate(len);
        let Ok(header) = Header::decode(&page) else {
            continue;
        };
        if header.generation == generation {
            damaged = Some(file);
        } else if header.generation > generation {
            later.push(path);
        }
    }
    let Some(file) = damaged.filter(|_| offset >= HEADER_BYTES as u64) else {
        return Ok(false);
    };
    let zeros = vec![0; PIECE_BYTES];
    let end = file.file_len().map_err(failed)?;
    let mut at = offset;
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(PIECE_BYTES);
        let piece = zeros.get(..left.min(PIECE_BYTES)).unwrap_or(&zeros);
        file.write_at(piece, at).map_err(failed)?;
        at += piece.len() as u64;
    }
    file.sync_data().map_err(failed)?;
    for path in later {
        disk.unlink(&path).map_err(failed)?;
    }
    disk.sync_dir(dir).map_err(failed)?;
    Ok(true)
}
