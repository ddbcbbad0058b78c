//! Atomic installation of files.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The mode of git's pack files: they never change.
const MODE: u32 = 0o444;

/// Writes a file to disk, then renames it over the old one: readers see all of one or the other.
pub(crate) fn install(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    // Git's maintenance removes leftover files with this prefix.
    let mut file = tempfile::Builder::new()
        .prefix("tmp_new_")
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file()
        .set_permissions(Permissions::from_mode(MODE))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()
}
