//! Disk space that is reserved for a start on a full disk.
//!
//! The log starts on segments that were filled before, but the pid, the identity and the kv need
//! room too. The reserve is a file. It is removed when the disk is nearly full, and made again once
//! there is room.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::statvfs;

const RESERVE_FILE: &str = "henge.reserve";
/// Many times the bytes that a start writes before it serves.
const RESERVE_BYTES: usize = 4 * 1024 * 1024;

/// Removes the reserve before a start that would meet a full disk.
///
/// # Errors
/// When the free space cannot be read, or the file not be removed.
pub(crate) fn release_if_full(dir: &Path) -> io::Result<()> {
    let disk = statvfs(dir)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= RESERVE_BYTES as u64 {
        return Ok(());
    }
    match fs::remove_file(dir.join(RESERVE_FILE)) {
        Ok(()) => {
            tracing::warn!(
                free,
                "the disk is full: starting on the space kept for this"
            );
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the reserve, unless it is there. Without room, another start tries again.
pub(crate) fn keep(dir: &Path) {
    let path = dir.join(RESERVE_FILE);
    let is_whole = fs::metadata(&path).is_ok_and(|file| file.len() == RESERVE_BYTES as u64);
    if is_whole {
        return;
    }
    if let Err(error) = write(&path) {
        tracing::warn!(file = %path.display(), %error, "no space is kept for a start on a full disk");
        // A partial reserve is of no use: its space is freed.
        fs::remove_file(&path).ok();
    }
}

/// Writes every byte: a sparse file takes no space.
fn write(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&vec![0; RESERVE_BYTES])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_kept_until_the_disk_is_full() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(RESERVE_FILE);
        keep(dir.path());
        let made = fs::metadata(&path).expect("made");
        assert_eq!(made.len(), RESERVE_BYTES as u64);
        // The disk of the test has room.
        release_if_full(dir.path()).expect("asked");
        assert!(path.is_file());
        fs::write(&path, "cut").expect("written");
        keep(dir.path());
        assert_eq!(fs::metadata(&path).expect("there").len(), made.len());
    }
}
