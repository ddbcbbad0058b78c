//! Files that appear in one step.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// As git makes its packs: they never change.
const MODE: u32 = 0o444;

/// Gives a file its name, in place of what had it, once it is on disk: whoever opens it sees all of it.
pub(crate) fn install(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    // Git's maintenance removes what is left behind under such names.
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
