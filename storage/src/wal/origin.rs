//! The identity of the file that a segment was written to. It reveals a copied directory at its
//! first start.
//!
//! The mark lies after the header, in a sector of its own, and is written with it. Earlier releases
//! wrote zeros there: their segments are marked when they are first opened.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 512 | 8 | `HENGEFIL` |
//! | 520 | 4 | version: 1 |
//! | 524 | 4 | CRC32C of bytes 512..560 with this field zero |
//! | 528 | 8 | number of the inode |
//! | 536 | 8 | creation time, nanoseconds since 1970 |
//! | 544 | 8 | id of the file system |
//! | 552 | 8 | bit 0: the creation time is known, bit 1: the id of the file system is known |

use std::io;
use std::path::{Path, PathBuf};

use super::WalError;
use super::frame::{HEADER_BYTES, Header, u32_at, u64_at};
use crate::disk::{Disk, DiskFile, FileOrigin, OpenMode};

/// Offset of the mark in a segment.
const AT: usize = 512;
const MAGIC: [u8; 8] = *b"HENGEFIL";
const VERSION: u32 = 1;
const BYTES: usize = 48;
const HAS_CREATED: u64 = 1;
const HAS_FILE_SYSTEM: u64 = 2;

fn encode(origin: &FileOrigin) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let flag = |part: Option<u64>, bit| part.map_or(0, |_| bit);
    for number in [
        origin.inode,
        origin.created_ns.unwrap_or(0),
        origin.file_system.unwrap_or(0),
        flag(origin.created_ns, HAS_CREATED) | flag(origin.file_system, HAS_FILE_SYSTEM),
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes);
    if let Some(field) = bytes.get_mut(12..16) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

/// Writes the mark into a header's page.
pub(super) fn mark(page: &mut [u8], origin: &FileOrigin) {
    if let Some(place) = page.get_mut(AT..AT + BYTES) {
        place.copy_from_slice(&encode(origin));
    }
}

/// The mark in a header's page; `None` when it is absent or invalid.
pub(super) fn read(page: &[u8]) -> Option<FileOrigin> {
    let mut used: [u8; BYTES] = page.get(AT..AT + BYTES)?.try_into().ok()?;
    let crc = u32_at(&used, 12)?;
    used.get_mut(12..16)?.fill(0);
    let ours = used.get(..8)? == MAGIC && u32_at(&used, 8)? == VERSION;
    if !ours || crc32c::crc32c(&used) != crc {
        return None;
    }
    let known = u64_at(&used, 40)?;
    let part = |bit, at| (known & bit != 0).then(|| u64_at(&used, at)).flatten();
    Some(FileOrigin {
        inode: u64_at(&used, 16)?,
        created_ns: part(HAS_CREATED, 24),
        file_system: part(HAS_FILE_SYSTEM, 32),
    })
}

/// Marks a segment with an existing header, durably.
pub(super) fn write(file: &dyn DiskFile) -> io::Result<()> {
    file.write_at(&encode(&file.origin()?), AT as u64)?;
    file.sync_data()
}

/// Adopts the segments of a copied directory: marks each with its current file. Returns their
/// number.
///
/// # Errors
/// When a segment cannot be read or written.
pub fn adopt(disk: &dyn Disk, dir: &Path) -> Result<usize, WalError> {
    let failed = |source| WalError::Io {
        doing: "take over a copied segment",
        source,
    };
    let mut adopted = 0;
    for path in disk.list(dir).map_err(failed)? {
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let file = disk.open(&path, OpenMode::Write).map_err(failed)?;
        let mut page = vec![0; HEADER_BYTES];
        let len = file.read_at(&mut page, 0).map_err(failed)?;
        page.truncate(len);
        if Header::decode(&page).is_ok() {
            write(file.as_ref()).map_err(failed)?;
            adopted += 1;
        }
    }
    Ok(adopted)
}

/// Whether a segment in `dir` has a mark: then a release that writes marks has used this log.
///
/// # Errors
/// When the directory or a segment cannot be read.
pub fn is_marked(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    let listed = match disk.list(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    first_pages(disk, listed, |page| {
        Header::decode(page).is_ok() && read(page).is_some()
    })
}

/// Whether `dir` contains no log data, damaged or not: no segment, or only unused ones.
///
/// # Errors
/// When the directory or a segment cannot be read.
pub fn is_empty(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    let listed = match disk.list(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let used = |page: &[u8]| page.len() < HEADER_BYTES || page.iter().any(|byte| *byte != 0);
    Ok(!first_pages(disk, listed, used)?)
}

/// Whether the first page of any segment satisfies the condition.
fn first_pages(
    disk: &dyn Disk,
    listed: Vec<PathBuf>,
    is_so: impl Fn(&[u8]) -> bool,
) -> io::Result<bool> {
    for path in listed {
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let file = disk.open(&path, OpenMode::Read)?;
        let mut page = vec![0; HEADER_BYTES];
        let len = file.read_at(&mut page, 0)?;
        page.truncate(len);
        if is_so(&page) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_and_a_damaged_one_is_none() {
        let origin = FileOrigin {
            inode: 12,
            created_ns: Some(34),
            file_system: None,
        };
        let mut page = vec![0; HEADER_BYTES];
        assert_eq!(read(&page), None, "an older release wrote zeros");
        mark(&mut page, &origin);
        assert_eq!(read(&page), Some(origin));
        for at in AT..AT + BYTES {
            let mut damaged = page.clone();
            damaged[at] ^= 1;
            assert_eq!(read(&damaged), None, "byte {at}");
        }
    }
}
